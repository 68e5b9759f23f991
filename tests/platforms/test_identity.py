"""Who a process is, and what a session is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from segue.platforms.identity import alive, ended, identify, members, send
from segue.platforms.sessions import Session

from .apps import until

GRACE, NO_GRACE = timedelta(seconds=20), timedelta(0)


@contextmanager
def process(*argv: str, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own."""
    with (log or Path(os.devnull)).open("ab") as output:
        child = subprocess.Popen(argv, start_new_session=True, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield child
    finally:
        left = [child.pid, *(member.pid for member in members(child.pid))]
        for pid in left:
            if (child.returncode is None or pid != child.pid) and identify(pid):
                os.kill(pid, signal.SIGKILL)
        child.wait()


def sleeping(log: Path | None = None) -> contextmanager[subprocess.Popen[bytes]]:  # type: ignore[type-arg]
    return process("sleep", "600", log=log)


def test_a_process_is_itself_and_nobody_else() -> None:
    with sleeping() as one, sleeping() as two:
        assert identify(one.pid) == identify(one.pid)
        assert identify(one.pid) != identify(two.pid)
        assert identify(one.pid) is not None
        assert alive(identify(one.pid))  # type: ignore[arg-type]


def test_a_zombie_has_ended_though_it_keeps_its_pid_and_its_start_time() -> None:
    with process("true") as child:
        identity = identify(child.pid)
        assert identity is not None
        asyncio.run(until(lambda: not alive(identity)))
        assert identify(child.pid) == identity
        assert "Z" in Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert members(child.pid) == []


def test_another_process_with_the_same_pid_is_never_signalled() -> None:
    with sleeping() as child:
        identity = identify(child.pid)
        assert identity is not None
        before = replace(identity, started=str(int(identity.started) - 1))
        assert not alive(before)
        assert not send(before, signal.SIGKILL)
        assert not send(replace(identity, boot="the one before"), signal.SIGKILL)
        assert alive(identity)
        assert send(identity, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def test_waiting_for_a_process_that_is_another_one_now_returns_at_once() -> None:
    with sleeping() as child:
        identity = identify(child.pid)
        assert identity is not None
        asyncio.run(asyncio.wait_for(ended(replace(identity, started="0")), 20))


def test_the_end_of_a_process_is_told_though_it_is_not_our_child(tmp_path: Path) -> None:
    async def story() -> None:
        with process("sh", "-c", f"setsid sleep 600 & echo $! > {tmp_path / 'pid'}"):
            await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
            pid = int((tmp_path / "pid").read_text())
            identity = identify(pid)
            assert identity is not None
            waiting = asyncio.ensure_future(ended(identity))
            assert send(identity, signal.SIGKILL)
            await asyncio.wait_for(waiting, 20)

    asyncio.run(story())


GRANDCHILDREN = "sleep 600 & sh -c 'sleep 600 & sleep 600 & wait' & wait"


async def family(child: subprocess.Popen[bytes], count: int) -> None:
    await until(lambda: len(members(child.pid)) == count)


async def test_ending_a_session_ends_grandchildren_too(tmp_path: Path) -> None:
    with process("sh", "-c", GRANDCHILDREN, log=tmp_path / "log") as child:
        identity = identify(child.pid)
        assert identity is not None
        await family(child, 5)
        assert not await Session(identity, tmp_path / "log").end(signal.SIGTERM, NO_GRACE)
        assert members(child.pid) == []


async def test_what_the_first_process_leaves_is_asked_to_end_before_it_is_killed(tmp_path: Path) -> None:
    """``sh -c 'migrate && serve'``: the shell ends and does not pass the signal on."""
    with process("sh", "-c", GRANDCHILDREN, log=tmp_path / "log") as child:
        identity = identify(child.pid)
        assert identity is not None
        await family(child, 5)
        assert await Session(identity, tmp_path / "log").end(signal.SIGTERM, GRACE)
        assert members(child.pid) == []


async def test_what_a_killed_master_leaves_is_ended_though_the_master_was_reaped_long_ago(tmp_path: Path) -> None:
    with process("sh", "-c", GRANDCHILDREN, log=tmp_path / "log") as child:
        identity = identify(child.pid)
        assert identity is not None
        await family(child, 5)
        child.kill()
        child.wait()
        assert len(members(child.pid)) == 4
        assert await Session(identity, tmp_path / "log").end(signal.SIGTERM, GRACE)
        assert members(child.pid) == []


async def test_the_session_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """Its number was used again, and its first process is gone as well: nobody in it has our log open."""
    (tmp_path / "log").touch()
    with process("sh", "-c", GRANDCHILDREN) as child:
        identity = identify(child.pid)
        assert identity is not None
        await family(child, 5)
        child.kill()
        child.wait()
        assert await Session(replace(identity, started="0"), tmp_path / "log").end(signal.SIGTERM, NO_GRACE)
        assert not await Session(replace(identity, started="0"), tmp_path / "log").kill()
        assert len(members(child.pid)) == 4


async def test_what_ignores_the_signal_is_killed_after_the_grace(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with process("sh", "-c", f"trap '' TERM; touch {ready}; sleep 600; sleep 600", log=tmp_path / "log") as child:
        identity = identify(child.pid)
        assert identity is not None
        await until(ready.exists)
        assert not await Session(identity, tmp_path / "log").end(signal.SIGTERM, timedelta(milliseconds=100))
        assert not alive(identity)


@pytest.mark.skipif(sys.platform != "linux", reason="the thread group of Linux")
async def test_a_process_whose_first_thread_has_ended_still_runs(tmp_path: Path) -> None:
    """/proc calls it a zombie; its other threads may serve."""
    program = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with process(sys.executable, "-c", program) as child:
        identity = identify(child.pid)
        assert identity is not None
        await until(lambda: ") Z " in Path(f"/proc/{child.pid}/stat").read_text())
        assert alive(identity)
        assert send(identity, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
