"""The strategies. Each says what should happen and does nothing: it waits for nothing and knows no time.

Rule 1: a version is given a share only after the Scale that covers it, and loses instances only after the
Shift that takes the share away.
Rule 2: no plan, and no way back from any point of it, has more instances than `Release.room`.
`segue.core.simulate` checks both for every plan before anything is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from itertools import chain, islice, repeat

from segue.core.demand import Demand
from segue.core.release import (
    ALL,
    BlueGreen,
    Canary,
    Experiment,
    InPlace,
    Release,
    Return,
    Revision,
    Rolling,
    Side,
    Strategy,
)
from segue.core.steps import Check, Gate, Hold, Judge, Plan, Proof, Run, Scale, Shift, Silence, Step, percent


def forward(r: Release, at: Demand) -> Plan:
    """The whole way to the new version, from the demand `at`."""
    return tuple(_forward(r, at))


def _forward(r: Release, at: Demand) -> Iterator[Step]:
    if r.old is None:
        yield from launch(r)
        return
    match r.strategy:
        case Rolling() as options:
            yield from rolling(r, r.old, options, at)
        case InPlace() as options:
            yield from in_place(r, r.old, options, at)
        case BlueGreen() as options:
            yield from blue_green(r, r.old, options)
        case Canary() as options:
            yield from canary(r, r.old, options)
        case Experiment() as options:
            yield from experiment(r, r.old, options)
        case Return():
            yield from _return(r, r.old, at)


def launch(r: Release) -> Iterator[Step]:
    """Start a service that nobody serves yet."""
    yield from _prepare(r)
    yield from _start(r.new, r.new.size)
    yield Shift.to({r.new.revision: ALL})


def rolling(r: Release, old: Side, options: Rolling, at: Demand) -> Iterator[Step]:
    """Replace the old instances a batch at a time."""
    yield from _prepare(r)
    if options.keep:
        yield from _join(old, r.new, options.batch, _judges(options))
    else:
        yield from _roll(old, r.new, options.batch, options.surge, at, _judges(options))


def in_place(r: Release, old: Side, options: InPlace, at: Demand) -> Iterator[Step]:
    """Replace the old instances a batch at a time without any more room."""
    yield from _prepare(r)
    yield from _roll(old, r.new, options.batch, 0, at, _judges(options))


def blue_green(r: Release, old: Side, options: BlueGreen) -> Iterator[Step]:
    """Bring the new version to full strength beside the old one, then switch everybody at once."""
    yield from _prepare(r)
    yield from _start(r.new, r.new.size)
    if options.approve == "manual":
        yield Hold(f"approve the switch to {r.new.revision}")
    yield Shift.to({r.new.revision: ALL})
    yield from _judge(options.judge)
    if not options.keep:
        yield Scale(old.revision, 0)


def canary(r: Release, old: Side, options: Canary) -> Iterator[Step]:
    """Give the new version a growing share of the traffic; the old one stays able to carry all of it."""
    yield from _prepare(r)
    ladder, there, gate = _ladder(options), 0, Gate.FIRST
    for share in ladder[:-1]:
        count = r.new.carrying(share) if options.capacity == "proportional" else r.new.size
        if count > there:
            yield from _start(r.new, count)
        yield _split(old, r.new, share)
        rest = share not in options.steps and there  # it was proven before, with more to compare with
        yield Judge(Silence(options.least) if rest else Proof(options.least, options.most, gate))
        there, gate = count, Gate.THEN
        if options.approve == "manual" and share in options.steps:
            yield Hold(f"approve more than {percent(share)} for {r.new.revision}")
    if r.new.size > there:
        yield from _start(r.new, r.new.size)
    yield Shift.to({r.new.revision: ALL})
    if not options.keep:
        yield Scale(old.revision, 0)


def experiment(r: Release, old: Side, options: Experiment) -> Iterator[Step]:
    """Give the new version a fixed share of the users until a person says which version is better."""
    yield from _prepare(r)
    there = r.new.carrying(options.share)
    yield from _start(r.new, there)
    yield _split(old, r.new, options.share)
    yield Hold(f"is {r.new.revision} better than {old.revision}? `segue experiment` says what is known")
    if r.new.size > there:
        yield from _start(r.new, r.new.size)
    yield Shift.to({r.new.revision: ALL})
    if not options.keep:
        yield Scale(old.revision, 0)


def _ladder(options: Canary) -> tuple[Fraction, ...]:
    """The shares in turn. The last but one leaves the old version the holdback, if that is less than it has."""
    *steps, last = options.steps
    held_back = last - options.holdback
    rests = options.holdback and held_back > max(steps, default=Fraction(0))
    return (*steps, held_back, last) if rests else options.steps


def back(r: Release, at: Demand) -> Plan:
    """The way back to the old version from anywhere, in no more room than the way there was given."""
    return tuple(steps_back(r, at))


def steps_back(r: Release, at: Demand) -> Iterator[Step]:
    """As `back`, one step after the other."""
    new = r.new.revision
    if r.old is None:
        yield Shift.to({})
        yield Scale(new, 0)
    elif at.count(r.old.revision) >= r.old.size or r.room >= r.old.size + at.count(new):
        yield Scale(r.old.revision, r.old.size)
        yield Shift.to({r.old.revision: ALL})
        yield Scale(new, 0)
    else:
        batch, surge = _pace(r.strategy)
        yield from _roll(r.new, r.old, batch, surge, at)
    if r.on_rollback:
        yield Run("on_rollback")


def retire(version: Revision, *, after: bool = False) -> Plan:
    """The end of keep: the old version's instances are stopped; then its `after` hook may run."""
    return (Scale(version, 0), *([Run("after")] if after else []))


def adjust(version: Revision, count: int, kept: Revision | None = None) -> Plan:
    """More or fewer instances of the version that serves, and of the `kept` one, so that going back is one switch."""
    return (Scale(version, count), *([Scale(kept, count)] if kept else []))


def adjusted(plan: Plan, start: Demand) -> Plan:
    """The way back of `adjust`: as many as there were."""
    return tuple(Scale(step.version, start.count(step.version)) for step in plan if isinstance(step, Scale))


def down(at: Demand) -> Plan:
    """Nobody is served any more, then nothing runs."""
    return (Shift.to({}), *(Scale(version, 0) for version in at.counts))


def up(start: Demand) -> Plan:
    """The way back of `down`: what was there at its start is there again, then it serves."""
    return (*(Scale(version, count) for version, count in start.counts.items()), Shift.to(start.shares))


def _prepare(r: Release) -> Iterator[Step]:
    if r.before:
        yield Run("before")


def _start(side: Side, count: int) -> Iterator[Step]:
    yield Scale(side.revision, count)
    yield Check(side.revision)


def _return(r: Release, old: Side, at: Demand) -> Iterator[Step]:
    if at.count(r.new.revision) >= r.new.size or r.room >= old.size + r.new.size:
        yield Scale(r.new.revision, r.new.size)
        yield Shift.to({r.new.revision: ALL})
        yield Scale(old.revision, 0)
    else:
        batch, surge = _pace(r.strategy)
        yield from _roll(old, r.new, batch, surge, at)


def _pace(strategy: Strategy) -> tuple[int, int]:
    match strategy:
        case Return(how=how):
            return _pace(how)
        case Rolling(batch=batch, surge=surge):
            return batch, surge
        case InPlace(batch=batch):
            return batch, 0
        case BlueGreen() | Canary() | Experiment():
            return 1, 1


def _judges(options: Rolling | InPlace) -> Iterator[Step]:
    """One judgement after the other: the first batch is looked at for longer."""
    return chain(_judge(options.first_judge), repeat(Judge(Silence(options.judge))))


def _judge(length: timedelta) -> Iterator[Step]:
    yield Judge(Silence(length))


def _split(out: Side, into: Side, taken: Fraction) -> Step:
    return Shift.to({out.revision: 1 - taken, into.revision: taken})


def _join(out: Side, into: Side, batch: int, judges: Iterator[Step]) -> Iterator[Step]:
    """Let `into` take over a batch at a time while every instance of `out` stays."""
    there = 0
    while there < into.size:
        there = min(there + batch, into.size)
        yield from _start(into, there)
        yield _split(out, into, Fraction(there, into.size))
        yield from islice(judges, 1)


def _roll(
    out: Side, into: Side, batch: int, surge: int, at: Demand, judges: Iterator[Step] | None = None
) -> Iterator[Step]:
    """Replace `out` by `into`, a batch at a time, from wherever `at` is.

    `judges` gives the judgement after each batch; without it, on a way back, nothing is checked or judged.
    """
    n, there, left = into.size, min(at.count(into.revision), into.size), at.count(out.revision)
    carries = out.carrying(at.share(out.revision))
    if left > carries and left + there > max(n, out.size):  # what carries nothing makes room first
        yield Scale(out.revision, carries)
    if surge and at.share(into.revision) < Fraction(there, n):  # what is there already takes its share
        yield from _take(out, into, there)
    while there < n:
        size = min(batch, surge or batch, n - there)
        if not surge:  # in place: a batch leaves, changes, returns
            stays = n - size - there
            yield _split(out, into, Fraction(there, there + stays))
            yield Scale(out.revision, out.carrying(Fraction(stays, n)))
        there += size
        yield Scale(into.revision, there)
        if judges is not None:
            yield Check(into.revision)
        yield from _take(out, into, there, judges)


def _take(out: Side, into: Side, there: int, judges: Iterator[Step] | None = None) -> Iterator[Step]:
    """`into` takes the share that its `there` instances cover; what `out` no longer needs is stopped."""
    taken = Fraction(there, into.size)
    yield _split(out, into, taken)
    yield from islice(judges or (), 1)
    yield Scale(out.revision, out.carrying(1 - taken))
