"""Versions on trial, on virtual time: canaries, people who are asked, people who are quicker, what nobody proves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from segue.core.release import BlueGreen, Canary, Rolling
from segue.core.traffic import InstanceId, ServiceTable, Traffic
from segue.engine import documents
from segue.engine.catalog import Catalog
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker, Order
from segue.engine.records import Event, Judging, RolloutRecord
from segue.errors import Refused
from segue.judge.settings import Margin, Settings
from segue.testing.fakes import Behaviour, losses
from segue.testing.plane import Lab, an_order, deployed, ended, status, tidied

SHORT = Canary(least=timedelta(seconds=10), most=timedelta(minutes=5), keep=timedelta(minutes=5))
HARD = Settings(false_alarm=1e-12, first=Margin(1.5, 0.005, 0.3))
APPROVED = BlueGreen(judge=timedelta(seconds=5), keep=timedelta(0), approve="manual")
ANA = Asker("ana")


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


def play(lab: Lab, scene: Callable[[ControlPlane], Awaitable[None]], *, rate: float = 50, **failing: float) -> None:
    """Play `scene` on a shop whose v1 serves `rate` requests a second, of which v1 and v2 fail the parts given."""

    async def whole(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1"))
        flow(lab, rate, **failing)
        await scene(plane)
        assert list(losses(lab.world.record.calls)) == []

    lab.run(whole)


def flow(lab: Lab, rate: float, v1: float = 0, v2: float = 0) -> None:
    lab.world.evidence.flow("shop", rate=rate, failing={"v1.1": v1, "v2.1": v2})


async def begun(plane: ControlPlane, strategy: Any, **judging: Any) -> str:
    """The id of the rollout of v2 by `strategy`, once it is accepted."""
    order = an_order("v2", strategy=strategy, judging=replace(Judging(), **judging))
    answer = await plane.deploy(order, Asker())
    assert answer.rollout
    return answer.rollout


async def until(plane: ControlPlane, true: Callable[[RolloutRecord], bool]) -> RolloutRecord:
    """The newest rollout once `true` holds of it."""
    for _ in range(200_000):
        rollout = plane.journal.rollouts("shop", 1)[0]
        if true(rollout):
            return rollout
        await asyncio.sleep(0.1)
    raise AssertionError(f"it did not become true of {rollout}")


def asked(rollout: RolloutRecord) -> bool:
    return rollout.person.asked is not None


async def end(plane: ControlPlane, rollout: str) -> RolloutRecord:
    """The rollout called `rollout`, when it has ended."""
    return await until(plane, lambda newest: newest.id == rollout and newest.ended is not None)


def service(plane: ControlPlane) -> dict[str, Any]:
    found: dict[str, Any] = status(plane)["services"][0]
    return found


def told(plane: ControlPlane, rollout: str, kind: str) -> list[Event]:
    return [event for event in plane.journal.events(0, rollout=rollout) if event.event == kind]


def test_a_healthy_canary_climbs_its_ladder_and_is_promoted_on_evidence(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        done = await end(plane, await begun(plane, SHORT))
        assert (done.outcome, done.exit, done.basis) == ("promoted", 0, "evidence"), done.reason
        shifts = [event.body["shares"].get("v2.1") for event in told(plane, done.id, "traffic")]
        assert shifts == [0.1, 0.3, 0.95, 1.0]
        assert service(plane)["previous"]["kept_until"] is not None
        assert service(plane)["rollout"] is None

    play(lab, scene)


@pytest.mark.parametrize("failing", [0.05, 0.5, 1.0])
def test_a_broken_canary_is_taken_back_at_its_first_step(lab: Lab, failing: float) -> None:
    async def scene(plane: ControlPlane) -> None:
        done = await end(plane, await begun(plane, SHORT))
        assert (done.outcome, done.exit, done.basis) == ("rolled_back", 1, "evidence")
        assert ("attempts on v2 failed" if failing < 1 else "v2 failed each of its last") in (done.reason or "")
        assert [event.body["shares"].get("v2.1") for event in told(plane, done.id, "traffic")] == [0.1, None]
        await tidied(plane)
        assert set(service(plane)["versions"]) == {"v1"}

    play(lab, scene, v1=0.001, v2=failing)


@pytest.mark.parametrize("one", [True, False])
def test_a_bad_instance_among_good_ones_is_named_and_a_bad_version_is_no_instance_s_fault(
    lab: Lab, one: bool
) -> None:
    bad = ["shop-v2.1-2"] if one else [f"shop-v2.1-{n}" for n in (1, 2, 3, 4)]

    async def scene(plane: ControlPlane) -> None:
        lab.world.evidence.flow("shop", rate=50, failing={InstanceId(name): 0.5 for name in bad})
        rollout = await begun(plane, BlueGreen(judge=timedelta(minutes=2), keep=timedelta(0)))
        assert (await end(plane, rollout)).outcome == "rolled_back"
        record = plane.journal.rollout(rollout)
        assert record is not None
        named = [
            note
            for note in documents.report(plane.journal, record, lab.clock.now())["notes"]
            if note.startswith("it is ")
        ]
        assert [note.split(":")[0] for note in named] == (["it is shop-v2.1-2"] if one else [])

    play(lab, scene)


def test_without_a_request_a_canary_goes_on_by_health_and_says_so(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        done = await end(plane, await begun(plane, SHORT))
        assert (done.outcome, done.basis) == ("promoted", "health")
        assert done.reason == "No user request reached v2: promoted on 1 smoke test"
        judged = [step.verdict["reason"] for step in plane.journal.steps(done.id) if step.verdict]
        assert (
            judged[0]
            == "10 %: 0 requests, a verdict needs some hundreds; going on by health alone, `judge.low_traffic`"
        )

    play(lab, scene, rate=0)


def test_silence_after_a_proof_that_was_not_waited_for_is_no_evidence(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        done = await end(plane, await begun(plane, replace(SHORT, most=timedelta(seconds=40))))
        bases = [step.verdict["basis"] for step in plane.journal.steps(done.id) if step.verdict]
        assert bases == ["health", "health", "evidence"]
        assert (done.outcome, done.basis) == ("promoted", "health")
        assert (done.reason or "").endswith(" (0.00 %), too few for a proof: promoted on 1 smoke test")

    play(lab, scene, rate=5)


def test_after_a_restart_the_last_judgement_is_still_what_it_rests_on(lab: Lab) -> None:
    how = replace(SHORT, steps=(Fraction(1, 2), Fraction(1)), holdback=Fraction(0))
    rollouts: list[str] = []

    async def judged(plane: ControlPlane) -> None:
        rollouts.append(await begun(plane, how))
        while not any(step.verdict for step in plane.journal.steps(rollouts[0])):
            await asyncio.sleep(0.05)
        assert plane.journal.rollouts("shop", 1)[0].decided is None

    async def restarted(plane: ControlPlane) -> None:
        done = await end(plane, rollouts[0])
        assert (done.outcome, done.basis) == ("promoted", "evidence")
        assert "attempts on v2 failed" in (done.reason or "")

    play(lab, judged, rate=500)
    lab.run(restarted)


@pytest.mark.parametrize(
    ("course", "outcome", "exit"), [("continue", "promoted", 0), ("rollback", "rolled_back", 1), ("hold", None, None)]
)
def test_with_too_little_traffic_it_is_done_as_low_traffic_says(
    lab: Lab, course: str, outcome: str | None, exit: int | None
) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, SHORT, low_traffic=course)
        done = await until(plane, lambda rollout: asked(rollout) or rollout.ended is not None)
        assert (done.outcome, done.exit) == (outcome, exit)
        if outcome is None:
            assert (service(plane)["state"], service(plane)["rollout"]["hold"]) == ("holding", done.person.asked)
            assert "a verdict needs" in (done.person.asked or "")
            await plane.services["shop"].rollback(None, ANA)
            assert (await end(plane, id)).exit == 7

    play(lab, scene, rate=0.5)


@pytest.mark.parametrize(
    ("course", "outcome"), [("continue", "promoted"), ("rollback", "rolled_back"), ("hold", None)]
)
def test_where_the_evidence_leans_neither_way_it_is_done_as_undecided_says(
    lab: Lab, course: str, outcome: str | None
) -> None:
    """Worse than the margin of the proof, and an alarm takes more than there is in so short a time."""

    async def scene(plane: ControlPlane) -> None:
        brief = replace(SHORT, steps=(Fraction(1, 2), Fraction(1)), holdback=Fraction(0), most=timedelta(seconds=40))
        await begun(plane, brief, undecided=course, settings=HARD)
        done = await until(plane, lambda rollout: asked(rollout) or rollout.ended is not None)
        assert done.outcome == outcome
        said = done.person.asked or done.reason or ""
        assert "not proven within 40 s" in said

    play(lab, scene, rate=300, v1=0.02, v2=0.037)


def test_a_promise_to_ask_is_kept_and_the_answer_goes_on(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, replace(SHORT, approve="manual"))
        for share in (0.1, 0.3):
            held = await until(plane, asked)
            assert held.person.asked == f"approve more than {share:.0%} for v2.1"
            assert service(plane)["state"] == "holding"
            assert plane.services["shop"].keeper.demand.share(held.new) == Fraction(str(share))  # type: ignore[arg-type]
            assert (await plane.services["shop"].promote(ANA)).rollout == id
            assert service(plane)["state"] == "rolling_out"
        done = await end(plane, id)
        assert (done.outcome, done.person.who) == ("promoted", "ana")
        assert [event.event for event in plane.journal.events(0, rollout=id) if "hold" in event.event] == [
            "holding"
        ] * 2

    play(lab, scene)


def test_an_approval_that_nobody_gives_rolls_back(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        done = await end(plane, await begun(plane, APPROVED, approve_within=timedelta(minutes=2)))
        assert (done.outcome, done.exit) == ("rolled_back", 1)
        assert done.reason == "nobody answered within 2 min: approve the switch to v2.1"

    play(lab, scene)


def test_while_a_person_is_asked_lost_instances_end_the_rollout(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, replace(SHORT, approve="manual"))
        await until(plane, asked)
        lab.world.platform.order("v2.1", Behaviour(exits=0.01))
        lab.world.platform.exit(next(i.id for i in lab.world.platform.running if i.intent.revision == "v2.1"))
        assert (await end(plane, id)).outcome == "rolled_back"

    play(lab, scene)


def test_while_a_person_is_asked_the_watch_goes_on(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, replace(SHORT, approve="manual"))
        await until(plane, asked)
        flow(lab, 50, v2=0.5)
        done = await end(plane, id)
        assert (done.outcome, done.basis) == ("rolled_back", "evidence")

    play(lab, scene)


def test_promoted_in_full_nothing_is_judged_or_asked_any_more_but_no_step_is_left_out(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, replace(SHORT, approve="manual", least=timedelta(minutes=1)))
        await until(plane, lambda rollout: len(plane.journal.steps(rollout.id)) == 4)
        began = lab.clock.monotonic()
        await plane.services["shop"].promote(ANA, full=True)
        done = await end(plane, id)
        assert (done.outcome, done.basis, done.person.full) == ("promoted", "person", True)
        assert lab.clock.monotonic() - began < 10
        steps = plane.journal.steps(id)
        assert [step.number for step in steps] == list(range(1, len(done.plan) + 1))
        assert {step.outcome for step in steps} == {"done"}

    play(lab, scene, v1=0.001, v2=0.004)


def test_a_promotion_that_nobody_asked_for_is_refused(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        shop = plane.services["shop"]
        with pytest.raises(Refused, match="no rollout of shop runs"):
            await shop.promote(ANA)
        id = await begun(plane, SHORT)
        await until(plane, lambda rollout: len(plane.journal.steps(rollout.id)) == 4)
        with pytest.raises(Refused, match="nobody is asked anything"):
            await shop.promote(ANA)
        await end(plane, id)

    play(lab, scene)


def test_a_rollout_that_is_paused_begins_no_step_until_it_is_resumed(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        shop, id = plane.services["shop"], await begun(plane, SHORT)
        await until(plane, lambda rollout: len(plane.journal.steps(rollout.id)) == 4)
        await shop.pause(ANA)
        with pytest.raises(Refused, match="already paused"):
            await shop.pause(ANA)
        await asyncio.sleep(600)
        assert len(plane.journal.steps(id)) == 4
        assert (service(plane)["state"], service(plane)["rollout"]["state"]) == ("paused", "paused")
        await shop.resume(ANA)
        assert (await end(plane, id)).outcome == "promoted"

    play(lab, scene)


def test_a_rollout_that_waits_for_an_approval_stands_still_already_and_is_not_paused(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        shop, id = plane.services["shop"], await begun(plane, replace(SHORT, approve="manual"))
        await until(plane, asked)
        with pytest.raises(Refused, match="waits for an approval"):
            await shop.pause(ANA)
        assert service(plane)["state"] == "holding"
        await shop.promote(ANA, full=True)
        assert (await end(plane, id)).outcome == "promoted"

    play(lab, scene)


def test_a_paused_rollout_can_be_taken_back_and_takes_itself_back_on_an_alarm(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        shop, id = plane.services["shop"], await begun(plane, SHORT)
        await until(plane, lambda rollout: len(plane.journal.steps(rollout.id)) == 5)
        await shop.pause(ANA)
        await asyncio.sleep(60)
        flow(lab, 50, v2=0.5)
        done = await end(plane, id)
        assert (done.outcome, done.basis) == ("rolled_back", "evidence")
        await tidied(plane)
        assert set(service(plane)["versions"]) == {"v1"}

    play(lab, scene)


def test_a_control_plane_that_comes_back_asks_the_same_question_for_the_time_that_is_left(lab: Lab) -> None:
    async def first(plane: ControlPlane) -> None:
        await begun(plane, APPROVED, approve_within=timedelta(minutes=4))
        await until(plane, asked)
        await asyncio.sleep(120)

    async def second(plane: ControlPlane) -> None:
        began = lab.clock.monotonic()
        done = await until(plane, lambda rollout: rollout.ended is not None)
        assert (done.outcome, done.exit) == ("rolled_back", 1)
        assert 110 < lab.clock.monotonic() - began < 130
        assert len(told(plane, done.id, "holding")) == 1

    play(lab, first)
    lab.run(second)


def test_what_was_judged_is_judged_the_same_after_a_restart(lab: Lab) -> None:
    numbers: list[Any] = []

    async def first(plane: ControlPlane) -> None:
        await begun(plane, replace(SHORT, approve="manual"))
        await until(plane, asked)
        runner = plane.services["shop"].runner
        assert runner
        numbers.append(runner.watch.proof().numbers)

    async def second(plane: ControlPlane) -> None:
        runner = plane.services["shop"].runner
        assert runner
        again = runner.watch.proof().numbers
        assert again["new_attempts"] == pytest.approx(numbers[0]["new_attempts"], abs=20)
        assert again["ln_e_proof_errors"] == pytest.approx(numbers[0]["ln_e_proof_errors"], abs=0.3)

    play(lab, first, v1=0.01, v2=0.01)
    lab.run(second)


def test_a_version_that_breaks_during_keep_is_left_by_itself(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, SHORT)
        promoted = await end(plane, id)
        assert promoted.outcome == "promoted"
        await asyncio.sleep(30)
        flow(lab, 50, v2=0.5)
        back = await until(plane, lambda rollout: rollout.kind == "rollback" and rollout.ended is not None)
        assert (back.outcome, back.basis, back.who) == ("promoted", "evidence", "segue")
        assert "attempts on v2 failed" in (back.reason or "")
        (note,) = [event.body["text"] for event in plane.journal.all_events(back.id) if event.event == "note"]
        failed, tried = re.findall(r"since its first share ([\d,]+) of ([\d,]+) attempts on v2 failed", note)[0]
        assert 10 < int(failed) < int(tried.replace(",", ""))
        await tidied(plane)
        assert (service(plane)["stable"], set(service(plane)["versions"])) == ("v1", {"v1"})

    play(lab, scene)


@pytest.mark.parametrize("waits", [True, False])
def test_a_version_that_hangs_during_keep_is_left_and_one_that_nobody_asks_is_not(lab: Lab, *, waits: bool) -> None:
    async def scene(plane: ControlPlane) -> None:
        await end(plane, await begun(plane, BlueGreen(judge=timedelta(seconds=5), keep=timedelta(minutes=2))))
        flow(lab, 0)
        ours = [i.id for i in lab.world.platform.running if i.intent.revision == "v2.1"]
        for second in range(60):
            lab.world.router.in_flight |= dict.fromkeys(ours, 20 * second * waits)
            await asyncio.sleep(1)
            if service(plane)["stable"] == "v1":
                break
        lab.world.router.in_flight.clear()
        assert service(plane)["stable"] == ("v1" if waits else "v2")
        if waits:
            back = plane.journal.rollouts("shop", 1)[0]
            assert (back.kind, back.basis) == ("rollback", "evidence")
            assert re.fullmatch(r"v2 has answered nobody for 1\d s, and [\d,]+ requests wait", back.reason or "")
        await tidied(plane)

    play(lab, scene)


def test_who_goes_back_in_keep_knows_why(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await end(plane, await begun(plane, BlueGreen(judge=timedelta(seconds=5))))
        answer = await plane.services["shop"].rollback(None, Asker("ana", "feels wrong"))
        back = await until(plane, lambda rollout: rollout.id == answer.rollout and rollout.ended is not None)
        assert (back.outcome, back.basis, back.reason) == ("promoted", "person", "feels wrong")

    play(lab, scene)


def test_that_the_router_began_anew_is_said(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, SHORT)
        await asyncio.sleep(8)
        lab.world.evidence.restart()
        await end(plane, id)
        notes = [event.body["text"] for event in plane.journal.all_events(id) if event.event == "note"]
        assert notes == ["the router began anew: of what ended since the last look nothing is known"]

    play(lab, scene)


def test_a_version_that_loses_instances_during_keep_is_left_by_itself(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await end(plane, await begun(plane, BlueGreen(judge=timedelta(seconds=5))))
        lab.world.platform.exit(next(i.id for i in lab.world.platform.running if i.intent.revision == "v2.1"))
        back = await until(plane, lambda rollout: rollout.kind == "rollback" and rollout.ended is not None)
        assert (back.outcome, back.basis) == ("promoted", "health")
        assert service(plane)["stable"] == "v1"

    play(lab, scene)


def test_a_version_that_was_promoted_in_full_is_not_left_during_keep_for_its_numbers(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, SHORT)
        await until(plane, lambda rollout: len(plane.journal.steps(rollout.id)) == 4)
        await plane.services["shop"].promote(ANA, full=True)
        assert (await end(plane, id)).outcome == "promoted"
        flow(lab, 50, v2=0.5)
        await asyncio.sleep(120)
        assert (plane.journal.rollouts("shop", 1)[0].id, service(plane)["stable"]) == (id, "v2")

    play(lab, scene)


def test_after_a_restart_keep_is_watched_as_before(lab: Lab) -> None:
    async def first(plane: ControlPlane) -> None:
        await end(plane, await begun(plane, SHORT))

    async def second(plane: ControlPlane) -> None:
        flow(lab, 50, v2=0.5)
        back = await until(plane, lambda rollout: rollout.kind == "rollback" and rollout.ended is not None)
        assert back.basis == "evidence"

    play(lab, first)
    lab.run(second)


def test_a_version_without_faults_is_never_left_during_keep(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await end(plane, await begun(plane, SHORT))
        await asyncio.sleep(400)
        assert plane.journal.rollouts("shop", 1)[0].kind == "retire"
        assert set(service(plane)["versions"]) == {"v2"}

    play(lab, scene, v1=0.01, v2=0.01)


def test_replaced_by_a_newer_deploy_while_it_is_held(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, APPROVED)
        await until(plane, asked)
        with pytest.raises(Refused, match="busy"):
            await plane.deploy(an_order("v3"), Asker())
        newer = await ended(plane, await plane.deploy(an_order("v3"), Asker("ben", if_busy="replace")))
        assert newer.outcome == "promoted"
        held = plane.journal.rollout(id)
        assert held and (held.outcome, held.exit, held.basis) == ("superseded", 7, "person")
        assert documents.rollout(held)["state"] == "decided"

    play(lab, scene)


@pytest.mark.parametrize("changed", [False, True])
def test_what_changed_while_it_stood_in_line_is_not_deployed(
    lab: Lab, tmp_path: Path, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page").write_text("as it is meant")
    digest, known = Catalog.digest, asyncio.Event()

    async def noted(catalog: Catalog, order: Order) -> str:
        found = await digest(catalog, order)
        known.set()
        return found

    async def scene(plane: ControlPlane) -> None:
        await begun(plane, APPROVED)
        await until(plane, asked)
        monkeypatch.setattr(Catalog, "digest", noted)
        order = an_order("v3", source=tmp_path)
        waiting = asyncio.create_task(plane.deploy(order, Asker("ben", if_busy="wait")))
        await known.wait()
        if changed:
            (tmp_path / "page").write_text("something else")
        await plane.services["shop"].rollback(None, ANA)
        if changed:
            with pytest.raises(Refused, match="v3 is made of changed while it stood in line"):
                await waiting
        else:
            assert (await ended(plane, await waiting)).outcome == "promoted"
        assert service(plane)["stable"] == ("v1" if changed else "v3")

    play(lab, scene)


def test_the_same_promotion_asked_twice_is_one(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(plane, APPROVED)
        await until(plane, asked)
        once = Asker("ana", key="one")
        assert (await plane.services["shop"].promote(once)).rollout == id
        assert (await plane.services["shop"].promote(once)).rollout == id
        await end(plane, id)

    play(lab, scene)


def test_what_an_old_version_that_shrinks_must_answer_in_place_of_the_new_one_is_bounded(lab: Lab) -> None:
    """Four instances with 90 requests each: all of it at full strength, then as many again for each that is left."""

    async def scene(plane: ControlPlane) -> None:
        for instance in lab.world.platform.running:
            lab.world.router.in_flight[instance.id] = 90
        rolling = Rolling(first_judge=timedelta(seconds=2), judge=timedelta(seconds=1))
        answer = await plane.deploy(an_order("v2", strategy=rolling), Asker())
        while lab.world.router.shares("shop").get("v2.1") != 1:  # type: ignore[call-overload]
            await asyncio.sleep(0.1)
            lab.world.router.in_flight = {i: n for i, n in lab.world.router.in_flight.items() if moved(plane, i)}
        await ended(plane, answer)

    def moved(plane: ControlPlane, instance: InstanceId) -> bool:
        return any(m.id == instance and not m.leaving for m in plane.services["shop"].keeper.fleet.members)

    play(lab, scene, rate=10)
    tables = [table.services["shop"] for _, table in lab.world.router.history if "shop" in table.services]
    bounds = {(ready(table, "v1.1"), table.replays) for table in tables if table.trial and ready(table, "v1.1")}
    assert bounds == {(4, None), (3, 270), (2, 180), (1, 90)}
    assert all(table.replays is None for table in tables if table.trial is None or not ready(table, "v1.1"))


def ready(table: ServiceTable, revision: str) -> int:
    ends = [end for backend in table.backends if backend.revision == revision for end in backend.endpoints]
    return sum(end.state is Traffic.READY for end in ends)


@pytest.mark.parametrize(("slower", "patience"), [(1.0, 1.0), (10.0, None)])
def test_the_shield_waits_longer_than_the_old_version_ever_takes(
    lab: Lab, slower: float, patience: float | None
) -> None:
    lab.world.evidence.slower["v1.1"] = slower
    lab.world.evidence.slower["v2.1"] = slower

    async def scene(plane: ControlPlane) -> None:
        await asyncio.sleep(300)
        await end(plane, await begun(plane, SHORT))

    play(lab, scene)
    tables = [table.services["shop"] for _, table in lab.world.router.history if "shop" in table.services]
    times = {table.patience.total_seconds() for table in tables if table.trial and len(table.backends) == 2}
    if patience:
        assert times == {patience}
    else:
        assert max(times) > 2, "three times the slowest in a thousand of answers about a median of 200 ms"


def test_a_restart_is_judged_as_the_last_deployment_was(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        how = Rolling(first_judge=timedelta(seconds=1), judge=timedelta(seconds=1))
        judging = replace(Judging(), logs=("ERROR",))
        await deployed(plane, an_order("v2", strategy=how, judging=judging, manifest="a digest"))
        again = await ended(plane, await plane.services["shop"].restart(Asker()))
        assert (again.kind, again.judging) == ("restart", judging)

    play(lab, scene)


@pytest.mark.parametrize("who", ["the control plane", "the router"])
def test_time_in_which_nobody_looked_is_no_silence(lab: Lab, who: str) -> None:
    judged = BlueGreen(judge=timedelta(seconds=10), keep=timedelta(0))

    async def begins(plane: ControlPlane) -> str:
        await deployed(plane, an_order("v1"))
        rollout = await begun(plane, judged)
        keeper = plane.services["shop"].keeper
        await keeper.bell.until(lambda: "v2.1" in keeper._confirmed_shares())
        await asyncio.sleep(2)
        flow(lab, 50, v2=0.5)
        if who == "the router":
            lab.world.router.lose()
            await asyncio.sleep(60)
            lab.world.router.lose(0)
            lab.world.evidence.restart()
        return rollout

    async def goes_on(plane: ControlPlane, rollout: str) -> None:
        began = lab.clock.monotonic()
        record = await end(plane, rollout)
        assert (record.outcome, record.basis) == ("rolled_back", "evidence"), record.reason
        assert lab.clock.monotonic() - began < 30

    rollout = lab.run(begins)
    if who == "the control plane":
        lab.clock.pass_by(60)
    lab.run(lambda plane: goes_on(plane, rollout))
