"""Does the new version fail more often than the old one at the same time? A test that may be looked at for ever.

An event is a failed attempt. In a stratum the new version (c) has n_c attempts and k_c events, the old one (b)
n_b and k_b; w = n_c / (n_c + n_b) is the share that was seen, never the one that was configured. The null
hypothesis of an alarm is, in every stratum, **p_c ≤ ρ·p_b + δ**, with any p_b, which may change all the time:
what befalls both versions cancels. For an alternative that fails ψ = x·ρ times as often:

    g = (1 − w + wρ) / (1 − w + wψ)        factor of an event of the old version
    a = x·g                                factor of an event of the new version
    ℓ = k_c·ln a + k_b·ln g − δ·n_c·(a − 1)

*Why E[e^ℓ] ≤ 1.* Given the n's and p's, with independent attempts, 1 + y ≤ e^y gives
E[e^ℓ] ≤ exp(p_c·n_c·(a − 1) + p_b·n_b·(g − 1) − δ·n_c·(a − 1)). Only the mean of the p's matters, so they may
differ from one attempt to the next. With p_c ≤ ρ·p_b + δ and a ≥ 1 the exponent is at most
p_b·(ρ·n_c·(a − 1) + n_b·(g − 1)) = 0, by the choice of a and g. It is the Poisson form, so an event may also
happen more than once an attempt (`lines.py`). With ρ = 1, δ = 0 there is a second proof that needs no
independence: if only the routing is random, k_c given k_c + k_b is hypergeometric, and by Hoeffding's
comparison with the binomial E[e^ℓ] ≤ (w·a + (1 − w)·g)^k = 1, also for a burst that begins within a second.

*A proof* is the same with ψ < ρ, hence a ≤ 1 and the inequality the other way: the null hypothesis is
p_c ≥ ρ·p_b + δ, and evidence against it shows that the version keeps within the margin.

Related: Lindon & Malek, arXiv 2011.03567 (conditional test on counts; no margin, fixed shares); ter Schure et
al., ir.cwi.nl/pub/34776 (anytime-valid logrank: the same algebra). The derivation above is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log

from segue.judge.mixture import LATE, Mixture
from segue.judge.settings import Margin

WORSE = (1.3, 1.6, 2.0, 2.6, 3.5, 5.0, 8.0, 15.0, 40.0, 200.0)
BETTER = (0.0, 0.35, 0.6, 0.8)
"""Alternatives: how many times the margin's ratio."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Events, and the attempts they happened in, on both versions in one stratum (or what is expected of one)."""

    new: float = 0
    of_new: float = 0
    old: float = 0
    of_old: float = 0

    def __add__(self, more: Counts) -> Counts:
        return Counts(self.new + more.new, self.of_new + more.of_new, self.old + more.old, self.of_old + more.of_old)

    @property
    def both(self) -> bool:
        """Whether both versions had attempts. Else there is nothing to compare."""
        return self.of_new > 0 and self.of_old > 0


class Ratio:
    """Evidence against "the new version's rate is at most (a proof: at least) ratio × the old one's + errors"."""

    __slots__ = ("_alternatives", "_errors", "_ratio", "mixture")

    def __init__(self, ratio: float, errors: float, alternatives: Sequence[float], *, late: float) -> None:
        self._ratio, self._errors = ratio, errors
        self._alternatives = [(x, log(x) if x else -inf) for x in alternatives]
        self.mixture = Mixture(len(alternatives), late=late)

    @classmethod
    def alarm(cls, margin: Margin) -> Ratio:
        """Evidence that the new version is worse than `margin` allows."""
        return cls(margin.ratio, margin.errors, WORSE, late=LATE)

    @classmethod
    def proof(cls, margin: Margin) -> Ratio:
        """Evidence that it is not."""
        return cls(margin.ratio, margin.errors, BETTER, late=0.0)

    @property
    def log_e(self) -> float:
        """The logarithm of the evidence."""
        return self.mixture.log_e

    def see(self, counts: Counts, now: float, trust: float = 1.0) -> None:
        """A stratum ended `now` seconds after the start. One without attempts on both counts for nothing."""
        self.mixture.multiply(self.factors(counts), now, trust)

    def factors(self, counts: Counts) -> list[float]:
        """ℓ of each alternative."""
        if not counts.both:
            return [0.0] * len(self._alternatives)
        w = counts.of_new / (counts.of_new + counts.of_old)
        among = 1 - w + w * self._ratio
        allowed = self._errors * counts.of_new
        new, events = counts.new, counts.new + counts.old
        logs = []
        for x, log_x in self._alternatives:
            g = among / (1 - w + w * self._ratio * x)
            factor = -allowed * (x * g - 1)
            if events:
                factor += events * log(g) + (new * log_x if new else 0.0)
            logs.append(factor)
        return logs

    def until(self, log_e: float, rate: float, old_per_new: float, trust: float) -> float:
        """About how many more attempts on the new version a proof needs if it is as good as the old one.

        `rate`: how often that one fails; `old_per_new`: its attempts for each of the new version.
        """
        each = Counts(rate, 1, rate * old_per_new, old_per_new)
        return self.mixture.until(log_e, [trust * factor for factor in self.factors(each)])
