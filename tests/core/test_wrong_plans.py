"""Wrong plans are refused, each for its reason; whatever the promises refuse, the product refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from promises import KEEP, V1, V2, Moment, arrived, beginning, moments, release, releases, unsafe, wrong_with

from segue.core import simulate, strategies
from segue.core.demand import Demand
from segue.core.release import BlueGreen, InPlace, Release, Return, Revision, Rolling
from segue.core.steps import Check, Plan, Scale, Shift, Step

V9 = Revision("v9.1")
ROLLING, KEPT = release(Rolling(), 3, 3), release(Rolling(keep=KEEP), 3, 3)
IN_PLACE, BLUE_GREEN, LAUNCH = release(InPlace(), 3, 3), release(BlueGreen(), 3, 3), release(BlueGreen(), 3, None)


def right(r: Release) -> Plan:
    return strategies.forward(r, simulate.begin(r))


def flaws(r: Release, plan: Sequence[Step]) -> list[str]:
    return simulate.flaws(r, simulate.begin(r), tuple(plan))


def without(plan: Plan, step: Step) -> Plan:
    return _at(plan, step, lambda place: plan[:place] + plan[place + 1 :])


def put_before(plan: Plan, step: Step, *more: Step) -> Plan:
    return _at(plan, step, lambda place: plan[:place] + more + plan[place:])


def swapped(plan: Plan, one: Step, other: Step) -> Plan:
    assert one in plan and other in plan
    exchange = {one: other, other: one}
    return tuple(exchange.get(step, step) for step in plan)


def _at(plan: Plan, step: Step, change: Callable[[int], Plan]) -> Plan:
    assert step in plan, f"the right plan has no step `{step}`"
    return change(plan.index(step))


def shift(v1: str, v2: str) -> Shift:
    return Shift.to({V1: Fraction(v1), V2: Fraction(v2)})


ALL_NEW = shift("0", "1")

WRONG: dict[str, tuple[Release, Plan, str]] = {
    "users before instances": (
        ROLLING,
        swapped(right(ROLLING), Scale(V2, 1), shift("2/3", "1/3")),
        "step 1: v2.1 is given 1/3 with 0 of 1 instances",
    ),
    "the old version is stopped before the traffic leaves it": (
        ROLLING,
        swapped(right(ROLLING), shift("1/3", "2/3"), Scale(V1, 1)),
        "v1.1 is given 2/3 with 1 of 2 instances",
    ),
    "more instances than the surge allows": (
        ROLLING,
        put_before(right(ROLLING), Scale(V2, 1), Scale(V2, 2)),
        "step 1: 5 instances where there is room for 4",
    ),
    "more instances than in place allows": (
        IN_PLACE,
        put_before(right(IN_PLACE), Scale(V1, 2), Scale(V2, 1)),
        "4 instances where there is room for 3",
    ),
    "the last shift is missing": (
        ROLLING,
        without(right(ROLLING), ALL_NEW),
        "the plan does not end with all of the traffic on v2.1",
    ),
    "a batch is never started": (
        ROLLING,
        without(right(ROLLING), Scale(V2, 2)),
        "v2.1 is given 2/3 with 1 of 2 instances",
    ),
    "the first shift gives everything to a version without instances": (
        BLUE_GREEN,
        (ALL_NEW, *right(BLUE_GREEN)),
        "step 1: v2.1 is given 1 with 0 of 3 instances",
    ),
    "the old version is stopped first": (
        BLUE_GREEN,
        (Scale(V1, 0), *right(BLUE_GREEN)),
        "step 1: v1.1 is given 1 with 0 of 3 instances",
    ),
    "nobody is served for a moment": (
        BLUE_GREEN,
        put_before(right(BLUE_GREEN), ALL_NEW, Shift.to({})),
        "step 3: nobody is served",
    ),
    "it ends below strength": (
        ROLLING,
        (*right(ROLLING), Scale(V2, 2)),
        "v2.1 is given 1 with 2 of 3 instances",
    ),
    "it ends with more than was asked for": (
        ROLLING,
        (*right(ROLLING), Scale(V2, 4)),
        "the plan ends with 4 of 3 instances of v2.1",
    ),
    "the old version is left behind": (
        ROLLING,
        right(ROLLING)[:-1],
        "the plan ends with 1 of 0 instances of v1.1",
    ),
    "the old version is not kept whole": (
        KEPT,
        (*right(KEPT), Scale(V1, 2)),
        "the plan ends with 2 of 3 instances of v1.1",
    ),
    "nothing happens": (ROLLING, (), "the plan does not end with all of the traffic on v2.1"),
    "it goes the wrong way": (
        ROLLING,
        (*right(ROLLING), Scale(V1, 3), shift("1", "0")),
        "the plan does not end with all of the traffic on v2.1",
    ),
    "users are sent to a stranger": (
        BLUE_GREEN,
        put_before(right(BLUE_GREEN), ALL_NEW, Shift.to({V9: Fraction(1)})),
        "v9.1 is given 1, but has no part in this rollout",
    ),
    "a stranger is left running": (
        BLUE_GREEN,
        (*right(BLUE_GREEN), Scale(V9, 1)),
        "the plan ends with 1 of 0 instances of v9.1",
    ),
    "a batch too much is taken out in place": (
        IN_PLACE,
        put_before(right(IN_PLACE), Scale(V2, 1), Scale(V1, 1)),
        "v1.1 is given 1 with 1 of 2 instances",
    ),
    "a launch lets users in too early": (
        LAUNCH,
        swapped(right(LAUNCH), Scale(V2, 3), ALL_NEW),
        "v2.1 is given 1 with 0 of 3 instances",
    ),
    "a launch with too few": (
        LAUNCH,
        (Scale(V2, 2), Check(V2), ALL_NEW),
        "v2.1 is given 1 with 2 of 3 instances",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_plan_is_refused_for_its_reason(name: str) -> None:
    r, plan, reason = WRONG[name]
    assert flaws(r, right(r)) == []
    assert any(reason in flaw for flaw in flaws(r, plan)), flaws(r, plan)


def _all_at_once(r: Release, at: Demand) -> Plan:
    assert r.old is not None
    return (Scale(V1, r.old.size), Shift.to({V1: Fraction(1)}), Scale(V2, 0))


def _forgetful(r: Release, at: Demand) -> Plan:
    return _all_at_once(r, at)[:-1]


def _hasty(r: Release, at: Demand) -> Plan:
    return _all_at_once(r, at)[1:]


@pytest.mark.parametrize(
    ("way_back", "reason"),
    [
        (_all_at_once, "back from step 8: 5 instances where there is room for 4"),
        (_hasty, "back from step 5: v1.1 is given 1 with 2 of 3 instances"),
        (_forgetful, "back from step 1: it does not end with v1.1 alone at strength"),
    ],
)
def test_a_plan_whose_way_back_is_wrong_is_refused(
    monkeypatch: pytest.MonkeyPatch, way_back: Callable[[Release, Demand], Plan], reason: str
) -> None:
    monkeypatch.setattr(strategies, "steps_back", way_back)
    r = release(Rolling(), 3, 3)
    assert reason in flaws(r, right(r))


def test_a_way_back_of_a_launch_that_leaves_something_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "steps_back", lambda r, at: (Shift.to({}),))
    assert "back from step 1: something is left of a first launch" in flaws(LAUNCH, right(LAUNCH))


def test_a_start_that_is_already_wrong_is_refused() -> None:
    start = Moment({V1: 2}, {V1: Fraction(1)}).demand(ROLLING)
    found = simulate.flaws(ROLLING, start, right(ROLLING))
    assert found[0] == "step 0: v1.1 is given 1 with 2 of 3 instances"


def test_a_start_that_allows_for_less_strength_than_the_strategy_is_refused() -> None:
    start = replace(simulate.begin(ROLLING), slack=Fraction(1, 3))
    [flaw] = simulate.flaws(ROLLING, start, right(ROLLING))
    assert flaw == "the start does without 1/3 of the strength, the strategy only without 0"


def mutants(plan: Plan) -> Iterator[Plan]:
    """The plan with any one step left out, and with any two neighbours exchanged."""
    for place in range(len(plan)):
        yield plan[:place] + plan[place + 1 :]
    for place, (one, other) in enumerate(pairwise(plan)):
        yield (*plan[:place], other, one, *plan[place + 2 :])


def broken(r: Release, plan: Plan) -> bool:
    """Whether the promises are broken on the way there or at its end."""
    start = beginning(r)
    return bool(unsafe(r, start, plan)) or not arrived(r, list(moments(start, plan))[-1])


def test_every_small_plan_that_was_damaged_is_refused_if_and_only_if_it_breaks_a_promise() -> None:
    harmful = harmless = 0
    for r in releases(3):
        for mutant in mutants(right(r)):
            if broken(r, mutant):
                harmful += 1
                assert flaws(r, mutant), (r, mutant)
            elif not wrong_with(r, beginning(r), mutant):
                harmless += 1
                assert not flaws(r, mutant), (r, mutant)
    print(f"{harmful} harmful and {harmless} harmless mutants")
    assert harmful > 500 and harmless > 500


@given(st.data(), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_a_larger_plan_that_was_damaged_twice_is_refused_if_it_breaks_a_promise(
    data: st.DataObject, new: int, old: int, batch: int, returning: bool
) -> None:
    how = Rolling(batch=batch, surge=data.draw(st.integers(1, 12)))
    r = release(Return(how) if returning else how, new, old)
    once = data.draw(st.sampled_from(list(mutants(right(r)))))
    twice = data.draw(st.sampled_from(list(mutants(once))))
    assert bool(flaws(r, twice)) >= broken(r, twice)
