"""Simulated traffic for the judge's benchmark: what the router would have counted, second by second.

The standard library only, and exact: Poisson arrivals, binomial failures, answers' times drawn bucket by bucket
from the buckets that Envoy has (90 a decade, 1–10 % wide). The old version's times are log-normal with a p50 of
50 ms and a p99 of 256 ms.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from random import Random
from statistics import NormalDist

from segue.core.traffic import Sample

SIGMA, MEDIAN = 0.7, 50_000.0
EDGES = [float(mantissa * 10**power) for power in range(2, 6) for mantissa in range(10, 100)] + [1e7]
"""Of Envoy's buckets, in microseconds: from 1 ms to 10 s."""
OCTAVES = [1000 * 2 ** (i / 8) for i in range(113)]
"""Buckets of 9.05 %, eight an octave, from 1 ms to 16 s: those that the table's bars on latency were made with."""
_NORMAL = NormalDist()
_FEW = 1500


def poisson(rng: Random, mean: float) -> int:
    """W. Hörmann's PTRS (1993); below ten, the product of uniform numbers."""
    if mean < 10:
        limit, product, count = math.exp(-mean), rng.random(), 0
        while product > limit:
            product *= rng.random()
            count += 1
        return count
    root = math.sqrt(mean)
    b = 0.931 + 2.53 * root
    a = -0.059 + 0.02483 * b
    while True:
        u, v = rng.random() - 0.5, rng.random()
        us = 0.5 - abs(u)
        if us == 0:
            continue
        k = math.floor((2 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= 0.9277 - 3.6224 / (b - 2):
            return k
        if k < 0 or v == 0 or (us < 0.013 and v > us):
            continue
        scaled = math.log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / (us * us) + b))
        if scaled <= -mean + k * math.log(mean) - math.lgamma(k + 1):
            return k


def binomial(rng: Random, n: int, p: float) -> int:
    """W. Hörmann's BTRS (1993); with few expected, from one success to the next."""
    if p <= 0 or n <= 0:
        return 0
    if p > 0.5:
        return n - binomial(rng, n, 1 - p) if p < 1 else n
    if n * p < 10:
        return _binomial_few(rng, n, p)
    root = math.sqrt(n * p * (1 - p))
    b = 1.15 + 2.53 * root
    a = -0.0873 + 0.0248 * b + 0.01 * p
    while True:
        u = rng.random() - 0.5
        us = 0.5 - abs(u)
        k = math.floor((2 * a / us + b) * u + n * p + 0.5) if us else -1
        if k < 0 or k > n:
            continue
        v = rng.random()
        if us >= 0.07 and v <= 0.92 - 4.2 / b:
            return k
        v *= (2.83 + 5.1 / b) * root / (a / (us * us) + b)
        m = math.floor((n + 1) * p)
        ways = math.lgamma(m + 1) + math.lgamma(n - m + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        if v == 0 or math.log(v) <= ways + (k - m) * math.log(p / (1 - p)):
            return k


def _binomial_few(rng: Random, n: int, p: float) -> int:
    log_q, count, at = math.log1p(-p), 0, 0
    while True:
        at += math.floor(math.log(1 - rng.random()) / log_q) + 1
        if at > n:
            return count
        count += 1


def bunched(rng: Random, n: int, p: float, size: float) -> int:
    """Failures that come in bunches of `size` in the mean (geometric), all on one version."""
    bunches = poisson(rng, n * p / size)
    log_q = math.log1p(-1 / size) if size > 1 else -math.inf
    return min(n, sum(1 + math.floor(math.log(1 - rng.random()) / log_q) for _ in range(bunches)))


class Shape:
    """How long answers take, as chances of Envoy's buckets."""

    def __init__(self, edges: Sequence[float], at_most: Callable[[float], float]) -> None:
        sums = [at_most(edge) for edge in edges]
        chances = [b - a for a, b in zip([0.0, *sums], sums, strict=False)]
        kept = [(edge, chance) for edge, chance in zip(edges, chances, strict=True) if chance > 1e-12]
        self.edges = [edge for edge, _ in kept]
        self._sums = list(accumulate(chance for _, chance in kept))
        left = [self._sums[-1] - below for below in [0.0, *self._sums[:-1]]]
        self._steps = [(edge, min(1.0, chance / rest)) for (edge, chance), rest in zip(kept, left, strict=True)]

    def draw(self, rng: Random, n: int) -> dict[float, int]:
        """The histogram of `n` answers."""
        if n < _FEW:
            return Counter(rng.choices(self.edges, cum_weights=self._sums, k=n))
        drawn = {}
        for edge, chance in self._steps:
            count = binomial(rng, n, chance)
            if count:
                drawn[edge] = count
                n -= count
        return drawn

    def percentile(self, part: float) -> float:
        """The edge at or below which this part of the answers is."""
        return self.edges[bisect_left(self._sums, part * self._sums[-1])]


def _usual(edge: float) -> float:
    return _NORMAL.cdf(math.log(edge / MEDIAN) / SIGMA) if edge > 0 else 0.0


@cache
def shape(name: str, factor: float = 1.0, octaves: bool = False) -> Shape:
    """``all``: everything takes `factor` times as long. ``tail``: the slowest 5 % do. ``mean``: they do, and the
    others are faster, so that the mean is as before. ``pause``: everything takes 250 ms longer."""
    return Shape(OCTAVES if octaves else EDGES, _at_most(name, factor))


def _at_most(name: str, factor: float) -> Callable[[float], float]:
    tail = 0.95
    if name == "all":
        return lambda x: _usual(x / factor)
    if name == "pause":
        return lambda x: _usual(x - 250_000)
    if name == "tail":
        return lambda x: max(min(_usual(x), tail), _usual(x / factor))
    mass = 1 - _NORMAL.cdf(_NORMAL.inv_cdf(tail) - SIGMA)  # of the mean, in the tail
    faster = (1 - mass * factor) / (1 - mass)
    return lambda x: min(_usual(x / faster), tail) + max(_usual(x / factor) - tail, 0.0)


@dataclass(frozen=True, slots=True)
class World:
    """Traffic on two versions. `new` and `old` are failure rates; `times` are the new version's, and there are
    none if it is empty, in buckets of `octaves` or Envoy's. `kind` is what befalls them; `bunch` how many failures
    have one cause."""

    rps: float
    share: float
    old: float
    new: float
    times: tuple[str, float] | None = None
    seconds: int = 600
    onset: int = 0
    kind: str = "steady"
    bunch: float = 1.0
    octaves: bool = False

    def aa(self) -> World:
        """The same with a new version that is as good as the old one."""
        return replace(self, new=self.old, times=self.times and ("all", 1.0))


@dataclass(frozen=True, slots=True)
class Second:
    """What is true in one second."""

    rps: float
    share: float
    old: float
    new: float
    old_times: Shape | None
    new_times: Shape | None


def conditions(world: World, rng: Random) -> Iterator[Second]:
    """What is true in each second of `world`."""
    usual = shape("all", 1.0, world.octaves) if world.times else None
    broken = shape(*world.times, world.octaves) if world.times else None
    now = Second(world.rps, world.share, world.old, world.old, usual, usual)
    trouble = 0
    for t in range(world.seconds):
        second = replace(now, new=world.new, new_times=broken) if t >= world.onset else now
        if world.kind == "bursts":
            trouble = max(trouble - 1, 0) or (1 + _geometric(rng, 4) if rng.random() < 1 / 45 else 0)
            second = _both(second, 0.2 if trouble else world.old, 5.0 if trouble else 1.0)
        elif world.kind == "gamma":
            second = _both(second, min(0.9, rng.gammavariate(0.5, world.old / 0.5)), 1.0)
        elif world.kind == "drift":
            wave = math.sin(2 * math.pi * t / world.seconds - math.pi / 2)
            slower = round(1 + 0.9 * math.sin(2 * math.pi * t / world.seconds) ** 2, 2)
            second = _both(second, world.old * (1 + 0.8 * wave), slower)
            share = 0.1 if t < 200 else 0.3 if t < 400 else 0.5
            second = replace(second, rps=world.rps * (1 + 0.5 * wave), share=share)
        elif world.kind == "step":
            late = t >= world.seconds // 2
            second = _both(second, world.old * (10 if late else 1), 3.0 if late else 1.0)
            second = replace(second, share=0.5 if late else 0.1)
        yield second


def _both(second: Second, rate: float, slower: float) -> Second:
    times = shape("all", slower) if second.old_times else None
    return replace(second, old=rate, new=rate, old_times=times, new_times=times)


def _geometric(rng: Random, mean: float) -> int:
    return 1 + math.floor(math.log(1 - rng.random()) / math.log1p(-1 / mean))


def samples(world: World, rng: Random) -> Iterator[tuple[Sample, Sample]]:
    """What came on the new and on the old version in each second."""
    if world.kind == "pauses":
        yield from _pauses(world, rng)
        return
    for second in conditions(world, rng):
        of_new = poisson(rng, second.rps * second.share)
        of_old = poisson(rng, second.rps * (1 - second.share))
        yield (
            _sample(rng, of_new, second.new, second.new_times, world.bunch),
            _sample(rng, of_old, second.old, second.old_times, world.bunch),
        )


def _sample(rng: Random, n: int, rate: float, times: Shape | None, bunch: float) -> Sample:
    failures = binomial(rng, n, rate) if bunch == 1 else bunched(rng, n, rate, bunch)
    return Sample(n, failures, times.draw(rng, n) if times else {})


def _pauses(world: World, rng: Random) -> Iterator[tuple[Sample, Sample]]:
    """Each of ten instances stands still for 0.2 s about every 20 s; one is the new version's."""
    usual, late = shape("all"), shape("pause")
    new = round(10 * world.share)
    for _ in range(world.seconds):
        pair = []
        for instances in (new, 10 - new):
            n = poisson(rng, world.rps / 10 * instances)
            paused = binomial(rng, instances, 1 / 20)
            waited = min(n, poisson(rng, paused * world.rps / 10 * 0.2))
            times = Counter(usual.draw(rng, n - waited)) + Counter(late.draw(rng, waited))
            pair.append(Sample(n, 0, times))
        yield pair[0], pair[1]


def history(world: World, rng: Random) -> Sample:
    """The old version's ten minutes before."""
    n = poisson(rng, world.rps * 600)
    times = shape("all", 1.0, world.octaves).draw(rng, n) if world.times else {}
    return Sample(n, binomial(rng, n, world.old), times)


def merged(one: Mapping[float, int], other: Mapping[float, int]) -> dict[float, int]:
    """Both histograms together."""
    return {edge: one.get(edge, 0) + other.get(edge, 0) for edge in {*one, *other}}
