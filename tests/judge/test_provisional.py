"""The provisional judge: alarms on what chance does not explain, and says so with the numbers."""

from __future__ import annotations

import json
from fractions import Fraction
from math import comb
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.core import verdict
from segue.core.traffic import Sample
from segue.core.verdict import Basis, Judgement, Verdict
from segue.judge.provisional import LEVEL, MINIMUM, compare, plus, since, tail


def judged(new: Sample, old: Sample | None, before: Sample | None = None) -> Judgement:
    return compare(new, old, before=before, new_name="v2", old_name="v1")


def test_the_numbers_are_in_the_sentence() -> None:
    judgement = judged(Sample(3102, 37), Sample(2987, 3))
    assert judgement.reason == (
        "37 of 3,102 attempts on v2 failed (1.19 %), 3 of 2,987 on v1 (0.10 %): "
        "by chance less than once in 100,000 times"
    )
    assert judgement.alarm and judgement.basis is Basis.EVIDENCE
    assert judgement.numbers["new_failures"] == 37 and judgement.numbers["old_attempts"] == 2987


def test_without_an_alarm_the_sentence_is_the_same_but_draws_no_conclusion() -> None:
    judgement = judged(Sample(3102, 4), Sample(2987, 3))
    assert judgement.reason == "4 of 3,102 attempts on v2 failed (0.13 %), 3 of 2,987 on v1 (0.10 %)"
    assert judgement.verdict is Verdict.PASS and judgement.basis is Basis.EVIDENCE


def test_no_request_is_no_alarm_and_rests_on_health() -> None:
    judgement = judged(Sample(), Sample(5000, 0))
    assert judgement.reason == "No user request reached v2"
    assert judgement.verdict is Verdict.PASS and judgement.basis is Basis.HEALTH


def test_a_handful_of_requests_proves_nothing_even_if_all_fail() -> None:
    judgement = judged(Sample(MINIMUM - 1, MINIMUM - 1), Sample(5000, 0))
    assert judgement.reason == "9 of 9 attempts on v2 failed: too few to judge"
    assert not judgement.alarm and judgement.basis is Basis.HEALTH


def test_every_judgement_is_marked_provisional() -> None:
    samples = [Sample(), Sample(5, 5), Sample(100, 0), Sample(100, 100)]
    assert all(judged(new, old).numbers["provisional"] is True for new in samples for old in (*samples, None))


def test_a_judgement_can_be_journalled() -> None:
    judgement = judged(Sample(3102, 37), Sample(2987, 3))
    assert verdict.decode(json.loads(json.dumps(verdict.encode(judgement)))) == judgement


def test_a_version_that_fails_everything_is_found_within_twenty_attempts_each() -> None:
    assert judged(Sample(20, 20), Sample(20, 0)).alarm


def test_a_trouble_that_both_have_is_not_held_against_the_new_one() -> None:
    assert not judged(Sample(1000, 500), Sample(1000, 495)).alarm


def test_a_difference_within_the_margins_is_never_held_against_it() -> None:
    million = 1_000_000
    assert not judged(Sample(million, 109), Sample(million, 0)).alarm  # 0.011 points more
    assert not judged(Sample(million, 10_900), Sample(million, 10_000)).alarm  # 9 % more
    assert judged(Sample(million, 12_000), Sample(million, 10_000)).alarm


def test_a_new_version_that_is_better_is_not_alarmed() -> None:
    assert not judged(Sample(10_000, 0), Sample(10_000, 9_000)).alarm


def test_after_a_switch_it_is_compared_with_the_old_version_before() -> None:
    judgement = judged(Sample(1000, 100), Sample(0, 0), before=Sample(10_000, 10))
    assert judgement.alarm and judgement.numbers["reference"] == "before"
    assert judgement.reason.startswith(
        "100 of 1,000 attempts on v2 failed (10.00 %), 10 of 10,000 on v1 before it (0.10 %)"
    )


def test_the_margins_after_a_switch_are_wide() -> None:
    assert not judged(Sample(10_000, 100), None, before=Sample(10_000, 10)).alarm
    assert judged(Sample(10_000, 100), Sample(10_000, 10)).alarm
    assert not judged(Sample(10_000, 290), None, before=Sample(1_000_000, 10_000)).alarm  # 2 × 1 % + 1 point
    assert judged(Sample(10_000, 400), None, before=Sample(1_000_000, 10_000)).alarm


def test_a_few_old_requests_at_the_switch_do_not_hide_a_broken_version() -> None:
    """The last requests of the old version end after the switch; they are no reference for thousands."""
    assert judged(Sample(5000, 2500), Sample(13, 0), before=Sample(10_000, 10)).alarm
    assert judged(Sample(5000, 2500), Sample(13, 0)).alarm


def test_without_anything_to_compare_with_there_is_a_bound() -> None:
    assert not judged(Sample(1000, 50), None).alarm
    judgement = judged(Sample(1000, 200), None)
    assert judgement.alarm and judgement.numbers["reference"] == "bound"
    assert judgement.reason.startswith("200 of 1,000 attempts on v2 failed (20.00 %); up to 5.00 % are allowed")


def test_a_reference_with_few_attempts_counts_for_less() -> None:
    assert judged(Sample(100, 12), Sample(1000, 0)).alarm
    assert not judged(Sample(100, 12), Sample(20, 0)).alarm


@given(st.integers(1, 40), st.data())
def test_the_tail_is_the_binomial_one(attempts: int, data: st.DataObject) -> None:
    failures = data.draw(st.integers(0, attempts))
    rate = Fraction(data.draw(st.integers(0, 20)), 20)
    exact = sum(comb(attempts, k) * rate**k * (1 - rate) ** (attempts - k) for k in range(failures, attempts + 1))
    expected = 1.0 if failures <= attempts * rate else float(exact)
    assert tail(failures, attempts, float(rate)) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_the_tail_of_millions_is_found() -> None:
    assert 0 < tail(10_500, 1_000_000, 0.01) < 1e-6
    assert tail(2_000_000, 2_000_000, 0.5) == 0.0


samples = st.builds(
    lambda attempts, part, edges: Sample(attempts, attempts * part // 100, edges),
    st.integers(0, 10**6),
    st.integers(0, 100),
    st.dictionaries(st.sampled_from([100.0, 200.0, 400.0, 800.0]), st.integers(1, 10**6)),
)


@given(samples, samples)
def test_what_came_since_a_start_is_found_again(start: Sample, came: Sample) -> None:
    assert since(plus(start, came), start) == came


@given(samples, samples)
def test_after_a_reset_everything_counted_is_new(now: Sample, more: Sample) -> None:
    start = plus(plus(now, more), Sample(1, 0))
    assert since(now, start) == now


def test_failures_that_went_back_are_a_reset_too() -> None:
    assert since(Sample(10, 0), Sample(10, 3)) == Sample(10, 0)


def test_a_counter_of_latencies_that_went_back_is_a_reset_too() -> None:
    now = Sample(10, 0, {100.0: 10})
    assert since(now, Sample(10, 0, {100.0: 4, 200.0: 6})) == now


def _looks(random: Random, rates: tuple[float, float], rps: int, share: float, seconds: int) -> int | None:
    """The number of the new version's attempts at the first alarm, looking every second."""
    new = old = Sample()
    for _ in range(seconds):
        count = round(rps * share)
        new = plus(new, _second(random, count, rates[0]))
        old = plus(old, _second(random, rps - count, rates[1]))
        if compare(new, old).alarm:
            return new.attempts
    return None


def _second(random: Random, attempts: int, rate: float) -> Sample:
    return Sample(attempts, sum(random.random() < rate for _ in range(attempts)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_healthy_version_is_rarely_alarmed_when_looked_at_every_second(share: float) -> None:
    random = Random(2026)
    runs = 400
    alarms = sum(_looks(random, (0.01, 0.01), 50, share, 60) is not None for _ in range(runs))
    print(f"healthy, 1 % errors, {share:.0%} share, 60 looks: {alarms} of {runs} alarmed")
    assert alarms <= runs * 0.01


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_version_that_fails_every_other_request_is_found_within_a_few_hundred_attempts(share: float) -> None:
    random = Random(2026)
    needed = [_looks(random, (0.5, 0.001), 50, share, 60) for _ in range(100)]
    found = [attempts for attempts in needed if attempts is not None]
    print(f"50 % errors, {share:.0%} share: found after {sorted(found)[50]} attempts, at most {max(found)}")
    assert len(found) == len(needed) and max(found) <= 400


def test_the_level_is_strict() -> None:
    assert LEVEL <= 1e-4
