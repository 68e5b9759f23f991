"""The promises that a plan keeps, written down once more and apart from the product's own check.

Nothing here uses `segue.core.simulate`, `Demand.after` or `Release.room`: only the steps are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from itertools import product

from segue.core import strategies
from segue.core.demand import Demand
from segue.core.release import (
    BlueGreen,
    Canary,
    Experiment,
    Goal,
    How,
    InPlace,
    Release,
    Return,
    Revision,
    Rolling,
    Side,
)
from segue.core.steps import Scale, Shift, Step

V1, V2 = Revision("v1.1"), Revision("v2.1")
KEEP = timedelta(minutes=10)


@dataclass(frozen=True)
class Moment:
    """What may be true at some time: instances by version, and shares."""

    counts: Mapping[Revision, int] = field(default_factory=dict)
    shares: Mapping[Revision, Fraction] = field(default_factory=dict)

    def demand(self, r: Release) -> Demand:
        """The same as a demand."""
        sizes = {side.revision: side.size for side in (r.new, r.old) if side}
        return Demand(self.counts, self.shares, sizes, 1 - strength(r))


def release(strategy: How | Return, new: int, old: int | None, **options: bool) -> Release:
    """A release from `old` instances of v1 (None: a first launch) to `new` ones of v2."""
    return Release(Side(V2, new), None if old is None else Side(V1, old), strategy, **options)


def beginning(r: Release) -> Moment:
    """The old version serves alone at full strength; or nothing is there."""
    return Moment({V1: r.old.size}, {V1: Fraction(1)}) if r.old else Moment()


def moments(start: Moment, plan: Sequence[Step]) -> Iterator[Moment]:
    """The start, and what is true after each step."""
    counts, shares = dict(start.counts), dict(start.shares)
    yield Moment(dict(counts), dict(shares))
    for step in plan:
        if isinstance(step, Scale):
            counts[step.version] = step.count
        if isinstance(step, Shift):
            shares = dict(step.shares)
        yield Moment(dict(counts), dict(shares))


def given_room(r: Release) -> int:
    """How many instances the user allows at the same time: what the words of the strategies say."""
    if r.old is None:
        return r.new.size
    match r.strategy.how if isinstance(r.strategy, Return) else r.strategy:
        case Rolling(surge=surge, keep=keep) if not keep:
            return max(r.new.size, r.old.size) + surge
        case InPlace():
            return r.old.size
    return r.new.size + r.old.size


def strength(r: Release) -> Fraction:
    """The part of a version's instances that its share needs: all, or in place all but a batch."""
    how = r.strategy.how if isinstance(r.strategy, Return) else r.strategy
    if isinstance(how, InPlace) and r.old is not None:
        return Fraction(r.old.size - how.batch, r.old.size)
    return Fraction(1)


def uncovered(r: Release, moment: Moment) -> list[str]:
    """Promise 3: the versions that are given more than their instances cover, and whether anybody is served."""
    sizes = {side.revision: side.size for side in (r.new, r.old) if side}
    wrong = [
        f"{version} is given {share} with {moment.counts.get(version, 0)} instances"
        for version, share in moment.shares.items()
        if moment.counts.get(version, 0) < share * sizes[version] * strength(r) or not moment.counts.get(version)
    ]
    if r.old is not None and sum(moment.shares.values()) != 1:
        wrong.append("not everybody is served")
    return wrong


def unsafe(r: Release, start: Moment, plan: Sequence[Step]) -> list[str]:
    """What is wrong at any moment of `plan`, while its steps are made true as well as after them."""
    wrong = []
    played = list(moments(start, plan))
    for number, moment in enumerate(played):
        wrong += [f"step {number}: {what}" for what in uncovered(r, moment)]
        before = played[max(0, number - 1)]
        most = {v: max(before.counts.get(v, 0), moment.counts.get(v, 0)) for v in (V1, V2)}
        if sum(most.values()) > given_room(r):
            wrong.append(f"step {number}: {sum(most.values())} instances, room for {given_room(r)}")
    return wrong


def arrived(r: Release, end: Moment) -> bool:
    """Whether the new version serves alone at strength, and the old one is gone unless it is kept."""
    alone = end.shares == {V2: 1} and end.counts.get(V2, 0) == r.new.size
    kept = r.old.size if r.old and r.strategy.keep else 0
    return alone and end.counts.get(V1, 0) == kept


def returned(r: Release, end: Moment) -> bool:
    """Whether the old version serves alone at strength and the new one is gone."""
    if r.old is None:
        return not end.shares and not any(end.counts.values())
    return end.shares == {V1: 1} and end.counts.get(V1, 0) == r.old.size and not end.counts.get(V2, 0)


def ways(new: int, old: int) -> Iterator[How]:
    """Every strategy that can go from `old` to `new` instances."""
    for batch in range(1, new + 1):
        for surge in range(1, max(new, old) + 1):
            yield Rolling(batch=batch, surge=surge)
        yield Rolling(batch=batch, keep=KEEP)
        if new == old and batch < new:
            yield InPlace(batch=batch)
    yield BlueGreen(keep=KEEP)
    yield BlueGreen(keep=timedelta(0))
    yield BlueGreen(approve="manual")
    yield Canary()
    yield Canary(capacity="full", approve="manual")
    yield Canary(steps=(Fraction(1, 3), Fraction(1)), holdback=Fraction(0), keep=timedelta(0))
    yield Experiment(Goal("/thanks"))
    yield Experiment(Goal("/thanks"), share=Fraction(1, 10), keep=timedelta(0))


def releases(largest: int) -> Iterator[Release]:
    """Every release with at most `largest` instances on each side, there and as a return."""
    for new, old in product(range(1, largest + 1), repeat=2):
        for how in ways(new, old):
            yield release(how, new, old)
            yield release(Return(how), new, old)


def wrong_with(r: Release, start: Moment, plan: Sequence[Step]) -> list[str]:
    """All that is wrong with `plan` and with every way back from it; by these promises alone."""
    played = list(moments(start, plan))
    wrong = unsafe(r, start, plan)
    if not arrived(r, played[-1]):
        wrong.append("it does not end with the new version alone")
    for number, moment in enumerate(played):
        way = strategies.back(r, moment.demand(r))
        wrong += [f"back from {number}: {what}" for what in unsafe(r, moment, way)]
        if not returned(r, list(moments(moment, way))[-1]):
            wrong.append(f"back from {number}: it does not end with the old version alone")
    return wrong
