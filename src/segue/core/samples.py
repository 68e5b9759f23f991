"""Samples as numbers: what came between two of them, and both together."""

from __future__ import annotations

from segue.core.traffic import Sample


def since(now: Sample, start: Sample) -> Sample:
    """What was counted between two looks at cumulative counters.

    Where a counter went back the router has restarted: all that it counts now was counted since. A reset is
    seen only if the counts are still below those of `start`, so take short spans and `plus` them. Of a path that was
    not told apart at the start it is not known what came since.
    """
    if went_back(now, start):
        return now
    return Sample(
        attempts=now.attempts - start.attempts,
        failures=now.failures - start.failures,
        latency_us={
            edge: count - start.latency_us.get(edge, 0)
            for edge, count in now.latency_us.items()
            if count > start.latency_us.get(edge, 0)
        },
        parts={path: since(part, start.parts[path]) for path, part in now.parts.items() if path in start.parts},
    )


def plus(one: Sample, other: Sample) -> Sample:
    """Both samples together."""
    edges = sorted({*one.latency_us, *other.latency_us})
    return Sample(
        attempts=one.attempts + other.attempts,
        failures=one.failures + other.failures,
        latency_us={edge: one.latency_us.get(edge, 0) + other.latency_us.get(edge, 0) for edge in edges},
        parts={
            path: plus(one.parts.get(path, Sample()), other.parts.get(path, Sample()))
            for path in sorted({*one.parts, *other.parts})
        },
    )


def went_back(now: Sample, start: Sample) -> bool:
    """Whether a counter is below what it was: the router has begun anew."""
    edges = start.latency_us.items()
    return (
        now.attempts < start.attempts
        or now.failures < start.failures
        or any(now.latency_us.get(edge, 0) < count for edge, count in edges)
    )


def percentile(sample: Sample, part: float) -> float | None:
    """The time in µs within which `part` of the answers began: the upper edge of a bucket. None: none did."""
    edges = sorted((float(edge), count) for edge, count in sample.latency_us.items() if count)
    total, seen = sum(count for _, count in edges), 0
    for edge, count in edges:
        seen += count
        if seen >= part * total:
            return edge
    return None
