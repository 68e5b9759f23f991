"""The test of errors: never more than 1 is expected of it, and it is the recorded reference to nine digits."""

from __future__ import annotations

from itertools import product
from math import comb, exp, isfinite, log

import pytest

from segue.judge.dispersion import Dispersion
from segue.judge.errors import BETTER, WORSE, Counts, Ratio
from segue.judge.mixture import CAP, Mixture
from segue.judge.settings import Margin

ALARM, THEN = Margin(1.1, 0.0002, 0.09), Margin(1.5, 0.005, 0.3)

STRATA = (
    (1, Counts(0, 97, 1, 903)),
    (2, Counts(1, 110, 0, 880)),
    (3, Counts(2, 40, 3, 360)),
    (4, Counts(0, 0, 5, 900)),
    (5, Counts(3, 104, 0, 910)),
    (6, Counts(1, 9, 0, 91)),
    (7.5, Counts(0, 300, 2, 700)),
    (8.5, Counts(7, 120, 4, 1010)),
    (10, Counts(2, 88, 1, 915)),
    (14, Counts(0, 5, 0, 15)),
    (15, Counts(50, 100, 1, 900)),
    (16, Counts(4, 500, 9, 500)),
    (17, Counts(1, 99, 0, 0)),
    (600, Counts(12, 100, 2, 900)),
)
RECORDED = {
    "alarm": {
        0: -0.212781859878575,
        2: 0.9434319565324245,
        6: 2.2756929662919623,
        9: 5.948560491202671,
        10: 7.947457395642081,
        13: 5.524857046644592,
    },
    "proof": {
        0: 0.3632022757567943,
        2: -0.9973019447936915,
        6: -1.5909877582918814,
        9: -3.302880705499506,
        10: -12.947214571489267,
        13: -14.134344159767826,
    },
}


@pytest.mark.parametrize(("kind", "test"), [("alarm", Ratio.alarm(ALARM)), ("proof", Ratio.proof(THEN))])
def test_the_evidence_is_that_of_the_reference(kind: str, test: Ratio) -> None:
    seen = {}
    for i, (now, counts) in enumerate(STRATA):
        test.see(counts, now)
        seen[i] = test.log_e
    assert {i: seen[i] for i in RECORDED[kind]} == pytest.approx(RECORDED[kind], abs=1e-9)


def test_the_dispersion_and_what_is_made_of_it_are_those_of_the_reference() -> None:
    test, guard = Ratio.alarm(ALARM), Dispersion()
    phis, logs = [], []
    for now, (new, old) in enumerate([(0, 6), (6, 0), (0, 7), (1, 9), (9, 1), (0, 12), (8, 0), (1, 4)], start=1):
        counts = Counts(new, 100, old, 900)
        test.see(counts, now, guard.trust)
        guard.add(counts)
        phis.append(1 / guard.trust)
        logs.append(test.log_e)
    assert phis == pytest.approx(PHIS, abs=1e-9)
    assert logs == pytest.approx(GUARDED, abs=1e-9)


PHIS = (1.0, 3.0, 4.5, 3.957142857143, 4.9825, 6.36735042735, 7.630615384615, 7.712680652681)
GUARDED = (
    -0.44863680953964924,
    0.3276716069907118,
    0.16628788095791436,
    0.11874195939016219,
    0.9656886127341582,
    0.734153111206701,
    1.3808021013263678,
    1.3915913759240357,
)


def _expected(
    test: Ratio, alternative: int, attempts: tuple[int, int], rates: tuple[float, float], trust: float
) -> float:
    """The exact expectation of what a stratum multiplies one alternative by."""
    total = 0.0
    for new, old in product(range(attempts[0] + 1), range(attempts[1] + 1)):
        [factor] = test.factors(Counts(new, attempts[0], old, attempts[1]))[alternative : alternative + 1]
        chance = 1.0
        for k, n, p in zip((new, old), attempts, rates, strict=True):
            chance *= comb(n, k) * p**k * (1 - p) ** (n - k)
        total += chance * exp(min(trust * factor, CAP))
    return total


SPLITS = [(1, 1), (1, 11), (2, 4), (3, 9), (6, 6), (9, 3), (11, 1)]
RATES = [0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9]


@pytest.mark.parametrize("attempts", SPLITS)
@pytest.mark.parametrize("margin", [Margin(1, 0, 0), ALARM, THEN, Margin(3, 0.02, 0.5)])
def test_no_stratum_is_expected_to_add_evidence_of_harm_within_the_margin(
    attempts: tuple[int, int], margin: Margin
) -> None:
    test = Ratio.alarm(margin)
    for rate, part, trust in product(RATES, (0.0, 0.5, 1.0), (1.0, 0.4)):
        worst = min(1.0, part * (margin.ratio * rate + margin.errors))
        for alternative in range(len(WORSE)):
            assert _expected(test, alternative, attempts, (worst, rate), trust) <= 1 + 1e-12


@pytest.mark.parametrize("attempts", SPLITS)
@pytest.mark.parametrize("margin", [Margin(1, 0, 0), THEN, Margin(3, 0.02, 0.5)])
def test_no_stratum_is_expected_to_add_to_a_proof_beyond_the_margin(
    attempts: tuple[int, int], margin: Margin
) -> None:
    test = Ratio.proof(margin)
    for rate, more, trust in product(RATES, (1.0, 1.3, 4.0), (1.0, 0.4)):
        best = more * (margin.ratio * rate + margin.errors)
        for alternative in range(len(BETTER)):
            if best <= 1:
                assert _expected(test, alternative, attempts, (best, rate), trust) <= 1 + 1e-12


def test_beyond_the_margin_evidence_is_expected_to_grow() -> None:
    """So that the tests above could fail."""
    assert max(_expected(Ratio.alarm(ALARM), i, (6, 6), (0.5, 0.1), 1.0) for i in range(len(WORSE))) > 1.5


def test_a_stratum_of_a_second_adds_two_nats_at_most() -> None:
    test = Ratio.alarm(ALARM)
    test.see(Counts(2500, 5000, 0, 45000), 1)
    assert test.log_e < CAP
    test.see(Counts(2500, 5000, 0, 45000), 2)
    assert test.log_e < 2 * CAP < log(200)
    test.see(Counts(2500, 5000, 0, 45000), 3)
    assert test.log_e > log(200)


def test_a_version_that_was_good_for_long_is_found_almost_as_fast() -> None:
    late = Ratio.alarm(ALARM)
    for now in range(1, 481):
        late.see(Counts(0, 100, 1, 900), now)
    seconds = 0
    while late.log_e < log(200):
        seconds += 1
        late.see(Counts(5, 100, 1, 900), 480 + seconds)
    assert seconds <= 8


def test_what_has_not_begun_keeps_the_evidence_from_falling_for_ever() -> None:
    test = Ratio.alarm(ALARM)
    for now in range(1, 601):
        test.see(Counts(0, 5000, 50, 45000), now)
    assert test.log_e >= log(0.25)


def test_counts_of_any_size_leave_it_finite() -> None:
    most = 2**53
    for test in (Ratio.alarm(ALARM), Ratio.proof(THEN)):
        for counts in (Counts(most, most, 0, most), Counts(0, most, most, most), Counts(0, 1, 0, most), Counts()):
            test.see(counts, 1)
            assert isfinite(test.log_e)


def test_it_stays_finite_for_hours_of_heavy_traffic() -> None:
    alarm, proof = Ratio.alarm(ALARM), Ratio.proof(THEN)
    for now in range(1, 20_001):
        for test in (alarm, proof):
            test.see(Counts(5, 5000, 45, 45000), now)
    assert isfinite(alarm.log_e) and isfinite(proof.log_e)
    assert alarm.log_e < 0 < log(20) < proof.log_e


def test_trust_of_less_than_one_slows_it_down_and_nothing_else() -> None:
    full, half = Mixture(1), Mixture(1)
    full.multiply([1.5], 1)
    half.multiply([1.5], 1, 0.5)
    assert full.log_e > half.log_e > 0


def test_bunches_on_one_version_lower_the_trust_but_a_steady_difference_does_not() -> None:
    bunched, steady = Dispersion(), Dispersion()
    for i in range(40):
        bunched.add(Counts(10 if i % 7 == 0 else 0, 500, 5, 500))
        steady.add(Counts(8 + i % 3, 500, 5 - i % 2, 500))
    assert bunched.trust < 0.7
    assert steady.trust > 0.95


def test_a_change_of_shares_is_not_dispersion() -> None:
    guard = Dispersion()
    for share in (0.1, 0.5, 0.1, 0.9, 0.2):
        of_new = round(1000 * share)
        guard.add(Counts(round(40 * share), of_new, 40 - round(40 * share), 1000 - of_new))
    assert guard.trust == 1.0


def test_one_bunch_is_no_more_than_one_bunch() -> None:
    guard = Dispersion()
    guard.add(Counts(0, 500, 5000, 500))
    guard.add(Counts(5000, 500, 0, 500))
    assert guard.trust == pytest.approx(5 / (4 + 25))
