"""Sources of evidence in memory: they say what they are ordered to, and nothing where nobody ordered anything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from segue.core.sources import About, Answer, Asked, Metric, Nothing
from segue.engine.clock import Clock

Says = Callable[[About], Answer]


class FakeSources:
    """All sources of a world, by the query, command or address that asks them. `asked`: when each was, in order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._orders: dict[str, tuple[Says, float]] = {}
        self.asked: list[tuple[str, float, About]] = []

    def order(self, what: str, says: Says, seconds: float = 0.0) -> None:
        """What `what` says from now on, and how long it takes to say it."""
        self._orders[what] = says, seconds

    def times(self, what: str) -> list[float]:
        """When `what` was asked."""
        return [at for name, at, _ in self.asked if name == what]

    def __call__(self, asked: Asked) -> FakeSource:
        """The source that `asked` describes."""
        what = asked.query if isinstance(asked, Metric) else asked.command or asked.url or ""
        return FakeSource(self, what, asked.timeout)

    async def ask(self, what: str, about: About, timeout: timedelta) -> Answer:
        """What `what` says now, if it says it within `timeout`."""
        self.asked.append((what, self._clock.monotonic(), about))
        says, seconds = self._orders.get(what, (_nobody, 0.0))
        most = timeout.total_seconds()
        await self._clock.sleep(min(seconds, most))
        return says(about) if seconds <= most else Nothing(f"no answer within {most:g} s")


def _nobody(about: About) -> Answer:
    return Nothing("nobody is there")


class FakeSource:
    """One of them."""

    def __init__(self, sources: FakeSources, what: str, timeout: timedelta) -> None:
        self._sources, self._what, self._timeout = sources, what, timeout

    async def ask(self, about: About) -> Answer:
        """What it was ordered to say."""
        return await self._sources.ask(self._what, about, self._timeout)
