"""Rollouts end to end on virtual time, over the fakes."""

from __future__ import annotations

import asyncio
import errno
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segue.core.release import BlueGreen, How, Revision
from segue.core.steps import Scale
from segue.core.traffic import Traffic
from segue.engine import documents, fleet, keeper, plans
from segue.engine.control import ControlPlane
from segue.engine.member import State
from segue.engine.orders import Asker
from segue.engine.records import Hooks
from segue.errors import Refused, Usage
from segue.testing.fakes import Behaviour, losses
from segue.testing.plane import STRATEGIES, Lab, an_order, deployed, ended, status, tidied

KEPT = BlueGreen(judge=timedelta(seconds=1), keep=timedelta(minutes=5))


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


def test_a_first_launch_serves_when_it_is_decided(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout = await deployed(plane, an_order("v1"))
        assert (rollout.outcome, rollout.exit) == ("promoted", 0)
        found = status(plane)["services"][0]
        assert (found["state"], found["stable"], found["rollout"]) == ("steady", "v1", None)
        assert found["versions"]["v1"]["share"] == 1.0
        assert [i["state"] for i in found["versions"]["v1"]["instances"]] == ["ready"] * 4

    lab.run(scene)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: f"{strategy.name} keep {strategy.keep}")
def test_a_new_version_takes_over(lab: Lab, strategy: How) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1"))
        lab.world.evidence.flow("shop", rate=50)
        rollout = await deployed(plane, an_order("v2", strategy=strategy))
        assert (rollout.outcome, rollout.exit, rollout.basis) == ("promoted", 0, "evidence")
        await tidied(plane)
        found = status(plane)["services"][0]
        assert (found["state"], found["stable"]) == ("steady", "v2")
        assert set(found["versions"]) == ({"v1", "v2"} if strategy.keep else {"v2"})
        assert list(losses(lab.world.record.calls)) == []

    lab.run(scene)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: f"{strategy.name} keep {strategy.keep}")
@pytest.mark.parametrize(
    "broken",
    [
        Behaviour(fails="gunicorn: command not found"),
        Behaviour(exits=0.01, log=("Traceback", "boom")),
        Behaviour(ready=float("inf")),
        Behaviour(smoke="GET / answered 500, not 200"),
        Behaviour(stranger=True),
    ],
    ids=["never starts", "exits at once", "never healthy", "smoke test fails", "port taken"],
)
def test_a_version_that_cannot_serve_is_refused_and_users_see_nothing(
    lab: Lab, strategy: How, broken: Behaviour
) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1"))
        lab.world.platform.order("v2.1", broken)
        rollout = await deployed(plane, an_order("v2", strategy=strategy))
        assert (rollout.outcome, rollout.exit) == ("rolled_back", 1), rollout
        await tidied(plane)
        found = status(plane)["services"][0]
        assert (found["state"], found["stable"], set(found["versions"])) == ("steady", "v1", {"v1"})
        assert {instance.intent.revision for instance in lab.world.platform.running} == {"v1.1"}
        assert list(losses(lab.world.record.calls)) == []

    lab.run(scene)


def test_a_scaling_that_fails_leaves_the_service_as_large_as_it_was(lab: Lab) -> None:
    boom = [Behaviour(exits=0.02, log=("boom",)) for _ in range(6)]
    lab.world.platform.order("v1.1", *([Behaviour()] * 3), *boom)

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=3))
        failed = await ended(plane, await plane.services["shop"].scale(4, Asker()))
        assert failed.outcome == "rolled_back"
        assert plane.services["shop"].record.demand.sizes == {"v1.1": 3}
        assert (await deployed(plane, an_order("v2", replicas=3))).outcome == "promoted"

    lab.run(scene)


def test_a_deployment_after_a_scaling_says_that_it_goes_back_to_the_manifests_size(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=3))
        shop, order = plane.services["shop"], an_order("v2", replicas=3)
        assert not any("replicas" in note for note in plans.preview(shop, order)["notes"])
        assert (await ended(plane, await shop.scale(5, Asker()))).outcome == "promoted"
        told = "v2 gets 3 instances where v1 has 5: `replicas` says so"
        assert told in plans.preview(shop, order)["notes"]
        assert told in documents.report(plane.journal, await deployed(plane, order), lab.clock.now())["notes"]

    lab.run(scene)


def test_what_is_kept_is_scaled_as_well_so_that_going_back_is_one_switch(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=2))
        await deployed(plane, an_order("v2", replicas=2, strategy=KEPT))
        shop = plane.services["shop"]
        for count in (4, 3):
            assert (await ended(plane, await shop.scale(count, Asker()))).outcome == "promoted"
            assert shop.record.demand.sizes == {"v1.1": count, "v2.1": count}
        back = await ended(plane, await shop.rollback(None, Asker()))
        assert [str(step) for step in back.plan if isinstance(step, Scale)][:1] == ["v1.1: 3 instances"]
        assert back.start.count(Revision("v1.1")) == 3
        await tidied(plane)
        assert shop.record.demand.counts == {"v1.1": 3}

    lab.run(scene)


def test_a_scaling_of_what_serves_and_what_is_kept_that_fails_leaves_both_as_they_were(lab: Lab) -> None:
    boom = [Behaviour(exits=0.02, log=("boom",)) for _ in range(6)]
    lab.world.platform.order("v1.1", *([Behaviour()] * 2), *boom)

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=2))
        await deployed(plane, an_order("v2", replicas=2, strategy=KEPT))
        shop = plane.services["shop"]
        assert (await ended(plane, await shop.scale(3, Asker()))).outcome == "rolled_back"
        await tidied(plane)
        assert shop.record.demand.sizes == shop.record.demand.counts == {"v1.1": 2, "v2.1": 2}

    lab.run(scene)


@pytest.mark.parametrize("count", [-1, 0, 10_001])
def test_a_service_has_neither_no_instance_nor_more_than_it_may_have(lab: Lab, count: int) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=2))
        with pytest.raises(Usage, match="1 to 10,000 instances"):
            await plane.services["shop"].scale(count, Asker())
        assert plane.services["shop"].rollout is None

    lab.run(scene)


def test_of_many_instances_a_few_start_at_a_time(lab: Lab) -> None:
    lab.world.platform.order("v1.1", *[Behaviour(ready=25.0) for _ in range(100)])
    most = 0

    async def scene(plane: ControlPlane) -> None:
        nonlocal most
        answer = await plane.deploy(an_order("v1", replicas=100), Asker())
        while plane.services["shop"].rollout is not None:
            members = plane.services["shop"].keeper.fleet.members
            most = max(most, sum(member.state is State.STARTING for member in members))
            await asyncio.sleep(0.5)
        assert (await ended(plane, answer)).outcome == "promoted"  # although it takes longer than `health.deadline`

    lab.run(scene)
    assert 0 < most <= keeper.AT_ONCE < 100


def test_a_deploy_that_is_refused_leaves_nothing_of_the_versions_secrets(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        kept = lab.folder / "versions" / "shop"
        await deployed(plane, an_order("v1", environment={"KEY": "s1"}))
        await deployed(plane, an_order("v2", strategy=KEPT, hooks=Hooks(after="contract"), environment={"KEY": "s2"}))
        before = sorted(kept.rglob("environment"))
        with pytest.raises(Refused, match="hook"):
            await plane.deploy(an_order("v3", environment={"KEY": "s3"}), Asker())
        assert sorted(kept.rglob("environment")) == before and len(before) == 2

    lab.run(scene)


def test_a_key_is_for_one_request(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=2))
        shop = plane.services["shop"]
        first = await shop.scale(3, Asker(key="k", what="three"))
        await ended(plane, first)
        assert await shop.scale(3, Asker(key="k", what="three")) == first
        with pytest.raises(Usage, match="Idempotency-Key"):
            await shop.scale(4, Asker(key="k", what="four"))
        assert shop.record.demand.counts == {"v1.1": 3}

    lab.run(scene)


def test_an_instance_that_could_not_be_started_again_once_serves_when_it_can(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=3))
        lab.world.platform.order("v1.1", Behaviour(fails="no room for its claim"), Behaviour())
        lab.world.platform.exit(lab.world.platform.running[0].id)
        await asyncio.sleep(60)
        assert plane.services["shop"].keeper.fleet.ready(Revision("v1.1")) == 3

    lab.run(scene)


def test_a_control_plane_without_descriptors_takes_no_instance_out_of_the_traffic(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing_left(*_: object) -> str | None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1"))
        with monkeypatch.context() as patch:
            patch.setattr(fleet, "probe", nothing_left)
            await asyncio.sleep(600)
        tables = [table.services["shop"] for _, table in lab.world.router.history if "shop" in table.services]
        states = [end.state for backend in tables[-1].backends for end in backend.endpoints]
        assert states == [Traffic.READY] * 4
        lab.world.platform.sick.add(lab.world.platform.running[0].id)
        await plane.services["shop"].keeper.bell.until(
            lambda: plane.services["shop"].keeper.fleet.ready(Revision("v1.1")) == 3
        )

    lab.run(scene)


def test_an_instance_that_cannot_be_ended_for_want_of_descriptors_is_ended_when_there_are_some(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, left = lab.world.platform.stop, iter([OSError(errno.EMFILE, "Too many open files")] * 3)

    async def stopped(*words: Any) -> bool:
        for want in left:
            raise want
        return await stop(*words)

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=2))
        monkeypatch.setattr(lab.world.platform, "stop", stopped)
        assert (await deployed(plane, an_order("v2", replicas=2))).outcome == "promoted"
        await tidied(plane)
        assert {instance.intent.revision for instance in lab.world.platform.running} == {"v2.1"}

    lab.run(scene)


def test_a_deploy_in_place_of_a_down_that_is_under_way_finds_the_old_version_whole(lab: Lab) -> None:
    lab.world.platform.order("v1.1", Behaviour(ends=5.0))

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=2))
        service = plane.services["shop"]
        down = await service.down(Asker())
        await service.keeper.bell.until(lambda: not service.keeper.demand.counts)
        rollout = await deployed(plane, an_order("v2", replicas=2), Asker(if_busy="replace"))
        assert (await ended(plane, down)).outcome == "superseded"
        assert (rollout.outcome, rollout.old) == ("promoted", "v1.1")

    lab.run(scene)
