"""Every strategy as its plan reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

import pytest
from promises import V1, V2, Moment, beginning, release

from segue.core import strategies
from segue.core.release import BlueGreen, Canary, Experiment, Goal, InPlace, Release, Return, Rolling
from segue.core.steps import Gate, Judge, Proof, Step

KEEP = timedelta(minutes=10)
NOT_KEPT = timedelta(0)


def lines(plan: Sequence[Step]) -> list[str]:
    return [str(step) for step in plan]


def forward(r: Release, at: Moment | None = None) -> list[str]:
    return lines(strategies.forward(r, (at or beginning(r)).demand(r)))


def back(r: Release, counts: tuple[int, int], of_new: str = "0") -> list[str]:
    """The way back from `counts` of v1 and v2, where v2 has the share `of_new`."""
    share = Fraction(of_new)
    at = Moment({V1: counts[0], V2: counts[1]}, {V1: 1 - share, V2: share})
    return lines(strategies.back(r, at.demand(r)))


def test_a_first_launch_starts_everything_and_then_lets_users_in() -> None:
    assert forward(release(Rolling(), 2, None, before=True)) == [
        "run the before hook",
        "v2.1: 2 instances",
        "check v2.1",
        "traffic: v2.1 100%",
    ]


def test_every_strategy_launches_alike() -> None:
    plans = [forward(release(how, 2, None)) for how in (Rolling(), InPlace(), BlueGreen(), Rolling(keep=KEEP))]
    assert plans == [plans[0]] * 4


def test_rolling_replaces_one_after_the_other_and_judges_the_first_for_longer() -> None:
    assert forward(release(Rolling(), 3, 3)) == [
        "v2.1: 1 instance",
        "check v2.1",
        "traffic: v1.1 66.7%, v2.1 33.3%",
        "judge for 30 s",
        "v1.1: 2 instances",
        "v2.1: 2 instances",
        "check v2.1",
        "traffic: v1.1 33.3%, v2.1 66.7%",
        "judge for 5 s",
        "v1.1: 1 instance",
        "v2.1: 3 instances",
        "check v2.1",
        "traffic: v2.1 100%",
        "judge for 5 s",
        "v1.1: 0 instances",
    ]


def test_rolling_in_batches_with_surge() -> None:
    assert forward(release(Rolling(batch=2, surge=2), 4, 4, before=True)) == [
        "run the before hook",
        "v2.1: 2 instances",
        "check v2.1",
        "traffic: v1.1 50%, v2.1 50%",
        "judge for 30 s",
        "v1.1: 2 instances",
        "v2.1: 4 instances",
        "check v2.1",
        "traffic: v2.1 100%",
        "judge for 5 s",
        "v1.1: 0 instances",
    ]


def test_a_batch_is_never_larger_than_the_surge() -> None:
    assert forward(release(Rolling(batch=3, surge=1), 3, 3)) == forward(release(Rolling(), 3, 3))


def test_rolling_to_another_size_takes_the_share_that_its_instances_cover() -> None:
    assert forward(release(Rolling(batch=2, surge=2), 4, 2)) == [
        "v2.1: 2 instances",
        "check v2.1",
        "traffic: v1.1 50%, v2.1 50%",
        "judge for 30 s",
        "v1.1: 1 instance",
        "v2.1: 4 instances",
        "check v2.1",
        "traffic: v2.1 100%",
        "judge for 5 s",
        "v1.1: 0 instances",
    ]


def test_rolling_with_keep_stops_nothing() -> None:
    assert forward(release(Rolling(batch=2, keep=KEEP), 4, 3)) == [
        "v2.1: 2 instances",
        "check v2.1",
        "traffic: v1.1 50%, v2.1 50%",
        "judge for 30 s",
        "v2.1: 4 instances",
        "check v2.1",
        "traffic: v2.1 100%",
        "judge for 5 s",
    ]


def test_in_place_takes_a_batch_out_before_it_comes_back_changed() -> None:
    assert forward(release(InPlace(), 2, 2)) == [
        "traffic: v1.1 100%",
        "v1.1: 1 instance",
        "v2.1: 1 instance",
        "check v2.1",
        "traffic: v1.1 50%, v2.1 50%",
        "judge for 30 s",
        "v1.1: 1 instance",
        "traffic: v2.1 100%",
        "v1.1: 0 instances",
        "v2.1: 2 instances",
        "check v2.1",
        "traffic: v2.1 100%",
        "judge for 5 s",
        "v1.1: 0 instances",
    ]


def test_blue_green_switches_once_and_keeps_the_old_version() -> None:
    assert forward(release(BlueGreen(keep=KEEP), 2, 3, before=True)) == [
        "run the before hook",
        "v2.1: 2 instances",
        "check v2.1",
        "traffic: v2.1 100%",
        "judge for 1 min",
    ]


def test_blue_green_without_keep_stops_the_old_version() -> None:
    assert forward(release(BlueGreen(keep=NOT_KEPT), 2, 3)) == [
        "v2.1: 2 instances",
        "check v2.1",
        "traffic: v2.1 100%",
        "judge for 1 min",
        "v1.1: 0 instances",
    ]


def test_a_return_to_a_kept_version_is_one_switch() -> None:
    kept = Moment({V1: 3, V2: 2}, {V1: Fraction(1)})
    for how in (BlueGreen(), Rolling(keep=KEEP)):
        assert forward(release(Return(how), 2, 3), kept) == [
            "v2.1: 2 instances",
            "traffic: v2.1 100%",
            "v1.1: 0 instances",
        ]


def test_a_return_to_a_version_that_is_gone_goes_as_its_room_allows() -> None:
    assert forward(release(Return(BlueGreen()), 2, 3)) == [
        "v2.1: 2 instances",
        "traffic: v2.1 100%",
        "v1.1: 0 instances",
    ]
    assert forward(release(Return(Rolling()), 2, 2)) == [
        "v2.1: 1 instance",
        "traffic: v1.1 50%, v2.1 50%",
        "v1.1: 1 instance",
        "v2.1: 2 instances",
        "traffic: v2.1 100%",
        "v1.1: 0 instances",
    ]


def test_a_return_in_place_neither_checks_nor_judges() -> None:
    assert forward(release(Return(InPlace()), 2, 2)) == [
        "traffic: v1.1 100%",
        "v1.1: 1 instance",
        "v2.1: 1 instance",
        "traffic: v1.1 50%, v2.1 50%",
        "v1.1: 1 instance",
        "traffic: v2.1 100%",
        "v1.1: 0 instances",
        "v2.1: 2 instances",
        "traffic: v2.1 100%",
        "v1.1: 0 instances",
    ]


def test_the_way_back_of_a_rolling_rollout_is_rolling() -> None:
    assert back(release(Rolling(), 3, 3, on_rollback=True), (1, 2), "2/3") == [
        "v1.1: 2 instances",
        "traffic: v1.1 66.7%, v2.1 33.3%",
        "v2.1: 1 instance",
        "v1.1: 3 instances",
        "traffic: v1.1 100%",
        "v2.1: 0 instances",
        "run the on_rollback hook",
    ]


def test_the_way_back_makes_room_first_where_there_is_none() -> None:
    """v2's second instance is there but carries nothing: room for v1's third."""
    assert back(release(Rolling(), 3, 3), (2, 2), "1/3") == [
        "v2.1: 1 instance",
        "v1.1: 3 instances",
        "traffic: v1.1 100%",
        "v2.1: 0 instances",
    ]


def test_the_way_back_is_one_switch_while_the_old_version_is_whole() -> None:
    one_switch = ["v1.1: 3 instances", "traffic: v1.1 100%", "v2.1: 0 instances"]
    assert back(release(Rolling(), 3, 3), (3, 1), "1/3") == one_switch
    assert back(release(Rolling(keep=KEEP), 3, 3), (3, 2), "2/3") == one_switch
    assert back(release(BlueGreen(), 3, 3), (3, 3), "1") == one_switch


def test_the_way_back_starts_the_old_version_again_where_there_is_room() -> None:
    assert back(release(BlueGreen(keep=NOT_KEPT), 3, 3), (0, 3), "1") == [
        "v1.1: 3 instances",
        "traffic: v1.1 100%",
        "v2.1: 0 instances",
    ]


def test_the_way_back_in_place_goes_in_batches() -> None:
    assert back(release(InPlace(), 2, 2), (1, 1), "1/2") == [
        "traffic: v1.1 100%",
        "v2.1: 0 instances",
        "v1.1: 2 instances",
        "traffic: v1.1 100%",
        "v2.1: 0 instances",
    ]


def test_the_way_back_of_a_first_launch_leaves_nothing() -> None:
    r = release(Rolling(), 2, None)
    assert lines(strategies.back(r, Moment({V2: 2}, {V2: Fraction(1)}).demand(r))) == [
        "traffic: to nobody",
        "v2.1: 0 instances",
    ]


def test_retire_adjust_and_down() -> None:
    r = release(BlueGreen(), 2, 3)
    assert lines(strategies.retire(V1)) == ["v1.1: 0 instances"]
    assert lines(strategies.adjust(V2, 5)) == ["v2.1: 5 instances"]
    assert lines(strategies.down(Moment({V1: 3, V2: 2}, {V2: Fraction(1)}).demand(r))) == [
        "traffic: to nobody",
        "v1.1: 0 instances",
        "v2.1: 0 instances",
    ]


def test_a_canary_climbs_its_ladder_and_leaves_the_old_version_a_rest_to_compare_with() -> None:
    assert forward(release(Canary(), 4, 4, before=True)) == [
        "run the before hook",
        "v2.1: 1 instance",
        "check v2.1",
        "traffic: v1.1 90%, v2.1 10%",
        "judge for 30 s to 30 min, until it is proven",
        "v2.1: 2 instances",
        "check v2.1",
        "traffic: v1.1 70%, v2.1 30%",
        "judge for 30 s to 30 min, until it is proven",
        "v2.1: 4 instances",
        "check v2.1",
        "traffic: v1.1 5%, v2.1 95%",
        "judge for 30 s",
        "traffic: v2.1 100%",
    ]


def test_only_a_canary_s_first_step_is_judged_by_the_wide_margins() -> None:
    r = release(Canary(), 4, 4)
    plan = strategies.forward(r, beginning(r).demand(r))
    gates = [step.until.gate for step in plan if isinstance(step, Judge) and isinstance(step.until, Proof)]
    assert gates == [Gate.FIRST, Gate.THEN]


def test_a_canary_with_full_capacity_and_approval_and_without_keep() -> None:
    half = Canary(steps=(Fraction(1, 2), Fraction(1)), holdback=Fraction(0), approve="manual", capacity="full")
    assert forward(release(replace(half, keep=NOT_KEPT), 4, 3)) == [
        "v2.1: 4 instances",
        "check v2.1",
        "traffic: v1.1 50%, v2.1 50%",
        "judge for 30 s to 30 min, until it is proven",
        "hold: approve more than 50% for v2.1",
        "traffic: v2.1 100%",
        "v1.1: 0 instances",
    ]


def test_a_canary_of_all_at_once_is_compared_with_the_holdback() -> None:
    assert forward(release(Canary(steps=(Fraction(1),)), 2, 2)) == [
        "v2.1: 2 instances",
        "check v2.1",
        "traffic: v1.1 5%, v2.1 95%",
        "judge for 30 s to 30 min, until it is proven",
        "traffic: v2.1 100%",
    ]


def test_an_experiment_gives_a_fixed_share_until_a_person_says_which_version_is_better() -> None:
    how = Experiment(Goal("/thanks"), share=Fraction(1, 3))
    assert forward(release(how, 4, 4, before=True)) == [
        "run the before hook",
        "v2.1: 2 instances",
        "check v2.1",
        "traffic: v1.1 66.7%, v2.1 33.3%",
        "hold: is v2.1 better than v1.1? `segue experiment` says what is known",
        "v2.1: 4 instances",
        "check v2.1",
        "traffic: v2.1 100%",
    ]
    assert forward(release(replace(how, keep=NOT_KEPT), 1, 1))[-2:] == ["traffic: v2.1 100%", "v1.1: 0 instances"]


@pytest.mark.parametrize("share", [0, 1, Fraction(3, 2)])
def test_an_experiment_needs_users_of_both_versions(share: Fraction) -> None:
    with pytest.raises(ValueError, match="above 0% and below 100%"):
        Experiment(Goal("/thanks"), share=share)


@pytest.mark.parametrize(
    ("goal", "reached", "missed", "words"),
    [
        (Goal("/thanks"), ("/thanks", 200, False), ("/thanks/x", 200, False), "/thanks"),
        (Goal("/thanks"), ("/thanks/", 302, False), ("/thanks", 404, False), "/thanks"),
        (Goal(status=(201, 201)), ("/a", 201, False), ("/a", 200, True), "an answer with status 201"),
        (Goal("/a", (400, 404)), ("/a", 404, False), ("/a", 200, False), "/a with status 400-404"),
        (Goal(header="X-Order"), ("/a", 200, True), ("/a", 500, True), "an answer with the header X-Order"),
        (
            Goal("/a", (200, 200), "X-Order"),
            ("/a", 200, True),
            ("/a", 200, False),
            "/a with status 200 and the header X-Order",
        ),
    ],
)
def test_a_goal_is_reached_by_an_answer_with_all_that_is_named(
    goal: Goal, reached: tuple[str, int, bool], missed: tuple[str, int, bool], words: str
) -> None:
    assert goal.reached(*reached[:2], shown=reached[2])
    assert not goal.reached(*missed[:2], shown=missed[2])
    assert str(goal) == words


@pytest.mark.parametrize("steps", ["", "1/2", "1/2 1/4 1", "0 1", "1/2 1/2 1", "1/2 1 2"])
def test_a_ladder_that_does_not_grow_up_to_all_is_refused(steps: str) -> None:
    with pytest.raises(ValueError, match="must grow"):
        Canary(steps=tuple(map(Fraction, steps.split())))


def test_blue_green_waits_for_approval_before_the_switch() -> None:
    assert forward(release(BlueGreen(approve="manual"), 2, 2)) == [
        "v2.1: 2 instances",
        "check v2.1",
        "hold: approve the switch to v2.1",
        "traffic: v2.1 100%",
        "judge for 1 min",
    ]


def test_the_end_of_keep_may_run_the_after_hook_once_nothing_older_is_left() -> None:
    assert lines(strategies.retire(V1, after=True)) == ["v1.1: 0 instances", "run the after hook"]
