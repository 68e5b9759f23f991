"""The access log: whose requests are written, what a line says, and that nothing breaks it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from segue.core.traffic import Sticky, Traffic
from segue.routers.envoy import access_log, process
from segue.routers.envoy.router import EnvoyRouter
from segue.routers.envoy.static import start_static

from .world import HALF, V1, V2, Answer, World, ask, asked, service, table, until, version

ALL = Fraction(1)
TENTH = Fraction(1, 10)
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "access-log.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the router keeps its files."""
    return tmp_path / "router"


def lines(folder: Path) -> list[dict[str, Any]]:
    """What is written down so far, the oldest first."""
    files = sorted(folder.glob("access.log*"), key=lambda file: file.name, reverse=True)
    return [json.loads(line) for file in reversed(files) for line in file.read_text().splitlines()]


async def written(folder: Path, count: int) -> list[dict[str, Any]]:
    """The lines, as soon as there are so many."""

    async def there() -> bool:
        return len(lines(folder)) >= count

    await until(there, f"a log of {count} lines")
    return lines(folder)


async def pipelined(listen: str, count: int, head: str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n") -> None:
    """Send so many requests on one connection; all must be answered 200."""
    host, _, port = listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for some in [100] * (count // 100) + [count % 100]:
        writer.write(head.encode() * some)
        for _ in range(some):
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            length = re.search(rb"content-length: (\d+)", answer)
            await reader.readexactly(int(length[1]) if length else 0)
    writer.close()


async def test_nothing_is_written_of_a_service_that_does_not_ask_for_it(
    router: EnvoyRouter, world: World, listen: str, folder: Path
) -> None:
    app = await world.backend("app")
    silent = service(listen, version(V1, 1, app))
    spoken = service(listen, version(V1, 1, app), name="other", path="/other", access_log=ALL)
    await router.apply(table(silent, spoken))
    await pipelined(listen, 50)
    await ask(listen, "/other")
    (line,) = await written(folder, 1)
    assert line["service"] == "other"


async def test_a_line_says_who_asked_for_what_who_answered_and_how(
    router: EnvoyRouter, world: World, listen: str, folder: Path
) -> None:
    app = await world.backend("app")
    await router.apply(table(service(listen, version(V1, 1, app), access_log=ALL)))
    await ask(listen, "/slow?0.2", method="PUT", body=b"12345", headers="user-agent: test/1\r\n")
    (line,) = await written(folder, 1)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(line.pop("time"))) < timedelta(minutes=1)
    assert re.fullmatch(r"[0-9a-f-]{36}", line.pop("request_id"))
    assert 200 <= line.pop("duration_ms") < 20_000
    assert line == {
        "service": "shop",
        "given_to": "v1.1",
        "version": "v1.1",
        "instance": "v1.1-1",
        "address": app.address,
        "attempts": 1,
        "user": "127.0.0.1",
        "user_agent": "test/1",
        "protocol": "HTTP/1.1",
        "method": "PUT",
        "host": "x",
        "path": "/slow",
        "status": 200,
        "flags": "-",
        "bytes_received": 5,
        "bytes_sent": 3,
    }


async def test_every_field_is_explained(router: EnvoyRouter, world: World, listen: str, folder: Path) -> None:
    await router.apply(table(service(listen, version(V1, 1, await world.backend("app")), access_log=ALL)))
    await ask(listen)
    (line,) = await written(folder, 1)
    assert set(line) == set(re.findall(r"^\| `(\w+)` ", PAGE.read_text(), re.MULTILINE))


async def test_a_request_that_another_version_answered_names_both(
    router: EnvoyRouter, world: World, listen: str, folder: Path
) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    await new.mode("500")
    sides = version(V1, 0, old), version(V2, 1, new)
    await router.apply(table(service(listen, *sides, trial=V2, access_log=ALL)))
    assert await ask(listen) == Answer(200, "old")
    (line,) = await written(folder, 1)
    found = {name: line[name] for name in ("given_to", "version", "instance", "attempts", "status")}
    assert found == {"given_to": "v2.1", "version": "v1.1", "instance": "v1.1-1", "attempts": 2, "status": 200}


async def test_requests_that_no_instance_was_given_are_written_as_well(
    router: EnvoyRouter, world: World, listen: str, folder: Path
) -> None:
    app = await world.backend("app")
    tables = [
        service(listen, version(V1, 0, app), access_log=ALL),
        service(listen, version(V1, 1, app, state=Traffic.UNREADY), access_log=ALL),
        service(listen, version(V1, 1, app), access_log=ALL, max_body=4),
    ]
    for each in tables:
        await router.apply(table(each))
        await router.settled()
        await ask(listen, method="POST", body=b"12345")
    found = await written(folder, 3)
    assert [(line["status"], line["given_to"], line["flags"]) for line in found] == [
        (503, None, "-"),
        (503, "v1.1", "UH"),
        (413, None, "-"),
    ]
    assert {line["version"] for line in found} == {None}


@asynccontextmanager
async def upgrading() -> AsyncIterator[str]:
    """The address of an application that speaks something else when it is asked to, until its user is silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_a_websocket_is_written_when_it_ends(
    router: EnvoyRouter, world: World, listen: str, folder: Path
) -> None:
    async with upgrading() as address:
        place = service(listen, version(V1, 1, address), access_log=ALL)
        other = service(listen, version(V1, 1, await world.backend("app")), name="b", path="/b", access_log=ALL)
        await router.apply(table(place, other))
        reader, writer = await asyncio.open_connection(*listen.split(":"))
        writer.write(b"GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        await ask(listen, "/b")
        assert [line["service"] for line in await written(folder, 1)] == ["b"]
        writer.close()
        line = (await written(folder, 2))[1]
    assert (line["path"], line["status"], line["bytes_received"], line["bytes_sent"]) == ("/chat", 101, 5, 5)


async def test_a_tenth_of_the_requests_is_a_tenth_and_of_both_versions(
    router: EnvoyRouter, world: World, listen: str, folder: Path
) -> None:
    sides = version(V1, HALF, await world.backend("old")), version(V2, HALF, await world.backend("new"))
    made = service(listen, *sides, trial=V2, access_log=TENTH)
    await router.apply(table(replace(made, sticky=Sticky())))
    await asyncio.gather(*(pipelined(listen, 150) for _ in range(8)))
    await router.apply(table(service(listen, *sides, name="end", access_log=ALL)))
    await router.settled()
    await ask(listen)

    async def ended() -> bool:
        return any(line["service"] == "end" for line in lines(folder))

    await until(ended, "the last line")
    found = [line["version"] for line in lines(folder) if line["service"] == "shop"]
    assert abs(len(found) - 120) < 62, "six standard deviations"
    assert abs(found.count(V2) - len(found) / 2) < 3 * len(found) ** 0.5, "six standard deviations"


async def test_where_users_stay_by_a_header_requests_are_written_as_well(
    router: EnvoyRouter, world: World, listen: str, folder: Path
) -> None:
    sides = version(V1, HALF, await world.backend("old")), version(V2, HALF, await world.backend("new"))
    made = service(listen, *sides, trial=V2, access_log=ALL)
    await router.apply(table(replace(made, sticky=Sticky("x-user"))))
    answers = [await ask(listen, headers=f"x-user: {number}\r\n") for number in range(20)]
    found = await written(folder, 20)
    names = {"old": V1, "new": V2}
    assert [line["given_to"] for line in found] == [names[answer.body] for answer in answers]
    assert {line["given_to"] for line in found} == {V1, V2}


HOSTILE = ['"}\\', "ä€𝄞", "\x7f\\n\\u0000\\", "{{%}}%REQ(a)%", '\', "status": 1, "x": "', "<script>"]


async def test_nothing_that_a_user_sends_breaks_a_line(
    router: EnvoyRouter, world: World, listen: str, folder: Path
) -> None:
    await router.apply(table(service(listen, version(V1, 1, await world.backend("app")), access_log=ALL)))
    for text in HOSTILE:
        assert (await ask(listen, headers=f"user-agent: {text}\r\n")).status in (200, 400)
    found = [line["user_agent"] for line in await written(folder, len(HOSTILE) - 1)]
    assert found == [text for text in HOSTILE if "\x7f" not in text]
    paths = ['/"\\', "/%0a%22", "/{}%REQ(a)%", "/'<>"]
    for path in paths:
        await ask(listen, path)
    later = (await written(folder, len(found) + len(paths)))[len(found) :]
    assert [unquote(line["path"]) for line in later] == [unquote(path.replace("\\", "/")) for path in paths]


async def test_bytes_that_are_no_text_do_not_break_a_line(
    router: EnvoyRouter, world: World, listen: str, folder: Path
) -> None:
    await router.apply(table(service(listen, version(V1, 1, await world.backend("app")), access_log=ALL)))
    reader, writer = await asyncio.open_connection(*listen.split(":"))
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nuser-agent: a\xff\xfe\xc3\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    (line,) = await written(folder, 1)
    assert line["user_agent"].startswith("a") and line["status"] == 200


async def test_writing_begins_and_ends_without_the_end_of_a_connection(
    router: EnvoyRouter, world: World, listen: str, folder: Path
) -> None:
    app = await world.backend("app")
    reader, writer = None, None
    for share in (Fraction(0), ALL, Fraction(0)):
        await router.apply(table(service(listen, version(V1, 1, app), access_log=share)))
        await router.settled()
        if reader is None or writer is None:
            reader, writer = await asyncio.open_connection(*listen.split(":"))
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head and b"connection: close" not in head
        await reader.readexactly(3)
    assert writer is not None
    writer.close()
    assert len(await written(folder, 1)) == 1


async def started(folder: Path) -> EnvoyRouter:
    """A router with two workers."""
    router = EnvoyRouter(folder, concurrency=2, drain=2)
    await router.start()
    return router


@pytest.mark.parametrize(("kept", "files"), [(1000, None), (2, ["access.log", "access.log.1", "access.log.2"])])
async def test_the_file_is_rotated_when_it_is_long_and_no_line_is_lost(
    world: World, listen: str, folder: Path, kept: int, files: Sequence[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"EVERY": 0.01, "LONGEST": 2000, "KEPT": kept}.items():
        monkeypatch.setattr(access_log, name, value)
    router = await started(folder)
    try:
        await router.apply(table(service(listen, version(V1, 1, await world.backend("app")), access_log=ALL)))
        sent = 0

        async def rotated() -> bool:
            nonlocal sent
            await pipelined(listen, 100)
            sent += 100
            return len(list(folder.glob("access.log.*"))) >= 2 and sent >= 600

        async def there() -> bool:
            return sorted(file.name for file in folder.glob("access.log*")) == files

        await until(rotated, "two rotations")
        if files is None:
            assert len(await written(folder, sent)) == sent
        else:
            await until(there, f"the files {files}")  # between two names the file has none
    finally:
        await router.shutdown()


async def test_what_envoy_says_itself_does_not_grow_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"EVERY": 0.01, "LONGEST": 2000}.items():
        monkeypatch.setattr(access_log, name, value)
    router = await started(folder)
    try:
        said = folder / process.LOG
        with said.open("a") as log:
            log.write("warning\n" * 300)

        async def rotated() -> bool:
            return said.stat().st_size < 2000 and (folder / f"{process.LOG}.1").exists()

        await until(rotated, "a rotation")
        assert (folder / f"{process.LOG}.1").read_text().count("warning\n") >= 300
    finally:
        await router.shutdown()


async def test_a_full_disk_costs_lines_and_no_requests(world: World, listen: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "access.log").symlink_to("/dev/full")
    router = await started(folder)
    try:
        await router.apply(table(service(listen, version(V1, 1, await world.backend("app")), access_log=ALL)))
        pid = router.pid
        assert set(await asked(listen, 300)) == {(200, "app")}
        failed = "^filesystem.write_failed$"
        await until(lambda: positive(router, failed), "a line that could not be written")
        assert set(await asked(listen, 300)) == {(200, "app")} and router.pid == pid
    finally:
        await router.shutdown()


async def positive(router: EnvoyRouter, pattern: str) -> bool:
    return any((await router.stats(pattern)).values.values())


async def test_an_envoy_that_nobody_controls_writes_as_well(world: World, listen: str, folder: Path) -> None:
    router = await started(folder)
    await router.apply(table(service(listen, version(V1, 1, await world.backend("app")), access_log=ALL)))
    await router.settled()
    running = process.recorded(folder)
    await router.close()
    assert running is not None
    process.send(running, signal.SIGKILL)
    await process.ended(running)
    try:
        assert start_static(folder)
        await until(lambda: serves(listen), "the last table")
        assert (await written(folder, 1))[0]["service"] == "shop"
    finally:
        await (await started(folder)).shutdown()


async def serves(listen: str) -> bool:
    try:
        return await ask(listen) == Answer(200, "app")
    except ConnectionRefusedError:
        return False
