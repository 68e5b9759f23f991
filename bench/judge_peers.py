"""How others would have decided, from the counts of each minute. The rules are read from their source.

Argo Rollouts (`analysis/analysis.go`): a measurement a minute, success at 99 %; failed once more than `limit`
measurements failed. Flagger (`scheduler.go`): a check a minute, 99 %, rolled back at the tick after the
`threshold`-th failed one. Kayenta (`MannWhitney.scala`, `NetflixACAJudge.scala`): the 98 % confidence interval of
the Hodges–Lehmann shift of all minutes so far, by normal approximation with continuity correction; High if its
lower end is above a quarter of the shift and the mean is not lower. Repeated looks are not corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf, sqrt
from statistics import NormalDist, fmean, median

from judge_traffic import merged

from segue.core.traffic import Sample

_Z = NormalDist().inv_cdf(1 - 0.02 / 2)
SLOWEST = 500_000.0
"""The p99 that Argo's and Flagger's users ask for, in microseconds."""


@dataclass(frozen=True, slots=True)
class Minute:
    """What came in one minute."""

    new: Sample
    old: Sample


Rule = Callable[[Sequence[Minute]], float]
"""The minute at whose end it alarms; infinite if it does not."""


def together(samples: Sequence[Sample]) -> Sample:
    """All of them as one."""
    times: dict[float, int] = {}
    for sample in samples:
        if sample.latency_us:
            times = merged(times, sample.latency_us)
    return Sample(sum(s.attempts for s in samples), sum(s.failures for s in samples), times)


def p99(sample: Sample) -> float:
    """Zero if nothing was answered."""
    seen, total = 0, sum(sample.latency_us.values())
    for edge, count in sorted(sample.latency_us.items()):
        seen += count
        if seen >= 0.99 * total:
            return edge
    return 0.0


def _failed(minute: Minute) -> bool:
    return minute.new.attempts > 0 and minute.new.failures > 0.01 * minute.new.attempts


def _slow(minute: Minute) -> bool:
    return p99(minute.new) > SLOWEST


def argo(limit: int, bad: Callable[[Minute], bool]) -> Rule:
    """Fails once more than `limit` minutes were bad."""

    def rule(taken: Sequence[Minute]) -> float:
        fails = [i for i, minute in enumerate(taken, start=1) if bad(minute)]
        return fails[limit] if len(fails) > limit else inf

    return rule


def flagger(bad: Callable[[Minute], bool]) -> Rule:
    """Five bad minutes, or without a request; then the next tick."""

    def rule(taken: Sequence[Minute]) -> float:
        fails = [i for i, minute in enumerate(taken, start=1) if bad(minute) or not minute.new.attempts]
        return fails[4] + 1 if len(fails) > 4 and fails[4] < len(taken) else inf

    return rule


def kayenta(value: Callable[[Sample], float], first: int, every: int) -> Rule:
    """Looks at all minutes so far, from the `first` on."""

    def rule(taken: Sequence[Minute]) -> float:
        new, old = [value(minute.new) for minute in taken], [value(minute.old) for minute in taken]
        looks = range(first, len(taken) + 1, every)
        return next((float(m) for m in looks if _high(new[:m], old[:m])), inf)

    return rule


def _high(new: Sequence[float], old: Sequence[float]) -> bool:
    shifts = sorted(x - y for x in new for y in old)
    n, m = len(new), len(old)
    at = ceil(n * m / 2 + 0.5 + _Z * sqrt(n * m * (n + m + 1) / 12))
    low = shifts[n * m - at] if at <= n * m else shifts[0]
    return low > 0.25 * abs(median(shifts)) and fmean(new) >= fmean(old)


def _rate(sample: Sample) -> float:
    return sample.failures / sample.attempts if sample.attempts else 0.0


ERRORS: dict[str, Rule] = {
    "Argo limit 1": argo(1, _failed),
    "Argo limit 3": argo(3, _failed),
    "Flagger 5": flagger(_failed),
    "Kayenta a minute": kayenta(_rate, 5, 1),
    "Kayenta 10 min": kayenta(_rate, 10, 10),
}
TIMES: dict[str, Rule] = {
    "Argo limit 1": argo(1, _slow),
    "Argo limit 3": argo(3, _slow),
    "Flagger 5": flagger(_slow),
    "Kayenta a minute": kayenta(p99, 5, 1),
    "Kayenta 10 min": kayenta(p99, 10, 10),
}
