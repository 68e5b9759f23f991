"""Metrics that are compared or have bounds: what is found, how soon, and how seldom a healthy version is blamed."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.core.release import Revision
from segue.core.sources import Metric, Nothing, Question, Values, Word, filled
from segue.core.verdict import Basis, Judgement, Verdict
from segue.judge.metric import Bounded, Worse, _factors, readings
from segue.judge.voices import Voices

MINUTE = timedelta(minutes=1)
HALF = (0.5, 0.5)
WELL = Judgement(Verdict.PASS, Basis.EVIDENCE, "all is well")


def compared(**changes: object) -> Metric:
    return Metric(**{"url": "http://p", "query": "errors", "every": MINUTE, "worse": "higher", **changes})  # type: ignore[arg-type]


# The test


@given(st.floats(0, 0.5))
def test_no_bet_is_expected_to_gain_where_the_new_version_is_worse_at_most_half_of_the_time(worse: float) -> None:
    for won, lost in zip(_factors(True), _factors(False), strict=True):
        assert worse * exp(won) + (1 - worse) * exp(lost) <= 1 + 1e-12


def test_a_metric_that_is_always_worse_is_found_after_as_many_comparisons_as_are_announced() -> None:
    for level in (0.1, 0.01, 0.002, 0.0001):
        test = Worse(level, "higher", 0.1, 60)
        for number in range(1, test.enough + 1):
            assert not test.alarm
            test.compare((2.0, 1.0))
            assert test.compared == test.worse == number
        assert test.alarm
    assert Worse(0.002, "higher", 0.1, 60).enough == 12


NOISES: dict[str, Callable[[random.Random], float]] = {
    "flat": lambda rng: rng.random(),
    "heavy-tailed": lambda rng: rng.paretovariate(0.8),
    "mostly nothing": lambda rng: float(rng.random() < 0.05),
    "both signs": lambda rng: rng.gauss(0, 1),
}


def alarms(noise: str, level: float, rollouts: int, comparisons: int) -> int:
    """In how many rollouts of versions that are alike, without any margin, there is an alarm."""
    found = 0
    for seed in range(rollouts):
        rng, way = random.Random(seed), "higher" if seed % 2 else "lower"
        test = Worse(level, way, 0.0, 15)  # type: ignore[arg-type]
        for _ in range(comparisons):
            moves = 1 + 5 * rng.random()  # what moves both
            test.compare((moves * NOISES[noise](rng), moves * NOISES[noise](rng)))
        found += test.alarm
    return found


@pytest.mark.parametrize("noise", NOISES)
def test_versions_that_are_alike_are_blamed_no_more_often_than_is_allowed(noise: str) -> None:
    assert alarms(noise, 0.1, 200, 200) <= 20 + 3 * 4.3, "three standard deviations more than a tenth"


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
def test_versions_that_are_alike_are_blamed_no_more_often_than_is_allowed_at_length(noise: str) -> None:
    assert alarms(noise, 0.01, 4000, 300) <= 40 + 3 * 6.3


@pytest.mark.parametrize("spread", [0.1, 0.3, 0.6])
def test_what_is_twice_as_bad_is_found_though_it_is_noisy(spread: float) -> None:
    """By half of them after ln(8/0.002)/KL comparisons, KL being that of the part that is worse from a half."""
    found = []
    for seed in range(100):
        rng = random.Random(seed)
        test = Worse(0.002, "higher", 0.1, 15)
        while not test.alarm and test.compared < 1000:
            test.compare((2 * rng.lognormvariate(0, spread), rng.lognormvariate(0, spread)))
        found.append(test.compared)
    assert max(found) < 200
    assert sorted(found)[50] <= {0.1: 12, 0.3: 20, 0.6: 57}[spread]


def test_what_is_worse_by_less_than_the_margin_is_never_held_against_it() -> None:
    for new, old, way in ((1.09, 1.0, "higher"), (0.91, 1.0, "lower"), (-0.95, -1.0, "higher"), (0.0, 0.0, "higher")):
        test = Worse(0.5, way, 0.1, 15)  # type: ignore[arg-type]
        for _ in range(200):
            test.compare((new, old))
        assert (test.worse, test.alarm, test.amber) == (0, False, False)


@pytest.mark.parametrize(
    ("new", "old", "way"), [(1.2, 1, "higher"), (0.8, 1, "lower"), (-0.8, -1, "higher"), (1, 0, "higher")]
)
def test_what_is_worse_by_more_is(new: float, old: float, way: str) -> None:
    test = Worse(0.01, way, 0.1, 15)  # type: ignore[arg-type]
    test.compare((new, old))
    assert test.worse == 1


def test_a_rate_and_a_latency_of_a_healthy_version_are_well_at_any_share_though_nobody_said_which_they_are() -> None:
    for new in (0.05, 0.3, 0.95):
        for rate in ((7 * new, 7 * (1 - new)), (7.0, 7.0)):
            test = Worse(0.5, "higher", 0.01, 15)
            test.compare(*readings(rate, (new, 1 - new), None))
            assert test.worse == 0


def test_where_it_is_said_each_is_seen_at_any_share() -> None:
    for new in (0.05, 0.3, 0.95):
        shares = (new, 1 - new)
        assert readings((14 * new, 7 * (1 - new)), shares, "share") == [pytest.approx((14, 7))]
        assert readings((14, 7), shares, "version") == [(14, 7)]


def test_a_bound_is_broken_three_times_in_a_row() -> None:
    bounds = Bounded(1, 5)
    for value in (0, 6, 5, 0, 0, 1):
        bounds.look(value)
    assert not bounds.alarm
    for value in (6, 0, 6):
        bounds.look(value)
    assert bounds.alarm
    bounds.look(3)
    assert bounds.alarm, "once is for ever"


@pytest.mark.parametrize("level", [0, 1, -1])
def test_a_level_is_a_chance(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Worse(level, "higher", 0.1, 15)


# What is said of it


def test_a_comparison_is_waited_for_until_an_alarm_could_have_come() -> None:
    voices = Voices([compared()], 0.002)
    for number in range(12):
        said = voices.proof(WELL)
        assert said.verdict is Verdict.UNDECIDED
        assert said.reason == f"all is well; but `errors` was compared {number} of the 12 times that an alarm takes"
        voices.hear(0, Values(1.0, 1.0), HALF)
    assert voices.proof(WELL) == voices.silence(WELL) == WELL


def test_silence_does_not_wait_and_says_what_is_missing() -> None:
    said = Voices([compared()], 0.002).silence(WELL)
    assert (said.verdict, said.basis) == (WELL.verdict, WELL.basis)
    assert said.reason == "all is well; `errors` was compared 0 of the 12 times that an alarm takes"
    assert said.numbers["missing"] == "`errors` was compared 0 of the 12 times that an alarm takes"


def test_a_source_that_does_not_answer_is_not_waited_for_and_is_said() -> None:
    voices = Voices([compared(), Metric("http://p", "queue", MINUTE, most=3), Question("./ask.sh")], 0.002)
    for number, why in enumerate(("there is no series of v2", "p:80 cannot be reached", "it exited with 127")):
        voices.hear(number, Nothing(why), HALF)
    said = voices.proof(WELL)
    assert said.verdict is Verdict.PASS
    assert said.reason == (
        "all is well; `errors`: there is no series of v2; `queue`: p:80 cannot be reached; "
        "`./ask.sh`: it exited with 127"
    )


def test_a_comparison_that_leans_to_the_bad_side_keeps_a_proof_from_coming() -> None:
    voices = Voices([compared()], 0.002)
    for _ in range(11):
        voices.hear(0, Values(2.0, 1.0), HALF)
    assert voices.alarm is None
    assert (
        voices.proof(WELL).reason == "all is well; but `errors` was higher by more than 10 % in 11 of 11 comparisons"
    )


def test_an_alarm_names_the_metric_with_both_values() -> None:
    voices = Voices([compared(query="sum(rate(orders_failed[1m]))", margin=0.25)], 0.002)
    for _ in range(12):
        voices.hear(0, Values(4.2, 2.1), HALF)
    said = voices.fail("v2", "v1")
    assert said is not None and said.alarm and said.basis is Basis.EVIDENCE
    assert said.reason == (
        "`sum(rate(orders_failed[1m]))` is 4.2 on v2, 2.1 on v1; higher by more than 25 % in 12 of 12 comparisons: "
        "chance makes such a difference in fewer than one of 600 rollouts"
    )


def test_a_value_outside_of_its_bounds_is_waited_for_and_then_an_alarm() -> None:
    voices = Voices([Metric("http://p", "queue", MINUTE, most=3)], 0.002)
    assert voices.proof(WELL).reason == "all is well; but `queue`: it has not answered yet"
    voices.hear(0, Values(4), HALF)
    assert voices.proof(WELL).reason == "all is well; but `queue` is 4 on the new version, at most 3 is allowed"
    voices.hear(0, Values(4), HALF)
    voices.hear(0, Values(5), HALF)
    said = voices.fail("v2", "v1")
    assert said is not None and said.reason == "`queue` is 5 on v2, at most 3 is allowed; 3 times in a row"


def test_the_word_of_a_command_counts() -> None:
    voices = Voices([Question("./ask.sh")], 0.002)
    assert voices.proof(WELL).verdict is Verdict.UNDECIDED
    voices.hear(0, Word(Verdict.UNDECIDED, ("too early",)), HALF)
    assert voices.proof(WELL).reason == "all is well; but `./ask.sh` is undecided: too early"
    assert voices.silence(WELL).reason == "all is well; `./ask.sh` is undecided: too early"
    voices.hear(0, Word(Verdict.PASS), HALF)
    assert voices.proof(WELL) == WELL
    voices.hear(0, Word(Verdict.FAIL, ("looking", "3 orders lost")), HALF)
    voices.hear(0, Word(Verdict.PASS), HALF)
    said = voices.fail("v2", "v1")
    assert said is not None and said.reason == "`./ask.sh` says that v2 fails: 3 orders lost"
    assert voices.alarm is not None and voices.alarm.lines == ("looking", "3 orders lost")


def test_the_metrics_share_the_level_that_is_theirs() -> None:
    assert "of the 12 times" in Voices([compared()], 0.002).proof(WELL).reason
    assert Voices([compared(), compared()], 0.002).proof(WELL).reason.count("of the 13 times") == 2


# Placeholders


def test_only_the_known_names_are_filled_in_and_promql_keeps_its_braces() -> None:
    query = (
        'sum by (x) (rate(orders{version="{version}", app="{service}", code=~"5\\d{2}"}[1m])) / {revision} ${version}'
    )
    assert filled(query, "shop", Revision("v2.1.3")) == (
        'sum by (x) (rate(orders{version="v2.1", app="shop", code=~"5\\d{2}"}[1m])) / v2.1.3 ${version}'
    )
    assert filled("/{version}", "shop", Revision("a+b.1"), quoted=True) == "/a%2Bb"
