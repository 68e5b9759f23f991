"""What was measured at several sizes, and whether it grows more than in proportion."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

SIZES = 10, 100, 1000
LINEAR = 1.2
"""What the cost of a service among the last may be, in those of one among the first."""
NOISE = 0.05
"""The part of a value that it differs by from run to run at least."""


@dataclass
class Growth:
    """One row: `at` each number of services, the runs. `target`: what the median at 100 services is held against.

    `bound`: whether the cost of an added service is held against `LINEAR`.
    """

    what: str
    unit: str
    bound: bool
    target: float | None = None
    at: dict[int, Sequence[float]] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """Whether there is anything to hold it against."""
        return (self.bound and self.ratio is not None) or (self.target is not None and 100 in self.at)

    @property
    def missed(self) -> bool:
        """Whether it grows too fast, or the target is missed."""
        late = self.target is not None and 100 in self.at and self.median(100) > self.target
        return late or (self.bound and self.ratio is not None and self.ratio > LINEAR)

    def median(self, size: int) -> float:
        """The middle one of the runs."""
        return statistics.median(self.at[size])

    @property
    def ratio(self) -> float | None:
        """What a service costs from 100 to 1,000, in those of one from 10 to 100; None: not all were measured.

        What differs from run to run costs nothing: a value that hardly grows is not held against itself.
        """
        if any(size not in self.at for size in SIZES):
            return None
        few, some, many = map(self.median, SIZES)
        floor = max(NOISE * some, (max(self.at[100]) - min(self.at[100])) / 2)
        first, then = (some - few) / (SIZES[1] - SIZES[0]), (many - some) / (SIZES[2] - SIZES[1])
        return max(then, 0.0) / max(first, floor / (SIZES[1] - SIZES[0]))

    def row(self) -> tuple[str, ...]:
        """The row as text: each size's median and worst, the ratio, the verdict."""
        cells = (self._cell(size) for size in SIZES)
        ratio = "" if self.ratio is None or not self.bound else f"{self.ratio:.2f}"
        target = "" if self.target is None else f"≤ {self.target:g}"
        return self.what, self.unit, *cells, target, ratio, self._verdict()

    def _verdict(self) -> str:
        return "" if not self.judged else "MISSED" if self.missed else "met"

    def _cell(self, size: int) -> str:
        if size not in self.at:
            return ""
        worst = f" ({number(max(self.at[size]))})" if len(self.at[size]) > 1 else ""
        return number(self.median(size)) + worst


@dataclass(frozen=True)
class Aged:
    """One row of the year: the runs without a past and with it."""

    what: str
    unit: str
    young: Sequence[float]
    old: Sequence[float]

    @property
    def missed(self) -> bool:
        """Whether it takes longer because of the year, by more than differs from run to run."""
        young, old = statistics.median(self.young), statistics.median(self.old)
        spread = max(self.young) - min(self.young)
        return old > LINEAR * young and old - young > spread

    def row(self) -> tuple[str, ...]:
        """The row as text."""
        young, old = statistics.median(self.young), statistics.median(self.old)
        shown = (f"{number(middle)} ({number(max(runs))})" for middle, runs in ((young, self.young), (old, self.old)))
        return self.what, self.unit, *shown, f"{old / young:.2f}" if young else "", "MISSED" if self.missed else "met"


def number(value: float) -> str:
    """Three digits of it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
