"""A version that answers nothing is taken for what it is at once."""

from __future__ import annotations

import pytest

from segue.core.traffic import Sample
from segue.judge.outage import ENOUGH, Outage


def attempts(count: int, failures: int) -> Sample:
    return Sample(count, failures)


GOOD = attempts(100, 0)


@pytest.mark.parametrize("looks", [1, 2, 5])
def test_enough_failures_in_a_row_are_an_outage_however_they_are_spread_over_looks(looks: int) -> None:
    outage = Outage()
    for _ in range(looks):
        assert not outage.alarm
        outage.look(attempts(ENOUGH // looks, ENOUGH // looks), GOOD)
    assert outage.alarm


def test_one_answer_between_them_is_none() -> None:
    outage = Outage()
    for new in (attempts(ENOUGH - 1, ENOUGH - 1), attempts(2, 1), attempts(ENOUGH - 1, ENOUGH - 1)):
        outage.look(new, GOOD)
    assert not outage.alarm


def test_seconds_without_a_request_neither_begin_nor_end_a_run() -> None:
    outage = Outage()
    outage.look(attempts(ENOUGH - 1, ENOUGH - 1), GOOD)
    for _ in range(100):
        outage.look(Sample(), GOOD)
    assert not outage.alarm
    outage.look(attempts(1, 1), GOOD)
    assert outage.alarm


def test_trouble_of_both_versions_is_not_the_new_one_s() -> None:
    outage = Outage(history=GOOD)
    outage.look(attempts(1000, 1000), attempts(1000, 600))
    assert not outage.alarm


@pytest.mark.parametrize(("history", "alarm"), [(GOOD, True), (Sample(), True), (attempts(100, 90), False)])
def test_without_the_old_version_beside_it_what_that_one_did_before_counts(history: Sample, alarm: bool) -> None:
    outage = Outage(history)
    outage.look(attempts(1000, 1000), None)
    assert outage.alarm is alarm


def test_an_outage_stays() -> None:
    outage = Outage()
    outage.look(attempts(ENOUGH, ENOUGH), GOOD)
    outage.look(GOOD, GOOD)
    assert outage.alarm
