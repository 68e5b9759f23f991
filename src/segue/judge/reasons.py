"""Sentences about numbers, as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import exp, floor, log10

from segue.core.quantities import duration
from segue.judge.settings import Margin

_MOST = 1_000_000


def tried(failures: float, attempts: float, name: str) -> str:
    """``37 of 3,102 attempts on v2 failed``."""
    return f"{count(failures)} of {count(attempts)} attempts on {name} failed"


def told(failures: float, attempts: float, name: str) -> str:
    """``37 of 3,102 attempts on v2 failed (1.19 %)``."""
    return f"{tried(failures, attempts, name)} ({percent(failures, attempts)})"


def shortly(failures: float, attempts: float, name: str) -> str:
    """``3 of 2,987 on v1 (0.10 %)``."""
    return f"{count(failures)} of {count(attempts)} on {name} ({percent(failures, attempts)})"


def slower(part: float, slow: float, usual: float, new: str, old: str) -> str:
    """``p99 412 ms on v2, 201 ms on v1 in the last minute``."""
    return f"p{part * 100:g} {milliseconds(slow)} on {new}, {milliseconds(usual)} on {old} in the last minute"


def chance(log_e: float) -> str:
    """What evidence means: ``chance makes such a difference in fewer than one of 200 rollouts``."""
    number = min(exp(min(log_e, 20.0)), _MOST)
    digit = 10 ** floor(log10(number))
    return f"chance makes such a difference in fewer than one of {floor(number / digit) * digit:,} rollouts"


def kept(margin: Margin) -> str:
    """What a proof has shown."""
    often = f"{margin.ratio:g} times as often" if margin.ratio != 1 else "as often"
    more = f" + {margin.errors * 100:g} points" if margin.errors else ""
    return f"shown to fail at most {often}{more}, and to be at most {margin.latency * 100:g} % slower"


def needs(requests: int | None, seconds: float | None) -> str:
    """What is missing for a verdict."""
    if requests is None:
        return "not enough evidence, and at this rate none comes"
    more = f"not enough evidence yet, a verdict needs about {count(requests)} more"
    return more if seconds is None else f"{more}, {duration(seconds)} at this traffic"


def count(number: float) -> str:
    """``3,102``."""
    return f"{int(number):,}"


def percent(failures: float, attempts: float) -> str:
    """``1.19 %``."""
    return f"{failures / attempts * 100 if attempts else 0.0:.2f} %"


def share(of_traffic: float | Fraction) -> str:
    """``10 %``, ``33.3 %``: a share of the traffic within a sentence."""
    return f"{float(of_traffic) * 100:.3g} %"


def path(name: str) -> str:
    """``/checkout``; all that have no name are ``the other paths``."""
    return name or "the other paths"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; empty: there are none."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def milliseconds(microseconds: float) -> str:
    """``412 ms``, with three digits if it is short."""
    ms = microseconds / 1000
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.3g} ms"
