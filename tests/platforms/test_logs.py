"""The instances' output: its last lines, what comes, and rotation while it is written."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segue.core.traffic import VersionId
from segue.errors import SegueError
from segue.following import rotate
from segue.platforms.logs import Logs

from .apps import until

WRITER = """\
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
number = 0
while not os.path.exists(sys.argv[2]):
    for _ in range(20):
        os.write(log, b"%09d %s\\n" % (number, b"x" * 90))
        number += 1
"""


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path, limit=100, keep=3, every=0.01)


def write(logs: Logs, text: str) -> None:
    with logs.file("a").open("a") as file:
        file.write(text)


async def all_lines(logs: Logs, lines: int) -> list[str]:
    return [line async for line in logs.read("a", lines, follow=False)]


async def test_the_last_lines_are_read_and_no_more(logs: Logs) -> None:
    write(logs, "".join(f"line {number}\n" for number in range(100_000)))
    assert await all_lines(logs, 3) == ["line 99997", "line 99998", "line 99999"]
    assert len(await all_lines(logs, 50_000)) == 50_000
    assert await all_lines(logs, 1_000_000) == [f"line {number}" for number in range(100_000)]


async def test_a_line_that_is_not_whole_and_bytes_that_are_no_text_are_read(logs: Logs) -> None:
    logs.file("a").write_bytes(b"one\n\xff\xfe\r\nthr")
    assert await all_lines(logs, 9) == ["one", "��", "thr"]


async def test_the_last_lines_are_read_over_rotations(logs: Logs) -> None:
    for part in range(3):
        write(logs, "".join(f"{part}.{number} {'x' * 20}\n" for number in range(5)))
        await logs.rotate()
    write(logs, "last\n")
    assert [line.split()[0] for line in await all_lines(logs, 8)] == [
        *("1.3", "1.4"),
        *("2.0", "2.1", "2.2", "2.3", "2.4"),
        "last",
    ]


async def test_so_many_rotated_logs_are_kept_and_no_more(logs: Logs) -> None:
    for part in range(6):
        write(logs, f"{part}" * 101)
        await logs.rotate()
        assert logs.file("a").stat().st_size == 0
    assert sorted(file.name for file in logs.folder.iterdir()) == ["a.log", "a.log.1", "a.log.2", "a.log.3"]
    assert [(logs.folder / f"a.log.{number}").read_text()[0] for number in (1, 2, 3)] == ["5", "4", "3"]


async def test_rotated_parts_go_with_their_log_and_names_may_have_any_letters(tmp_path: Path) -> None:
    logs = Logs(tmp_path, limit=10)
    names = ["shop-v1/2.1-1", "shop-v1.1-12", "shop-v2.1-1"]
    for name in names:
        logs.file(name).write_text("a line that is long\n")
    await logs.rotate()
    logs.keep_only([VersionId("shop-v1/2.1"), VersionId("shop-v1.1")])
    kept = {file.name for file in tmp_path.iterdir()}
    assert kept == {"shop-v1%2F2.1-1.log", "shop-v1%2F2.1-1.log.1", "shop-v1.1-12.log", "shop-v1.1-12.log.1"}


async def test_a_short_log_is_not_rotated(logs: Logs) -> None:
    write(logs, "x" * 100)
    await logs.rotate()
    assert [file.name for file in logs.folder.iterdir()] == ["a.log"]


async def test_a_rotated_log_is_closed_to_others(logs: Logs) -> None:
    write(logs, "x" * 101)
    await logs.rotate()
    assert (logs.folder / "a.log.1").stat().st_mode & 0o777 == 0o600


async def test_what_is_followed_is_told_once_in_order_and_only_in_whole_lines(logs: Logs) -> None:
    told: list[str] = []

    async def follow() -> None:
        async for line in logs.read("a", 2, follow=True):
            told.append(line)

    write(logs, "one\ntwo\nthree\nfo")
    following = asyncio.ensure_future(follow())
    await until(lambda: told == ["two", "three"])
    write(logs, "ur\n")
    await until(lambda: told == ["two", "three", "four"])
    write(logs, f"{'x' * 101}\nbefore the rotation, unread\n")
    rotate(logs.file("a"), logs.keep)  # at once, before the follower has another look
    write(logs, "after it\n")
    await until(lambda: told[-1] == "after it")
    assert told == ["two", "three", "four", "x" * 101, "before the rotation, unread", "after it"]
    following.cancel()


async def test_a_log_is_followed_before_it_is_there(logs: Logs) -> None:
    lines = logs.read("a", 10, follow=True)
    first = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0)
    write(logs, "hello\n")
    assert await asyncio.wait_for(first, 20) == "hello"


@pytest.fixture
def writer(logs: Logs, tmp_path: Path) -> Iterator[None]:
    """A process that writes numbered lines as fast as it can."""
    enough = tmp_path / "enough"
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", WRITER, str(logs.file("a")), str(enough)])
    yield
    enough.touch()
    assert process.wait(60) == 0


@pytest.mark.usefixtures("writer")
async def test_a_log_is_rotated_while_it_is_written(tmp_path: Path) -> None:
    limit = 200_000
    logs = Logs(tmp_path, limit=limit, keep=3)
    for _ in range(5):
        await until(lambda: logs.file("a").exists() and logs.file("a").stat().st_size > limit)
        await logs.rotate()
    (tmp_path / "enough").touch()
    for number in (3, 2, 1):
        _, *lines, _ = (tmp_path / f"a.log.{number}").read_text().splitlines()  # a cut may go through a line
        numbers = [int(line.split()[0]) for line in lines]
        assert len(lines) > 1000
        assert all(len(line) == 100 for line in lines)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))  # nothing is lost inside a part


async def test_a_disk_that_does_not_let_us_rotate_is_named(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    write(logs, "x" * 101)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(SegueError, match=r"a.log cannot be rotated: No space left on device"):
        await logs.rotate()
    assert logs.file("a").read_text() == "x" * 101


def test_a_name_never_leads_out_of_the_folder(logs: Logs) -> None:
    assert logs.file("../x/y").parent == logs.folder
    assert os.path.normpath(logs.file("../x")) == str(logs.file("../x"))
