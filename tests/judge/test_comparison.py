"""The judge of a rollout: looks go in, judgements with their reasons come out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import inf, isfinite, log

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segue.core import verdict
from segue.core.traffic import Sample
from segue.core.verdict import Basis, Judgement, Verdict
from segue.judge.comparison import Comparison
from segue.judge.errors import Counts, Ratio
from segue.judge.gathering import Gathering
from segue.judge.lines import Lines
from segue.judge.ratio import RatioSet
from segue.judge.settings import Gate, Margin, Settings

Look = tuple[float, Sample, Sample | None]

USUAL = {10_000.0: 45, 11_000.0: 36, 12_000.0: 8, 50_000.0: 1}
"""Ninety answers."""


def times(attempts: int, slower: float = 1.0) -> dict[float, int]:
    """A histogram of multiples of 90 answers."""
    return {edge * slower: count * (attempts // 90) for edge, count in USUAL.items()}


def old(failures: int = 0, attempts: int = 900) -> Sample:
    return Sample(attempts, failures, times(attempts))


def new(failures: int = 0, attempts: int = 90, slower: float = 1.0) -> Sample:
    return Sample(attempts, failures, times(attempts, slower))


HISTORY = Sample(540_000, 540, times(54_000))


def comparison(history: Sample = HISTORY) -> Comparison:
    return Comparison(Settings(), history)


def watched(*looks: Look, to: Comparison | None = None) -> Comparison:
    compared = to or comparison()
    for seconds, *samples in looks:
        compared.look(seconds, *samples)
    return compared


def silence(compared: Comparison) -> Judgement:
    return compared.silence("v2", "v1")


def proof(compared: Comparison) -> Judgement:
    return compared.proof("v2", "v1")


# What it says


def test_without_a_request_silence_passes_on_health() -> None:
    judgement = silence(watched(*[(1, Sample(), old())] * 30))
    assert judgement.reason == "No user request reached v2"
    assert judgement.verdict is Verdict.PASS and judgement.basis is Basis.HEALTH
    assert silence(comparison(Sample())) == Judgement(
        Verdict.PASS, Basis.HEALTH, "No user request reached v2", silence(comparison(Sample())).numbers
    )


def test_a_handful_of_requests_is_too_few_to_judge() -> None:
    judgement = silence(watched((1, Sample(9, 1), old())))
    assert judgement.reason == "1 of 9 attempts on v2 failed: too few to judge"
    assert judgement.verdict is Verdict.PASS and judgement.basis is Basis.HEALTH


def test_silence_passes_with_the_numbers_in_the_sentence() -> None:
    judgement = silence(watched(*[(1, new(), old(1))] * 9, (1, new(1), old(1))))
    assert judgement.reason == "1 of 900 attempts on v2 failed (0.11 %), 10 of 9,000 on v1 (0.11 %)"
    assert judgement.verdict is Verdict.PASS and judgement.basis is Basis.EVIDENCE
    assert judgement.numbers["new_attempts"] == 900 and judgement.numbers["old_failures"] == 10


def test_a_version_that_fails_is_an_alarm_with_the_numbers_and_what_chance_has_to_do_with_it() -> None:
    compared = watched(*[(1, new(), old(1))] * 2, *[(1, new(9), old(1))] * 4)
    judgement = silence(compared)
    assert judgement.reason == (
        "36 of 360 attempts on v2 failed (10.00 %), 4 of 3,600 on v1 (0.11 %) in the last 4 s: "
        "chance makes such a difference in fewer than one of 300 rollouts"
    )
    assert compared.alarm and judgement.alarm and judgement.basis is Basis.EVIDENCE
    assert proof(compared) == judgement


def test_a_version_that_is_slow_is_an_alarm_with_the_times_of_both() -> None:
    judgement = silence(watched(*[(1, new(slower=2), old())] * 6))
    assert judgement.alarm
    assert judgement.reason.startswith("p90 22 ms on v2, 11 ms on v1 in the last minute: chance makes")


def test_an_alarm_stays() -> None:
    compared = watched(*[(1, new(9), old(1))] * 6)
    reason = silence(compared).reason
    watched(*[(1, new(), old(9))] * 100, to=compared)
    assert compared.alarm and not compared.amber
    assert silence(compared).reason == reason


def test_before_the_alarm_it_is_amber() -> None:
    compared, ambers = comparison(), 0
    while not compared.alarm:
        ambers += compared.amber
        compared.look(1, new(1), old())
    assert ambers and compared.amber


def test_trouble_that_both_have_is_no_alarm() -> None:
    assert not watched(*[(1, new(45), old(450))] * 60).alarm


def test_a_judgement_can_be_journalled() -> None:
    for compared in (comparison(), watched(*[(1, new(9), old(1))] * 6), watched(*[(1, new(1), None)] * 6)):
        for judgement in (silence(compared), proof(compared)):
            assert verdict.decode(json.loads(json.dumps(verdict.encode(judgement), allow_nan=False))) == judgement


# Proof


def test_a_healthy_version_is_proven_at_the_first_gate_and_anew_at_the_next() -> None:
    compared = comparison()
    compared.step(Gate.FIRST)
    watched(*[(1, new(), old(1))] * 30, to=compared)
    judgement = proof(compared)
    assert judgement.verdict is Verdict.PASS and judgement.basis is Basis.EVIDENCE
    assert judgement.reason.endswith(
        ": shown to fail at most 3 times as often + 2 points, and to be at most 50 % slower"
    )
    compared.close()
    compared.step(Gate.THEN)
    assert proof(compared).verdict is Verdict.UNDECIDED
    watched(*[(1, new(), old(1))] * 60, to=compared)
    assert proof(compared).reason.endswith("1.5 times as often + 0.5 points, and to be at most 30 % slower")


def test_what_is_slower_than_the_margin_is_never_proven() -> None:
    compared = comparison()
    compared.step(Gate.THEN)
    while not compared.alarm:
        compared.look(1, new(slower=1.5), old(1))
        assert proof(compared).verdict is not Verdict.PASS


def test_nothing_is_proven_while_it_is_amber() -> None:
    compared = watched(*[(1, new(), old(1))] * 600)
    assert proof(compared).verdict is Verdict.PASS
    while not compared.amber:
        compared.look(1, new(1), old())
    judgement = proof(compared)
    assert judgement.verdict is Verdict.UNDECIDED and not compared.alarm
    assert judgement.reason.endswith("something speaks against it, so nothing is proven now")


def test_undecided_says_what_is_missing() -> None:
    compared = watched(*[(1, new(), old(1))] * 2)
    judgement = proof(compared)
    needed, seconds = judgement.numbers["needed"], judgement.numbers["seconds"]
    assert judgement.numbers["requests"] == 180 and isinstance(needed, int) and isinstance(seconds, float)
    assert seconds == pytest.approx(needed / 90)
    assert judgement.reason.endswith(
        f": not enough evidence yet, a verdict needs about {needed} more, {seconds:.0f} s at this traffic"
    )


def test_what_is_said_to_be_missing_is_about_what_is_missing() -> None:
    compared = comparison()
    compared.step(Gate.THEN)
    compared.look(1, new(), old(1))
    needed = proof(compared).numbers["needed"]
    looks = 1
    while proof(compared).verdict is not Verdict.PASS and looks < 100:
        looks += 1
        compared.look(1, new(1 if looks % 10 == 5 else 0), old(1))
    assert isinstance(needed, int) and 0.6 * needed <= looks * 90 <= 1.7 * needed


def test_without_a_request_it_is_said_how_many_are_needed_but_not_how_long_that_takes() -> None:
    judgement = proof(watched(*[(1, Sample(), old(1))] * 30))
    assert judgement.verdict is Verdict.UNDECIDED and judgement.basis is Basis.HEALTH
    assert judgement.numbers["requests"] == 0 and judgement.numbers["seconds"] is None
    assert isinstance(judgement.numbers["needed"], int) and judgement.numbers["needed"] > 100


def test_without_an_old_version_beside_it_no_proof_can_come() -> None:
    judgement = proof(watched(*[(1, new(), None)] * 30))
    assert judgement.verdict is Verdict.UNDECIDED and judgement.numbers["needed"] is None
    assert judgement.reason.endswith("not enough evidence, and at this rate none comes")


def test_while_instances_settle_latency_does_not_count_but_errors_do() -> None:
    compared = comparison()
    for _ in range(10):
        compared.look(1, new(slower=3), old(), timed=False)
    assert not compared.amber
    for _ in range(4):
        compared.look(1, new(9, slower=3), old(), timed=False)
    assert compared.alarm and "attempts on v2 failed" in silence(compared).reason


def test_while_instances_settle_it_is_learned_how_fast_the_old_version_is() -> None:
    gathered = Gathering(Settings(), Sample())
    gathered.look(1, new(), old(), False)
    assert gathered.latency.old.percentile(0.5) == 10_000 and not gathered.latency.new.total


def test_failures_that_come_in_bunches_are_trusted_less() -> None:
    gathered = Gathering(Settings(), HISTORY)
    for i in range(40):
        gathered.look(1, Sample(500, 10 if i % 7 == 0 else 0), Sample(500, 5), True)
    assert gathered.guard.trust < 0.7


# Without an old version beside it


def test_after_a_switch_it_is_held_against_what_the_old_version_did_before() -> None:
    compared = watched(*[(1, new(), old(1))] * 5, (1, new(9), old(1)), *[(1, new(9), None)] * 8)
    judgement = silence(compared)
    assert judgement.alarm
    assert judgement.reason.startswith(
        "72 of 720 attempts on v2 failed (10.00 %) in the last 8 s, 546 of 545,400 on v1 before it (0.10 %)"
    )


def test_after_a_switch_the_margins_are_wide() -> None:
    assert not watched(*[(1, Sample(1000, 10), None)] * 600).alarm
    assert watched(*[(1, Sample(1000, 30), None)] * 60).alarm


def test_without_history_five_percent_may_fail() -> None:
    compared = watched(*[(1, Sample(100, 5), None)] * 600, to=comparison(Sample()))
    assert silence(compared).reason == (
        "3,000 of 60,000 attempts on v2 failed (5.00 %); "
        "up to 5.00 % are allowed where there is little to compare with"
    )
    watched(*[(1, Sample(100, 20), None)] * 60, to=compared)
    assert silence(compared).alarm


def test_a_version_that_fails_every_request_of_little_traffic_is_found_soon_after_a_switch() -> None:
    compared = watched(*[(1, Sample(1, 1), None)] * 5)
    assert compared.alarm


def test_an_old_version_that_has_had_no_attempt_for_a_while_counts_as_away() -> None:
    found = watched(*[(1, new(), old(1))] * 5, *[(1, new(45), Sample())] * 14)
    assert found.alarm and "before it" in silence(found).reason
    gaps = watched(*[(1, Sample(45, 20), Sample(1 if i % 9 == 0 else 0, 0)) for i in range(40)])
    assert "before it" not in silence(gaps).reason
    little = watched(*[(1, Sample(1, i % 2), Sample(1 if i % 15 == 0 else 0, 0)) for i in range(60)])
    assert "before it" not in silence(little).reason


def test_when_the_old_version_is_back_it_is_compared_with_again() -> None:
    compared = watched(*[(1, Sample(100, 0), None)] * 30, *[(1, new(45), old(450))] * 30)
    assert not compared.alarm and " on v1 (" in silence(compared).reason


def test_each_further_bound_is_a_little_higher_for_all_of_them_may_be_wrong_as_seldom_as_one() -> None:
    gathered, bounds = Gathering(Settings(), Sample(10_000, 10)), []
    for _ in range(3):
        gathered.look(1, Sample(1, 0), None, True)
        assert gathered.alone
        bounds.append(gathered.alone.highest)
        gathered.look(1, Sample(1, 0), Sample(1, 0), True)
    assert bounds == sorted(set(bounds)) and bounds[2] < 1.5 * bounds[0]


# Strata


def test_looks_with_few_requests_are_taken_together() -> None:
    few = watched(*[(1, Sample(1, 0), Sample(4, 1))] * 8)
    together = watched(*[(4, Sample(4, 0), Sample(16, 4))] * 2)
    assert silence(few).numbers == silence(together).numbers
    assert silence(watched(*[(1, Sample(1, 0), Sample(4, 1))] * 3)).numbers["ln_e_errors"] == 0


def test_looks_within_a_second_are_one_second() -> None:
    """Or the cap would be worth nothing."""
    assert not watched(*[(0.2, new(45), old())] * 10).alarm
    assert watched(*[(1, new(45), old())] * 4).alarm


def test_closing_ends_a_stratum_that_is_not_full() -> None:
    compared = watched((1, Sample(3, 3), Sample(9, 0)))
    assert silence(compared).numbers["ln_e_errors"] == 0
    compared.close()
    assert silence(compared).numbers["ln_e_errors"] != 0


@pytest.mark.parametrize("version", ["new", "old"])
@pytest.mark.parametrize("wrong", [Sample(-1, 0), Sample(10, -1), Sample(10, 0, {100.0: -1})])
def test_a_count_that_went_back_is_refused_and_changes_nothing(version: str, wrong: Sample) -> None:
    compared = watched((1, new(), old()))
    before = silence(compared)
    with pytest.raises(ValueError, match=f"a count of the {version} version went back"):
        compared.look(1, *((wrong, old()) if version == "new" else (new(), wrong)))
    with pytest.raises(ValueError, match="a look cannot take"):
        compared.look(-1, new(), old())
    assert silence(compared) == before


def test_counters_of_any_size_leave_the_numbers_finite() -> None:
    most = 2**53
    compared = comparison()
    for sample in (Sample(most, 0, {100.0: most}), Sample(most, most, {200.0: most}), Sample(most, 3, {1e9: most})):
        compared.look(1, sample, Sample(most, most // 2, {100.0: most - 1, 300.0: 1}))
        compared.look(1, sample, None)
    for judgement in (silence(compared), proof(compared)):
        assert all(isfinite(n) for n in judgement.numbers.values() if isinstance(n, int | float))


counts = st.integers(0, 60)
samples = st.builds(
    lambda n, k, slow: Sample(n, min(n, k), {10_000.0: n, slow: n // 10}),
    counts,
    st.integers(0, 8),
    st.sampled_from([12_000.0, 30_000.0, 90_000.0]),
)
looks = st.lists(
    st.tuples(st.integers(1, 5), samples, st.one_of(samples, samples, samples, st.none()), st.integers(1, 4)),
    max_size=30,
)


def _state(compared: Comparison) -> tuple[Mapping[str, object], Sequence[object]]:
    """All that can be asked: numbers, and what is said with them."""
    judged, ratio = (silence(compared), proof(compared)), compared.ratio()
    times = {f"{name} {i}": time for name, both in compared.percentiles().items() for i, time in enumerate(both)}
    bounds = {"low": ratio.low, "high": ratio.high, "estimate": ratio.estimate}
    said = [(judgement.verdict, judgement.basis, judgement.reason) for judgement in judged]
    numbers = {**judged[0].numbers, **judged[1].numbers, **bounds, **times}
    unknown = {name for name, number in numbers.items() if number is None}
    known = {name: number for name, number in numbers.items() if number is not None}
    return known, (said, unknown, compared.amber)


_ONE = Sample(1, 0, {10_000.0: 1})


@example([(1, _ONE, None, 1), (1, _ONE, Sample(), 1), (1, _ONE, None, 2)])
@given(looks)
def test_how_time_without_traffic_is_cut_into_looks_changes_nothing(
    taken: list[tuple[int, Sample, Sample | None, int]],
) -> None:
    whole, cut = comparison(), comparison()
    for seconds, of_new, of_old, parts in taken:
        nothing = None if of_old is None else Sample()
        for compared, pieces in ((whole, 1), (cut, parts)):
            for _ in range(pieces):
                compared.look(seconds * 12 / pieces, Sample(), nothing)
            compared.look(seconds, of_new, of_old)
    of_whole, of_cut = _state(whole), _state(cut)
    assert of_cut[1:] == of_whole[1:]
    assert of_cut[0] == pytest.approx(of_whole[0], rel=1e-9, abs=1e-12)  # sums of other parts round otherwise


@given(looks)
def test_the_same_looks_give_the_same_state_and_reading_it_changes_nothing(
    taken: list[tuple[int, Sample, Sample | None, int]],
) -> None:
    read, unread = comparison(), comparison()
    for seconds, of_new, of_old, gate in taken:
        for compared in (read, unread):
            compared.look(seconds, of_new, of_old)
            if gate == 4:
                compared.step(Gate.THEN)
        _state(read)
    assert _state(read) == _state(unread)


@given(looks)
def test_a_version_that_never_fails_is_never_an_alarm_for_its_failures(
    taken: list[tuple[int, Sample, Sample | None, int]],
) -> None:
    compared = comparison()
    for seconds, of_new, of_old, _ in taken:
        compared.look(seconds, Sample(of_new.attempts), of_old)
    assert not compared.alarm


# Settings, ratio, lines


def test_settings_are_those_of_the_manifest_and_what_cannot_be_meant_is_refused() -> None:
    assert Settings().margin(Gate.FIRST) == Margin(3, 0.02, 0.5)
    assert Settings().margin(Gate.THEN) == Margin(1.5, 0.005, 0.3)
    for wrong in ({"false_alarm": 0.0}, {"false_alarm": 1.0}, {"doubt": -0.1}, {"doubt": float("nan")}):
        with pytest.raises(ValueError, match="must be a fraction between 0 and 1"):
            Settings(**wrong)
    for ratio, errors, latency in ((0.9, 0, 0), (inf, 0, 0), (1, 1, 0), (1, -0.1, 0), (1, 0, -1), (1, 0, inf)):
        with pytest.raises(ValueError, match="a margin's"):
            Margin(ratio, errors, latency)


def test_a_stricter_false_alarm_takes_more_evidence() -> None:
    needed = []
    for false_alarm in (0.01, 0.0001):
        compared, seconds = Comparison(Settings(false_alarm=false_alarm), HISTORY), 0
        while not compared.alarm:
            compared.look(1, new(2), old(1))
            seconds += 1
        needed.append(seconds)
    assert needed[0] < needed[1]


def test_the_confidence_set_holds_the_ratio_and_narrows() -> None:
    ratios = RatioSet()
    assert (ratios.interval().low, ratios.interval().high, ratios.interval().estimate) == (0.0, inf, None)
    for _ in range(40):
        ratios.see(Counts(2, 100, 9, 900))
    some = ratios.interval()
    for _ in range(400):
        ratios.see(Counts(2, 100, 9, 900))
    more = ratios.interval()
    assert some.low < more.low < 2 < more.high < some.high
    assert more.estimate == pytest.approx(2)


def test_the_confidence_set_is_the_inversion_of_the_tests_of_errors() -> None:
    ratios, strata = RatioSet(), [Counts(4, 100, 9, 900), Counts(0, 90, 12, 800), Counts(3, 300, 2, 300)] * 9
    strata.append(Counts(40, 100, 0, 900))
    grid = [2 ** (i / 4) for i in range(-20, 37)]
    more = {r: Ratio(r, 0, (2**0.5, 2, 4, 16), late=0) for r in grid}
    less = {r: Ratio(r, 0, (2**-0.5, 0.5, 0.25, 0), late=0) for r in grid}
    for now, counts in enumerate(strata):
        ratios.see(counts, 0.8)
        for test in (*more.values(), *less.values()):
            test.see(counts, now, 0.8)
    found = ratios.interval()
    assert found.low == max(r for r, test in more.items() if test.log_e >= log(40))
    assert found.high == min(r for r, test in less.items() if test.log_e >= log(40))


def test_the_ratio_is_that_of_the_step() -> None:
    compared = watched(*[(1, new(1), old(1))] * 30)
    assert compared.ratio().estimate == pytest.approx(10)
    compared.step(Gate.THEN)
    assert compared.ratio().estimate is None


@pytest.mark.parametrize("lines", [5, 6])
def test_a_few_tracebacks_on_one_of_ten_instances_with_none_elsewhere_are_an_alarm(lines: int) -> None:
    watch = Lines(0.01, Settings().alarm)
    for _ in range(lines):
        watch.look(1, Counts(1, 100, 0, 900))
    assert watch.alarm and watch.log_e > log(100)


def test_however_many_tracebacks_they_must_come_in_at_least_three_separate_seconds() -> None:
    watch, seconds = Lines(0.01, Settings().alarm), 0
    while not watch.alarm:
        watch.look(1, Counts(5000, 100, 0, 900))
        seconds += 1
    assert seconds == 3


def test_lines_within_a_second_are_one_second() -> None:
    watch = Lines(0.01, Settings().alarm)
    for _ in range(10):
        watch.look(0.2, Counts(5000, 100, 0, 900))
    assert not watch.alarm


def test_lines_that_come_in_bunches_are_trusted_less() -> None:
    watch, plain = Lines(0.01, Settings().alarm), Ratio.alarm(Settings().alarm)
    for now in range(1, 41):
        counts = Counts(20 if now % 2 else 2, 500, 5, 500)
        watch.look(1, counts)
        plain.see(counts, now)
    assert watch.log_e < plain.log_e - 5


def test_lines_that_both_versions_write_are_no_alarm() -> None:
    watch = Lines(0.01, Settings().alarm)
    for _ in range(600):
        watch.look(1, Counts(20, 100, 180, 900))
    watch.close()
    assert not watch.alarm
    with pytest.raises(ValueError, match="went back"):
        watch.look(1, Counts(-1, 0, 0, 0))
    with pytest.raises(ValueError, match="false_alarm"):
        Lines(0, Settings().alarm)


def test_the_thousandth_that_pays_for_bounds_leaves_three_seconds_enough() -> None:
    assert Gathering(Settings(), HISTORY).threshold == pytest.approx(log(100 / 0.999))
    assert watched(*[(1, new(45), old())] * 3).alarm
