"""A version that hangs is taken for what it is, although nothing of it ends."""

from __future__ import annotations

import pytest

from segue.core.traffic import Sample
from segue.judge.standstill import EXPECTED, SHORTEST, TIMES, UNKNOWN, WAITING, Standstill

FAST = Sample(1000, 0, {20_000.0: 1000})
POLLED = Sample(1000, 0, {20_000.0: 500, 30_000_000.0: 500})
"""Half of the requests wait half a minute for their answer."""


def answered(a_second: int, seconds: int = 30, history: Sample | None = FAST) -> Standstill:
    standstill = Standstill(history)
    for _ in range(seconds):
        standstill.look(1.0, Sample(a_second, 0))
    return standstill


def hangs(standstill: Standstill, a_second: float, seconds: int) -> float | None:
    """After how many seconds of silence there is an alarm, while so many requests come a second."""
    for second in range(1, seconds + 1):
        if standstill.strange(second):
            standstill.waits(second, int(40 + a_second * second))
        if standstill.alarm:
            return second
    return None


@pytest.mark.parametrize("a_second", [10, 80, 1000])
def test_a_version_that_was_busy_and_answers_nobody_is_hung(a_second: int) -> None:
    assert hangs(answered(a_second), a_second, 60) == SHORTEST


def test_how_long_is_too_long_says_the_old_version() -> None:
    assert hangs(answered(80, history=POLLED), 80, 300) == pytest.approx(TIMES * 30, abs=1)
    assert hangs(answered(80, history=None), 80, 300) == UNKNOWN


def test_a_service_whose_users_have_gone_is_not_hung() -> None:
    assert hangs(answered(80), 0, 3600) is None


def test_a_service_with_few_requests_is_not_hung_for_a_while_without_any() -> None:
    assert hangs(answered(1), 1, 45) is None


def test_streams_that_users_open_and_leave_open_are_no_standstill() -> None:
    assert hangs(answered(0), 30, 600) is None


def test_one_answer_between_begins_it_anew() -> None:
    standstill = answered(80)
    assert hangs(standstill, 80, int(SHORTEST) - 1) is None
    standstill.look(SHORTEST, Sample(1, 0))
    standstill.waits(1.0, 10_000)
    assert not standstill.alarm


def test_who_waited_already_is_not_counted() -> None:
    standstill = answered(EXPECTED)
    standstill.waits(2.0, 5000)
    standstill.waits(SHORTEST, 5000 + WAITING - 1)
    assert not standstill.alarm
    standstill.waits(SHORTEST + 1, 5000 + WAITING)
    assert (standstill.alarm, standstill.waiting) == (True, 5000 + WAITING)
