"""What becomes of a judgement where little came: what the judge has seen is real, what is read of it is not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction

import pytest

from segue.core.steps import Gate, Proof
from segue.core.traffic import Sample
from segue.core.verdict import Judgement, Verdict
from segue.engine.deciding import Decided, Leaving, Question, Wait, decide
from segue.engine.records import Course, Judging
from segue.judge.comparison import Comparison
from segue.judge.settings import Settings

LEAST, MOST = timedelta(seconds=8), timedelta(seconds=20)


@dataclass
class Heard:
    """Ten requests a second for some seconds, of which the new version has every tenth; so many of its own fail."""

    seconds: int
    failures: int
    asking: bool = False

    def __post_init__(self) -> None:
        self.comparison = Comparison(Settings(), Sample(6000, 0, {10_000.0: 6000}))
        self.beside = 9 * self.seconds
        for second in range(self.seconds):
            failed = int(0 < second <= self.failures)
            self.comparison.look(1, Sample(1, failed, {10_000.0: 1}), Sample(9, 0, {10_000.0: 9}))

    def silence(self) -> Judgement:
        """What can be said now."""
        return self.comparison.silence("v2", "v1")

    def proof(self) -> Judgement:
        """Whether it is proven."""
        return self.comparison.proof("v2", "v1")


def decided(heard: Heard, course: Course = "continue", undecided: Course = "hold") -> Decided | None:
    wait = Wait(Proof(LEAST, MOST, Gate.FIRST), timedelta(seconds=heard.seconds), Fraction(1, 10), Fraction(9, 10))
    return decide(wait, heard, Judging(low_traffic=course, undecided=undecided))


def passes(said: Decided | None) -> bool:
    return isinstance(said, Judgement) and said.verdict is Verdict.PASS


@pytest.mark.parametrize("failures", [0, 1])
def test_with_little_traffic_that_says_nothing_it_goes_on_by_health_alone(failures: int) -> None:
    assert passes(decided(Heard(8, failures)))


def test_with_little_traffic_that_speaks_against_it_nobody_goes_on_by_health_alone() -> None:
    heard = Heard(8, failures=2)
    assert heard.proof().verdict is Verdict.UNDECIDED  # it is not enough for an alarm
    assert decided(heard) is None
    late = Heard(20, failures=2)
    assert isinstance(decided(late), Question)
    assert passes(decided(late, undecided="continue"))


@pytest.mark.parametrize(("course", "becomes"), [("hold", Question), ("rollback", Leaving)])
def test_what_is_not_to_go_on_anyway_does_not_wait(course: Course, becomes: type) -> None:
    assert isinstance(decided(Heard(8, failures=2), course), becomes)
