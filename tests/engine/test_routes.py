"""Where services are reached: a new route comes with the decision, and nobody takes another's place."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.core.release import ALL, BlueGreen, How
from segue.core.traffic import Protocol, Route
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker
from segue.errors import Refused
from segue.testing.fakes import Behaviour
from segue.testing.plane import STRATEGIES, Lab, an_order, deployed, tidied

BEFORE, AFTER = Route("127.0.0.1:8080", path="/shop"), Route("127.0.0.1:8080", path="/new")


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: f"{strategy.name} keep {strategy.keep}")
def test_a_version_on_trial_is_reached_only_where_the_old_one_is(lab: Lab, strategy: How) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", route=BEFORE))
        lab.world.evidence.flow("shop", rate=50)
        await deployed(plane, an_order("v2", route=AFTER, strategy=strategy))
        await tidied(plane)

    lab.run(scene)
    tables = [table.services["shop"] for _, table in lab.world.router.history if "shop" in table.services]
    routes = [table.route for table in tables]
    assert routes[-1] == AFTER
    moved = routes.index(AFTER)
    assert set(routes[:moved]) == {BEFORE} and set(routes[moved:]) == {AFTER}
    for table in tables[moved:]:
        assert {backend.revision: backend.share for backend in table.backends if backend.share} == {"v2.1": ALL}


def test_a_version_that_is_refused_leaves_the_route_as_it_was(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", route=BEFORE))
        lab.world.platform.order("v2.1", Behaviour(ready=float("inf")))
        await deployed(plane, an_order("v2", route=AFTER))

    lab.run(scene)
    assert {table.services["shop"].route for _, table in lab.world.router.history if table.services} == {BEFORE}


def test_each_version_is_spoken_to_in_its_own_protocol(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1"))
        await deployed(plane, an_order("v2", protocol=Protocol.GRPC, strategy=STRATEGIES[3]))

    lab.run(scene)
    spoken = {
        (backend.revision, backend.protocol)
        for _, table in lab.world.router.history
        for service in table.services.values()
        for backend in service.backends
    }
    assert spoken == {("v1.1", Protocol.HTTP1), ("v2.1", Protocol.GRPC)}


def test_a_place_that_another_service_has_or_will_have_is_refused_with_its_name(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", route=BEFORE))
        with pytest.raises(Refused, match=r"127\.0\.0\.1:8080/shop is shop's already"):
            await plane.deploy(an_order("v1", service="rival", route=BEFORE), Asker())
        moving = an_order("v2", route=AFTER, strategy=BlueGreen(approve="manual"))
        await plane.deploy(moving, Asker())
        with pytest.raises(Refused, match=r"127\.0\.0\.1:8080/new is shop's already"):
            await plane.deploy(an_order("v1", service="rival", route=AFTER), Asker())
        assert "rival" not in plane.services
        other = await deployed(plane, an_order("v1", service="rival", route=Route("127.0.0.1:8080", path="/rival")))
        assert other.outcome == "promoted"

    lab.run(scene)
