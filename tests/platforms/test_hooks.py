"""Hooks, smoke tests and builds: begun at most once, ended whole, told with what became of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from segue.errors import StartFailed
from segue.platforms import claims
from segue.platforms.hooks import run_command
from segue.platforms.identity import alive, members, send
from segue.ports import Ended

from .apps import until

LONG = timedelta(seconds=60)


async def run(
    command: str,
    folder: Path,
    status: Path | None = None,
    *,
    timeout: timedelta = LONG,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Ended:
    return await run_command(
        command,
        folder=folder,
        environment=environment or {},
        user=user,
        timeout=timeout,
        log=folder / "logs" / "hook.log",
        status=status,
    )


def log(folder: Path) -> list[str]:
    return (folder / "logs" / "hook.log").read_text().splitlines()


@pytest.fixture(params=["once", "any number of times"])
def status(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """A status file, or none."""
    return tmp_path / "status" / "before" if request.param == "once" else None


async def test_a_command_ends_with_its_status_and_its_output_is_kept(tmp_path: Path, status: Path | None) -> None:
    ended = await run("pwd; echo $WORD; echo bad >&2; exit 4", tmp_path, status, environment={"WORD": "secret"})
    assert ended == Ended(4)
    assert not ended.succeeded
    assert not ended.unknown
    assert log(tmp_path) == [str(tmp_path), "secret", "bad"]


async def test_a_command_that_does_its_work_is_true(tmp_path: Path, status: Path | None) -> None:
    assert (await run("true", tmp_path, status)).succeeded


async def test_a_command_that_a_signal_ended_is_told_with_the_signal(tmp_path: Path, status: Path | None) -> None:
    assert await run("kill -KILL $$", tmp_path, status) == Ended(-signal.SIGKILL)


async def test_a_command_that_takes_too_long_is_killed_with_all_it_started(
    tmp_path: Path, status: Path | None
) -> None:
    command = "echo ran; sleep 600 & sh -c 'sleep 600; true'"
    ended = await run(command, tmp_path, status, timeout=timedelta(milliseconds=500))
    assert ended == Ended(None, timed_out=True)
    assert not ended.unknown
    assert log(tmp_path) == ["ran"]
    assert _in(tmp_path) == []


async def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path, status: Path | None) -> None:
    assert await run("sleep 600 & exit 0", tmp_path, status) == Ended(0)
    assert _in(tmp_path) == []


def _in(folder: Path) -> list[str]:
    """The programs that run in `folder`."""
    found = []
    for process in psutil.process_iter(["cwd", "name"]):
        if process.info["cwd"] == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process.info["name"])
    return found


async def test_a_command_whose_folder_is_missing_says_so(tmp_path: Path, status: Path | None) -> None:
    with pytest.raises(StartFailed, match=r"`true` cannot be started: its folder .*gone cannot be entered"):
        await run_command(
            "true",
            folder=tmp_path / "gone",
            environment={},
            user=None,
            timeout=LONG,
            log=tmp_path / "log",
            status=status,
        )


async def test_a_command_is_not_run_twice(tmp_path: Path) -> None:
    for _ in range(3):
        assert await run("echo ran; exit 5", tmp_path, tmp_path / "status") == Ended(5)
    assert log(tmp_path) == ["ran"]


async def test_a_command_that_was_killed_for_its_time_stays_so(tmp_path: Path) -> None:
    status = tmp_path / "status"
    first = await run("echo ran; sleep 600", tmp_path, status, timeout=timedelta(milliseconds=500))
    assert first == await run("echo ran; sleep 600", tmp_path, status) == Ended(None, timed_out=True)
    assert log(tmp_path) == ["ran"]


async def test_two_at_the_same_time_run_a_command_once(tmp_path: Path) -> None:
    """As when a late launcher of a killed control plane meets that of the next one."""
    both = [run("echo ran; exit 6", tmp_path, tmp_path / "status") for _ in range(2)]
    assert await asyncio.gather(*both) == [Ended(6), Ended(6)]
    assert log(tmp_path) == ["ran"]


async def test_a_hook_outlives_the_control_plane_which_finds_it_running(tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    command = f"echo ran; while ! test -e {go_on}; do sleep 0.05; done; exit 8"
    program = f"""
import asyncio, os
from datetime import timedelta
from pathlib import Path
from segue.platforms.hooks import run_command
folder = Path({str(tmp_path)!r})
async def main():
    running = asyncio.ensure_future(run_command({command!r}, folder=folder, environment={{}}, user=None,
        timeout=timedelta(60), log=folder / "logs" / "hook.log", status=folder / "status"))
    while not (folder / "logs" / "hook.log").exists() or not (folder / "logs" / "hook.log").read_text():
        await asyncio.sleep(0.01)
    os._exit(9)
asyncio.run(main())
"""
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await killed.wait() == 9
    resumed = asyncio.ensure_future(run(command, tmp_path, tmp_path / "status"))
    asyncio.get_running_loop().call_soon(go_on.touch)
    assert await resumed == Ended(8)
    assert log(tmp_path) == ["ran"]


async def test_a_hook_that_ended_while_nobody_looked_is_told_with_its_status(tmp_path: Path) -> None:
    status = tmp_path / "status"
    waiting = asyncio.ensure_future(run("echo ran; exit 7", tmp_path, status))
    await until((tmp_path / "status.began").exists)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await until(status.exists)
    assert await run("echo ran; exit 7", tmp_path, status) == Ended(7)
    assert log(tmp_path) == ["ran"]


async def test_nobody_knows_the_end_of_a_hook_whose_launcher_was_killed(tmp_path: Path) -> None:
    """What it stood over is waited for: a migration is not killed halfway, nor run a second time."""
    status, go_on = tmp_path / "status", tmp_path / "go-on"
    command = f"echo ran; while ! test -e {go_on}; do sleep 0.05; done; echo finished"
    running = asyncio.ensure_future(run(command, tmp_path, status))
    await until(lambda: (tmp_path / "logs").exists() and "ran" in log(tmp_path))
    claim = claims.read(tmp_path / "status.began")
    assert claim is not None
    assert claim.identity is not None
    assert send(claim.identity, signal.SIGKILL)
    await until(lambda: not alive(claim.identity))  # type: ignore[arg-type]
    assert members(claim.identity.pid) != []
    go_on.touch()
    ended = await running
    assert ended.unknown
    assert log(tmp_path) == ["ran", "finished"]
    assert (await run(command, tmp_path, status)).unknown
    assert log(tmp_path) == ["ran", "finished"]


async def test_a_smoke_test_that_nobody_waits_for_any_more_is_killed(tmp_path: Path) -> None:
    waiting = asyncio.ensure_future(run(f"touch {tmp_path}/began; sleep 600", tmp_path))
    await until((tmp_path / "began").exists)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert _in(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_hook_runs_as_its_user_and_cannot_write_its_own_status() -> None:
    folder = Path(tempfile.mkdtemp(prefix="segue-test-"))
    folder.chmod(0o755)
    try:
        file = folder / "status" / "before"
        ended = await run("id -un; echo 0 > status/before", folder, file, user="nobody")
        assert ended.status
        assert log(folder)[0] == "nobody"
    finally:
        shutil.rmtree(folder)
