"""Rollouts end to end on virtual time, over the fakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.core.release import How
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker
from segue.testing.fakes import Behaviour, losses
from segue.testing.plane import STRATEGIES, Lab, an_order, deployed, ended, status, tidied


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
