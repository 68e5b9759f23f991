"""Sources beside the router, on virtual time: what they say decides, and what they do not say is said."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from segue.core.release import BlueGreen, Canary, Rolling
from segue.core.sources import About, Answer, Metric, Nothing, Question, Values, Word
from segue.core.verdict import Verdict
from segue.engine.control import ControlPlane
from segue.engine.hearing import Hearing
from segue.engine.orders import Asker
from segue.engine.records import Event, Judging, RolloutRecord
from segue.engine.replay import again as judged
from segue.engine.replay import flaws, past
from segue.testing.fakes import losses
from segue.testing.plane import Lab, an_order, deployed, ended, status

EVERY = timedelta(seconds=5)
FAILED = Metric("http://p", "failed", EVERY, worse="higher")
QUEUE = Metric("http://p", "queue", EVERY, most=10)
ASK = Question("./ask.sh")
CANARY = Canary(least=timedelta(seconds=10), most=timedelta(minutes=20), keep=timedelta(0))
ROLLING = Rolling(first_judge=timedelta(seconds=2), judge=timedelta(seconds=2), batch=4, surge=4)
PASS, FAIL, UNDECIDED = (lambda about, word=word: Word(word, ("3 orders lost",)) for word in Verdict)


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


def noisy(bad: float, seed: int = 1) -> Callable[[About], Answer]:
    """A metric that is so many times the old version's on the new one, and moves with the hour."""
    rng = random.Random(seed)

    def says(about: About) -> Answer:
        hour = 1 + 4 * rng.random()
        return Values(bad * hour * rng.lognormvariate(0, 0.2), hour * rng.lognormvariate(0, 0.2))

    return says


def play(
    lab: Lab,
    how: Any,
    *,
    scene: Callable[[ControlPlane, RolloutRecord], Awaitable[None]] | None = None,
    until: Callable[[RolloutRecord], bool] = lambda rollout: rollout.ended is not None,
    rate: float = 100,
    **judging: Any,
) -> RolloutRecord:
    """The rollout of v2 by `how`, judged so, once `until` holds of it; then `scene` is played."""

    async def whole(plane: ControlPlane) -> RolloutRecord:
        await deployed(plane, an_order("v1"))
        lab.world.evidence.flow("shop", rate=rate)
        order = an_order("v2", strategy=how, judging=replace(Judging(), **judging))
        answer = await plane.deploy(order, Asker())
        assert answer.rollout
        deadline = lab.clock.monotonic() + 600
        while (found := plane.journal.rollout(answer.rollout)) is None or not until(found):
            assert lab.clock.monotonic() < deadline, f"within ten minutes it did not become true of {found}"
            await asyncio.sleep(0.5)
        again = past(found, plane.journal.steps(found.id), events(plane, found.id), plane.journal.polls(found.id))
        assert flaws(again, judged(again, found.judging)) == [], "the record says what was decided"
        if scene is not None:
            await scene(plane, found)
        assert list(losses(lab.world.record.calls)) == []
        return found

    return lab.run(whole)


def events(plane: ControlPlane, rollout: str) -> list[Event]:
    found, after = [], 0
    while some := plane.journal.events(after, rollout=rollout):
        found += some
        after = some[-1].seq
    return found


def asked(rollout: RolloutRecord) -> bool:
    return rollout.person.asked is not None


# A metric


def test_a_version_whose_metric_is_twice_as_bad_is_taken_back_and_the_metric_named(lab: Lab) -> None:
    lab.world.sources.order("failed", noisy(2))
    found = play(lab, CANARY, metrics=(FAILED,))
    assert (found.outcome, found.exit, found.basis) == ("rolled_back", 1, "evidence")
    assert (found.turned or "").startswith("`failed` is ")
    assert " higher by more than 10 % in " in (found.turned or "")


@pytest.mark.parametrize("seed", range(4))
def test_a_version_whose_metric_is_as_noisy_and_no_worse_is_promoted(lab: Lab, seed: int) -> None:
    lab.world.sources.order("failed", noisy(1, seed))
    found = play(lab, CANARY, metrics=(FAILED,))
    assert (found.outcome, found.basis) == ("promoted", "evidence"), found.reason
    assert "`failed`" not in (found.reason or "")


def test_a_canary_waits_until_it_was_compared_often_enough_and_never_across_a_shift(lab: Lab) -> None:
    lab.world.sources.order("failed", noisy(1))

    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        times = lab.world.sources.times("failed")
        assert all(later - earlier >= 5 for earlier, later in pairwise(times))
        first = next(step for step in plane.journal.steps(rollout.id) if "judge" in str(step.step))
        assert first.ended is not None and (first.ended - first.began).total_seconds() >= 12 * 5
        began = [lab.clock.monotonic() - (lab.clock.now() - s.began).total_seconds() for s in _judged(plane, rollout)]
        assert all(not any(shift <= at < shift + 4 for at in times) for shift in began)

    play(lab, CANARY, metrics=(FAILED,), scene=scene)


def _judged(plane: ControlPlane, rollout: RolloutRecord) -> list[Any]:
    return [step for step in plane.journal.steps(rollout.id) if "judge" in str(step.step)]


def test_where_the_old_version_has_no_share_nothing_is_compared_but_bounds_are_kept(lab: Lab) -> None:
    lab.world.sources.order("queue", lambda about: Values(11))
    found = play(lab, BlueGreen(judge=timedelta(seconds=60), keep=timedelta(0)), metrics=(FAILED, QUEUE))
    assert found.turned == "`queue` is 11 on v2, at most 10 is allowed; 3 times in a row"
    assert lab.world.sources.times("failed") == []


def test_a_bound_that_is_broken_in_keep_brings_the_old_version_back(lab: Lab) -> None:
    values = [1.0]
    lab.world.sources.order("queue", lambda about: Values(values[0]))

    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        assert rollout.outcome == "promoted"
        values[0] = 50.0
        while status(plane)["services"][0]["stable"] != "v1":
            await asyncio.sleep(1)
        back = plane.journal.rollouts("shop", 1)[0]
        assert (back.kind, back.reason) == (
            "rollback",
            "`queue` is 50 on v2, at most 10 is allowed; 3 times in a row",
        )

    how = BlueGreen(judge=timedelta(seconds=20), keep=timedelta(minutes=10))
    play(lab, how, metrics=(QUEUE,), scene=scene)


def test_what_was_compared_before_a_crash_counts_after_it(lab: Lab) -> None:
    lab.world.sources.order("failed", noisy(2.5))

    def heard(plane: ControlPlane, rollout: RolloutRecord) -> int:
        return sum(entry["what"] == "answer" for entry in plane.journal.polls(rollout.id))

    async def first(plane: ControlPlane, rollout: RolloutRecord) -> None:
        while heard(plane, rollout) < 6:
            await asyncio.sleep(1)

    begun = play(lab, CANARY, metrics=(FAILED,), until=lambda rollout: bool(lab.world.sources.asked), scene=first)

    async def second(plane: ControlPlane) -> RolloutRecord:
        while (found := plane.journal.rollout(begun.id)) is None or found.ended is None:
            await asyncio.sleep(1)
        times = lab.world.sources.times("failed")
        assert heard(plane, found) == 12 == len(times)
        assert all(later - earlier >= 5 for earlier, later in pairwise(times)), "also over the restart"
        again = Hearing(found.judging)
        for entry in plane.journal.polls(found.id):
            again.take(entry)
        assert again.silence("v2", "v1").reason == found.turned
        return found

    assert lab.run(second).outcome == "rolled_back"


# A command or an address


@pytest.mark.parametrize("question", [ASK, Question(url="http://ci/ask")])
@pytest.mark.parametrize("how", [CANARY, ROLLING], ids=lambda how: how.name)
def test_one_that_says_fail_takes_the_version_back_and_its_output_is_shown(
    lab: Lab, how: Any, question: Question
) -> None:
    what = question.command or question.url or ""
    lab.world.sources.order(what, lambda about: Word(Verdict.FAIL, ("looking", "3 orders lost")))
    found = play(lab, how, questions=(question,))
    assert (found.outcome, found.exit, found.basis) == ("rolled_back", 1, "evidence")
    assert found.turned == f"`{what}` says that v2 fails: 3 orders lost"
    assert found.log == ("looking", "3 orders lost")


def test_one_that_says_pass_is_heard_at_every_split_and_told_which_it_is(lab: Lab) -> None:
    lab.world.sources.order("./ask.sh", PASS)
    found = play(lab, CANARY, questions=(ASK,))
    assert (found.outcome, found.basis) == ("promoted", "evidence")
    told = [about for _, _, about in lab.world.sources.asked]
    assert {about.told["SEGUE_SHARE"] for about in told} == {"0.1", "0.3", "0.95"}
    assert told[0].told.items() >= {("SEGUE_SERVICE", "shop"), ("SEGUE_FROM", "v1"), ("SEGUE_TO", "v2")}
    assert told[0].told["SEGUE_ROLLOUT"] == found.id == told[0].rollout


def test_a_short_silence_waits_for_the_first_word_and_the_same_one_is_not_asked_twice_at_a_time(lab: Lab) -> None:
    lab.world.sources.order("./ask.sh", FAIL, seconds=8)
    found = play(lab, ROLLING, questions=(replace(ASK, every=timedelta(seconds=1)),))
    assert found.turned == "`./ask.sh` says that v2 fails: 3 orders lost"
    times = lab.world.sources.times("./ask.sh")
    assert all(later - earlier >= 8 for earlier, later in pairwise(times))


def test_one_that_cannot_say_it_yet_holds_a_canary_at_its_end_as_undecided_says(lab: Lab) -> None:
    lab.world.sources.order("./ask.sh", UNDECIDED)
    how = replace(CANARY, most=timedelta(minutes=2))
    found = play(lab, how, questions=(ASK,), until=asked)
    assert (found.person.asked or "").endswith(
        "; but `./ask.sh` is undecided: 3 orders lost; not proven within 120 s"
    ), found.person.asked


def test_one_that_cannot_say_it_yet_does_not_end_a_silence_and_is_said(lab: Lab) -> None:
    lab.world.sources.order("./ask.sh", UNDECIDED)
    found = play(lab, ROLLING, questions=(ASK,))
    assert found.outcome == "promoted"
    assert "; `./ask.sh` is undecided: 3 orders lost" in (found.reason or "")


# Nobody answers


@pytest.mark.parametrize("how", [CANARY, ROLLING], ids=lambda how: how.name)
def test_what_does_not_answer_takes_nothing_back_and_is_said(lab: Lab, how: Any) -> None:
    lab.world.sources.order("./ask.sh", lambda about: Nothing("not done within 10 s"), seconds=10)
    lab.world.sources.order("failed", lambda about: Nothing("p:80 cannot be reached"))
    found = play(lab, how, metrics=(FAILED,), questions=(ASK,))
    assert found.outcome == "promoted"
    assert "`./ask.sh`: not done within 10 s" in (found.reason or "")
    unheard = (
        "p:80 cannot be reached" if how is CANARY else "`failed` was compared 0 of the 12 times that an alarm takes"
    )
    assert unheard in (found.reason or "")


@pytest.mark.parametrize("how", [CANARY, ROLLING], ids=lambda how: how.name)
def test_where_evidence_is_required_a_person_is_asked_then(lab: Lab, how: Any) -> None:
    lab.world.sources.order("queue", lambda about: Nothing("p:80 cannot be reached"))

    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        assert (rollout.person.asked or "").endswith("; `queue`: p:80 cannot be reached; evidence is required")
        lab.world.sources.order("queue", lambda about: Values(1))
        answer = await plane.services["shop"].promote(Asker("ana"))
        while (found := plane.journal.rollout(rollout.id)) is None or found.ended is None:
            assert not found or found.person.step == rollout.person.step, "heard, it does not ask again"
            await asyncio.sleep(1)
        assert answer.rollout == rollout.id and found.outcome == "promoted"

    play(lab, how, metrics=(QUEUE,), require_evidence=True, until=asked, scene=scene)


def test_where_evidence_is_required_no_traffic_is_none(lab: Lab) -> None:
    found = play(lab, CANARY, rate=0, require_evidence=True, until=asked)
    assert (found.person.asked or "").endswith("going on by health alone, `judge.low_traffic`; evidence is required")


def test_where_evidence_is_required_and_there_nobody_is_asked(lab: Lab) -> None:
    lab.world.sources.order("queue", lambda about: Values(1))
    found = play(lab, CANARY, metrics=(QUEUE,), require_evidence=True)
    assert (found.outcome, found.basis) == ("promoted", "evidence")


def test_a_restart_is_judged_likewise_but_requires_nothing(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1"))
        judging = replace(Judging(), questions=(ASK,), require_evidence=True)
        lab.world.evidence.flow("shop", rate=100)
        lab.world.sources.order("./ask.sh", PASS)
        await deployed(plane, an_order("v2", strategy=ROLLING, judging=judging, manifest="a digest"))
        again = await ended(plane, await plane.services["shop"].restart(Asker()))
        assert again.judging == replace(judging, require_evidence=False)

    lab.run(scene)


def test_a_first_version_and_one_that_has_served_before_are_not_asked_about(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        judging = replace(Judging(), questions=(ASK,))
        await deployed(plane, an_order("v1", judging=judging))
        await deployed(plane, an_order("v2", strategy=ROLLING))
        await ended(plane, await plane.services["shop"].rollback(None, Asker()))

    lab.run(scene)
    assert lab.world.sources.asked == []


def test_nothing_of_the_environment_is_written_down_with_what_is_asked(lab: Lab) -> None:
    lab.world.sources.order("failed", noisy(1))

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1"))
        lab.world.evidence.flow("shop", rate=100)
        metric = replace(FAILED, authorization="METRICS_AUTH")
        judging = replace(Judging(), metrics=(metric,))
        order = an_order("v2", strategy=CANARY, judging=judging, environment={"METRICS_AUTH": "Bearer of-bad-news"})
        await deployed(plane, order)
        assert lab.world.sources.asked[0][2].environment["METRICS_AUTH"] == "Bearer of-bad-news"

    lab.run(scene)
    kept = b"".join(file.read_bytes() for file in (lab.folder / "journal").parent.rglob("*.db*"))
    assert b"METRICS_AUTH" in kept and b"of-bad-news" not in kept
