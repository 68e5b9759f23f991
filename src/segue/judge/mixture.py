"""Evidence that may be looked at for ever: a mixture of bets, over alternatives and over the time they begin.

Each stratum (a few seconds of traffic on both versions) multiplies the capital S of every alternative by a
factor whose expectation is at most 1 if the new version keeps within its margin, whatever happened before.
The capital is then a non-negative supermartingale, and so is every average of such capitals, and whatever is
smaller. Ville (1939): the chance that it is ever 1/a or more is at most a: for every number of looks, for any
rule when to stop. E is that average, kept as ln E.

    S ← ln(e^(S + min(trust·ℓ, CAP)) + Q_before − Q_now)      for each alternative, S = ln(1 − late) at first
    E = mean of e^S + Q_now                                   Q_t = late / (1 + t/600 s)

*Start times.* Q is the part that has not been bet yet. A little of it begins in every stratum, so that
ln E ≥ ln Q: a version that was good for minutes and then breaks is found almost as fast as one that was broken
from the start (Shiryaev's mixture; e-detectors, arXiv 2203.03532, keep another promise with the same sum).

*Cap.* No single stratum multiplies evidence by more than e², so that at least three seconds that agree are
needed for an alarm: requests of one instance are not independent of each other, and one pause of one instance
is one event. The cap, and a `trust` of at most 1, only make the factor smaller (Jensen's inequality for the
power): they cost speed, never the guarantee.

`late` = 0 is a test that begins once, for a proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log, log1p

LATE = 0.5
SLOWLY = 600.0
"""Seconds in which half of what has not been bet is bet."""
CAP = 2.0


def log_sum(logs: Sequence[float]) -> float:
    """The logarithm of the sum of what these are the logarithms of."""
    top = max(logs)
    return top if top == -inf else top + log(sum([exp(x - top) for x in logs]))


class Mixture:
    """The evidence of `size` alternatives together."""

    __slots__ = ("_late", "_size", "_started", "_waiting", "log_e")

    def __init__(self, size: int, *, late: float = LATE) -> None:
        self._size = log(size)
        self._late = self._waiting = late
        self._started = [log1p(-late)] * size
        self.log_e = 0.0

    def multiply(self, factors: Sequence[float], now: float, trust: float = 1.0) -> None:
        """A stratum ended `now` seconds after the start; `factors` are the logarithms of what it multiplies by."""
        bets = [trust * factor for factor in factors]
        started = [s + (bet if bet < CAP else CAP) for s, bet in zip(self._started, bets, strict=True)]
        waiting = self._late / (1 + now / SLOWLY)
        begins = self._waiting - waiting
        if begins > 0:
            new = log(begins)
            started = [max(s, new) + log1p(exp(-abs(s - new))) for s in started]
            self._waiting = waiting
        self._started = started
        mean = log_sum(started) - self._size
        self.log_e = log_sum((mean, log(self._waiting))) if self._waiting > 0 else mean

    def until(self, log_e: float, gains: Sequence[float]) -> float:
        """How many times `gains` are to be added until the evidence reaches `log_e`; infinite if they never do."""
        if self.log_e >= log_e:
            return 0.0
        missing = (log_e + self._size - s for s in self._started)
        return min((m / gain for m, gain in zip(missing, gains, strict=True) if gain > 0), default=inf)
