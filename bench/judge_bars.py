"""The bars of the acceptance table of the statistics: how often something may happen, how soon it must.

A bar on how often something happens is *met* if it happened no more often than that in as many runs as the bar was
made for, or in so many that the rate is below it with 95 % confidence. It is *MISSED* if it happened more often, and
chance does not give that once in a thousand times with a rate at the bar. Between these there are *too few runs*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, lgamma, log, log1p

from judge_runs import Cell, Outcome

Results = Mapping[str, Sequence[Outcome]]
"""By cell: what each of its runs gave."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one bar says, what was seen, and ``met``, ``MISSED``, ``too few runs`` or nothing (only printed)."""

    bar: str
    seen: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Row:
    """`find` says what the results of `cells` are worth."""

    name: str
    what: str
    cells: Sequence[Cell]
    find: Callable[[Results], Sequence[Finding]]
    least: int = 20
    """At least so many runs of each cell."""
    sure: int = 0
    """In so many runs of each of its long cells its bars can be shown to be kept."""


# How often


def upper(count: int, runs: int) -> float:
    """The rate that is not exceeded, with 95 % confidence."""
    low, high = 0.0, 1.0
    for _ in range(40):
        rate = (low + high) / 2
        low, high = (low, rate) if _at_most(count, runs, rate) < 0.05 else (rate, high)
    return high


def sure(most: float) -> int:
    """So many runs show with 95 % confidence that a rate is at most this, if what must be rare does not happen."""
    return ceil(log(0.05) / log1p(-most))


def _at_most(count: int, runs: int, rate: float) -> float:
    if rate in (0, 1):
        return 1.0 if rate == 0 or count >= runs else 0.0
    ways = lgamma(runs + 1)
    logs = (
        ways - lgamma(k + 1) - lgamma(runs - k + 1) + k * log(rate) + (runs - k) * log1p(-rate)
        for k in range(count + 1)
    )
    return sum(map(exp, logs))


def rarely(name: str, count: int, runs: int, most: float, full: int) -> Finding:
    """That something happens in at most `most` of the runs."""
    limit = upper(count, runs)
    seen = f"{count} of {runs:,} ({count / runs:.2%}; at most {limit:.2%} with 95 % confidence)"
    if count <= most * runs:
        verdict = "met" if runs >= full or limit <= most else "too few runs"
    else:
        verdict = "too few runs" if runs < full and 1 - _at_most(count - 1, runs, most) >= 1e-3 else "MISSED"
    return Finding(f"{name}: ≤ {most:.2%}", seen, verdict)


def alarms(results: Sequence[Outcome], at: int = 0) -> int:
    """How many of the runs gave a time."""
    return sum(run[at] < inf for run in results)


def each(most: float, full: int) -> Callable[[Results], Sequence[Finding]]:
    """At most so many alarms in each cell."""

    def find(results: Results) -> Sequence[Finding]:
        return [rarely(name, alarms(runs), len(runs), most, full) for name, runs in results.items()]

    return find


# How soon


def quantile(times: Sequence[float], part: float) -> float:
    """The one of `times` that this part of them does not exceed."""
    ordered = sorted(times)
    return ordered[ceil(part * (len(ordered) - 1))] if part > 0.5 else ordered[int(part * (len(ordered) - 1))]


def shown(seconds: float) -> str:
    """In whole seconds, or never."""
    return "never" if seconds == inf else f"{seconds:,.0f}"


def in_time(
    bars: Mapping[str, tuple[float, float | None, float]], delay: float = 0.0
) -> Callable[[Results], Sequence[Finding]]:
    """By cell: the median's and the 95th percentile's bar in seconds, and how many must be found."""

    def find(results: Results) -> Sequence[Finding]:
        return [soon(name, results[name], *bar, delay) for name, bar in bars.items()]

    return find


def soon(name: str, runs: Sequence[Outcome], middle: float, late: float | None, part: float, delay: float) -> Finding:
    """That the median and the 95th percentile of the times, less `delay`, are within their bars."""
    times = [run[0] - delay for run in runs]
    median, p95, found = quantile(times, 0.5), quantile(times, 0.95), alarms(runs) / len(runs)
    attempts = quantile([run[1] for run in runs], 0.5) if len(runs[0]) > 1 else inf
    early = sum(time <= 0 for time in times)
    ok = median <= middle and (late is None or p95 <= late) and found >= part and not early
    asked = f"≤ {middle:g}" + ("" if late is None else f" / {late:g}") + f" s, {part:.0%} found"
    seen = f"{shown(median)} / {shown(p95)} s, {found:.1%} found" + (
        f" ({attempts:,.0f} attempts)" if attempts < inf else ""
    )
    return Finding(
        f"{name}: {asked}", seen + (f", {early} before it began" if early else ""), "met" if ok else "MISSED"
    )
