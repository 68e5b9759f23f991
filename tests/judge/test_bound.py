"""Without an old version beside it, a version is held against what the old one did before."""

from __future__ import annotations

from fractions import Fraction
from math import comb, exp, inf, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.judge.bound import Recent, bound, factors, limit
from segue.judge.errors import WORSE
from segue.judge.mixture import CAP


@given(st.integers(0, 30), st.integers(31, 60), st.sampled_from([0.5, 0.05, 1e-3]))
def test_the_limit_is_one_with_the_confidence_it_says(failures: int, attempts: int, doubt: float) -> None:
    """At the limit, so few failures would be seen with a chance of at most the doubt."""
    rate = Fraction(min(1.0, limit(failures, attempts, doubt)))
    chance = sum(comb(attempts, k) * rate**k * (1 - rate) ** (attempts - k) for k in range(failures + 1))
    assert failures / attempts <= rate and float(chance) <= doubt * (1 + 1e-9)


def test_the_limit_is_near_what_was_seen_when_much_was() -> None:
    assert limit(0, 10_000, 1e-5) == pytest.approx(log(1e5) / 10_000)
    assert limit(10_000, 1_000_000, 1e-5) == pytest.approx(0.01, rel=0.06)
    assert limit(2**52, 2**53, 1e-5) == pytest.approx(0.5)
    assert limit(0, 0, 1e-5) == inf


def test_the_bound_is_wide_and_at_least_five_percent_where_there_is_little_history() -> None:
    assert bound(0, 0, 1e-5) == bound(0, 20, 1e-5) == 0.05
    assert bound(2, 100, 1e-5) == pytest.approx(0.05)
    assert bound(10, 100, 1e-5) == pytest.approx(0.21)
    assert bound(10, 10_000, 1e-5) == 2 * limit(10, 10_000, 1e-5) + 0.01 < 0.02


def test_no_stratum_is_expected_to_add_evidence_within_the_bound() -> None:
    for attempts in range(1, 13):
        for highest, part in ((0.01, 1.0), (0.05, 1.0), (0.3, 1.0), (0.3, 0.5)):
            rate = highest * part
            chances = [comb(attempts, k) * rate**k * (1 - rate) ** (attempts - k) for k in range(attempts + 1)]
            for i in range(len(WORSE)):
                logs = [min(factors(k, attempts, highest)[i], CAP) for k in range(attempts + 1)]
                expected = sum(p * exp(factor) for p, factor in zip(chances, logs, strict=True))
                assert expected <= 1 + 1e-12


def test_what_is_older_than_ten_minutes_is_forgotten_by_the_minute() -> None:
    recent = Recent(1000, 100)
    for now in range(1, 600):
        recent.add(10, 0, now)
    assert (recent.attempts, recent.failures) == (1000 + 5990, 100)
    for now in range(600, 1300):
        recent.add(10, 1, now)
    assert recent.failures == pytest.approx(600, abs=70) and recent.attempts == recent.failures * 10
