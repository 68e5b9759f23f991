"""A crash costs nothing: the control plane is killed at every act, before and after it took effect."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segue.core.release import BlueGreen, How
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker, Order
from segue.engine.records import Hooks
from segue.testing.clock import Crashed
from segue.testing.fakes import Behaviour, losses
from segue.testing.plane import STRATEGIES, Lab, an_order, deployed, ended, status, tidied

KEY = "one-request"
GOOD, REFUSED = "good", "refused"
BRIEF = [
    pytest.param(replace(how, keep=timedelta(0)) if getattr(how, "keep", None) else how, id=f"{how.name} {number}")
    for number, how in enumerate(STRATEGIES)
    if not (isinstance(how, BlueGreen) and how.keep)
]
"""The strategies without a keep: the acts are counted, and a crash costs a life for each."""


@pytest.fixture
def make(room: Path) -> Callable[[str], Lab]:
    def fresh(name: str) -> Lab:
        lab = Lab(room / name)
        lab.world.evidence.flow("shop", rate=1000)
        return lab

    return fresh


def an_update(strategy: How) -> Order:
    return an_order("v2", strategy=strategy, replicas=3)


async def update(plane: ControlPlane, strategy: How) -> dict[str, Any]:
    """Bring v2 in the place of v1, as the same client would ask again after a crash; how it ended."""
    answer = await plane.deploy(an_update(strategy), Asker(key=KEY))
    rollout = await ended(plane, answer)
    await tidied(plane)
    return {"outcome": rollout.outcome, "exit": rollout.exit, "status": _without_names(status(plane))}


def _without_names(document: dict[str, Any]) -> dict[str, Any]:
    """The status but for ids and times."""
    service = document["services"][0]
    versions = {
        name: (version["share"], version["size"], sorted(i["state"] for i in version["instances"]))
        for name, version in service["versions"].items()
    }
    return {key: service[key] for key in ("state", "stable", "candidate", "rollout")} | {"versions": versions}


def _prepare(lab: Lab, case: str) -> int:
    """Launch v1; the number of acts that took."""

    async def launch(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=3))

    lab.run(launch)
    if case == REFUSED:
        lab.world.platform.order("v2.1", Behaviour(), Behaviour(exits=0.02, log=("boom",)))
    return len(lab.world.record.acts)


@pytest.mark.parametrize("case", [GOOD, REFUSED])
@pytest.mark.parametrize("strategy", BRIEF)
def test_a_crash_at_any_act_changes_nothing_of_the_end(make: Callable[[str], Lab], strategy: How, case: str) -> None:
    whole = make("whole")
    before = _prepare(whole, case)
    expected = whole.run(lambda plane: update(plane, strategy))
    acts = len(whole.world.record.acts) - before
    assert acts > 10
    for act, after in _points(acts):
        lab = make(f"{act}-{after}")
        _prepare(lab, case)
        lab.world.record.crash_at(before + act, after=after)
        with suppress(Crashed):
            lab.run(lambda plane: update(plane, strategy))
        found = lab.run(lambda plane: update(plane, strategy))
        assert found == expected, f"crash {'after' if after else 'before'} act {act}"
        assert list(losses(lab.world.record.calls)) == [], f"crash at act {act}"


def _points(acts: int) -> list[tuple[int, bool]]:
    """Where to crash: everywhere with SEGUE_EVERY_ACT set, else at places that are spread over the rollout."""
    everywhere = [(act, after) for act in range(1, acts + 1) for after in (False, True)]
    return everywhere if os.environ.get("SEGUE_EVERY_ACT") else everywhere[:: max(1, len(everywhere) // 13)]


def test_that_a_hook_began_is_told_once_wherever_there_is_a_crash(make: Callable[[str], Lab]) -> None:
    order = an_order("v2", replicas=3, hooks=Hooks(before="expand"))

    async def hooked(plane: ControlPlane) -> list[str]:
        rollout = await ended(plane, await plane.deploy(order, Asker(key=KEY)))
        return [event.body["state"] for event in plane.journal.all_events(rollout.id) if event.event == "hook"]

    whole = make("whole")
    _prepare(whole, GOOD)
    assert whole.run(hooked) == ["began", "ended"]
    for write in range(1, 12):  # the hook is among them
        lab = make(f"{write}")
        _prepare(lab, GOOD)
        lab.crash_at_write = lab.writes + write
        with suppress(Crashed):
            lab.run(hooked)
        assert lab.run(hooked) == ["began", "ended"], f"crash after write {write}"
