"""Histograms as the router gives them: upper edge of a bucket in microseconds → attempts, only buckets that have any.

The router's buckets are log-linear and 1–10 % wide. "Above an edge" means in a bucket whose upper edge is higher.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import exp

WIDEST = 1.1
"""A bucket's upper edge is at most this many times its lower one."""
_FAR = 64.0

Histogram = Mapping[float, int]


class Fading:
    """Counts of the last minute or so: older ones weigh less, by e for every `memory` seconds."""

    __slots__ = ("_counts", "_memory", "_since", "total")

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._since = 0.0
        self._counts: dict[float, float] = {}
        self.total = 0.0
        """Of the counts, in a unit that grows with time: compare it with other counts of this object only."""

    def add(self, histogram: Histogram, now: float, weight: float = 1.0) -> None:
        """So many were counted `now` seconds after the start."""
        if now - self._since > _FAR * self._memory:
            self._fade(now)
        weight *= exp((now - self._since) / self._memory)  # what is newer weighs more: nothing else need change
        counts = self._counts
        for edge, count in histogram.items():
            if count:
                counts[edge] = counts.get(edge, 0.0) + weight * count
        self.total += weight * sum(histogram.values())

    def worth(self, now: float) -> float:
        """How many attempts of this moment all of it is worth."""
        return self.total * exp(-(now - self._since) / self._memory)

    def edges(self) -> list[float]:
        """Every edge seen so far."""
        return sorted(self._counts)

    def percentile(self, part: float) -> float:
        """The lowest edge at or below which this part of the attempts is. There must have been one."""
        edges, sums = self._sums()
        return edges[min(bisect_left(sums, part * sums[-1]), len(edges) - 1)]

    def below(self, part: float) -> float:
        """The lower edge of the bucket that this percentile is in: at least the rest of the attempts is above it."""
        edges, sums = self._sums()
        i = min(bisect_right(sums, part * sums[-1]), len(edges) - 1)
        return max(edges[i - 1] if i else 0.0, edges[i] / WIDEST)

    def above(self, cut: float) -> float:
        """How much of `total` is above `cut`."""
        return sum(count for edge, count in self._counts.items() if edge > cut)

    def _sums(self) -> tuple[list[float], list[float]]:
        edges = self.edges()
        return edges, list(accumulate(self._counts[edge] for edge in edges))

    def _fade(self, now: float) -> None:
        factor = exp(-(now - self._since) / self._memory)
        self._counts = {edge: count * factor for edge, count in self._counts.items()}
        self.total = sum(self._counts.values())
        self._since = now


class Cuts:
    """Counts how many attempts are above each of some edges, in one pass."""

    __slots__ = ("_edges",)

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = sorted(set(edges))

    def above(self, histogram: Histogram) -> dict[float, int]:
        """By edge: how many attempts are above it."""
        edges = self._edges
        between = [0] * (len(edges) + 1)
        for edge, count in histogram.items():
            between[bisect_left(edges, edge)] += count
        return dict(zip(edges, _from_the_end(between), strict=True))


def slower(edge: float, margin: float, known: Sequence[float]) -> float:
    """The edge above which an attempt is more than `margin` slower than one at `edge`.

    That is the first edge at or above edge × (1 + margin). Buckets that have been empty so far are not `known`
    (ascending): where none is known that close, whatever ends beyond the widest bucket began after it.
    """
    wanted = edge * (1 + margin)
    i = bisect_left(known, wanted)
    if i < len(known) and known[i] <= wanted * WIDEST:
        return known[i]
    return wanted * WIDEST


def _from_the_end(between: Sequence[int]) -> Iterator[int]:
    sums = list(accumulate(reversed(between[1:])))
    return reversed(sums)
