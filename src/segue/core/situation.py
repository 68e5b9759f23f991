"""What advice is made from: the change, what it meets, and what each strategy costs here.

What is not known is None, and said to be so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from segue.core.quantities import count, rate

SMALL_FILES, SMALL_LINES = 5, 50
LARGE_FILES, LARGE_LINES = 25, 500
"""Of what runs: tests, documentation and lock files are not counted."""
BUSY = 0.8
"""The part of the processors that is in use, from which on a second set of instances is felt by those who serve."""
LONG = 10.0
"""Seconds that a request is open on average, from which on connections count as long-lived."""


class Size(StrEnum):
    """How large a change is."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Change:
    """What differs from the version that serves. `since`: the commit that it was made from.

    `files` and `lines` of what runs; `others`: files of tests and documentation. `migrations` and `dependencies`:
    the files that change the shape of the data, or what others wrote.
    """

    since: str
    files: int = 0
    lines: int = 0
    migrations: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    others: int = 0

    @property
    def size(self) -> Size:
        """How large it is by what can be counted."""
        if self.files > LARGE_FILES or self.lines > LARGE_LINES:
            return Size.LARGE
        return Size.SMALL if self.files <= SMALL_FILES and self.lines <= SMALL_LINES else Size.MEDIUM


@dataclass(frozen=True, slots=True)
class Room:
    """How many instances more there is memory for. None: not known. `free` and `each` are bytes."""

    instances: int | None = None
    free: int | None = None
    each: int | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What the change meets. `serving`: instances that serve now; 0: nothing does; None: not known.

    `most`: instances that there may be at a time, None: no limit. `busy`: the part of the processors that is in use.
    `rate`: requests a second, `open` how many are under way; None: not known. `long_lived`: connections stay open
    for long. `expands` and `contracts`: there is a hook before, and one after. `validate` and `experiment`: it is to
    be shown that the new version is no worse, or by a goal which one is better.
    """

    serving: int | None
    replicas: int
    room: Room = Room()
    most: int | None = None
    busy: float | None = None
    rate: float | None = None
    open: int | None = None
    long_lived: bool = False
    expands: bool = False
    contracts: bool = False
    validate: bool = False
    experiment: bool = False

    @property
    def lasting(self) -> bool:
        """Whether connections stay open for long: it is said, or a request is open for longer than `LONG`."""
        measured = self.open is not None and self.rate is not None and self.open > LONG * self.rate and self.open > 1
        return self.long_lived or measured


@dataclass(frozen=True, slots=True)
class Way:
    """What a strategy costs here. `problem`: why it cannot be gone at all.

    `peak` instances at most, `extra` more than usual, `minutes` of them during the rollout and `kept` afterwards;
    `seconds` until it is decided. `verdict`: whether its judgements can come to one, None: not known;
    `from_rate`: requests a second that each of its proofs needs.
    """

    strategy: str
    problem: str | None = None
    peak: int = 0
    extra: int = 0
    minutes: float = 0.0
    kept: float = 0.0
    seconds: float = 0.0
    verdict: bool | None = None
    from_rate: float | None = None

    def obstacle(self, situation: Situation) -> str | None:
        """Why the strategy cannot be gone there; None: it can."""
        if self.problem is not None:
            return self.problem
        if situation.most is not None and self.peak > situation.most:
            return f"it needs {self.peak} instances at a time, and there may be {situation.most}"
        room = situation.room.instances
        if room is not None and self.extra > room:
            return f"it needs {count(self.extra, 'instance')} more at a time, and there is memory for {room}"
        if self.strategy == "canary" and situation.validate and self.verdict is False and situation.rate is not None:
            return f"no verdict can come at {rate(situation.rate)} requests a second"
        return None
