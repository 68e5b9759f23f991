"""A task that goes on beside never dies unseen: a want passes, a defect ends the control plane."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segue.core.release import Rolling
from segue.engine import fleet
from segue.engine.control import ControlPlane
from segue.engine.journal import Journal
from segue.errors import DiskFull
from segue.minding import FAILED, beside
from segue.testing.plane import Lab, an_order, deployed, tidied

AT_ONCE = Rolling(first_judge=timedelta(0), judge=timedelta(0))


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


async def test_a_defect_is_told_to_the_loop_and_an_end_or_a_cancellation_is_not() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    lasting = beside(asyncio.sleep(60), "shop")
    lasting.cancel()
    await asyncio.gather(lasting, beside(asyncio.sleep(0), "shop"), beside(broken(), "shop"), return_exceptions=True)
    await asyncio.sleep(0)
    assert [(one["message"], type(one["exception"])) for one in told] == [(f"shop: {FAILED}", ZeroDivisionError)]


def test_a_defect_in_looking_after_one_instance_is_one_of_the_control_plane(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=1, strategy=AT_ONCE))
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        monkeypatch.setattr(fleet, "probe", broken)
        while not told:
            await asyncio.sleep(0.1)

    lab.run(scene)
    assert set(told) == {f"shop-v1.1-1: {FAILED}"}


def test_an_instance_whose_end_cannot_be_written_down_is_ended_when_there_is_room(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    mark = Journal.mark_intent

    def without_room(journal: Journal, nonce: str, **what: Any) -> None:
        if what.get("stopping") and len(refused) < 5:
            refused.append(nonce)
            raise DiskFull(28, "the disk is full")
        mark(journal, nonce, **what)

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=1, strategy=AT_ONCE))
        monkeypatch.setattr(Journal, "mark_intent", without_room)
        rollout = await deployed(plane, an_order("v2", replicas=1, strategy=AT_ONCE))
        await tidied(plane)
        assert rollout.outcome == "promoted" and len(refused) == 5
        assert {i.intent.revision for i in lab.world.platform.running} == {"v2.1"}

    lab.run(scene)
