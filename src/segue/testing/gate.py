"""A place where a test lets calls wait."""

from __future__ import annotations

import asyncio


class Gate:
    """Where a call waits while the gate is closed. Unlike asyncio.Event it outlives a loop."""

    def __init__(self, *, closed: bool = False) -> None:
        self._closed = closed
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return sum(not future.done() for future in self._waiting)

    def close(self) -> None:
        """Let the next calls wait."""
        self._closed = True

    def open(self) -> None:
        """Let all calls go on that wait, and those that come."""
        self._closed = False
        self.let_through()

    def let_through(self) -> None:
        """Let those go on that wait now; whether the gate is open stays as it is."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done() and not future.get_loop().is_closed():
                future.set_result(None)

    async def passed(self) -> None:
        """Return when the gate is open."""
        if self._closed:
            future = asyncio.get_running_loop().create_future()
            self._waiting = [*(other for other in self._waiting if not other.done()), future]
            await future
