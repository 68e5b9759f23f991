"""Explanations and replays, on virtual time: what was decided is told as it was, and comes out again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from segue.api.explaining import explanation
from segue.core.release import BlueGreen, Canary, Rolling
from segue.core.sources import Nothing, Question, Word
from segue.core.traffic import InstanceId
from segue.core.verdict import Verdict
from segue.engine.control import ControlPlane
from segue.engine.journal import Journal
from segue.engine.orders import Asker
from segue.engine.otherwise import otherwise
from segue.engine.records import Hooks, Judging, RolloutRecord
from segue.engine.replay import Past, again, flaws, past
from segue.errors import Refused
from segue.judge.settings import Margin, Settings
from segue.testing.fakes import Behaviour
from segue.testing.lives import Play
from segue.testing.plane import Lab, an_order, deployed

SHORT = Canary(least=timedelta(seconds=10), most=timedelta(minutes=5), keep=timedelta(minutes=5))
ROLLING = Rolling(first_judge=timedelta(seconds=10), judge=timedelta(seconds=5))
BRIEF = replace(SHORT, steps=(Fraction(1, 2), Fraction(1)), holdback=Fraction(0), most=timedelta(seconds=40))
HARD = Settings(false_alarm=1e-12, first=Margin(1.5, 0.005, 0.3))
ANA = Asker("ana")
PATIENCE = timedelta(seconds=30)

Scene = Callable[[ControlPlane], Awaitable[None]]


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


def play(lab: Lab, scene: Scene, *, rate: float = 50, **failing: float) -> None:
    """Play `scene` on a shop whose v1 serves `rate` requests a second, of which v1 and v2 fail the parts given."""

    async def whole(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1"))
        flow(lab, rate, **failing)
        await scene(plane)

    lab.run(whole)


def flow(lab: Lab, rate: float, v1: float = 0, v2: float = 0) -> None:
    lab.world.evidence.flow("shop", rate=rate, failing={"v1.1": v1, "v2.1": v2})


async def begun(plane: ControlPlane, strategy: Any = SHORT, hooks: Hooks | None = None, **judging: Any) -> str:
    """The id of the rollout of v2, once it is accepted."""
    order = an_order("v2", strategy=strategy, judging=replace(Judging(), **judging), hooks=hooks or Hooks())
    answer = await plane.deploy(order, Asker("bo", "a better cart"))
    assert answer.rollout
    return answer.rollout


async def end(plane: ControlPlane, id: str) -> RolloutRecord:
    return await until(plane, lambda rollout: rollout.id == id and rollout.ended is not None)


async def until(plane: ControlPlane, true: Callable[[RolloutRecord], bool]) -> RolloutRecord:
    """The newest rollout once `true` holds of it."""
    for _ in range(200_000):
        rollout = plane.journal.rollouts("shop", 1)[0]
        if true(rollout):
            return rollout
        await asyncio.sleep(0.5)
    raise AssertionError(f"it did not become true of {rollout}")


def asked(rollout: RolloutRecord) -> bool:
    return rollout.person.asked is not None


def recorded(journal: Journal, record: RolloutRecord) -> Past:
    events, after = [], 0
    while found := journal.events(after, rollout=record.id):
        events += found
        after = found[-1].seq
    return past(record, journal.steps(record.id), events, journal.polls(record.id))


def decisions(document: dict[str, Any], what: str) -> list[dict[str, Any]]:
    return [one for one in document["decisions"] if one["what"] == what]


def texts(document: dict[str, Any], what: str) -> list[str]:
    return [one["text"] for one in decisions(document, what)]


# A replay comes to what was decided

CASES: dict[str, tuple[Any, dict[str, Any], float, dict[str, float], str]] = {
    "proven": (SHORT, {}, 50, {}, "promoted"),
    "proven at length": (SHORT, {}, 8, {"v1": 0.01, "v2": 0.01}, "promoted"),
    "an alarm": (SHORT, {}, 50, {"v1": 0.001, "v2": 0.05}, "rolled_back"),
    "nothing but failures": (SHORT, {}, 50, {"v2": 1}, "rolled_back"),
    "no traffic": (SHORT, {}, 0, {}, "promoted"),
    "too little traffic": (SHORT, {"low_traffic": "rollback"}, 0.5, {}, "rolled_back"),
    "undecided": (BRIEF, {"undecided": "rollback", "settings": HARD}, 300, {"v1": 0.02, "v2": 0.037}, "rolled_back"),
    "settling": (SHORT, {"settle": timedelta(seconds=40)}, 50, {}, "promoted"),
    "rolling": (ROLLING, {}, 50, {"v2": 0.2}, "rolled_back"),
    "blue/green": (BlueGreen(judge=timedelta(seconds=20), keep=timedelta(minutes=1)), {}, 50, {}, "promoted"),
}


@pytest.mark.parametrize("case", CASES)
def test_judged_again_with_its_own_settings_a_rollout_is_decided_as_it_was(lab: Lab, case: str) -> None:
    strategy, judging, rate, failing, outcome = CASES[case]

    async def scene(plane: ControlPlane) -> None:
        record = await end(plane, await begun(plane, strategy, **judging))
        assert record.outcome == outcome
        found = recorded(plane.journal, record)
        was = again(found, record.judging)
        assert flaws(found, was) == []
        steps = {step.number for step in found.steps if step.outcome == "done"}
        assert set(was.steps) >= steps, "each judgement that ended has come out again"
        assert was.alarm or was.steps
        assert not otherwise(found, {"judge.false_alarm": record.judging.settings.false_alarm})["different"]

    play(lab, scene, rate=rate, **failing)


def test_an_alarm_of_log_lines_comes_out_again(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, ROLLING, logs=("ERROR",))
        for _ in range(40):
            lab.world.platform.write(InstanceId("shop-v2.1-1"), "ERROR no price")
            await asyncio.sleep(0.5)
        record = await end(plane, id)
        assert record.outcome == "rolled_back"
        found = recorded(plane.journal, record)
        was = again(found, record.judging)
        assert was.alarm is not None and flaws(found, was) == []
        document = await explanation(plane, record, [])
        (alarm,) = decisions(document, "alarm")
        assert "shop-v2.1-1 wrote" in alarm["text"] and "part of judge.false_alarm (1 %)" in " ".join(alarm["why"])

    play(lab, scene)


@pytest.mark.parametrize("says", ["late", "slow", "fail"])
def test_what_other_sources_said_comes_out_again(lab: Lab, says: str) -> None:
    async def scene(plane: ControlPlane) -> None:
        done = Word(Verdict.FAIL if says == "fail" else Verdict.PASS, ("3 orders lost",))
        begin = lab.clock.monotonic()
        late = Nothing("it is asleep")
        takes, strategy = (20.0, ROLLING) if says == "slow" else (0.0, SHORT)
        lab.world.sources.order("./ask.sh", lambda about: done if lab.clock.monotonic() > begin + 15 else late, takes)
        record = await end(plane, await begun(plane, strategy, questions=(Question("./ask.sh", timeout=PATIENCE),)))
        assert record.outcome == ("rolled_back" if says == "fail" else "promoted")
        found = recorded(plane.journal, record)
        was = again(found, record.judging)
        assert flaws(found, was) == [] and bool(was.alarm) == (says == "fail")
        document = await explanation(plane, record, [])
        if says == "fail":
            assert decisions(document, "alarm")[0]["why"] == [
                "No statistics are in this: a source that was asked said so."
            ]

    play(lab, scene)


def test_what_a_person_let_pass_is_asked_again_and_not_said_to_be_passed(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, low_traffic="hold")
        held = await until(plane, asked)
        question = held.person.asked
        await asyncio.sleep(60)
        await plane.services["shop"].promote(ANA, full=True)
        record = await end(plane, id)
        assert (record.outcome, record.basis) == ("promoted", "person")
        found = recorded(plane.journal, record)
        assert flaws(found, again(found, record.judging)) == []
        document = await explanation(plane, record, [])
        (ask,) = decisions(document, "held")
        assert ask["text"] == f"a person was asked: {question}"
        assert "judge.low_traffic is `hold`" in ask["why"][0] and "24 h" in ask["why"][1]
        assert "ana promoted it, without further judging" in texts(document, "person")
        other = otherwise(found, {"judge.low_traffic": "continue"})
        assert other["different"] and "would have been passed after" in other["said"][0]
        assert (other["steps"][0]["was"]["decided"], other["steps"][0]["now"]["decided"]) == ("hold", "pass")

    play(lab, scene, rate=0.5)


def test_after_a_restart_of_the_control_plane_it_comes_out_again(lab: Lab) -> None:
    ids: list[str] = []

    async def first(plane: ControlPlane) -> None:
        ids.append(await begun(plane))
        await until(plane, lambda rollout: len(plane.journal.steps(rollout.id)) == 4)
        await asyncio.sleep(7)

    async def second(plane: ControlPlane) -> None:
        record = await end(plane, ids[0])
        found = recorded(plane.journal, record)
        was = again(found, record.judging)
        assert record.outcome == "promoted" and len(was.steps) == len(found.steps) == 3
        assert flaws(found, was) == []
        document = await explanation(plane, record, [])
        assert texts(document, "note") == ["the control plane was restarted and goes on"]

    play(lab, first)
    lab.run(second)


def test_a_record_that_lacks_what_was_seen_is_not_taken_for_whole(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        record = await end(plane, await begun(plane))
        found = recorded(plane.journal, record)
        looks = [entry for entry in found.entries if entry["what"] == "look"]
        lacking = replace(found, entries=[{**e, "what": "close"} if e in looks[3:9] else e for e in found.entries])
        told = flaws(lacking, again(lacking, record.judging))
        assert told and told[0].startswith("step 4: `")

    play(lab, scene)


@contextmanager
def _journal(play: Play, folder: Path) -> Iterator[Journal]:
    journal = Journal(next(folder.rglob("journal.db")).parent, play.lab.clock)
    try:
        yield journal
    finally:
        journal.close()


def seeds(first: int, number: int, room: Path) -> int:
    """Judge again what happened in lives in which anything goes wrong; how many judgements there were."""
    judged = 0
    for seed in range(first, first + number):
        life = Play(seed, room / str(seed))
        (room / str(seed)).mkdir()
        life.play()
        with _journal(life, room / str(seed)) as journal:
            for record in journal.rollouts():
                try:
                    found = recorded(journal, record)
                except Refused:
                    continue
                was = again(found, record.judging)
                assert flaws(found, was) == [], f"seed {seed}, rollout {record.id}"
                judged += len(was.steps) + bool(was.alarm)
    return judged


def test_whatever_goes_wrong_what_was_decided_comes_out_again(room: Path) -> None:
    assert seeds(0, 8, room) > 6


@pytest.mark.slow
def test_whatever_goes_wrong_in_hundreds_of_lives_what_was_decided_comes_out_again(room: Path) -> None:
    assert seeds(100, 400, room) > 400


# What other settings would have changed


def test_with_a_wider_margin_there_would_have_been_no_alarm_and_what_would_have_come_is_not_known(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        record = await end(plane, await begun(plane))
        found = recorded(plane.journal, record)
        other = otherwise(found, {"judge.alarm.errors": 0.5})
        assert other["settings"] == [{"key": "judge.alarm.errors", "was": "0.02%", "now": "50%"}]
        assert other["was"]["decided"] == "fail" and other["was"]["reason"] == record.turned
        assert other["now"] is None
        assert other["said"][0].startswith("v2 would not have been taken back after")
        assert other["said"][0].endswith("what would have come of it is not known.")
        assert "the traffic is as it was" in other["note"] and other["flaws"] == []
        assert other["steps"][0]["now"]["decided"] == "undecided"

    play(lab, scene, v1=0.001, v2=0.05)


def test_with_more_false_alarms_the_alarm_would_have_come_earlier(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        record = await end(plane, await begun(plane))
        other = otherwise(recorded(plane.journal, record), {"judge.false_alarm": 0.3})
        assert other["now"]["after"] < other["was"]["after"]
        assert "would have been taken back after" in other["said"][0] and "and not after" in other["said"][0]

    play(lab, scene, v1=0.001, v2=0.05)


def test_with_a_narrower_margin_what_was_promoted_would_have_been_taken_back(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        wide = Settings(alarm=Margin(1.1, 0.1, 0.5), first=Margin(3, 0.1, 0.5), then=Margin(3, 0.1, 0.5))
        record = await end(plane, await begun(plane, settings=wide))
        assert record.outcome == "promoted"
        other = otherwise(recorded(plane.journal, record), {"judge.alarm.errors": 0.0002})
        assert other["was"] is None and other["now"]["decided"] == "fail"
        assert "v2 would have been taken back after" in other["said"][0]
        assert "What came after that would not have come so." in other["said"][0]
        assert len(other["said"]) == 1, "what comes after that is not told"

    play(lab, scene, v1=0.001, v2=0.03)


def test_a_harder_proof_would_have_taken_longer_and_an_easier_one_less_long(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        record = await end(plane, await begun(plane))
        found = recorded(plane.journal, record)
        harder = otherwise(found, {"judge.promote.first.errors": 0.0, "judge.promote.first.ratio": 1.1})
        assert "would not have been passed then, but gone on waiting, 5 min at most" in harder["said"][0]
        easier = otherwise(found, {"judge.promote.doubt": 0.5})
        assert "would have been passed after" in easier["said"][0] and "and not after" in easier["said"][0]

    play(lab, scene, rate=30)


def test_latency_of_an_instance_s_first_seconds_counts_if_it_is_asked_for(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        lab.world.evidence.slower["v2.1"] = 3.0
        record = await end(plane, await begun(plane, ROLLING, settle=timedelta(minutes=5)))
        assert record.outcome == "promoted"
        other = otherwise(recorded(plane.journal, record), {"judge.settle": timedelta(0)})
        assert other["now"] and "on v2" in other["now"]["reason"] and other["now"]["reason"].startswith("p")

    play(lab, scene)


def test_what_was_never_judged_is_not_judged_again(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        first = plane.journal.rollouts("shop", 1)[0]
        with pytest.raises(Refused, match="no version was on trial"):
            recorded(plane.journal, first)
        lab.world.platform.order("v2.1", Behaviour(exits=0.01))
        record = await end(plane, await begun(plane))
        assert record.outcome == "rolled_back"
        with pytest.raises(Refused, match="v2 was not given any traffic"):
            recorded(plane.journal, record)
        lab.world.platform.order("v3.1", Behaviour())
        done = await deployed(plane, an_order("v3", strategy=ROLLING))
        plane.journal.drop_polls([done.id])
        with pytest.raises(Refused, match="is not kept any more: it is for the last 20 rollouts"):
            recorded(plane.journal, done)

    play(lab, scene)


# Explanations


def test_an_alarm_is_explained_with_the_numbers_of_its_judgement(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        record = await end(plane, await begun(plane, hooks=Hooks(before="expand", on_rollback="undo")))
        document = await explanation(plane, record, [])
        (step,) = [step for step in plane.journal.steps(record.id) if step.verdict]
        (alarm,) = decisions(document, "alarm")
        assert alarm["verdict"] == step.verdict and alarm["text"] == f"alarm: {record.turned}"
        assert (
            "judge.alarm (1.1 times as many failures and 0.02 % of all attempts more, 9 % slower)" in alarm["why"][0]
        )
        assert "at most one of 100 rollouts (judge.false_alarm 1 %)" in alarm["why"][0]
        assert document["because"] == f"v2 was taken back on evidence: {record.reason}"
        whats = [one["what"] for one in document["decisions"]]
        assert whats == ["asked", "hook", "checked", "shift", "alarm", "shift", "hook", "decided"]
        assert texts(document, "asked") == ["bo asked for v2 in place of v1, canary: a better cart"]
        assert texts(document, "checked") == ["each instance of v2 is healthy and passed 1 smoke test"]
        assert texts(document, "shift") == [
            "v2 has 10 % of the traffic, v1 has 90 % of the traffic",
            "v1 has all of the traffic again",
        ]
        assert texts(document, "hook") == [
            "the before hook exited with status 0",
            "the on_rollback hook exited with status 0",
        ]
        after = [one["after"] for one in document["decisions"]]
        assert after == sorted(after)
        assert document["users"].startswith("Of ") and "were answered by another version" in document["users"]

    play(lab, scene, v1=0.001, v2=0.05)


def test_a_proof_and_a_silence_are_told_apart(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        record = await end(plane, await begun(plane))
        document = await explanation(plane, record, [])
        first, then, last = decisions(document, "judged")
        assert first["text"].startswith("proven after ") and then["text"].startswith("proven after ")
        assert "shown to fail at most 3 times as often" in first["text"]
        assert "at most 5 % of steps (judge.promote.doubt)" in first["why"][0]
        assert last["text"].startswith("no alarm for 10.0 s: ")
        assert last["why"][0].startswith("This is silence, no proof")
        assert "Nothing speaks against v2 beyond chance." in last["why"]
        assert document["because"].startswith("v2 was promoted on evidence: ")

    play(lab, scene)


def test_what_rests_on_health_alone_says_so(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        record = await end(plane, await begun(plane))
        document = await explanation(plane, record, [])
        first = decisions(document, "judged")[0]
        assert "going on by health alone, `judge.low_traffic`" in first["text"]
        assert first["why"] == [
            "This rests on health and checks alone: too few requests came to compare the versions."
        ]
        assert document["because"] == (
            "v2 was promoted on health and checks alone, without a proof: "
            "No user request reached v2: promoted on 1 smoke test"
        )

    play(lab, scene, rate=0)


def test_undecided_is_explained_by_the_setting_that_says_what_is_done(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, BRIEF, settings=HARD)
        await until(plane, asked)
        running = await explanation(plane, plane.journal.rollouts("shop", 1)[0], [])
        assert "judge.undecided is `hold`" in decisions(running, "held")[0]["why"][0]
        assert running["because"].startswith("It goes on: it waits for a person: ")
        await plane.services["shop"].rollback(None, ANA)
        document = await explanation(plane, await end(plane, id), [])
        assert document["because"] == "v2 was taken back by a person: rolled back by ana"

    play(lab, scene, rate=300, v1=0.02, v2=0.037)


def test_a_rollout_that_runs_is_explained_as_far_as_it_is(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane)
        await until(plane, lambda rollout: len(plane.journal.steps(rollout.id)) == 4)
        await asyncio.sleep(5)
        document = await explanation(plane, plane.journal.rollouts("shop", 1)[0], [])
        (now,) = decisions(document, "now")
        assert now["text"].startswith("step 4 of ") and "attempts on v2 failed" in now["text"]
        assert document["decisions"][-1] == now and document["outcome"] is None
        await plane.services["shop"].pause(ANA)
        await until(plane, lambda rollout: plane.journal.steps(rollout.id)[-1].ended is not None)
        paused = await explanation(plane, plane.journal.rollouts("shop", 1)[0], [])
        assert texts(paused, "now") == ["it is paused"] and texts(paused, "person") == ["paused by ana"]
        await plane.services["shop"].resume(ANA)
        await end(plane, id)

    play(lab, scene)


def test_a_version_that_does_not_start_is_explained_by_what_its_instances_did(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        lab.world.platform.order("v2.1", Behaviour(exits=0.01))
        record = await end(plane, await begun(plane))
        document = await explanation(plane, record, [])
        assert texts(document, "turned_back") == [f"turned back: {record.turned}"]
        assert document["because"] == f"v2 was taken back: {record.turned}"
        assert texts(document, "instance") and texts(document, "instance")[0].startswith("shop-v2.1-1: ")
        assert decisions(document, "judged") == decisions(document, "alarm") == []

    play(lab, scene)


def test_a_restart_of_the_machine_is_what_it_went_back_for(lab: Lab) -> None:
    ids: list[str] = []

    async def first(plane: ControlPlane) -> None:
        ids.append(await begun(plane))
        await until(plane, lambda rollout: len(plane.journal.steps(rollout.id)) == 4)

    async def second(plane: ControlPlane) -> None:
        document = await explanation(plane, await end(plane, ids[0]), [])
        assert texts(document, "turned_back") == ["turned back: the machine restarted"]

    play(lab, first)
    for instance in lab.world.platform.running:
        lab.world.platform.exit(instance.id)
    lab.boot = "boot-2"
    lab.run(second)


def test_what_is_left_during_keep_is_told_of_the_rollout_that_promoted_it(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        promoted = await end(plane, await begun(plane))
        await asyncio.sleep(30)
        flow(lab, 50, v2=0.5)
        back = await until(plane, lambda rollout: rollout.kind == "rollback" and rollout.ended is not None)
        document = await explanation(plane, promoted, [])
        assert texts(document, "later") == [f"while v1 was kept, rollout {back.id} went back to it: {back.asked}"]
        assert texts(await explanation(plane, back, []), "asked")[0].startswith(
            "Segue itself asked for v1 in place of v2"
        )
        found = recorded(plane.journal, promoted)
        other = otherwise(found, {"judge.false_alarm": 1e-100})
        assert other["was"]["reason"] == back.asked and other["now"] is None and other["flaws"] == []

    play(lab, scene)
