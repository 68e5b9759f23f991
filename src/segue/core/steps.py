"""The steps of a plan. A step says an end, not a change, so that doing it twice is doing it once.

`Run` is the one step that is not a state; the engine journals its beginning and its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Any

from segue.core.release import Revision, Share


@dataclass(frozen=True, slots=True)
class Run:
    """A hook has run: `before`, `on_rollback` or `after`."""

    hook: str

    def __str__(self) -> str:
        return f"run the {self.hook} hook"


@dataclass(frozen=True, slots=True)
class Scale:
    """`version` has `count` ready instances, or, on the way down, none beyond `count`."""

    version: Revision
    count: int

    def __str__(self) -> str:
        return f"{self.version}: {self.count} instance{'' if self.count == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Check:
    """Every instance of `version` has passed its checks."""

    version: Revision

    def __str__(self) -> str:
        return f"check {self.version}"


@dataclass(frozen=True, slots=True)
class Shift:
    """The traffic is split so. Shares are positive and sum to one, or there are none: nobody is served."""

    shares: tuple[tuple[Revision, Share], ...]

    @classmethod
    def to(cls, shares: Mapping[Revision, Share]) -> Shift:
        """The shift to `shares`; a share of nothing is left out. Raises ValueError."""
        if any(share < 0 for share in shares.values()):
            raise ValueError("a share cannot be negative")
        positive = {version: share for version, share in shares.items() if share}
        if positive and sum(positive.values()) != 1:
            raise ValueError(f"shares must sum to one, not {sum(positive.values())}")
        return cls(tuple(sorted(positive.items())))

    def __str__(self) -> str:
        return "traffic: " + (", ".join(f"{v} {percent(s)}" for v, s in self.shares) or "to nobody")


class Gate(StrEnum):
    """Which margins a proof must keep: the wide ones of a canary's first step, or those of the later ones."""

    FIRST = "first"
    THEN = "then"


@dataclass(frozen=True, slots=True)
class Silence:
    """No alarm for `length`, whether there is traffic or not."""

    length: timedelta

    def __str__(self) -> str:
        return f"for {_time(self.length)}"


@dataclass(frozen=True, slots=True)
class Proof:
    """The new version is shown to be within the margins of `gate`: not before `least`, not after `most`."""

    least: timedelta
    most: timedelta
    gate: Gate

    def __str__(self) -> str:
        shortest = "" if self.least == self.most else f"{_time(self.least)} to "
        return f"for {shortest}{_time(self.most)}, until it is proven"


@dataclass(frozen=True, slots=True)
class Judge:
    """The evidence has said what is waited for, and raised no alarm."""

    until: Silence | Proof

    def __str__(self) -> str:
        return f"judge {self.until}"


@dataclass(frozen=True, slots=True)
class Hold:
    """A person has said to go on."""

    reason: str

    def __str__(self) -> str:
        return f"hold: {self.reason}"


Step = Run | Scale | Check | Shift | Judge | Hold
Plan = tuple[Step, ...]


def _time(length: timedelta) -> str:
    """`length` as people write it: ``30 s``, ``10 min``."""
    seconds = length.total_seconds()
    return f"{seconds / 60:g} min" if seconds >= 60 and not seconds % 60 else f"{seconds:g} s"


def percent(share: Share) -> str:
    """`share` as people write it: ``25%``, ``33.3%``."""
    return f"{float(share * 100):.3g}%"


def decision(plan: Plan) -> int:
    """The number of steps after which a plan is decided: what follows is tidying up.

    A plan is decided after its last Shift and the judgement or hold that follows it; a plan without a
    Shift, and one after which nobody is served, at its end.
    """
    shifts = [i for i, step in enumerate(plan) if isinstance(step, Shift)]
    if not shifts or plan[shifts[-1]] == Shift(()):
        return len(plan)
    end = shifts[-1] + 1
    while end < len(plan) and isinstance(plan[end], Judge | Hold):
        end += 1
    return end


def encode(step: Step) -> dict[str, Any]:
    """`step` as JSON; `decode` reads it back."""
    match step:
        case Run(hook):
            return {"run": hook}
        case Scale(version, count):
            return {"scale": version, "count": count}
        case Check(version):
            return {"check": version}
        case Shift(shares):
            return {"shift": {version: str(share) for version, share in shares}}
        case Judge(until):
            if isinstance(until, Silence):
                return {"judge": until.length.total_seconds()}
            least, most = until.least.total_seconds(), until.most.total_seconds()
            return {"prove": until.gate.value, "least": least, "most": most}
        case Hold(reason):
            return {"hold": reason}


def decode(document: Mapping[str, Any]) -> Step:
    """The step that `encode` wrote as `document`."""
    match document:
        case {"run": hook}:
            return Run(hook)
        case {"scale": version, "count": count}:
            return Scale(Revision(version), count)
        case {"check": version}:
            return Check(Revision(version))
        case {"shift": shares}:
            return Shift.to({Revision(version): Fraction(share) for version, share in shares.items()})
        case {"judge": seconds}:
            return Judge(Silence(timedelta(seconds=seconds)))
        case {"prove": gate, "least": least, "most": most}:
            return Judge(Proof(timedelta(seconds=least), timedelta(seconds=most), Gate(gate)))
        case {"hold": reason}:
            return Hold(reason)
    raise ValueError(f"not a step: {document}")
