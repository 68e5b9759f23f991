"""Strata: the pieces of time that tests compare within.

A stratum ends when at least 20 attempts came, on both versions together (their split must not matter, or it
would decide which seconds count), and it has lasted a second (for the cap of `mixture.py` is per second that
agrees; looks come about once a second, some a little early). It also ends, whatever is in it, when shares
change, an instance starts again, a counter begins anew or a look was missed: `Comparison.close`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from segue.core.traffic import Sample
from segue.judge.errors import Counts
from segue.judge.histogram import Histogram

STRATUM = 20
SECOND = 0.9


@dataclass(slots=True)
class Pool:
    """A stratum that is still open."""

    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    new_times: dict[float, int] = field(default_factory=dict)
    old_times: dict[float, int] = field(default_factory=dict)
    old_untimed: dict[float, int] = field(default_factory=dict)

    def add(self, seconds: float, new: Sample, old: Sample, timed: bool) -> None:
        """What came in one look. If it is not `timed`, only the old version's own percentiles learn from it."""
        self.counts += Counts(new.failures, new.attempts, old.failures, old.attempts)
        self.seconds += seconds
        if timed:
            _add(self.new_times, new.latency_us)
        _add(self.old_times if timed else self.old_untimed, old.latency_us)

    @property
    def lasted(self) -> bool:
        """Whether it has lasted long enough to end."""
        return self.seconds >= SECOND

    @property
    def full(self) -> bool:
        """Whether it may end."""
        return self.lasted and self.counts.of_new + self.counts.of_old >= STRATUM


def _add(times: dict[float, int], more: Histogram) -> None:
    if not times:
        times.update(more)
        return
    for edge, count in more.items():
        times[edge] = times.get(edge, 0) + count
