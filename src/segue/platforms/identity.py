"""Who a process is: boot id, pid and start time. A pid alone is nobody: it is used again.

Rule 1: no signal is sent to a pid. A process is opened (pidfd), its start time is compared after that, and
only then is the signal sent through what was opened. Where there are no pidfds, the comparison comes just before.
Rule 2: a zombie has ended, whatever /proc says: where PID 1 does not reap, an orphan that died keeps its
pid and its start time for ever.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_PROC = Path("/proc/self/stat").exists()
_POLL = 0.1
"""Seconds between two looks where a process cannot be waited for."""

_SESSION, _START = 3, 19
"""Fields of /proc/<pid>/stat, counted from the state, which follows the command's name in parentheses."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process among all that this machine ever runs. `started` is the kernel's word for when, compared only."""

    boot: str
    pid: int
    started: str


@cache
def boot_id() -> str:
    """What differs after a reboot."""
    if _PROC:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return str(int(psutil.boot_time()))


def identify(pid: int) -> Identity | None:
    """Who has `pid` now, be it a zombie; None: nobody."""
    if _PROC:
        fields = _stat(pid)
        return Identity(boot_id(), pid, fields[_START]) if fields else None
    try:
        return Identity(boot_id(), pid, str(int(psutil.Process(pid).create_time())))
    except psutil.NoSuchProcess:
        return None


def alive(identity: Identity) -> bool:
    """Whether the process runs: it is there, it is the same one, and it has not ended."""
    with _opened(identity) as process:
        return process is not None and not process.ended()


def send(identity: Identity, number: signal.Signals) -> bool:
    """Send a signal to the process. Returns whether it was there to get it; another one never gets it."""
    with _opened(identity) as process:
        if process is None or process.ended():
            return False
        try:
            process.send(number)
        except ProcessLookupError:
            return False
        return True


async def ended(identity: Identity) -> None:
    """Return when the process has ended. What it leaves is not waited for; an own child is not yet reaped."""
    with _opened(identity) as process:
        if process is None:
            return
        if process.descriptor is not None:
            await readable(process.descriptor)
            return
        while not process.ended():  # noqa: ASYNC110
            await asyncio.sleep(_POLL)


def members(session: int) -> list[Identity]:
    """The processes of a session, without zombies."""
    found = (identify(pid) for pid in psutil.pids() if _session(pid) == session)
    return [process for process in found if process is not None and alive(process)]


def _session(pid: int) -> int | None:
    if _PROC:
        fields = _stat(pid)
        return int(fields[_SESSION]) if fields else None
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


@dataclass(frozen=True, slots=True)
class _Process:
    """A process that was there when it was opened. `descriptor`: its pidfd, where there are pidfds."""

    identity: Identity
    descriptor: int | None

    def ended(self) -> bool:
        if self.descriptor is not None:
            poll = select.poll()
            poll.register(self.descriptor, select.POLLIN)
            return bool(poll.poll(0))
        with suppress(psutil.NoSuchProcess):
            if identify(self.identity.pid) == self.identity:
                return psutil.Process(self.identity.pid).status() == psutil.STATUS_ZOMBIE
        return True

    def send(self, number: signal.Signals) -> None:
        if sys.platform == "linux" and self.descriptor is not None:
            signal.pidfd_send_signal(self.descriptor, number)
        else:
            os.kill(self.identity.pid, number)


@contextmanager
def _opened(identity: Identity) -> Iterator[_Process | None]:
    """The process, if it is still the same one. Opened first and compared then, it stays the same after that."""
    try:
        descriptor = _pidfd(identity.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield _Process(identity, descriptor) if identify(identity.pid) == identity else None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _pidfd(pid: int) -> int | None:
    """None where the system has no pidfds."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if isinstance(error, ProcessLookupError):
            raise
        return None


async def readable(descriptor: int) -> None:
    """Return when there is something to read from `descriptor`, be it its end."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)
