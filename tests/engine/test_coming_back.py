"""What a control plane does that comes up where another one ended: after a reboot, and where a crash cut a commit."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from segue.core.release import Revision, Rolling
from segue.core.steps import Scale, Shift
from segue.core.traffic import RoutingTable, ServiceTable
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker
from segue.engine.records import Hooks, RolloutRecord
from segue.testing.fakes import Behaviour
from segue.testing.plane import Lab, an_order, deployed, ended, status, tidied

V1, V2 = Revision("v1.1"), Revision("v2.1")
QUICK = Rolling(first_judge=timedelta(seconds=10), judge=timedelta(seconds=5))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "home")


async def half_way(plane: ControlPlane) -> str:
    """Deploy v1 and then v2, of which the first instance has its share; the rollout."""
    await deployed(plane, an_order("v1", strategy=QUICK))
    answer = await plane.deploy(an_order("v2", strategy=QUICK), Asker())
    keeper = plane.services["shop"].keeper
    await keeper.bell.until(lambda: V2 in keeper.demand.shares)
    assert answer.rollout is not None
    return answer.rollout


def reboot(lab: Lab) -> None:
    """All instances are dead, and the machine calls itself anew."""
    for instance in lab.world.platform.running:
        lab.world.platform.exit(instance.id)
    lab.boot = "another boot"


async def the_end(plane: ControlPlane) -> RolloutRecord:
    """The latest rollout, when everything has ended."""
    (latest,) = plane.journal.rollouts("shop", 1)
    while plane.journal.unfinished("shop"):
        await plane.services["shop"].keeper.bell.rung()
    await tidied(plane)
    record = plane.journal.rollout(latest.id)
    assert record is not None
    return record


def test_after_a_reboot_the_stable_version_comes_to_full_strength_and_then_back(lab: Lab) -> None:
    lab.run(half_way)
    reboot(lab)
    rollout = lab.run(the_end)
    assert (rollout.outcome, rollout.exit, rollout.turned) == ("rolled_back", 1, "the machine restarted")
    assert rollout.back[:2] == (Scale(V1, 4), Shift.to({V1: 1}))
    assert sorted(there.intent.revision for there in lab.world.platform.running) == [V1] * 4


def test_after_a_reboot_in_steady_state_everything_is_started_again(lab: Lab) -> None:
    lab.run(lambda plane: deployed(plane, an_order("v1")))
    reboot(lab)
    rollout = lab.run(the_end)
    assert rollout.outcome == "promoted"
    assert sorted(there.intent.revision for there in lab.world.platform.running) == [V1] * 4


def test_a_mere_restart_of_the_control_plane_turns_nothing_back(lab: Lab) -> None:
    lab.run(half_way)
    assert lab.run(the_end).outcome == "promoted"


def test_an_end_that_was_decided_but_not_told_is_told_once(lab: Lab) -> None:
    lab.run(lambda plane: deployed(plane, an_order("v1")))
    for name, sql in (
        ("events", "DELETE FROM event WHERE event = 'finished'"),
        ("journal", "UPDATE rollout SET ended = NULL"),
    ):
        with closing(sqlite3.connect(lab.folder / "journal" / f"{name}.db")) as db, db:
            db.execute(sql)
    lab.run(the_end)
    lab.run(the_end)

    async def told(plane: ControlPlane) -> list[str]:
        return [event.event for event in plane.journal.events() if event.event == "finished"]

    assert lab.run(told) == ["finished"]


def test_nothing_is_left_of_a_refused_version_with_a_hook_for_the_way_back(lab: Lab) -> None:
    lab.run(lambda plane: deployed(plane, an_order("v1")))
    lab.world.platform.order(V2, Behaviour(), Behaviour(exits=0.02))

    async def refused(plane: ControlPlane) -> RolloutRecord:
        order = an_order("v2", strategy=QUICK, hooks=Hooks(on_rollback="undo"))
        rollout = await ended(plane, await plane.deploy(order, Asker()))
        await tidied(plane)
        assert list(status(plane)["services"][0]["versions"]) == ["v1"]
        return rollout

    assert lab.run(refused).outcome == "rolled_back"
    assert {there.intent.revision for there in lab.world.platform.running} == {V1}


def test_the_shield_stands_in_the_first_table_after_a_restart(lab: Lab) -> None:
    lab.run(half_way)

    async def first_table(plane: ControlPlane) -> ServiceTable:
        return plane.tables.confirmed["shop"]

    table = lab.run(first_table)
    assert table.trial == V2
    assert {backend.revision for backend in table.backends} == {V1, V2}


def test_what_was_stopped_is_closed_where_the_router_had_not_heard_of_it(lab: Lab) -> None:
    async def down(plane: ControlPlane) -> None:
        await ended(plane, await plane.services["shop"].down(Asker(if_busy="wait")))
        await tidied(plane)

    async def found(plane: ControlPlane) -> None:
        assert status(plane)["services"][0]["state"] == "stopped"

    lab.run(lambda plane: deployed(plane, an_order("v1")))
    lab.run(down)
    history = lab.world.router.history
    while not history[-1][1].services:  # the proxy ended before it heard of the end, and has come back as it was
        del history[-1]
    lab.run(found)
    assert lab.world.router.table == RoutingTable()
