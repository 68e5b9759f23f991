"""What is said beforehand of a judgement comes true when traffic comes as evenly as it is expected to."""

from __future__ import annotations

from itertools import count
from math import inf

import pytest

from segue.core.traffic import Sample
from segue.core.verdict import Verdict
from segue.judge.comparison import Comparison
from segue.judge.forecast import HARMS, MOST_RATE, SOME, Forecast, Harm
from segue.judge.settings import Gate, Settings

SETTINGS = Settings()
MIX = {10_000.0: 50, 11_000.0: 40, 12_000.0: 8, 50_000.0: 2}
"""A hundred answers."""
HARM = {harm.name: harm for harm in HARMS}


def sample(attempts: float, failing: float = 0.0, slower: float = 1.0) -> Sample:
    """So many attempts as evenly as can be, of which a part fails, and which take so many times as long."""
    times = {edge * slower: round(attempts * number / 100) for edge, number in MIX.items()}
    return Sample(round(attempts), round(attempts * failing), times)


USUAL = sample(600_000, 0.001)


def seen_after(harm: Harm, share: float, rate: float) -> int:
    """Seconds until a judge that is shown this each second raises an alarm."""
    judge, failing = Comparison(SETTINGS, USUAL), harm.failing(0.001)
    came = (0, 0, 0, 0)
    for second in count(1):
        now = tuple(
            round(second * part * each)
            for part, worse in ((rate * share, failing), (rate * (1 - share), 0.001))
            for each in (1, worse)
        )
        new, new_failed, old, old_failed = (after - before for after, before in zip(now, came, strict=True))
        came = now
        slow = sample(new, 0.0, harm.times)
        judge.look(1.0, Sample(new, new_failed, slow.latency_us), Sample(old, old_failed, sample(old).latency_us))
        if judge.alarm:
            return second
        assert second < 3600, "it is never seen"
    raise AssertionError


@pytest.mark.parametrize(
    ("name", "share", "rate"),
    [
        ("half fail", 0.1, 1000.0),
        ("half fail", 0.5, 20.0),
        ("half fail", 0.5, 2.0),
        ("5 points more fail", 0.1, 1000.0),
        ("5 points more fail", 0.5, 100.0),
        ("1 point more fail", 0.1, 1000.0),
        ("1 point more fail", 0.5, 100.0),
        ("twice as slow", 0.1, 1000.0),
    ],
)
def test_harm_is_seen_about_when_it_was_said_to_be(name: str, share: float, rate: float) -> None:
    said = Forecast(SETTINGS, USUAL).alarm(HARM[name], share, rate)
    assert said * 0.8 - 1 <= seen_after(HARM[name], share, rate) <= said * 1.2 + 1


@pytest.mark.parametrize(("gate", "share"), [(Gate.FIRST, 0.1), (Gate.THEN, 0.3)])
def test_a_good_version_is_proven_with_about_so_many_requests(gate: Gate, share: float) -> None:
    usual = sample(600_000)
    needs = Forecast(SETTINGS, usual).proof(gate, share)
    assert needs is not None
    judge, rate, seconds = Comparison(SETTINGS, usual), 1000.0, 0
    judge.step(gate)
    while judge.proof("v2", "v1").verdict is not Verdict.PASS:
        judge.look(1.0, sample(rate * share), sample(rate * (1 - share)))
        seconds += 1
        assert seconds < 600, "it is never proven"
    assert needs / 1.5 <= seconds * rate * share <= needs * 1.5 + rate * share


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.name)
@pytest.mark.parametrize("within", [10.0, 300.0])
def test_the_least_traffic_is_just_enough(harm: Harm, within: float) -> None:
    forecast = Forecast(SETTINGS, USUAL)
    least = forecast.least_rate(harm, 0.3, within)
    assert least is not None
    assert forecast.alarm(harm, 0.3, least) <= within
    assert forecast.alarm(harm, 0.3, least * 0.9) > within


def test_without_an_old_version_beside_it_slowness_is_never_seen_and_failures_are() -> None:
    forecast = Forecast(SETTINGS, USUAL)
    assert forecast.alarm(HARM["twice as slow"], 1.0, MOST_RATE) == inf
    assert forecast.least_rate(HARM["twice as slow"], 1.0, 3600) is None
    assert forecast.alarm(HARM["half fail"], 1.0, 100) < 10


def test_without_traffic_nothing_is_seen() -> None:
    assert Forecast(SETTINGS, USUAL).alarm(HARM["half fail"], 0.5, 0.0) == inf


def test_where_little_is_known_a_usual_service_is_taken() -> None:
    few = Forecast(SETTINGS, sample(SOME - 1, 0.5))
    assert not few.known
    assert few.proof(Gate.FIRST, 0.1) == Forecast(SETTINGS, Sample()).proof(Gate.FIRST, 0.1)
    assert Forecast(SETTINGS, sample(SOME)).known


def test_a_service_that_fails_sometimes_needs_more_for_its_proof_than_one_that_never_does() -> None:
    never, sometimes = (Forecast(SETTINGS, sample(100_000, part)).proof(Gate.THEN, 0.3) for part in (0.0, 0.01))
    assert never is not None and sometimes is not None and sometimes > 2 * never
