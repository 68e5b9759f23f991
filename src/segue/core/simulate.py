"""Plans played on paper: safety is a property of plans, checked before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from segue.core import strategies
from segue.core.demand import Demand
from segue.core.release import ALL, Release, Revision, Share, Side
from segue.core.steps import Plan, Step


@dataclass(frozen=True, slots=True)
class Played:
    """The demand after `step`, the `number`-th of its plan (0: before the first)."""

    number: int
    step: Step | None
    demand: Demand

    @property
    def instances(self) -> int:
        """How many instances there may be while and after the step is made true."""
        return sum(self.demand.counts.values())


Waypoint = tuple[tuple[tuple[Revision, int], ...], tuple[tuple[Revision, Share], ...], Step]


def waypoint(demand: Demand, step: Step) -> Waypoint:
    """Where a way back stands, and what it does next. Where these are the same, all that follows is the same."""
    return tuple(demand.counts.items()), tuple(demand.shares.items()), step


def play(start: Demand, plan: Plan) -> Iterator[Played]:
    """The demand at the start and after each step."""
    yield Played(0, None, start)
    demand = start
    for number, step in enumerate(plan, 1):
        demand = demand.after(step)
        yield Played(number, step, demand)


def begin(r: Release) -> Demand:
    """The demand that `r` starts from when the old version serves alone at full strength."""
    sizes = {side.revision: side.size for side in (r.new, r.old) if side}
    if r.old is None:
        return Demand(sizes=sizes)
    return Demand({r.old.revision: r.old.size}, {r.old.revision: ALL}, sizes, r.slack)


def flaws(r: Release, start: Demand, plan: Plan) -> list[str]:
    """Everything that is wrong with `plan`, and with the way back from each of its points; empty: it is safe."""
    found = [f"step {played.number}: {flaw}" for played in play(start, plan) for flaw in _flaws(r, played)]
    if start.slack > r.slack:
        found.append(f"the start does without {start.slack} of the strength, the strategy only without {r.slack}")
    found += _unfinished(r, list(play(start, plan))[-1].demand)
    safe: set[Waypoint] = set()
    for played in play(start, plan):
        found += (f"back from step {played.number}: {flaw}" for flaw in _way_back(r, played.demand, safe))
    return found


def _unfinished(r: Release, end: Demand) -> Iterator[str]:
    """What is wrong with where the plan ends: the new version alone at strength, the old one gone or kept whole."""
    if dict(end.shares) != {r.new.revision: ALL}:
        yield f"the plan does not end with all of the traffic on {r.new.revision}"
    expected = {r.new.revision: r.new.size}
    if r.old is not None:
        expected[r.old.revision] = r.old.size if r.strategy.keep else 0
    for version in sorted({*end.counts, *expected}):
        if end.count(version) != expected.get(version, 0):
            yield f"the plan ends with {end.count(version)} of {expected.get(version, 0)} instances of {version}"


def _way_back(r: Release, at: Demand, safe: set[Waypoint]) -> list[str]:
    """What is wrong with the way back from `at`, as far as it does not join one that was found safe."""
    found, passed, end = list(_flaws(r, Played(0, None, at))), [], at
    for step in strategies.steps_back(r, at):
        here = waypoint(end, step)
        if here in safe:
            break
        passed.append(here)
        end = end.after(step)
        found += _flaws(r, Played(len(passed), step, end))
    else:
        found += _lacking(r, end)
    if not found:
        safe.update(passed)
    return found


def _lacking(r: Release, end: Demand) -> Iterator[str]:
    """What is wrong with where a way back ends."""
    if r.old is None:
        if end.counts or end.shares:
            yield "something is left of a first launch"
    elif not _alone(end, r.old) or end.count(r.new.revision):
        yield f"it does not end with {r.old.revision} alone at strength"


def _flaws(r: Release, played: Played) -> Iterator[str]:
    demand = played.demand
    if played.instances > r.room:
        yield f"{played.instances} instances where there is room for {r.room}"
    for version, share in demand.shares.items():
        if version not in demand.sizes:
            yield f"{version} is given {share}, but has no part in this rollout"
            continue
        needed = demand.needed(version)
        if demand.count(version) < needed:
            yield f"{version} is given {share} with {demand.count(version)} of {needed} instances"
    if r.old is not None and not demand.shares:
        yield "nobody is served"


def _alone(demand: Demand, side: Side) -> bool:
    serves: dict[Revision, object] = {side.revision: ALL}
    return dict(demand.shares) == serves and demand.count(side.revision) == side.size


def peak(start: Demand, plan: Plan) -> int:
    """The most instances at any point of `plan`."""
    return max(played.instances for played in play(start, plan))
