"""Whether what was seen is worth an entry of its own, where a rollout waits for hours or weeks.

All entries are heard again when a control plane begins; two weeks of them, five seconds each, would take minutes.
Rule: the rule is blind to versions. What is told together is chosen by the failures of all of them and by time, never
by whose they are: else the evidence would be chosen as well.
"""

from __future__ import annotations

from dataclasses import dataclass

SELDOM = 300.0
"""Seconds that may be told together."""
FEW = 5
"""Failures that are nothing new, whatever is usual."""
USUAL = 2
"""How many times the usual failures are nothing new."""


@dataclass(slots=True)
class Calm:
    """What is usual: so many failures of all versions in so many seconds."""

    failures: int = 0
    seconds: float = 0.0

    def add(self, failures: int, seconds: float) -> None:
        """So many more were told of."""
        self.failures += failures
        self.seconds += seconds

    def says(self, failures: int, seconds: float) -> bool:
        """Whether so many failures in so many seconds may wait to be told."""
        usual = self.failures / self.seconds if self.seconds else 0.0
        return seconds < SELDOM and 0 <= failures <= FEW + USUAL * usual * seconds
