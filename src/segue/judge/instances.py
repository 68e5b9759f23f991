"""Which of a version's instances is to blame for its failures, if one is.

It decides nothing: it is told beside an alarm, so that one bad machine is not taken for a bad version.

What one instance failed is compared with the rate of the others, (failures + 1) / (attempts + 2) (Laplace's rule of
succession, so that others without a failure do not make any failure impossible), by the exact upper tail of the
binomial distribution. The instance is looked for among all of them, so the tail is multiplied by their number
(Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, lgamma, log

from segue.judge import reasons

LEVEL = 0.001
"""The chance that one of several instances which are alike is named."""


def to_blame(samples: Mapping[str, tuple[int, int]]) -> str | None:
    """A sentence that names the instance which fails far more than the others; None: there is none.

    `samples`: attempts and failures by instance.
    """
    tried = {name: counts for name, counts in samples.items() if counts[0]}
    if len(tried) < 2:
        return None
    attempts, failures = (sum(counts[n] for counts in tried.values()) for n in (0, 1))

    def chance(name: str) -> float:
        own, failed = tried[name]
        return upper_tail(failed, own, (failures - failed + 1) / (attempts - own + 2))

    worst = min(tried, key=lambda name: (chance(name), -tried[name][1]))
    own, failed = tried[worst]
    if chance(worst) * len(tried) > LEVEL:
        return None
    others = len(tried) - 1
    them = "the other instance" if others == 1 else f"the {others} others"
    rest = reasons.shortly(failures - failed, attempts - own, them)
    return f"it is {worst}: {reasons.told(failed, own, 'it')}, {rest}"


def upper_tail(k: int, n: int, p: float) -> float:
    """The chance of at least `k` successes in `n` trials of chance `p`, which is neither 0 nor 1."""
    if k <= n * p:
        return 1.0  # an upper bound, which is all that is asked for there
    term = exp(_log_choose(n, k) + k * log(p) + (n - k) * log(1 - p))
    total = 0.0
    while term > total * 1e-12 and k <= n:
        total += term
        term *= (n - k) / (k + 1) * p / (1 - p)
        k += 1
    return total


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
