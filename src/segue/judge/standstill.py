"""Does the new version still answer anybody? What waits for an answer is evidence of nothing until it ends.

While the old version answers beside it, what the new one does not answer is given to the old one (the shield), or is
behind: both show. A version that is alone and hangs shows nothing for as long as its users wait. No statistics: it is
taken for hung when it answered `EXPECTED` requests and more in such a time before, now none, for longer than the old
version ever took and no less than `SHORTEST`, while `WAITING` more requests have come to wait. Streams that are open
for long do not look so: they are no more requests a second than those that end. This rule has no part in
`false_alarm`, as an instance's health check has none.
"""

from __future__ import annotations

from collections import deque

from segue.core.samples import percentile
from segue.core.traffic import Sample

SHORTEST, UNKNOWN = 10.0, 30.0
"""Seconds without an answer: at least so many, and where nothing is known of the old version's times."""
TIMES = 3
"""How many times as long as all but one of a thousand answers of the old version."""
EXPECTED, WAITING = 50, 20
RECENT = 60.0
"""Seconds of which it is remembered how many requests were answered."""


class Standstill:
    """Watches a version that is alone. `history`: what the old one did before."""

    def __init__(self, history: Sample | None = None) -> None:
        slowest = percentile(history, 0.999) if history else None
        self.limit = UNKNOWN if slowest is None else max(SHORTEST, TIMES * slowest / 1e6)
        self.alarm = False
        self.seconds, self.waiting = 0.0, 0
        self._first: int | None = None
        self._recent: deque[tuple[float, int]] = deque()

    def look(self, seconds: float, new: Sample) -> None:
        """What was answered, or failed, since the last look."""
        if new.attempts:
            self._first = None
        self._recent.append((seconds, new.attempts))
        while sum(lasted for lasted, _ in self._recent) > RECENT and len(self._recent) > 1:
            self._recent.popleft()

    def strange(self, seconds: float) -> bool:
        """Whether it says something that nobody was answered for so long, so that it is worth seeing who waits."""
        lasted, answered = (sum(part) for part in zip(*self._recent, strict=True)) if self._recent else (0.0, 0)
        return bool(lasted) and seconds <= TIMES * self.limit and answered / lasted * seconds >= EXPECTED

    def waits(self, seconds: float, waiting: int) -> None:
        """Nobody was answered for so many seconds, and so many requests are under way."""
        if self._first is None:
            self._first = waiting
        if seconds >= self.limit and waiting - self._first >= WAITING and self.strange(seconds):
            self.alarm, self.seconds, self.waiting = True, seconds, waiting
