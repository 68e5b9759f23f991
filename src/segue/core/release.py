"""A release: the version to go from, the version to go to, and what may be used on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Literal, NewType

Revision = NewType("Revision", str)
"""A version as it was started once: its name and a number, such as ``v1.2``. Unique within a service."""

Share = Fraction
"""A fraction of a service's traffic, exact."""

MOST = 10_000
"""Instances that a service may have."""

ALL = Fraction(1)
NOTHING = Fraction(0)

Approval = Literal["auto", "manual"]
"""Whether it goes on by itself, or waits for a person."""


def revision(name: str, number: int) -> Revision:
    """The revision in which the version `name` is started for the `number`-th time, counted from 1."""
    return Revision(f"{name}.{number}")


def version_of(rev: Revision) -> str:
    """The name of the version that `rev` is a revision of."""
    return rev.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Side:
    """One version in a release and the number of instances that carry all of the traffic."""

    revision: Revision
    size: int

    def carrying(self, share: Share) -> int:
        """How many instances cover `share` of the traffic."""
        return ceil(share * self.size)


@dataclass(frozen=True, slots=True)
class Rolling:
    """Replace the old instances a batch at a time, with up to `surge` more of them than usual.

    With `keep` the old instances are not stopped on the way but kept warm, so that going back is one
    switch; that takes the room of both versions.
    """

    batch: int = 1
    surge: int = 1
    first_judge: timedelta = timedelta(seconds=30)
    judge: timedelta = timedelta(seconds=5)
    keep: timedelta = timedelta(0)
    name: Literal["rolling"] = "rolling"


@dataclass(frozen=True, slots=True)
class InPlace:
    """Replace the old instances a batch at a time without any more room: a batch leaves, changes, returns."""

    batch: int = 1
    first_judge: timedelta = timedelta(seconds=30)
    judge: timedelta = timedelta(seconds=5)
    name: Literal["in_place"] = "in_place"

    @property
    def keep(self) -> timedelta:
        """Nothing is kept: there is no room for it."""
        return timedelta(0)


@dataclass(frozen=True, slots=True)
class BlueGreen:
    """Run both versions at full strength side by side and switch all of the traffic at once.

    `preview`: where the new version can be looked at before the switch, ``host:port``. `approve`: whether
    the switch waits for a person.
    """

    judge: timedelta = timedelta(seconds=60)
    keep: timedelta = timedelta(minutes=10)
    preview: str | None = None
    approve: Approval = "auto"
    name: Literal["blue_green"] = "blue_green"


@dataclass(frozen=True, slots=True)
class Canary:
    """Give the new version a growing share of the traffic for as long as the evidence allows.

    `steps`: the ladder, growing, up to all. Each step is judged until it is proven good, at least `least` and at
    most `most`. Before the old version gets nothing it keeps `holdback` for one more judgement, so that there is
    something to compare with. `approve`: whether a person is asked before each further step. `sticky`: by what
    a user is known who is to stay on one version: ``none``, ``cookie`` or ``header:NAME``. `capacity`: whether
    the new version has the instances for its share alone, or for all of the traffic from the start.
    """

    steps: tuple[Share, ...] = (Fraction(1, 10), Fraction(3, 10), ALL)
    least: timedelta = timedelta(seconds=30)
    most: timedelta = timedelta(minutes=30)
    holdback: Share = Fraction(1, 20)
    approve: Approval = "auto"
    sticky: str = "none"
    capacity: Literal["proportional", "full"] = "proportional"
    keep: timedelta = timedelta(minutes=10)
    name: Literal["canary"] = "canary"

    def __post_init__(self) -> None:
        """Raise ValueError where the ladder is none."""
        rising = all(low < high for low, high in pairwise((NOTHING, *self.steps)))
        if not self.steps or self.steps[-1] != ALL or not rising:
            raise ValueError("the steps of a canary must grow, from above 0% up to 100%")
        if not NOTHING <= self.holdback < ALL:
            raise ValueError("the holdback must be at least 0% and less than 100%")
        if self.least > self.most:
            raise ValueError("a canary's judge: least must not be longer than most")


@dataclass(frozen=True, slots=True)
class Who:
    """Those users who send one of the values `among` in the header `header`."""

    header: str
    among: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a user is to reach: an answer for this `path`, with this `status` (from and to), with this `header`.

    What is not named does not matter, but that a refusal (400 and more) is no goal unless `status` says so.
    """

    path: str | None = None
    status: tuple[int, int] | None = None
    header: str | None = None

    def __str__(self) -> str:
        """``/thanks``, ``/thanks with status 201``, ``an answer with the header X-Order``."""
        low, high = self.status or (0, 0)
        status = f"status {low}" + (f"-{high}" if high > low else "") if self.status else ""
        header = f"the header {self.header}" if self.header else ""
        return " with ".join(
            (self.path or "an answer", *filter(None, [" and ".join(filter(None, (status, header)))]))
        )

    def reached(self, path: str, status: int, *, shown: bool) -> bool:
        """Whether an answer for `path` is one; `shown`: it has the header."""
        low, high = self.status or (100, 399)
        here = self.path is None or path.rstrip("/") == self.path.rstrip("/")
        return here and low <= status <= high and (self.header is None or shown)


@dataclass(frozen=True, slots=True)
class Experiment:
    """Give the new version a fixed share of the users until a person says which version is better.

    `who`: who takes part, None: everybody; the others stay with the old version. `sticky`: by what a user is known,
    ``cookie`` or ``header:NAME``. `goal`: what users of the better version reach more often. After `most` without a
    word the old version is gone back to.
    """

    goal: Goal
    share: Share = Fraction(1, 2)
    sticky: str = "cookie"
    who: Who | None = None
    most: timedelta = timedelta(days=14)
    keep: timedelta = timedelta(minutes=10)
    name: Literal["experiment"] = "experiment"

    def __post_init__(self) -> None:
        """Raise ValueError where there is nothing to compare."""
        if not NOTHING < self.share < ALL:
            raise ValueError("the share of an experiment must be above 0% and below 100%")


How = Rolling | InPlace | BlueGreen | Canary | Experiment
"""How a new version may come."""


def later(how: How) -> How:
    """How a restart, and a way back long after, go where a version came by `how`: an experiment is done with."""
    return Rolling() if isinstance(how, Experiment) else how


@dataclass(frozen=True, slots=True)
class Return:
    """Bring back, without judging, a version that has served before; `how` it is brought back."""

    how: How
    name: Literal["return"] = "return"

    @property
    def keep(self) -> timedelta:
        """The version that is left is not kept: somebody chose to leave it."""
        return timedelta(0)


Strategy = How | Return


@dataclass(frozen=True, slots=True)
class Release:
    """One way from `old` (None: a first launch) to `new` by `strategy`.

    `before` says whether a hook runs before anything else, `on_rollback` whether one runs on the way back.
    """

    new: Side
    old: Side | None
    strategy: Strategy
    before: bool = False
    on_rollback: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError where the strategy cannot go this way."""
        for name, number in self._numbers():
            if number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        if self.old is None or not isinstance(self._how, InPlace):
            return
        if self.new.size != self.old.size:
            raise ValueError(
                f"in_place keeps the number of instances ({self.old.size}), but {self.new.size} are asked for: "
                "scale before or after"
            )
        if self._how.batch >= self.new.size:
            raise ValueError(f"in_place needs more than {self._how.batch} instances to take a batch out")

    def _numbers(self) -> Iterator[tuple[str, int]]:
        """What the strategies count with: nothing of it may be nothing."""
        yield from ((f"the size of {side.revision}", side.size) for side in (self.new, self.old) if side)
        if isinstance(self._how, Rolling | InPlace):
            yield "batch", self._how.batch
        if isinstance(self._how, Rolling):
            yield "surge", self._how.surge

    @property
    def _how(self) -> How:
        return self.strategy.how if isinstance(self.strategy, Return) else self.strategy

    @property
    def room(self) -> int:
        """The most instances that may run at the same time, in either direction."""
        if self.old is None:
            return self.new.size
        return _room(self._how, self.new.size, self.old.size)

    @property
    def slack(self) -> Fraction:
        """The part of a version's strength that the strategy may do without for a while."""
        if isinstance(self._how, InPlace) and self.old is not None:
            return Fraction(self._how.batch, self.new.size)
        return NOTHING


def _room(strategy: How, new: int, old: int) -> int:
    match strategy:
        case Rolling(keep=keep, surge=surge):
            return new + old if keep else max(new, old) + surge
        case InPlace():
            return max(new, old)
        case BlueGreen() | Canary() | Experiment():
            return new + old
