"""The `after` hook is the point of no return: it runs once nothing older is left; then nothing goes back any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from segue.core.release import BlueGreen
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker
from segue.engine.records import Hooks
from segue.errors import Refused
from segue.testing.calls import Began
from segue.testing.clock import Crashed
from segue.testing.fakes import Script
from segue.testing.plane import Lab, an_order, deployed, ended, status, tidied

KEEP = BlueGreen(judge=timedelta(seconds=1), keep=timedelta(minutes=1))
HOOKS = Hooks(before="expand", after="contract")


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


def runs(lab: Lab, hook: str) -> int:
    return sum(call == Began(hook) for call in lab.world.record.calls)


def play(lab: Lab, scene: Callable[[ControlPlane], Awaitable[None]]) -> None:
    """Play `scene` where v2, which has an `after` hook, has taken over from v1 and v1 is kept."""

    async def whole(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1"))
        assert (await deployed(plane, an_order("v2", strategy=KEEP, hooks=HOOKS))).outcome == "promoted"
        assert (runs(lab, "expand"), runs(lab, "contract")) == (1, 0)
        await scene(plane)

    lab.run(whole)


async def kept_over(plane: ControlPlane) -> None:
    """Return when keep is over, and all that belongs to its end."""
    while plane.journal.rollouts("shop", 1)[0].kind != "retire" or plane.journal.unfinished("shop"):
        await asyncio.sleep(1)


def test_it_runs_at_the_end_of_keep_when_nothing_older_is_left(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await kept_over(plane)
        assert runs(lab, "contract") == 1
        assert {i.intent.revision for i in lab.world.platform.running} == {"v2.1"}
        assert status(plane)["services"][0]["state"] == "steady"

    play(lab, scene)


def test_once_it_ran_nothing_older_can_be_gone_back_to(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        shop = plane.services["shop"]
        await ended(plane, await shop.retire(Asker()))
        assert runs(lab, "contract") == 1
        for to in (None, "v1"):
            with pytest.raises(Refused, match=r"cannot go back to v1: the after hook of v2 has run \(2030-01-01 "):
                await shop.rollback(to, Asker())
        with pytest.raises(Refused, match="cannot go back to v1"):
            await plane.deploy(an_order("v1"), Asker())
        await deployed(plane, an_order("v3", strategy=KEEP))
        assert (await ended(plane, await shop.rollback(None, Asker()))).outcome == "promoted"
        assert status(plane)["services"][0]["stable"] == "v2"

    play(lab, scene)


def test_what_came_after_it_can_be_gone_back_to_also_when_its_own_version_is_forgotten(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await ended(plane, await plane.services["shop"].retire(Asker()))
        for version in ("v3", "v4"):
            await deployed(plane, an_order(version, retain=1))
            await tidied(plane)
        assert "v2" not in {known.name for known in plane.services["shop"].catalog.known.values()}
        assert (await ended(plane, await plane.services["shop"].rollback("v3", Asker()))).outcome == "promoted"

    play(lab, scene)


def test_in_keep_one_can_go_back_and_then_it_never_runs(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await ended(plane, await plane.services["shop"].rollback(None, Asker()))
        await asyncio.sleep(200)
        assert (runs(lab, "contract"), status(plane)["services"][0]["stable"]) == (0, "v1")

    play(lab, scene)


def test_while_it_is_to_come_a_deployment_is_refused(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        with pytest.raises(Refused, match="the after hook of v2 is still to run") as refused:
            await plane.deploy(an_order("v3"), Asker())
        assert refused.value.exit == 4
        with pytest.raises(Refused, match="is still to run"):
            await plane.services["shop"].restart(Asker())
        assert runs(lab, "contract") == 0
        await kept_over(plane)
        assert (await deployed(plane, an_order("v3"))).outcome == "promoted"

    play(lab, scene)


def test_down_never_runs_it(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await ended(plane, await plane.services["shop"].down(Asker()))
        await asyncio.sleep(200)
        assert runs(lab, "contract") == 0

    play(lab, scene)


def test_where_it_fails_the_version_stays_and_the_service_is_degraded(lab: Lab) -> None:
    lab.world.commands.order("contract", Script(status=3))

    async def scene(plane: ControlPlane) -> None:
        await kept_over(plane)
        found = status(plane)["services"][0]
        assert (found["state"], found["stable"]) == ("degraded", "v2")
        assert found["degraded"] == "the after hook exited with status 3"
        with pytest.raises(Refused, match="cannot go back to v1"):
            await plane.services["shop"].rollback("v1", Asker())

    play(lab, scene)


def test_a_crash_after_any_write_runs_it_once_and_never_before_the_old_version_is_gone(room: Path) -> None:
    def fresh(name: str) -> Lab:
        lab = Lab(room / name)
        lab.world.commands.order("contract", Script(seconds=1))
        play(lab, lambda plane: tidied(plane))
        return lab

    async def retire(plane: ControlPlane) -> None:
        if plane.services["shop"].keeper.demand.kept:
            await plane.services["shop"].retire(Asker(key="the-same"))
        await kept_over(plane)

    whole = fresh("whole")
    before = whole.writes
    whole.run(retire)
    for write in range(1, whole.writes - before):
        lab = fresh(f"write-{write}")
        lab.crash_at_write = before + write
        with suppress(Crashed):
            lab.run(retire)
        lab.run(retire)
        assert runs(lab, "contract") == 1, f"crash after write {write}"
        assert lab.run(state) == ("steady", {"v2.1"}), f"crash after write {write}"


async def state(plane: ControlPlane) -> tuple[str, set[str]]:
    await tidied(plane)
    members = plane.services["shop"].keeper.fleet.members
    return status(plane)["services"][0]["state"], {str(member.revision) for member in members}
