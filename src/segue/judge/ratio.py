"""How many times as often the new version fails as the old one: a confidence set that may be looked at for ever.

The test of `errors.py`, inverted: a ratio ρ belongs to the set unless the evidence against p_c ≤ ρ·p_b, or that
against p_c ≥ ρ·p_b, has reached 2/doubt; both with δ = 0 and without start times. With o = w / (1 − w) the
logarithm of g is ln(1 + oρ) − ln(1 + oρx). The ρ and the x are powers of 2^¼, so that every ρ·x is on the same
grid, and one logarithm for each point of it does for all.

It is the set of now, of one step: do not intersect the sets of all times, for with a ratio that changes the
intersection goes wrong and then empty. Strata are trusted and capped as in the alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, log1p

from segue.judge.errors import Counts
from segue.judge.mixture import CAP, log_sum

_LOWEST, _HIGHEST = -20, 36
"""Ratios from 1/32 to 512, as exponents of 2^¼."""
_MORE, _LESS = (2, 4, 8, 16), (-2, -4, -8)
"""Alternatives: how many times the ratio, as exponents. There is one more below: no failure at all."""
_RATIOS = range(_LOWEST, _HIGHEST + 1)
_BELOW = -min(_LESS)
_GRID = [2 ** (i / 4) for i in range(_LOWEST - _BELOW, _HIGHEST + max(_MORE) + 1)]
_OWN = slice(_BELOW, _BELOW + len(_RATIOS))
"""Where on the grid the ratios themselves are."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The confidence set's ends and the estimate between them; `estimate` is None without an old failure."""

    low: float
    high: float
    estimate: float | None


class RatioSet:
    """The confidence set for the ratio of the two failure rates since a step began."""

    __slots__ = ("_down", "_expected", "_failed", "_never", "_up")

    def __init__(self) -> None:
        self._up = [[0.0] * len(_RATIOS) for _ in _MORE]
        self._down = [[0.0] * len(_RATIOS) for _ in _LESS]
        self._never = [0.0] * len(_RATIOS)
        self._failed = self._expected = 0.0

    def see(self, counts: Counts, trust: float = 1.0) -> None:
        """A stratum ended."""
        events = counts.new + counts.old
        if not counts.both or not events:
            return
        total = counts.of_new + counts.of_old
        self._failed += counts.new * counts.of_old / total
        self._expected += counts.old * counts.of_new / total
        odds, weight = counts.of_new / counts.of_old, trust * events
        logs = [weight * log1p(odds * ratio) for ratio in _GRID]
        each = trust * counts.new * log(2) / 4
        self._up = [_bet(s, logs, x, each * x) for s, x in zip(self._up, _MORE, strict=True)]
        self._down = [_bet(s, logs, x, each * x) for s, x in zip(self._down, _LESS, strict=True)]
        never = [-inf] * len(_RATIOS) if counts.new else logs[_OWN]
        self._never = [s + min(bet, CAP) for s, bet in zip(self._never, never, strict=True)]

    def interval(self, doubt: float = 0.05) -> Interval:
        """The set at the confidence 1 − `doubt`. It is [0, ∞) while little has failed."""
        threshold = log(2 / doubt)
        too_low = [r for r, *logs in zip(_RATIOS, *self._up, strict=True) if _mean(logs) >= threshold]
        too_high = [r for r, *logs in zip(_RATIOS, *self._down, self._never, strict=True) if _mean(logs) >= threshold]
        return Interval(
            low=2 ** (max(too_low) / 4) if too_low else 0.0,
            high=2 ** (min(too_high) / 4) if too_high else inf,
            estimate=self._failed / self._expected if self._expected else None,
        )


def _bet(started: list[float], logs: list[float], x: int, of_new: float) -> list[float]:
    """ln of the capital after a stratum, for each ratio, with the alternative that is 2^(x/4) times as much."""
    bets = [here - there + of_new for here, there in zip(logs[_OWN], logs[_BELOW + x :], strict=False)]
    return [s + (bet if bet < CAP else CAP) for s, bet in zip(started, bets, strict=True)]


def _mean(logs: list[float]) -> float:
    return log_sum(logs) - log(len(logs))
