"""What is asked of a judgement: margins, and how often it may be wrong.

`false_alarm` is per rollout: however long it lasts and however often one looks. `doubt` is per step: the chance
that a version which is worse than the margin is shown to be within it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

from segue.core.steps import Gate

__all__ = ["Gate", "Margin", "Settings"]


@dataclass(frozen=True, slots=True)
class Margin:
    """What is not held against a version. Raises ValueError for what cannot be meant.

    It may fail `ratio` times as often as the old one and `errors` (a fraction) more, and be slower by `latency`
    (a fraction) at each percentile.
    """

    ratio: float
    errors: float
    latency: float

    def __post_init__(self) -> None:
        if not (isfinite(self.ratio) and self.ratio >= 1):
            raise ValueError(f"a margin's ratio must be at least 1, not {self.ratio}")
        if not 0 <= self.errors < 1:
            raise ValueError(f"a margin's errors must be a fraction from 0 to below 1, not {self.errors}")
        if not (isfinite(self.latency) and self.latency >= 0):
            raise ValueError(f"a margin's latency must be a fraction of at least 0, not {self.latency}")


@dataclass(frozen=True, slots=True)
class Settings:
    """The manifest's `judge`: `alarm` is the margin of the watch, `first` and `then` those of a canary's proofs."""

    false_alarm: float = 0.01
    alarm: Margin = field(default=Margin(1.1, 0.0002, 0.09))
    doubt: float = 0.05
    first: Margin = field(default=Margin(3, 0.02, 0.5))
    then: Margin = field(default=Margin(1.5, 0.005, 0.3))

    def __post_init__(self) -> None:
        for name, value in (("false_alarm", self.false_alarm), ("doubt", self.doubt)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be a fraction between 0 and 1, not {value}")

    def margin(self, gate: Gate) -> Margin:
        """What a proof at `gate` must keep within."""
        return self.first if gate is Gate.FIRST else self.then
