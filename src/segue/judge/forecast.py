"""What a judgement will be able to say, before it begins: how many attempts a proof takes, how soon harm is seen.

The tests are those of a rollout, fed with what they are expected to count: their evidence grows by the same amount
in every stratum, so the number of strata is what is missing divided by that. An alarm's evidence grows by at most
`CAP` a stratum, however bad the version is. It is the middle of what happens, not a bound: half of the time it takes
longer. What earlier steps have seen, and dispersion, are left out.

Where fewer than `SOME` requests are known of the old version, it is taken to fail none and to answer as most
services do: log-normally, a hundredth of its answers five times as late as the middle one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, inf, isfinite, log, log1p, sqrt
from statistics import NormalDist

from segue.core.traffic import Sample
from segue.judge import bound
from segue.judge.errors import Counts, Ratio
from segue.judge.gathering import FOR_BOUNDS
from segue.judge.histogram import Fading, Histogram, slower
from segue.judge.latency import FIXED_MIX, MEMORY, PERCENTILES, Exceedance, Latency
from segue.judge.mixture import CAP, LATE, Mixture, log_sum
from segue.judge.settings import Gate, Settings
from segue.judge.strata import STRATUM

SOME = 200
"""Requests from which on it counts what the old version did."""
LEAST_RATE, MOST_RATE = 1e-4, 1e6
"""Requests a second that are thought of: what is not seen at the most of them is never seen."""


@dataclass(frozen=True, slots=True)
class Harm:
    """A way in which a version may be worse: so much `more` of its requests fail, or it takes `times` as long."""

    name: str
    more: float = 0.0
    times: float = 1.0

    def failing(self, usual: float) -> float:
        """The part that fails where `usual` is the old version's."""
        return min(1.0, usual + self.more)


HARMS = (
    Harm("half fail", more=0.5),
    Harm("5 points more fail", more=0.05),
    Harm("1 point more fail", more=0.01),
    Harm("twice as slow", times=2.0),
)


class Forecast:
    """What can be said of a new version beside an old one that did `usual`, at a rate in requests a second."""

    def __init__(self, settings: Settings, usual: Sample) -> None:
        self._settings = settings
        self.known = usual.attempts >= SOME
        self._sample = usual if self.known else Sample()
        timed = sum(self._sample.latency_us.values()) >= SOME
        self._times = self._sample.latency_us if timed else _typical()
        self._parts: dict[float, list[tuple[float, float]]] = {}
        self._failing = self._sample.failures / self._sample.attempts if self.known else 0.0
        self._threshold = -log(settings.false_alarm) - log1p(-FOR_BOUNDS) + log(2)  # each is half of the evidence

    def proof(self, gate: Gate, share: float) -> int | None:
        """About how many attempts at `share` show a version as good as the old one to be so; None: they never do."""
        enough, margin, each = -log(self._settings.doubt), self._settings.margin(gate), (1 - share) / share
        errors = Ratio.proof(margin).until(enough, self._failing, each, 1.0)
        latency = Latency(self._settings.alarm, margin, self._times).until(enough, each, 0.0, anew=True)
        needed = max(errors, latency)
        return ceil(needed) if isfinite(needed) else None

    def alarm(self, harm: Harm, share: float, rate: float) -> float:
        """About how many seconds it takes to see `harm` at `share`; infinite: it is not seen."""
        if rate <= 0:
            return inf
        if share >= 1:
            return self._alone(harm, rate)
        return min(self._more_failures(harm, share, rate), self._slower(harm, share, rate))

    def least_rate(self, harm: Harm, share: float, within: float) -> float | None:
        """From how many requests a second on `harm` is seen `within` so many seconds; None: at no rate."""
        low, high = LEAST_RATE, MOST_RATE
        if self.alarm(harm, share, high) > within:
            return None
        for _ in range(14):
            middle = sqrt(low * high)
            low, high = (low, middle) if self.alarm(harm, share, middle) <= within else (middle, high)
        return high

    def _alone(self, harm: Harm, rate: float) -> float:
        """Without an old version beside it a version is held against a bound, and its times against nothing."""
        sample, doubt = self._sample, self._settings.false_alarm * FOR_BOUNDS / 2
        highest = bound.bound(sample.failures, sample.attempts, doubt)
        seconds = max(1.0, 1 / rate)
        came = rate * seconds
        gains = bound.factors(came * harm.failing(self._failing), came, highest)
        return seconds * _strata(gains, self._threshold)

    def _more_failures(self, harm: Harm, share: float, rate: float) -> float:
        seconds = _stratum(rate)
        new, old, test = rate * share * seconds, rate * (1 - share) * seconds, Ratio.alarm(self._settings.alarm)
        each = Counts(new * harm.failing(self._failing), new, old * self._failing, old)
        return seconds * _strata(test.factors(each), self._threshold)

    def _slower(self, harm: Harm, share: float, rate: float) -> float:
        if harm.times <= 1:
            return inf
        seconds, enough = _stratum(rate), self._threshold + log(len(PERCENTILES))
        new, old = rate * share * seconds, rate * (1 - share) * seconds
        shrunk, found = max(0.0, 1 - FIXED_MIX / (new + old)), inf
        for usual, above in self._above(harm.times):
            factors = Exceedance.alarm().factors(Counts(new * above, new, old * usual, old), usual)
            found = min(found, _strata([shrunk * factor for factor in factors], enough))
        return seconds * found

    def _above(self, times: float) -> Sequence[tuple[float, float]]:
        """By percentile: how much of the old version is above its edge, and of one that takes `times` as long."""
        if times not in self._parts:
            old, margin = Fading(MEMORY), self._settings.alarm.latency
            old.add(self._times, 0.0)
            edges, known = [old.percentile(part) for part in PERCENTILES], old.edges()
            beyond = [slower(edge, margin, known) / times for edge in edges]
            parts = [(old.above(edge), old.above(cut)) for edge, cut in zip(edges, beyond, strict=True)]
            self._parts[times] = [(usual / old.total, above / old.total) for usual, above in parts]
        return self._parts[times]


def _stratum(rate: float) -> float:
    """Seconds that a stratum lasts: as long as `strata.py` says."""
    return max(1.0, STRATUM / rate)


def _strata(gains: Sequence[float], log_e: float) -> float:
    """How many strata with these gains, one an alternative, bring the evidence of harm to `log_e`."""
    capped = [min(gain, CAP) for gain in gains]
    most = Mixture(len(capped)).until(log_e, capped)  # by the best alternative alone; together they are faster
    if not isfinite(most):
        return inf
    begin = log1p(-LATE) - log(len(capped))
    return bisect_left(range(ceil(most)), log_e, key=lambda number: begin + log_sum([number * g for g in capped]))


@cache
def _typical() -> Histogram:
    """100,000 answers of a service of which nothing is known, in buckets like the router's (90 a decade)."""
    spread, answers = NormalDist(mu=log(50_000), sigma=0.7), 100_000
    edges = [10 ** (i / 90) for i in range(90 * 3, 90 * 6)]
    below = [0, *(round(answers * spread.cdf(log(edge))) for edge in edges)]
    return {edge: below[i + 1] - below[i] for i, edge in enumerate(edges) if below[i + 1] > below[i]}
