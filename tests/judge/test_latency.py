"""The test of latency: never more than 1 is expected of it, it is the recorded reference, and edges are found."""

from __future__ import annotations

from itertools import product
from math import comb, exp, isfinite, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.judge.errors import Counts
from segue.judge.histogram import Cuts, Fading, slower
from segue.judge.latency import BETTER, FIXED_MIX, WORSE, Edge, Exceedance, Latency, Percentile
from segue.judge.mixture import CAP
from segue.judge.settings import Margin

STRATA = (
    (52, 97, 451, 903),
    (60, 110, 430, 880),
    (30, 40, 170, 360),
    (70, 104, 450, 910),
    (5, 9, 47, 91),
    (160, 300, 352, 700),
    (80, 120, 504, 1010),
)
RECORDED = {
    ("alarm", "p50"): (-0.26769750868924536, 0.8821274169647584, 4.504167143230146),
    ("alarm", "p99"): (-0.20203489011560044, -0.295635685828662, -0.2934255030964482),
    ("proof", "p50"): (-2.719413468624934, -7.16272881523703, -19.00061243873948),
    ("proof", "p99"): (-0.2393248698074244, -0.2626219449516334, -1.2821392465136596),
}


@pytest.mark.parametrize(("kind", "percentile"), RECORDED)
def test_the_evidence_is_that_of_the_reference(kind: str, percentile: str) -> None:
    test = Exceedance.alarm() if kind == "alarm" else Exceedance.proof()
    seen = []
    for now, (new, of_new, old, of_old) in enumerate(STRATA, start=1):
        if percentile == "p50":
            total = of_new + of_old
            test.see(Counts(new, of_new, old, of_old), 0.49, now, (total - 1) / total)
        else:
            test.see(Counts(new // 40, of_new, old // 45, of_old), 0.012, now)
        seen.append(test.log_e)
    assert (seen[0], seen[2], seen[-1]) == pytest.approx(RECORDED[kind, percentile], abs=1e-9)


def _expected(
    test: Exceedance, alternative: int, attempts: tuple[int, int], rates: tuple[float, float], part: float
) -> float:
    total = 0.0
    for new, old in product(range(attempts[0] + 1), range(attempts[1] + 1)):
        factor = test.factors(Counts(new, attempts[0], old, attempts[1]), part)[alternative]
        chance = 1.0
        for k, n, p in zip((new, old), attempts, rates, strict=True):
            chance *= comb(n, k) * p**k * (1 - p) ** (n - k)
        total += chance * exp(min(factor, CAP))
    return total


@pytest.mark.parametrize("attempts", [(1, 1), (1, 11), (3, 9), (6, 6), (11, 1)])
def test_no_stratum_is_expected_to_add_evidence_whatever_the_old_version_is_thought_to_do(
    attempts: tuple[int, int],
) -> None:
    alarm, proof = Exceedance.alarm(), Exceedance.proof()
    for rate, part, better in product((0.001, 0.01, 0.1, 0.5, 0.9), (1e-9, 0.001, 0.1, 0.5, 0.99), (1.0, 0.5)):
        for i in range(len(WORSE)):
            assert _expected(alarm, i, attempts, (rate * better, rate), part) <= 1 + 1e-12
        for i in range(len(BETTER)):
            assert _expected(proof, i, attempts, (rate, rate * better), part) <= 1 + 1e-12


def _fixed_mix(slow: int, total: int, share: float, alternative: int, shrunk: float) -> float:
    """The exact expectation if every stratum has exactly `slow` of `total`, and only the routing is random."""
    test, expected = Exceedance.alarm(), 0.0
    for of_new in range(total + 1):
        for new in range(max(0, of_new + slow - total), min(slow, of_new) + 1):
            ways = comb(slow, new) * comb(total - slow, of_new - new)
            chance = ways * share**of_new * (1 - share) ** (total - of_new)
            factor = test.factors(Counts(new, of_new, slow - new, total - of_new), slow / total)[alternative]
            expected += chance * exp(min(shrunk * factor, CAP))
    return expected


def test_of_a_fixed_mix_of_slow_requests_no_evidence_is_expected_once_factors_are_shrunk() -> None:
    total = 20
    for slow, share, i in product((1, 2, 5, 10, 18, 19), (0.05, 0.1, 0.5, 0.9), range(len(WORSE))):
        assert _fixed_mix(slow, total, share, i, 1 - FIXED_MIX / total) <= 1 + 1e-12
    assert _fixed_mix(1, total, 0.05, 6, 1 - 1 / total) > 1.003


def test_counts_of_any_size_leave_it_finite() -> None:
    most = 2**53
    for test, part in product((Exceedance.alarm(), Exceedance.proof()), (0.0, 0.5, 1.0)):
        for counts in (Counts(most, most, 0, most), Counts(0, most, most, most), Counts(0, 1, 0, most), Counts()):
            test.see(counts, part, 1)
            assert isfinite(test.log_e)


histograms = st.dictionaries(st.integers(1, 400).map(float), st.integers(0, 50), max_size=30)


@given(histograms, st.lists(st.integers(0, 401).map(float), min_size=1, max_size=6))
def test_attempts_above_edges_are_counted_in_one_pass(histogram: dict[float, int], edges: list[float]) -> None:
    expected = {cut: sum(n for edge, n in histogram.items() if edge > cut) for cut in edges}
    assert Cuts(edges).above(histogram) == expected


@given(histograms, st.floats(0, 10_000))
def test_percentiles_are_the_edges_that_so_many_are_at_or_below(histogram: dict[float, int], now: float) -> None:
    fading = Fading(60)
    fading.add(histogram, now)
    total = sum(histogram.values())
    if total:
        for part in (0.5, 0.9, 0.99):
            edge, lower = fading.percentile(part), fading.below(part)
            at_or_below = sum(n for e, n in histogram.items() if e <= edge)
            below = sum(n for e, n in histogram.items() if e < edge)
            assert at_or_below >= part * total * (1 - 1e-12) and below <= part * total * (1 + 1e-12)
            assert lower < edge or at_or_below == pytest.approx(part * total)
            assert sum(n for e, n in histogram.items() if e > lower) >= (1 - part) * total * (1 - 1e-12)
        assert fading.worth(now) == pytest.approx(total)


def test_what_is_older_weighs_less() -> None:
    fading = Fading(60)
    fading.add({100.0: 1000}, 0)
    assert fading.worth(60) == pytest.approx(1000 / 2.718281828)
    fading.add({200.0: 100}, 600)
    assert fading.percentile(0.5) == 200.0
    fading.add({300.0: 10}, 6000)
    assert fading.percentile(0.5) == 300.0


def test_the_margin_reaches_to_the_next_edge_of_the_buckets() -> None:
    decade = [float(edge) for edge in range(10_000, 100_000, 1000)]
    assert slower(50_000, 0.09, decade) == 55_000
    assert slower(20_000, 0.09, decade) == 22_000
    assert slower(10_000, 0.09, decade) == 11_000
    assert slower(50_000, 0.5, decade) == 75_000


def test_where_no_bucket_is_known_an_attempt_counts_once_it_is_slower_for_certain() -> None:
    beyond = slower(100_000, 0.09, [50_000.0, 100_000.0, 900_000.0])
    assert beyond == pytest.approx(109_000 * 1.1)


def _seconds(latency: Latency, new: dict[float, int], old: dict[float, int], most: int = 300) -> int:
    for now in range(1, most + 1):
        latency.see(new, old, now)
        if latency.log_e >= log(200):
            return now
    return most + 1


OLD = {10_000.0: 450, 11_000.0: 360, 12_000.0: 81, 50_000.0: 8, 90_000.0: 1}


def test_a_version_within_the_margin_is_not_slower() -> None:
    new = {edge * 1.09: count for edge, count in OLD.items()}
    assert _seconds(Latency(Margin(1.1, 0.0002, 0.09), Margin(3, 0.02, 0.5), OLD), new, OLD) > 300


def test_a_version_is_proven_where_all_answers_take_the_same_time() -> None:
    latency = Latency(Margin(1.1, 0.0002, 0.09), Margin(3, 0.02, 0.5), {10_000.0: 9000})
    for now in range(1, 11):
        latency.see({10_000.0: 100}, {10_000.0: 900}, now)
    assert min(latency.proofs) >= log(20)
    slow = Latency(Margin(1.1, 0.0002, 0.09), Margin(3, 0.02, 0.5), {10_000.0: 9000})
    for now in range(1, 11):
        slow.see({20_000.0: 100}, {10_000.0: 900}, now)
    assert max(slow.proofs) < 0


def test_a_version_that_is_half_as_fast_is_found_in_seconds_also_without_history() -> None:
    new = {edge * 2: count // 9 for edge, count in OLD.items()}
    margins = Margin(1.1, 0.0002, 0.09), Margin(3, 0.02, 0.5)
    assert _seconds(Latency(*margins, OLD), new, OLD) <= 6
    assert _seconds(Latency(*margins, {}), new, OLD) <= 8


def test_a_version_whose_slow_answers_all_take_the_same_time_is_found() -> None:
    """Such as a time limit; nothing between the old version's usual time and that is known."""
    old = {10_000.0: 900}
    assert _seconds(Latency(Margin(1.1, 0.0002, 0.09), Margin(3, 0.02, 0.5), old), {1_100_000.0: 100}, old) <= 6


MARGINS = Margin(1.1, 0.0002, 0.09), Margin(3, 0.02, 0.5)


def test_factors_are_shrunk_by_two_over_the_number_of_attempts() -> None:
    one, test = Percentile(0.5, Exceedance.alarm()), Exceedance.alarm()
    one.at = Edge(10.0, 0.4, 11.0)
    one.see({10.0: 4, 11.0: 3}, 4, {10.0: 2, 11.0: 1}, 6, 1)
    test.see(Counts(3, 4, 2, 6), 0.4, 1, 0.8)
    assert one.test.log_e == test.log_e


def test_history_weighs_as_much_as_a_minute() -> None:
    latency = Latency(*MARGINS, {10_000.0: 540_000})
    for now in range(1, 51):
        latency.see({30_000.0: 100}, {30_000.0: 900}, now)
    assert latency.old.percentile(0.5) == 30_000


def test_edges_follow_the_old_version() -> None:
    latency, slow = Latency(*MARGINS, OLD), {edge * 3: count for edge, count in OLD.items()}
    for now in range(1, 181):
        old = OLD if now <= 120 else slow
        latency.see({edge: count // 9 for edge, count in old.items()}, old, now)
    assert latency.log_e < log(200)
    seconds = 0
    while latency.log_e < log(200) and seconds < 100:
        seconds += 1
        latency.see({edge * 1.5: count // 9 for edge, count in slow.items()}, slow, 180 + seconds)
    assert seconds <= 10


def test_edges_are_taken_anew_as_soon_as_much_more_is_known() -> None:
    latency = Latency(*MARGINS, {})
    latency.see({}, {1_000_000.0: 1}, 1)
    for now in (2, 3):
        latency.see({edge: count // 9 for edge, count in OLD.items()}, OLD, now)
    assert _seconds(latency, {edge * 2: count // 9 for edge, count in OLD.items()}, OLD, 6) <= 6
