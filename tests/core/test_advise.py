"""Which strategy fits: what the change calls for, what there is room for, what is said where the two disagree."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.core.advise import Advice, advise
from segue.core.situation import LARGE_FILES, LARGE_LINES, SMALL_FILES, SMALL_LINES, Change, Room, Situation, Way

SMALL = Change("abc", files=1, lines=2)
MEDIUM = Change("abc", files=10, lines=200)
LARGE = Change("abc", files=90, lines=4000)
NOW = Situation(serving=3, replicas=3, room=Room(10, 10 << 30, 1 << 30), busy=0.1, rate=50.0, open=2)

WAYS = {
    "rolling": Way("rolling", peak=4, extra=1, minutes=0.7, seconds=41, verdict=True),
    "in_place": Way("in_place", peak=3, extra=0, minutes=0.0, seconds=41, verdict=True),
    "blue_green": Way("blue_green", peak=6, extra=3, minutes=3, kept=30, seconds=62, verdict=True),
    "canary": Way("canary", peak=6, extra=3, minutes=9, kept=30, seconds=600, verdict=True, from_rate=5.0),
}
QUIET = WAYS | {"canary": replace(WAYS["canary"], verdict=False)}
UNMEASURED = WAYS | {"canary": replace(WAYS["canary"], verdict=None)}


def advised(change: Change | None = SMALL, situation: Situation = NOW, ways: dict[str, Way] = WAYS) -> Advice:
    return advise(change, "v7 is no commit", situation, ways)


@pytest.mark.parametrize(
    ("change", "ways", "strategy"),
    [
        (SMALL, WAYS, "rolling"),
        (MEDIUM, WAYS, "canary"),
        (MEDIUM, QUIET, "rolling"),
        (MEDIUM, UNMEASURED, "rolling"),
        (LARGE, WAYS, "blue_green"),
        (None, WAYS, "blue_green"),
        (replace(SMALL, migrations=("0002.sql",)), WAYS, "blue_green"),
        (replace(SMALL, dependencies=("uv.lock",)), WAYS, "canary"),
        (replace(SMALL, dependencies=("uv.lock",)), QUIET, "blue_green"),
        (Change("abc"), WAYS, "rolling"),
    ],
)
def test_what_a_change_calls_for(change: Change | None, ways: dict[str, Way], strategy: str) -> None:
    advice = advised(change, ways=ways)
    assert (advice.strategy, advice.trade_off) == (strategy, None)


@pytest.mark.parametrize(
    ("files", "lines", "size"),
    [
        (SMALL_FILES, SMALL_LINES, "small"),
        (SMALL_FILES + 1, 1, "medium"),
        (1, SMALL_LINES + 1, "medium"),
        (LARGE_FILES, LARGE_LINES, "medium"),
        (LARGE_FILES + 1, 1, "large"),
        (1, LARGE_LINES + 1, "large"),
    ],
)
def test_how_large_a_change_is(files: int, lines: int, size: str) -> None:
    assert Change("abc", files, lines).size == size


def test_who_wants_a_proof_is_given_a_canary() -> None:
    advice = advised(LARGE, replace(NOW, validate=True))
    assert (advice.strategy, advice.trade_off) == ("canary", None)
    assert any("only a canary waits for proof" in reason for reason in advice.reasons)


def test_who_wants_a_proof_without_the_traffic_for_one_is_told_so() -> None:
    advice = advised(SMALL, replace(NOW, validate=True, rate=0.2), QUIET)
    assert advice.strategy == "rolling"
    assert advice.trade_off is not None
    assert advice.trade_off.startswith("What suits is a canary, but no verdict can come at 0.2 requests a second.")
    assert advice.trade_off.endswith("A verdict can come from 5 requests a second on, or within a longer `most`.")


def test_an_experiment_without_a_goal_is_named_and_one_with_a_goal_is_advised() -> None:
    advice = advised(SMALL, replace(NOW, experiment=True))
    assert advice.strategy == "canary"
    assert advice.trade_off is not None
    assert "What suits is an experiment: `strategy.experiment` of the manifest names its goal." in advice.trade_off
    assert advised(SMALL, replace(NOW, experiment=True), WAYS | {"experiment": Way("experiment")}).trade_off is None


@pytest.mark.parametrize("situation", [replace(NOW, long_lived=True), replace(NOW, rate=0.5, open=40)])
def test_long_lived_connections_end_once(situation: Situation) -> None:
    advice = advised(SMALL, situation)
    assert advice.strategy == "blue_green"
    assert any(reason.startswith("Connections live long") for reason in advice.reasons)


@pytest.mark.parametrize("situation", [NOW, replace(NOW, rate=50.0, open=400), replace(NOW, rate=None, open=400)])
def test_many_short_requests_are_no_long_ones(situation: Situation) -> None:
    assert advised(SMALL, situation).strategy == "rolling"


def test_a_large_change_without_memory_for_a_second_set_names_the_trade() -> None:
    advice = advised(LARGE, replace(NOW, room=Room(1, 1 << 30, 1 << 30)))
    assert advice.strategy == "rolling"
    assert advice.trade_off == (
        "What suits is blue/green, but it needs 3 instances more at a time, and there is memory for 1. "
        "The trade: by rolling both versions answer side by side for about 41 s, and to go back afterwards the old "
        "version is started again. For blue/green make room for 2 instances more (2.0 GiB), or have 2 instead of 3 "
        "(`replicas: 2`)."
    )


def test_without_any_room_a_batch_leaves_first() -> None:
    advice = advised(LARGE, replace(NOW, room=Room(0, 100, 1 << 30)))
    assert advice.strategy == "in_place"
    assert advice.trade_off is not None and "a batch of the instances is missing meanwhile" in advice.trade_off


def test_where_nothing_can_be_had_it_is_said() -> None:
    ways = WAYS | {"in_place": Way("in_place", problem="in_place needs more than 1 instances to take a batch out")}
    advice = advised(SMALL, replace(NOW, room=Room(0, 100, 1 << 30)), ways)
    assert advice.strategy == "rolling", "it needs least"
    assert advice.trade_off is not None and "None of the strategies can be had as it is." in advice.trade_off


def test_a_limit_of_instances_is_kept() -> None:
    advice = advised(LARGE, replace(NOW, most=4))
    assert advice.strategy == "rolling"
    assert advice.trade_off is not None and advice.trade_off.endswith("For blue/green allow 6 instances.")


def test_what_is_not_known_is_said() -> None:
    advice = advised(None, Situation(serving=None, replicas=3), UNMEASURED)
    said = " ".join(advice.reasons)
    assert "How large the change is, is not known: v7 is no commit." in said
    assert "How much room there is for a second set, is not known" in said
    assert "How much traffic there is, is not known; a canary proves something from 5 requests a second on." in said


def test_a_first_version_comes_by_any_strategy() -> None:
    advice = advised(LARGE, replace(NOW, serving=0))
    assert advice.strategy == "rolling"
    assert any(reason.startswith("Nothing serves yet") for reason in advice.reasons)


rooms = st.one_of(st.just(Room()), st.integers(0, 8).map(lambda n: Room(n, n << 20, 1 << 20)))
changes = st.one_of(st.none(), st.builds(Change, st.just("abc"), st.integers(0, 99), st.integers(0, 999)))
situations = st.builds(
    Situation,
    serving=st.integers(0, 4) | st.none(),
    replicas=st.integers(1, 4),
    room=rooms,
    most=st.none() | st.integers(1, 8),
    rate=st.none() | st.floats(0, 1000),
    long_lived=st.booleans(),
    validate=st.booleans(),
    experiment=st.booleans(),
)


@given(changes, situations, st.sampled_from([WAYS, QUIET, UNMEASURED]))
def test_what_is_advised_can_be_had_where_anything_can_and_what_is_given_up_is_said(
    change: Change | None, situation: Situation, ways: dict[str, Way]
) -> None:
    advice = advised(change, situation, ways)
    able = [name for name in ways if ways[name].obstacle(situation) is None]
    assert advice.strategy in able or not able
    assert set(advice.against) == set(ways) - {advice.strategy}
    if situation.experiment or not able:
        assert advice.trade_off is not None
