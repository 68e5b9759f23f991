"""What becomes of those who are connected to an instance that ends: drained, said goodbye to, cut, or not known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from segue.core.release import BlueGreen
from segue.core.traffic import InstanceId
from segue.core.version import Stop
from segue.engine import documents
from segue.engine.control import ControlPlane
from segue.engine.records import Event, RolloutRecord
from segue.testing.calls import Stop as Stopped
from segue.testing.fakes import Behaviour
from segue.testing.plane import Lab, an_order, deployed, status, tidied

AT_ONCE = BlueGreen(judge=timedelta(0), keep=timedelta(0))
HALF_A_MINUTE = Stop(drain=timedelta(seconds=30))
OLD = InstanceId("shop-v1.1-1")
ENDED_WELL = dict.fromkeys(("drained", "open", "goodbye", "cut", "repeated", "unclear", "killed"), 0)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def replaced(plane: ControlPlane, stop: Stop = HALF_A_MINUTE, replicas: int = 1, **open_: int) -> RolloutRecord:
    """The rollout that took v1 out of the traffic while its first instance had so much open."""
    how = {"strategy": AT_ONCE, "replicas": replicas}
    first = await deployed(plane, an_order("v1", stop=stop, **how))
    assert first.outcome == "promoted"
    router(plane).in_flight[OLD] = sum(open_.values())
    return await deployed(plane, an_order("v2", **how))


def router(plane: ControlPlane) -> Any:
    """The fake router."""
    return plane.world.router


async def signalled(lab: Lab, instance: InstanceId = OLD) -> None:
    """Return when `instance` was told to end."""
    while not any(isinstance(call, Stopped) and call.instance.id == instance for call in lab.world.record.calls):
        await asyncio.sleep(0.01)


def farewells(plane: ControlPlane, rollout: RolloutRecord) -> dict[str, Any]:
    """What the report of `rollout` says of them."""
    found: dict[str, Any] = documents.report(plane.journal, rollout, plane.world.clock.now())["farewells"]
    return found


def told(plane: ControlPlane, rollout: RolloutRecord, state: str) -> list[Event]:
    """What clients were told of instances that are in `state`."""
    events = plane.journal.events(0, rollout=rollout.id)
    return [event for event in events if event.event == "instance" and event.body["state"] == state]


def test_who_ended_within_the_drain_was_drained(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout = await replaced(plane, held=3)
        await asyncio.sleep(2)
        router(plane).end(OLD, whole=2, closed=1)
        await tidied(plane)
        assert farewells(plane, rollout) == {**ENDED_WELL, "drained": 3, "instances": []}
        assert told(plane, rollout, "stopped")[0].body["detail"] is None

    lab.run(scene)


def test_what_is_open_is_seen_while_it_drains_and_while_it_ends(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        lab.world.platform.order(OLD, Behaviour(ends=8))
        rollout = await replaced(plane, Stop(drain=timedelta(seconds=20)), held=312)
        for seconds, open_, left in ((5, 312, 15), (14, 312, 1), (3, 300, 7)):
            await asyncio.sleep(seconds)
            draining = next(i for i in status(plane)["services"][0]["versions"]["v1"]["instances"])
            assert (draining["state"], draining["in_flight"], draining["problem"]) == ("draining", open_, None)
            until = datetime.fromisoformat(draining["until"]) - lab.clock.now()
            assert until == pytest.approx(timedelta(seconds=left), abs=timedelta(seconds=0.5))
            if seconds == 14:
                await signalled(lab)
                router(plane).end(OLD, whole=12)
        await tidied(plane)
        details = [event.body["detail"] for event in told(plane, rollout, "draining")]
        assert (details[0], details[1], details[-1]) == (
            None,
            "312 open, at most 19 s more",
            "told to end with 312 open",
        )

    lab.run(scene)


def test_a_drain_of_a_day_is_told_of_now_and_then(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout = await replaced(plane, Stop(drain=timedelta(hours=24)), held=5)
        await asyncio.sleep(3600)
        router(plane).end(OLD, whole=5)
        await tidied(plane)
        assert 15 <= len(told(plane, rollout, "draining")) <= 25

    lab.run(scene)


End = Callable[[Lab, ControlPlane], Awaitable[None]]


async def says_goodbye(lab: Lab, plane: ControlPlane) -> None:
    """Two answers are completed, one breaks off; then it ends."""
    await asyncio.sleep(1)
    router(plane).end(OLD, whole=2)
    await asyncio.sleep(1)
    router(plane).end(OLD, cut=1)


async def closes_what_is_no_answer(lab: Lab, plane: ControlPlane) -> None:
    """It closes two connections of which the router cannot say more, and dies before it has answered a request."""
    await asyncio.sleep(1)
    router(plane).end(OLD, closed=2)
    router(plane).end(OLD, repeated=1)
    lab.world.platform.exit(OLD, status=0)


async def is_killed(lab: Lab, plane: ControlPlane) -> None:
    """It says goodbye to one, and keeps the others until it is killed; then the router hears of it bit by bit."""
    await asyncio.sleep(1)
    router(plane).end(OLD, whole=1)
    while lab.world.platform.running[0].id == OLD:
        await asyncio.sleep(0.001)
    for _ in range(2):
        await asyncio.sleep(0.4)
        router(plane).end(OLD, cut=1)


async def tells_nothing(lab: Lab, plane: ControlPlane) -> None:
    """The router does not hear of any end."""


async def and_the_router_begins_anew(lab: Lab, plane: ControlPlane) -> None:
    """The router is restarted before the end: it counts from zero, and has nothing in flight."""
    router(plane).ends.clear()
    router(plane).in_flight.clear()


@pytest.mark.parametrize(
    ("ends", "takes", "said", "killed"),
    [
        (says_goodbye, 3, {"goodbye": 2, "cut": 1}, False),
        (closes_what_is_no_answer, 5, {"unclear": 2, "repeated": 1}, False),
        (is_killed, 100, {"goodbye": 1, "cut": 2}, True),
        (tells_nothing, 3, {"unclear": 3}, False),
        (and_the_router_begins_anew, 3, {"unclear": 3}, False),
    ],
    ids=lambda value: value.__name__.replace("_", " ") if callable(value) else "",
)
def test_the_report_says_what_became_of_those_who_were_open(
    lab: Lab, ends: End, takes: float, said: dict[str, int], killed: bool
) -> None:
    async def scene(plane: ControlPlane) -> None:
        lab.world.platform.order(OLD, Behaviour(ends=takes))
        rollout = await replaced(plane, Stop(drain=timedelta(seconds=5)), held=2, closing=2)
        router(plane).end(OLD, whole=1)
        await signalled(lab)
        await ends(lab, plane)
        await tidied(plane)
        one = {**ENDED_WELL, "open": 3, "killed": killed, **said}
        drained = farewells(plane, rollout)
        assert drained.pop("instances") == [{"instance": OLD, **one, "drained": drained["drained"]}]
        assert drained == {**one, "drained": drained["drained"]}
        detail = told(plane, rollout, "stopped")[0].body["detail"]
        assert detail.startswith("3 requests in flight at the drain's end")
        assert detail.endswith("killed after the grace") is killed

    lab.run(scene)


def test_the_sentence_names_what_is_known(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        lab.world.platform.order(OLD, Behaviour(ends=3))
        rollout = await replaced(plane, Stop(drain=timedelta(seconds=5)), held=3)
        await signalled(lab)
        await says_goodbye(lab, plane)
        await tidied(plane)
        said = "3 requests in flight at the drain's end (2 said goodbye to, 1 cut)"
        assert [event.body["detail"] for event in told(plane, rollout, "stopped")] == [said]

    lab.run(scene)


# A control plane that is gone in the middle


def until_signalled(lab: Lab) -> str:
    """A control plane ends while an instance that has three connections ends; the rollout."""

    async def scene(plane: ControlPlane) -> str:
        lab.world.platform.order(OLD, Behaviour(ends=40))
        rollout = await replaced(
            plane, Stop(drain=timedelta(seconds=5), grace=timedelta(seconds=60)), held=2, closing=1
        )
        await signalled(lab)
        router(plane).end(OLD, whole=1)
        await asyncio.sleep(0.1)
        return rollout.id

    return lab.run(scene)


def test_another_control_plane_counts_on_from_the_signal(lab: Lab) -> None:
    rollout = until_signalled(lab)

    async def scene(plane: ControlPlane) -> None:
        router(plane).end(OLD, cut=1)
        await asyncio.sleep(1)
        router(plane).end(OLD, whole=1)
        await tidied(plane)
        record = plane.journal.rollout(rollout)
        assert record is not None
        one = {**ENDED_WELL, "open": 3, "goodbye": 2, "cut": 1, "killed": False}
        assert farewells(plane, record)["instances"] == [{"instance": OLD, **one}]

    lab.run(scene)


def test_an_end_that_no_control_plane_saw_is_not_known(lab: Lab) -> None:
    rollout = until_signalled(lab)
    lab.world.platform.exit(OLD, status=0)

    async def scene(plane: ControlPlane) -> None:
        await tidied(plane)
        record = plane.journal.rollout(rollout)
        assert record is not None
        one = {**ENDED_WELL, "open": 3, "unclear": 3, "killed": False}
        assert farewells(plane, record)["instances"] == [{"instance": OLD, **one}]

    lab.run(scene)


def test_an_instance_that_drained_when_its_control_plane_ended_is_in_the_account_of_the_rollout_it_left_for(
    lab: Lab,
) -> None:
    async def leaves(plane: ControlPlane) -> str:
        return (await replaced(plane, held=1)).id

    rollout = lab.run(leaves)

    async def scene(plane: ControlPlane) -> None:
        await tidied(plane)
        record = plane.journal.rollout(rollout)
        assert record is not None
        assert [one["instance"] for one in farewells(plane, record)["instances"]] == [OLD]

    lab.run(scene)


# stop.spread


def signals(plane: ControlPlane, rollout: RolloutRecord, since: datetime) -> list[float]:
    """When instances were told to end, in seconds, in the order in which it happened."""
    of = [event for event in told(plane, rollout, "draining") if "farewell" in event.body]
    return [round((event.at - since).total_seconds()) for event in of]


def test_the_signals_are_spread_and_each_instance_drains_until_its_own(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        stop = Stop(drain=timedelta(seconds=30), spread=timedelta(seconds=60))
        await deployed(plane, an_order("v1", stop=stop, replicas=4, strategy=AT_ONCE))
        for instance in lab.world.platform.running:
            router(plane).in_flight[instance.id] = 1
        rollout = await deployed(plane, an_order("v2", replicas=4, strategy=AT_ONCE))
        began = told(plane, rollout, "draining")[0].at
        await tidied(plane)
        assert signals(plane, rollout, began) == [30, 45, 60, 75]

    lab.run(scene)


def test_an_instance_that_nobody_uses_waits_for_its_turn_and_no_longer(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        stop = Stop(drain=timedelta(seconds=30), spread=timedelta(seconds=60))
        rollout = await replaced(plane, stop, replicas=4)
        began = told(plane, rollout, "draining")[0].at
        await tidied(plane)
        ends = [(event.at - began).total_seconds() for event in told(plane, rollout, "stopped")]
        assert ends == pytest.approx([0, 15, 30, 45], abs=0.1)

    lab.run(scene)


def test_each_version_is_spread_by_itself(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        how = replace(AT_ONCE, keep=timedelta(hours=1))
        stop = Stop(spread=timedelta(seconds=60))
        await deployed(plane, an_order("v1", stop=stop, replicas=2, strategy=how))
        rollout = await deployed(plane, an_order("v2", stop=stop, replicas=2, strategy=how))
        fleet, began = plane.services["shop"].keeper.fleet, lab.clock.now()
        fleet.retire(list(fleet.members))
        await asyncio.sleep(40)
        stopped = [event for event in told(plane, rollout, "stopped") if event.at >= began]
        ends = [((event.at - began).total_seconds(), event.body["instance"].split("-")[1]) for event in stopped]
        assert [at for at, _ in ends] == pytest.approx([0, 0, 30, 30], abs=0.1)
        assert {version for _, version in ends[:2]} == {"v1.1", "v2.1"}

    lab.run(scene)
