"""Time as a parameter: whatever waits or dates something is given a clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """The time of day, a time that never goes back, and waiting."""

    def now(self) -> datetime:
        """The time of day, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; only differences mean something, and only in one process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment; they do not jump when the time of day is set."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


def pace(waited: timedelta) -> float:
    """Seconds between two looks at what has lasted for `waited`: often at first, more seldom once it takes long."""
    return 1.0 if waited < timedelta(minutes=10) else 5.0


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
