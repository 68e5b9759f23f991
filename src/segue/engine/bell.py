"""A bell: whoever waits for something looks again each time it rings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Bell:
    """Rings whenever something about a service has changed. Waiting is a loop over the truth, not a message."""

    def __init__(self) -> None:
        self._pulse = asyncio.Event()

    def ring(self) -> None:
        """Let everybody who waits look again."""
        pulse, self._pulse = self._pulse, asyncio.Event()
        pulse.set()

    def rung(self) -> Coroutine[Any, Any, object]:
        """What returns at the next ring after this call, be it before anybody awaits it."""
        return self._pulse.wait()

    async def until(self, true: Callable[[], bool]) -> None:
        """Return as soon as `true` holds."""
        while not true():
            await self._pulse.wait()
