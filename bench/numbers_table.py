"""One number of design 2.8: what was measured in each run, the target, and whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RUNS = 5


@dataclass(frozen=True)
class Number:
    """`runs`: one value a run. `target`: what the median is held against; None: it is only printed.

    `at_least`: more is better.
    """

    what: str
    unit: str
    runs: Sequence[float]
    target: float | None = None
    at_least: bool = False

    @property
    def median(self) -> float:
        """The middle one of the runs."""
        return statistics.median(self.runs)

    @property
    def worst(self) -> float:
        """The worst one of the runs."""
        return min(self.runs) if self.at_least else max(self.runs)

    @property
    def missed(self) -> bool:
        """Whether the median misses the target."""
        if self.target is None:
            return False
        return self.median < self.target if self.at_least else self.median > self.target

    def row(self) -> tuple[str, str, str, str, str]:
        """The number in the page's table."""
        sign = "≥" if self.at_least else "≤"
        target = "printed" if self.target is None else f"{sign} {self.target:g} {self.unit}"
        verdict = "" if self.target is None else "MISSED" if self.missed else "met"
        return self.what, target, self._shown(self.median), self._shown(self.worst), verdict

    def _shown(self, value: float) -> str:
        return f"{value:,.0f} {self.unit}" if abs(value) >= 100 else f"{value:.3g} {self.unit}"
