"""Is the new version slower than the old one at the same time? A test at each percentile, on counts above an edge.

The edges are those of the old version's p50, p90, p99 and p99.9, taken every 10 s from what it did in the last
minute (weights fall by e in 60 s), without the present stratum, and from before the rollout at first. The margin
lies on the time axis: of the old version the attempts above the edge count (k_b of n_b), of the new one those
above an edge that is `latency` higher (k_c of n_c). Null hypothesis: the new version's probability is not higher,
which holds if it is not slower by more than the margin at that percentile. With p̂, the old version's part above
the edge so far (it matters for the power only, never for the guarantee), and for alternative odds r > 1:

    q = r·p̂ / (1 − p̂ + r·p̂),  m = (1 − w)·p̂ + w·q,  w = n_c / N,  N = n_c + n_b
    ℓ = k_c·ln(q/m) + (n_c − k_c)·ln((1−q)/(1−m)) + k_b·ln(p̂/m) + (n_b − k_b)·ln((1−p̂)/(1−m))

*Why E[e^ℓ] ≤ 1* (Turner, Ly & Grünwald, ir.cwi.nl/pub/33472). If both have the probability p, then
E[e^ℓ] = A^n_c · B^n_b with w·A + (1−w)·B = p·m/m + (1−p)·(1−m)/(1−m) = 1, so by the inequality of the means
it is at most 1^N. If the new version's p is lower, A is lower. The full Bernoulli likelihood stays sharp at p50,
where the Poisson form of `errors.py` loses half of the speed. A proof has r < 1 and the new version's edge at the
margin of the proof: it shows "not slower than that", for p50, p90 and p99 each.

*(N − 2)/N.* A load generator with a fixed mix of endpoints makes exactly the same number of slow requests each
second; then only the routing is random, and k_c is hypergeometric. Enumerated for N = 20 with all mixes and shares,
E[e^ℓ] is up to 1.02 then, 1.003 with ℓ·(N − 1)/N, and at most 1 with ℓ·(N − 2)/N.

The four alarms are averaged. Each percentile has its own `Dispersion`, of the counts above the same edge.
The margin is rounded up to the next edge, so it is up to a bucket's width (10 %) wider than it says. With
buckets wider than 10 % the new version's edge may lie in the same bucket as the old one's: then nothing is
tolerated, but the level holds. A percentile is somewhere in a bucket. For an alarm its upper edge is taken; for a
proof its lower one, above which there are always enough attempts of the old version to be fewer than: where all
answers take the same time there are none above the upper one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log

from segue.judge.dispersion import Dispersion
from segue.judge.errors import Counts
from segue.judge.histogram import Cuts, Fading, Histogram, slower
from segue.judge.mixture import LATE, Mixture, log_sum
from segue.judge.settings import Margin

PERCENTILES = (0.5, 0.9, 0.99, 0.999)
PROVEN = (0.5, 0.9, 0.99)
"""A proof of p99.9 would need too many attempts."""
WORSE = (1.05, 1.12, 1.25, 1.5, 2.0, 3.0, 6.0, 20.0)
BETTER = (1 / 1.25, 1 / 1.5, 1 / 2.0, 1 / 3.0, 1 / 6.0)
"""Alternatives: how many times the old version's odds."""
MEMORY = 60.0
BEFORE = 600.0
"""The history is of so many seconds; it weighs as much as the last minute does."""
EVERY = 10.0
FIXED_MIX = 2
_SMALLEST = 1e-7


class Exceedance:
    """Evidence against "the new version is above its edge at most (a proof: at least) as often as the old one"."""

    __slots__ = ("_odds", "mixture")

    def __init__(self, odds: Sequence[float], *, late: float) -> None:
        self._odds = odds
        self.mixture = Mixture(len(odds), late=late)

    @classmethod
    def alarm(cls) -> Exceedance:
        """Evidence that the new version is slower."""
        return cls(WORSE, late=LATE)

    @classmethod
    def proof(cls) -> Exceedance:
        """Evidence that it is not."""
        return cls(BETTER, late=0.0)

    @property
    def log_e(self) -> float:
        """The logarithm of the evidence."""
        return self.mixture.log_e

    def see(self, counts: Counts, old_part: float, now: float, trust: float = 1.0) -> None:
        """A stratum ended. `old_part`: how much of the old version was above its edge, as far as is known."""
        self.mixture.multiply(self.factors(counts, old_part), now, trust)

    def factors(self, counts: Counts, old_part: float) -> list[float]:
        """ℓ of each alternative."""
        if not counts.both:
            return [0.0] * len(self._odds)
        p = min(max(old_part, _SMALLEST), 1 - _SMALLEST)
        w = counts.of_new / (counts.of_new + counts.of_old)
        new, new_below = counts.new, counts.of_new - counts.new
        old, old_below = counts.old, counts.of_old - counts.old
        logs = []
        for r in self._odds:
            q = r * p / (1 - p + r * p)
            m = (1 - w) * p + w * q
            above = new * log(q / m) + old * log(p / m)
            logs.append(above + new_below * log((1 - q) / (1 - m)) + old_below * log((1 - p) / (1 - m)))
        return logs


@dataclass(frozen=True, slots=True)
class Edge:
    """Where one percentile is looked at: the old version's edge, its part above that, and the new version's edge."""

    old: float
    part: float
    new: float


class Percentile:
    """One test, the edge that it uses now, and how much its events are trusted."""

    __slots__ = ("at", "guard", "part", "test")

    def __init__(self, part: float, test: Exceedance) -> None:
        self.part, self.test = part, test
        self.guard = Dispersion()
        self.at = Edge(0.0, 0.0, 0.0)

    def see(self, new: Mapping[float, int], of_new: int, old: Mapping[float, int], of_old: int, now: float) -> None:
        """A stratum ended. `new` and `old`: by edge, how many of so many attempts are above it."""
        above, shrunk = old[self.at.old], max(0.0, 1 - FIXED_MIX / (of_new + of_old))
        counts = Counts(new[self.at.new], of_new, above, of_old)
        self.test.see(counts, self.at.part, now, self.guard.trust * shrunk)
        self.guard.add(Counts(new[self.at.old], of_new, above, of_old))


class Latency:
    """The tests of all percentiles, and the edges they use."""

    def __init__(self, alarm: Margin, proof: Margin, history: Histogram, *, proven: Sequence[float] = PROVEN) -> None:
        self._margin, self._proof_margin, self._proven = alarm, proof, proven
        self._alarms = [Percentile(part, Exceedance.alarm()) for part in PERCENTILES]
        self._proofs = [Percentile(part, Exceedance.proof()) for part in proven]
        self.old, self.new = Fading(MEMORY), Fading(MEMORY)
        self.old.add(history, 0.0, MEMORY / BEFORE)
        self._cuts: Cuts | None = None
        self._taken, self._worth = 0.0, 0.0

    @property
    def log_e(self) -> float:
        """The evidence of all four alarms together."""
        return log_sum([one.test.log_e for one in self._alarms]) - log(len(self._alarms))

    @property
    def proofs(self) -> list[float]:
        """The evidence of each proof."""
        return [one.test.log_e for one in self._proofs]

    @property
    def worst(self) -> float:
        """The percentile whose alarm has the most evidence, as a fraction."""
        return max(self._alarms, key=lambda one: one.test.log_e).part

    def step(self, margin: Margin) -> None:
        """Proofs begin anew, with another margin."""
        self._proof_margin = margin
        self._proofs = [Percentile(part, Exceedance.proof()) for part in self._proven]
        self._cuts = None

    def see(self, new: Histogram, old: Histogram, now: float) -> None:
        """A stratum ended, with the attempts whose time counts."""
        of_new, of_old = sum(new.values()), sum(old.values())
        if of_new and of_old and self.old.total:
            cuts = self._edges_for(now)
            above_new, above_old = cuts.above(new), cuts.above(old)
            for one in (*self._alarms, *self._proofs):
                one.see(above_new, of_new, above_old, of_old, now)
        self.old.add(old, now)
        self.new.add(new, now)

    def until(self, log_e: float, old_per_new: float, now: float, *, anew: bool = False) -> float:
        """About how many more attempts on the new version the proofs need if it is as fast as the old one.

        `anew`: how many they need from the beginning, whatever was seen.
        """
        if not self.old.total:
            return inf
        needed, known = 0.0, self._known()
        for one in self._proofs:
            test = Exceedance.proof() if anew else one.test
            at = self._proof_edge(one.part, known, self.old.worth(now))
            each = Counts(self.old.above(at.new) / self.old.total, 1, at.part * old_per_new, old_per_new)
            gains = [one.guard.trust * factor for factor in test.factors(each, at.part)]
            needed = max(needed, test.mixture.until(log_e, gains))
        return needed

    def _edges_for(self, now: float) -> Cuts:
        """Take the edges anew if they are old, or if much more is known of the old version by now."""
        worth = self.old.worth(now)
        if self._cuts is None or now >= self._taken + EVERY or worth >= 2 * self._worth:
            self._taken, self._worth = now, worth
            known = self._known()
            for one in self._alarms:
                one.at = self._alarm_edge(one.part, known, worth)
            for one in self._proofs:
                one.at = self._proof_edge(one.part, known, worth)
            both = (*self._alarms, *self._proofs)
            self._cuts = Cuts([edge for one in both for edge in (one.at.old, one.at.new)])
        return self._cuts

    def _alarm_edge(self, part: float, known: Sequence[float], worth: float) -> Edge:
        return self._edge(self.old.percentile(part), self._margin, known, worth)

    def _proof_edge(self, part: float, known: Sequence[float], worth: float) -> Edge:
        """The edge below: so much at least is above it that a version which has less can be told from it."""
        return self._edge(self.old.below(part), self._proof_margin, known, worth)

    def _edge(self, edge: float, margin: Margin, known: Sequence[float], worth: float) -> Edge:
        above = self.old.above(edge) / self.old.total
        return Edge(edge, (above * worth + 0.5) / (worth + 1), slower(edge, margin.latency, known))

    def _known(self) -> list[float]:
        return sorted({*self.old.edges(), *self.new.edges()})
