"""Coins that gave users to two versions: are they what was asked for? To be looked at for ever.

Each user is given to the new version with the chance s, by a hash that knows nothing of the user. Of n + m users that
were picked in a way that does not depend on their coins, n were given to the new version. If each coin among them was
new with the chance q, whatever came before, then for a Beta distribution of what that chance might be instead

    E = B(a + n, b + m) / (B(a, b) · qⁿ · (1 − q)ᵐ)          a = K·s, b = K·(1 − s), K = 1 / (spread²·s·(1 − s))

is a mean of likelihood ratios, each of which is expected to be multiplied by θ + (1 − θ) = 1 with every coin; and so
is a mean of such E's. By Ville (1939) it is ever 1/doubt or more in at most `doubt` of all experiments, however often
one looks and whoever stops when. With q = s it is a test of the split. Inverted, it is a confidence sequence: with q
= sρ / (sρ + 1 − s) for "the odds are ρ times those that were asked for", the ρ with E < 1/doubt are an interval, for
ln E is convex in ln ρ, and at the ρ that was seen it is at most 0, for a mean is not above its largest term.

Only n and m matter, in whatever order they came: there is nothing to keep between looks.

*Spread.* It is the standard deviation of ln ρ in a mixture, at any share: where E looks. Four fifths of the mixture
look within 20 % of what was asked for, as in Lindon & Malek's implementation (K = 100 at a half), and a fifth looks
everywhere, or a broken split and a large effect would be bounded badly. It is flat: differences from 5 % to fivefold
take at most two fifths more coins than with the best spread for each, 2 % half more (at the expected counts).

Sources: Robbins, "Statistical methods related to the law of the iterated logarithm" (1970), for the mixture; Lindon &
Malek, arXiv 2011.03567, for its use against mismatched sample ratios and for conversions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, expm1, inf, lgamma, log, log1p

from segue.judge.mixture import log_sum

SPREADS = ((0.2, 0.8), (1.5, 0.2))
"""Spreads and their parts of the mixture."""
_HALVINGS = 24
_EXTREME = 500.0
"""ln ρ where only one version was given users: beyond it nothing changes."""


@dataclass(frozen=True, slots=True)
class Coins:
    """How many users of a kind were given to the new version and to the old one; the chance of `new` was `share`.

    Numbers may be expected ones, hence fractions. ValueError: a share that is not between 0 and 1, a negative number.
    """

    new: float
    old: float
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"a share of {self.share:g} compares nothing: it has to be between 0 and 1")
        if self.new < 0 or self.old < 0:
            raise ValueError(f"there are no {min(self.new, self.old):g} users")

    def log_e(self, log_ratio: float = 0.0) -> float:
        """The evidence, as a logarithm, against "the odds are e^`log_ratio` times those that were asked for"."""
        return self._mixed() - self._likelihood(log_ratio)

    def ratios(self, doubt: float) -> tuple[float, float]:
        """The ends of the confidence sequence for ρ at 1 − `doubt`: 0 and infinity as long as nothing is known."""
        least = self._mixed() + log(doubt)

        def outside(log_ratio: float) -> bool:
            return self._likelihood(log_ratio) <= least

        seen = self._seen()
        low = exp(_end(outside, seen, -1.0)) if self.new else 0.0
        high = exp(_end(outside, seen, 1.0)) if self.old else inf
        return low, high

    def _seen(self) -> float:
        """ln ρ as it was seen."""
        if not self.new or not self.old:
            return _EXTREME if self.new else -_EXTREME
        return log(self.new) - log(self.old) + log1p(-self.share) - log(self.share)

    def _likelihood(self, log_ratio: float) -> float:
        among = log1p(self.share * expm1(log_ratio))
        return self.new * (log(self.share) + log_ratio - among) + self.old * (log1p(-self.share) - among)

    def _mixed(self) -> float:
        return log_sum([log(part) + self._beta(spread) for spread, part in SPREADS])

    def _beta(self, spread: float) -> float:
        k = 1 / (spread * spread * self.share * (1 - self.share))
        a, b = k * self.share, k * (1 - self.share)
        return _log_beta(a + self.new, b + self.old) - _log_beta(a, b)


def _end(outside: Callable[[float], bool], inside: float, step: float) -> float:
    """Where `outside` begins to hold in the direction of `step`."""
    while not outside(inside + step):
        inside, step = inside + step, 2 * step
    for _ in range(_HALVINGS):
        step /= 2
        if not outside(inside + step):
            inside += step
    return inside


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
