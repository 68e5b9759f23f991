"""A table that the router refuses ends the rollout with the router's reason, at once."""

from __future__ import annotations

from pathlib import Path

from segue.core.traffic import ServiceTable
from segue.engine.control import ControlPlane
from segue.testing.plane import Lab, an_order, deployed


def test_a_version_whose_instances_the_router_refuses_is_not_waited_for(tmp_path: Path) -> None:
    lab = Lab(tmp_path)

    def with_instances(table: ServiceTable) -> bool:
        return any(backend.endpoints for backend in table.backends)

    async def scene(plane: ControlPlane) -> None:
        lab.world.router.refuse("shop", "the place is another's", when=with_instances)
        rollout = await deployed(plane, an_order("v1"))
        assert (rollout.outcome, rollout.exit) == ("rolled_back", 1)
        assert "the place is another's" in (rollout.reason or "")
        assert rollout.decided is not None
        assert (rollout.decided - rollout.started).total_seconds() < 5

    lab.run(scene)
