"""Steps and demands are values: exact, readable, and the same after the journal."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.core import demand, steps
from segue.core.demand import Demand
from segue.core.release import Revision, Side, revision, version_of
from segue.core.steps import Check, Gate, Hold, Judge, Proof, Run, Scale, Shift, Silence, Step, decision, percent

V1, V2 = Revision("v1.1"), Revision("v2.1")

revisions = st.builds(revision, st.text(min_size=1), st.integers(1, 1000))
TIMES = st.timedeltas(timedelta(0), timedelta(days=14))
parts = st.lists(st.integers(1, 1000), max_size=4)


@st.composite
def shares(draw: st.DrawFn) -> dict[Revision, Fraction]:
    amounts = draw(st.dictionaries(revisions, st.integers(1, 10**6), max_size=4))
    return {name: Fraction(amount, sum(amounts.values())) for name, amount in amounts.items()}


any_step: st.SearchStrategy[Step] = st.one_of(
    st.builds(Run, st.sampled_from(["before", "on_rollback", "after"])),
    st.builds(Scale, revisions, st.integers(0, 1000)),
    st.builds(Check, revisions),
    st.builds(Shift.to, shares()),
    st.builds(Judge, st.builds(Silence, TIMES) | st.builds(Proof, TIMES, TIMES, st.sampled_from(Gate))),
    st.builds(Hold, st.text()),
)


@given(any_step)
def test_a_step_survives_the_journal(step: Step) -> None:
    assert steps.decode(json.loads(json.dumps(steps.encode(step)))) == step


@pytest.mark.parametrize("document", [{}, {"leap": 1}, {"scale": "v1.1"}])
def test_what_is_not_a_step_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a step"):
        steps.decode(document)


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (Run("before"), "run the before hook"),
        (Scale(V1, 0), "v1.1: 0 instances"),
        (Scale(V1, 1), "v1.1: 1 instance"),
        (Check(V2), "check v2.1"),
        (Shift.to({V1: Fraction(1, 3), V2: Fraction(2, 3)}), "traffic: v1.1 33.3%, v2.1 66.7%"),
        (Shift.to({}), "traffic: to nobody"),
        (Judge(Silence(timedelta(milliseconds=2500))), "judge for 2.5 s"),
        (Judge(Silence(timedelta(minutes=1))), "judge for 1 min"),
        (
            Judge(Proof(timedelta(seconds=30), timedelta(minutes=30), Gate.FIRST)),
            "judge for 30 s to 30 min, until it is proven",
        ),
        (Hold("promote by hand"), "hold: promote by hand"),
    ],
)
def test_a_step_reads_as_what_it_does(step: Step, line: str) -> None:
    assert str(step) == line


@given(shares())
def test_a_shift_sums_to_one_and_is_the_same_in_any_order(split: dict[Revision, Fraction]) -> None:
    backwards = dict(reversed(split.items()))
    assert Shift.to(split) == Shift.to(backwards)
    assert dict(Shift.to(split).shares) == split


def test_a_share_of_nothing_is_left_out() -> None:
    assert Shift.to({V1: Fraction(0), V2: Fraction(1)}) == Shift.to({V2: Fraction(1)})
    assert Shift.to({V1: Fraction(0)}) == Shift.to({}) == Shift(())


@pytest.mark.parametrize("total", ["1/2", "2", "999/1000"])
def test_shares_that_do_not_sum_to_one_are_refused(total: str) -> None:
    half = Fraction(total) / 2
    with pytest.raises(ValueError, match=f"sum to one, not {total}"):
        Shift.to({V1: half, V2: half})


def test_a_negative_share_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Shift.to({V1: Fraction(-1, 2), V2: Fraction(3, 2)})


def test_shares_are_exact() -> None:
    third = Fraction(2, 6)
    assert third == Fraction(1, 3) != Fraction(33, 100)
    assert Shift.to({V1: third, V2: third, Revision("v3.1"): third})
    assert Side(V1, 6).carrying(third) == 2
    assert Side(V1, 3).carrying(Fraction(1, 3)) == 1
    assert Side(V1, 3).carrying(Fraction(1, 3) + Fraction(1, 10**12)) == 2


@pytest.mark.parametrize(
    ("share", "text"), [("0", "0%"), ("1/4", "25%"), ("1/3", "33.3%"), ("1/200", "0.5%"), ("1", "100%")]
)
def test_a_share_is_written_as_people_write_it(share: str, text: str) -> None:
    assert percent(Fraction(share)) == text


def test_a_plan_is_decided_after_its_last_shift_and_what_judges_it() -> None:
    judge, all_new, half = Judge(Silence(timedelta(0))), Shift.to({V2: Fraction(1)}), Shift.to({V1: Fraction(1)})
    assert decision(()) == 0
    assert decision((Scale(V1, 0), Scale(V2, 0))) == 2
    assert decision((Scale(V2, 1), all_new)) == 2
    assert decision((half, judge, all_new, judge, Hold("look"), Scale(V1, 0), judge)) == 5
    assert decision((half, judge, Scale(V1, 0))) == 2
    assert decision((Shift.to({}), Scale(V1, 0), Scale(V2, 0))) == 3


# Demand

counts = st.dictionaries(revisions, st.integers(0, 100), max_size=3)
any_demand = st.builds(
    Demand,
    counts=counts,
    shares=shares(),
    sizes=counts,
    slack=st.fractions(0, Fraction(99, 100)),
    kept=st.none() | revisions,
    kept_until=st.none() | st.datetimes(timezones=st.just(UTC)),
)


@given(any_demand)
def test_a_demand_survives_the_journal(wanted: Demand) -> None:
    assert demand.decode(json.loads(json.dumps(demand.encode(wanted)))) == wanted


@given(any_demand, any_step)
def test_a_step_that_has_begun_twice_has_begun_once(wanted: Demand, step: Step) -> None:
    assert wanted.after(step).after(step) == wanted.after(step)


@given(any_demand, st.one_of(st.builds(Check, revisions), st.builds(Run, st.text()), st.builds(Hold, st.text())))
def test_waiting_demands_nothing(wanted: Demand, step: Step) -> None:
    assert wanted.after(step) == wanted


@given(any_demand, revisions, st.integers(0, 100))
def test_a_scale_changes_one_count_only(wanted: Demand, version: Revision, count: int) -> None:
    scaled = wanted.after(Scale(version, count))
    assert scaled.count(version) == count
    assert {v: n for v, n in scaled.counts.items() if v != version} == {
        v: n for v, n in wanted.counts.items() if v != version
    }
    assert (scaled.shares, scaled.sizes, scaled.kept) == (wanted.shares, wanted.sizes, wanted.kept)


@given(any_demand, shares())
def test_a_shift_changes_all_shares_and_no_count(wanted: Demand, split: dict[Revision, Fraction]) -> None:
    shifted = wanted.after(Shift.to(split))
    assert dict(shifted.shares) == split and shifted.counts == wanted.counts


@pytest.mark.parametrize(
    ("share", "slack", "needed"),
    [("1", "0", 6), ("1/3", "0", 2), ("1/4", "0", 2), ("0", "0", 0), ("1", "1/3", 4), ("1/6", "1/3", 1)],
)
def test_what_a_share_needs_is_rounded_up(share: str, slack: str, needed: int) -> None:
    assert Demand({}, {V1: Fraction(share)}, {V1: 6}, Fraction(slack)).needed(V1) == needed


def test_nothing_is_the_same_as_not_named() -> None:
    assert Demand({V1: 0, V2: 2}, {V1: Fraction(0)}) == Demand({V2: 2})
    assert Demand().count(V1) == 0 and Demand().share(V1) == 0


def test_a_demand_cannot_be_changed() -> None:
    given_counts = {V1: 2}
    wanted = Demand(given_counts)
    given_counts[V1] = 3
    assert wanted.count(V1) == 2
    with pytest.raises(TypeError):
        wanted.counts[V1] = 3  # type: ignore[index]


def test_keep_is_part_of_the_demand() -> None:
    until = datetime(2030, 1, 1, tzinfo=UTC)
    kept = Demand({V1: 2}, kept=V1, kept_until=until)
    assert demand.decode(demand.encode(kept)).kept_until == until


@given(st.text(min_size=1), st.integers(1, 10**6))
def test_a_revision_knows_its_version(name: str, number: int) -> None:
    assert version_of(revision(name, number)) == name
