"""A process and everything it started: the processes of its session.

Rule: the number of a session is used again once its last process is gone. So a session whose first process is
gone, and was not seen to go, is believed to be ours only where one of its processes has our log open.
What a process starts in a session of its own (a daemon) is not found here; nothing is owed to it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from segue.platforms.identity import Identity, ended, identify, members, send


@dataclass(frozen=True, slots=True)
class Session:
    """The session that `leader` leads and whose processes write to `log`."""

    leader: Identity
    log: Path

    async def end(self, number: signal.Signals, grace: timedelta) -> bool:
        """Signal the leader, and what it leaves behind; after `grace` kill what is left, and wait until it is gone.

        Returns whether nothing had to be killed. With a `grace` of nothing no signal is sent before the kill.
        """
        if not self._ours():
            return True
        if grace:
            try:
                async with asyncio.timeout(grace.total_seconds()):
                    await self._leave(number)
            except TimeoutError:
                pass
        return not await self._kill()

    async def empty(self) -> None:
        """Return when the session's last process has ended."""
        while self._ours() and (left := members(self.leader.pid)):
            await _all_ended(left)

    async def kill(self) -> bool:
        """Kill what there is of the session, and wait until it is gone. Returns whether there was anything."""
        return self._ours() and await self._kill()

    async def _leave(self, number: signal.Signals) -> None:
        if send(self.leader, number):
            await ended(self.leader)
        while left := members(self.leader.pid):
            for process in left:
                send(process, number)
            await _all_ended(left)

    async def _kill(self) -> bool:
        killed = False
        while left := members(self.leader.pid):
            killed = True
            for process in left:
                send(process, signal.SIGKILL)
            await _all_ended(left)
        return killed

    def _ours(self) -> bool:
        return identify(self.leader.pid) == self.leader or any(
            holds(process, self.log) for process in members(self.leader.pid)
        )


async def _all_ended(processes: list[Identity]) -> None:
    await asyncio.gather(*(ended(process) for process in processes))


def holds(process: Identity, file: Path) -> bool:
    """Whether the process has `file` open."""
    try:
        wanted = file.stat()
    except FileNotFoundError:
        return False
    return any(os.path.samestat(wanted, state) for state in _open_files(process.pid))


def _open_files(pid: int) -> Iterator[os.stat_result]:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                try:
                    yield entry.stat()
                except OSError:  # closed meanwhile
                    continue
    except OSError:  # ended meanwhile, or not to be looked into
        return
