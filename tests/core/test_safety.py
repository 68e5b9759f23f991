"""What holds for every plan and every way back: shown for all small sizes, and by samples of larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from promises import (
    KEEP,
    V1,
    V2,
    Moment,
    arrived,
    beginning,
    given_room,
    moments,
    release,
    releases,
    returned,
    uncovered,
    unsafe,
    ways,
    wrong_with,
)

from segue.core import simulate, strategies
from segue.core.release import BlueGreen, Canary, Experiment, Goal, How, InPlace, Release, Return, Rolling
from segue.core.steps import Check, Hold, Judge, Run, Scale, Shift, Step, decision

SMALL = 6
LARGE = 12


def way_there(r: Release, start: Moment | None = None) -> tuple[Step, ...]:
    return strategies.forward(r, (start or beginning(r)).demand(r))


def way_back(r: Release, at: Moment) -> tuple[Step, ...]:
    return strategies.back(r, at.demand(r))


@st.composite
def any_canary(draw: st.DrawFn) -> Canary:
    """Any ladder of up to four rungs below all, with any holdback."""
    rungs = draw(st.sets(st.fractions(Fraction(1, 1000), Fraction(999, 1000), max_denominator=1000), max_size=4))
    return Canary(
        steps=(*sorted(rungs), Fraction(1)),
        holdback=draw(st.fractions(0, Fraction(1, 2), max_denominator=100)),
        approve=draw(st.sampled_from(["auto", "manual"])),
        capacity=draw(st.sampled_from(["proportional", "full"])),
        keep=draw(st.sampled_from([KEEP, 0 * KEEP])),
    )


@st.composite
def any_release(draw: st.DrawFn) -> Release:
    """Any release of up to twelve instances on each side: there, as a return, or a first launch."""
    new, old = draw(st.integers(1, LARGE)), draw(st.integers(1, LARGE))
    kinds = ["rolling", "keep", "blue_green", "canary", "experiment", *(["in_place"] if new > 1 else [])]
    kind, batch, surge = draw(st.sampled_from(kinds)), draw(st.integers(1, LARGE)), draw(st.integers(1, LARGE))
    hows: dict[str, How] = {
        "rolling": Rolling(batch=batch, surge=surge),
        "keep": Rolling(batch=batch, surge=surge, keep=KEEP),
        "blue_green": BlueGreen(
            keep=draw(st.sampled_from([KEEP, 0 * KEEP])), approve=draw(st.sampled_from(["auto", "manual"]))
        ),
        "canary": draw(any_canary()),
        "experiment": Experiment(Goal("/"), draw(st.fractions(Fraction(1, 1000), Fraction(999, 1000)))),
        "in_place": InPlace(batch=min(batch, max(1, new - 1))),
    }
    how = hows[kind]
    strategy = Return(how) if draw(st.booleans()) else how
    hooks = {"before": draw(st.booleans()), "on_rollback": draw(st.booleans())}
    if draw(st.integers(0, 9)) == 0:
        return release(strategy, new, None, **hooks)
    return release(strategy, new, new if kind == "in_place" else old, **hooks)


@given(any_release())
def test_instances_cover_the_share_and_the_room_is_kept_at_every_step(r: Release) -> None:
    assert unsafe(r, beginning(r), way_there(r)) == []


@given(any_release())
def test_every_plan_ends_with_the_new_version_alone_at_strength(r: Release) -> None:
    assert arrived(r, list(moments(beginning(r), way_there(r)))[-1])


@given(any_release(), st.data())
def test_every_way_back_is_safe_and_ends_with_the_old_version_alone(r: Release, data: st.DataObject) -> None:
    played = list(moments(beginning(r), way_there(r)))
    at = data.draw(st.sampled_from(played))
    assert unsafe(r, at, way_back(r, at)) == []
    assert returned(r, list(moments(at, way_back(r, at)))[-1])


@given(any_release(), st.data())
def test_a_way_back_that_was_interrupted_can_be_taken_again(r: Release, data: st.DataObject) -> None:
    at = data.draw(st.sampled_from(list(moments(beginning(r), way_there(r)))))
    half_way = data.draw(st.sampled_from(list(moments(at, way_back(r, at)))))
    assert unsafe(r, half_way, way_back(r, half_way)) == []
    assert returned(r, list(moments(half_way, way_back(r, half_way)))[-1])


@given(any_release())
def test_a_way_back_covers_the_shares_that_are_still_in_force(r: Release) -> None:
    """A Shift that has begun may not be confirmed yet: until the next Shift the shares before it may be in force."""
    plan = way_there(r)
    played = list(moments(beginning(r), plan))
    for number, step in enumerate(plan):
        if isinstance(step, Shift) and r.old is not None:
            begun = played[number + 1]
            way = way_back(r, begun)
            first_shift = next(i for i, back in enumerate(way) if isinstance(back, Shift))
            unconfirmed = replace(begun, shares=played[number].shares)
            assert unsafe(r, unconfirmed, way[:first_shift]) == []


@given(any_release())
def test_simulation_finds_nothing_wrong_with_the_product_s_own_plans(r: Release) -> None:
    assert simulate.flaws(r, simulate.begin(r), way_there(r)) == []


@pytest.mark.parametrize("strategy", ["rolling", "in_place", "blue_green", "canary", "return"])
def test_for_all_small_sizes_nothing_is_wrong_there_and_back(strategy: str) -> None:
    tried = 0
    for r in releases(SMALL):
        if r.strategy.name == strategy:
            tried += 1
            plan = way_there(r)
            assert wrong_with(r, beginning(r), plan) == [], (r, plan)
            assert simulate.flaws(r, simulate.begin(r), plan) == [], (r, plan)
    print(f"{strategy}: {tried} releases")
    assert tried >= SMALL


@given(any_release())
def test_no_user_reaches_an_instance_that_was_not_checked(r: Release) -> None:
    if isinstance(r.strategy, Return):
        return
    unchecked = 0
    there = 0
    for step in way_there(r):
        match step:
            case Scale(version, count) if version == V2:
                unchecked, there = unchecked + max(0, count - there), count
            case Check(version) if version == V2:
                unchecked = 0
            case Shift(shares) if dict(shares).get(V2):
                assert unchecked == 0


@given(any_release())
def test_whenever_the_new_version_is_given_more_a_judgement_follows(r: Release) -> None:
    plan = way_there(r)
    if isinstance(r.strategy, Return | Experiment) or r.old is None:
        assert not any(isinstance(step, Judge) for step in plan)
        return
    there = 0
    for number, step in enumerate(plan):
        if isinstance(step, Scale) and step.version == V2:
            there = step.count
        if isinstance(step, Shift) and dict(step.shares).get(V2, Fraction(0)) * r.new.size == there > 0:
            last = isinstance(r.strategy, Canary) and step == Shift.to({V2: Fraction(1)})
            assert last or isinstance(plan[number + 1], Judge)


@given(any_canary(), st.integers(1, LARGE), st.integers(1, LARGE))
def test_a_canary_goes_up_only_and_is_compared_with_somebody_until_it_has_all(
    how: Canary, new: int, old: int
) -> None:
    plan = way_there(release(how, new, old))
    shifts = [number for number, step in enumerate(plan) if isinstance(step, Shift)]
    shares = [dict(plan[number].shares)[V2] for number in shifts]  # type: ignore[union-attr]
    assert shares == sorted(set(shares)) and shares[-1] == 1
    assert set(how.steps) <= set(shares) <= {*how.steps, 1 - how.holdback}
    assert all(isinstance(plan[number + 1], Judge) for number in shifts[:-1])
    if how.holdback and how.steps != (1,):
        assert shares[-2] >= min(1 - how.holdback, how.steps[-2]) or shares[-2] == 1 - how.holdback


@given(any_canary(), st.integers(1, LARGE), st.integers(1, LARGE))
def test_under_a_canary_the_old_version_stays_whole_until_the_decision(how: Canary, new: int, old: int) -> None:
    r = release(how, new, old)
    plan = way_there(r)
    assert all(at.counts[V1] == old for at in list(moments(beginning(r), plan))[: decision(plan) + 1])


@given(any_release())
def test_a_person_is_asked_only_where_it_was_said(r: Release) -> None:
    asks = any(isinstance(step, Hold) for step in way_there(r))
    rungs = len(r.strategy.steps) if isinstance(r.strategy, Canary) else 2
    manual = getattr(r.strategy, "approve", "auto") == "manual" and rungs > 1
    assert asks == (r.old is not None and (manual or isinstance(r.strategy, Experiment)))


@given(any_release())
def test_a_way_back_checks_and_judges_nothing(r: Release) -> None:
    for at in moments(beginning(r), way_there(r)):
        assert not any(isinstance(step, Check | Judge) for step in way_back(r, at))


@given(any_release())
def test_a_plan_is_decided_when_the_new_version_has_everything_and_was_judged(r: Release) -> None:
    plan = way_there(r)
    decided = list(moments(beginning(r), plan))[decision(plan)]
    assert decided.shares == {V2: 1} and decided.counts[V2] == r.new.size
    assert all(isinstance(step, Scale) for step in plan[decision(plan) :])
    if r.old is not None and not isinstance(r.strategy, Return | Canary | Experiment):
        assert isinstance(plan[decision(plan) - 1], Judge)


@given(any_release())
def test_hooks_run_first_there_and_last_on_the_way_back(r: Release) -> None:
    plan = way_there(r)
    assert [step for step in plan if isinstance(step, Run)] == [Run("before")] * (
        r.before and (r.old is None or not isinstance(r.strategy, Return))
    )
    assert all(not isinstance(step, Run) for step in plan[1:])
    way = way_back(r, beginning(r))
    assert (way[-1] == Run("on_rollback")) is r.on_rollback
    assert all(not isinstance(step, Run) for step in way[:-1])


@given(any_release(), st.data())
def test_while_the_old_version_is_whole_going_back_is_one_switch(r: Release, data: st.DataObject) -> None:
    played = [at for at in moments(beginning(r), way_there(r)) if r.old and at.counts.get(V1) == r.old.size]
    if played:
        at = data.draw(st.sampled_from(played))
        steps = [step for step in way_back(r, at) if not isinstance(step, Run)]
        assert steps == [Scale(V1, at.counts[V1]), Shift.to({V1: Fraction(1)}), Scale(V2, 0)]


@given(st.integers(1, LARGE), st.integers(1, LARGE), st.booleans())
def test_in_keep_going_back_is_one_switch(now: int, kept: int, rolling: bool) -> None:
    """v1 serves and v2, which served before it, is kept: nothing has to be started."""
    r = release(Return(Rolling(keep=KEEP) if rolling else BlueGreen()), kept, now)
    start = Moment({V1: now, V2: kept}, {V1: Fraction(1)})
    plan = way_there(r, start)
    assert plan == (Scale(V2, kept), Shift.to({V2: Fraction(1)}), Scale(V1, 0))
    assert simulate.flaws(r, start.demand(r), plan) == []


@given(any_release())
def test_the_peak_is_the_most_instances_at_any_step(r: Release) -> None:
    plan = way_there(r)
    most = max(sum(moment.counts.values()) for moment in moments(beginning(r), plan))
    assert simulate.peak(simulate.begin(r), plan) == most <= given_room(r) == r.room


@given(any_release())
def test_a_share_is_exactly_what_the_instances_carry(r: Release) -> None:
    """Nothing is rounded: with k of n instances the new version has k/n."""
    if isinstance(r.strategy, Rolling) and r.old is not None:
        for step, at in zip(way_there(r), list(moments(beginning(r), way_there(r)))[1:], strict=True):
            if isinstance(step, Shift):
                assert at.shares[V2] == Fraction(at.counts[V2], r.new.size)


def _anywhere(r: Release, old: int, new: int, share: Fraction) -> Moment | None:
    """A state that is covered and within the room, if this one is: also such as no plan passes through."""
    shares = {version: part for version, part in ((V1, 1 - share), (V2, share)) if part}
    at = Moment({V1: old, V2: new}, shares)
    return at if old + new <= given_room(r) and not uncovered(r, at) else None


def test_from_every_small_state_there_is_a_safe_way_back() -> None:
    tried = 0
    for r in releases(3):
        for old, new, twelfths in product(range(7), range(7), range(13)):
            if at := _anywhere(r, old, new, Fraction(twelfths, 12)):
                tried += 1
                assert unsafe(r, at, way_back(r, at)) == [], (r, at)
                assert returned(r, list(moments(at, way_back(r, at)))[-1]), (r, at)
    print(f"{tried} states")
    assert tried > 1000


@given(any_release(), st.integers(0, 24), st.integers(0, 24), st.fractions(0, 1, max_denominator=24))
def test_from_anywhere_there_is_a_safe_way_back(r: Release, old: int, new: int, share: Fraction) -> None:
    if r.old is not None and (at := _anywhere(r, old, new, share)):
        assert unsafe(r, at, way_back(r, at)) == []
        assert returned(r, list(moments(at, way_back(r, at)))[-1])


def test_ways_back_that_meet_go_on_together() -> None:
    """What `simulate.flaws` builds on: where stand and next step are the same, all that follows is."""
    met = 0
    for r in releases(SMALL):
        known: dict[simulate.Waypoint, tuple[Step, ...]] = {}
        for at in {
            id(played.demand): played.demand for played in simulate.play(simulate.begin(r), way_there(r))
        }.values():
            way = strategies.back(r, at)
            for number, played in enumerate(simulate.play(at, way[:-1])):
                rest = known.setdefault(simulate.waypoint(played.demand, way[number]), way[number:])
                met += rest is not way[number:]
                assert rest == way[number:], (r, at)
    assert met > 1000


def test_the_spaces_that_were_searched_hold_what_they_should() -> None:
    """A property of nothing would hold: the spaces contain every strategy, growth and shrinking."""
    found = list(releases(3))
    assert {r.strategy.name for r in found} == {"rolling", "in_place", "blue_green", "canary", "experiment", "return"}
    assert any(r.old and r.new.size > r.old.size for r in found)
    assert any(r.old and r.new.size < r.old.size for r in found)
    assert {how.name for how in ways(3, 3)} == {"rolling", "in_place", "blue_green", "canary", "experiment"}


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (Moment({V1: 3}, {V2: Fraction(1)}), "v2.1 is given 1 with 0 instances"),
        (Moment({V1: 1, V2: 1}, {V1: Fraction(2, 3), V2: Fraction(1, 3)}), "v1.1 is given 2/3 with 1 instances"),
        (Moment({V1: 3}, {}), "not everybody is served"),
        (Moment({V1: 3}, {V1: Fraction(1, 3)}), "not everybody is served"),
    ],
)
def test_the_properties_themselves_can_fail(moment: Moment, reason: str) -> None:
    assert uncovered(release(Rolling(), 3, 3), moment) == [reason]


def test_the_properties_refuse_too_many_instances() -> None:
    steps: Sequence[Step] = [Scale(V2, 2)]
    assert unsafe(release(Rolling(), 3, 3), beginning(release(Rolling(), 3, 3)), steps) == [
        "step 1: 5 instances, room for 4"
    ]
