"""Time as a parameter: whatever waits or dates something is given a clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """The time of day, a time that never goes back, and waiting."""

    def now(self) -> datetime:
        """The time of day, in UTC. It is not set while something waits for a time of day to come."""
        ...

    def follow(self) -> None:
        """Nothing waits now: take over what the machine's clock has been set to."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; only differences mean something, and only in one process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


def _wall() -> datetime:
    return datetime.now(UTC)


class SystemClock:
    """The machine's own clock: its time of day when it was last followed, and the time that has passed since.

    A clock is set while it runs, by hand or when a machine has found a time server at last. A judgement that was
    to take a minute would end at once then, or take hours.
    """

    def __init__(self, wall: Callable[[], datetime] = _wall, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self.follow()

    def now(self) -> datetime:
        """The time of day, in UTC, as long as nobody has set the machine's clock since it was last followed."""
        return self._followed + timedelta(seconds=self._steady() - self._at)

    def follow(self) -> None:
        """Take over what the machine's clock says."""
        self._followed, self._at = self._wall(), self._steady()

    def monotonic(self) -> float:
        """Seconds since some moment; they do not jump when the time of day is set."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


def pace(waited: timedelta) -> float:
    """Seconds between two looks at what has lasted for `waited`: often at first, more seldom once it takes long."""
    return 1.0 if waited < timedelta(minutes=10) else 5.0


def lasts(waited: timedelta) -> bool:
    """Whether what has lasted for `waited` is to be written down more seldom than it is looked at."""
    return waited > timedelta(hours=1)


async def wait_for(clock: Clock, awaitable: Awaitable[T], seconds: float) -> T:
    """The result of `awaitable`; TimeoutError if it has none after `seconds`.

    What is awaited is cancelled, and has ended, when this raises. A result at the last moment counts.
    """
    work = asyncio.ensure_future(awaitable)
    alarm = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((work, alarm), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise TimeoutError(f"no result after {seconds:g} s")
    finally:
        for task in (work, alarm):
            task.cancel()
        await asyncio.gather(work, alarm, return_exceptions=True)
