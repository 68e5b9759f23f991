"""A machine's clock that is set, forward or back, neither shortens a wait nor makes it longer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from segue.core.release import Rolling
from segue.engine.clock import SystemClock
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker, Order
from segue.testing.clock import VirtualClock
from segue.testing.plane import Lab, an_order, deployed, ended

HOUR = timedelta(hours=1)
JUDGED = Rolling(first_judge=timedelta(minutes=3), judge=timedelta(minutes=3))


class Machine:
    """A machine's two clocks, of which one can be set."""

    def __init__(self) -> None:
        self.wall, self.steady = datetime(2026, 1, 1, tzinfo=UTC), 5.0

    def pass_by(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.steady += seconds


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_the_time_of_day_does_not_jump_until_the_clock_is_followed(by: timedelta) -> None:
    machine = Machine()
    clock = SystemClock(lambda: machine.wall, lambda: machine.steady)
    machine.pass_by(10)
    before = clock.now()
    machine.wall += by
    assert clock.now() == before
    machine.pass_by(10)
    assert clock.now() - before == timedelta(seconds=10)
    clock.follow()
    assert clock.now() == machine.wall


class Followed(VirtualClock):
    """A clock that knows when it was followed."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[float] = []

    def follow(self) -> None:
        self.at.append(self.monotonic())


def test_the_machines_clock_is_followed_only_while_nothing_waits(room: Path) -> None:
    lab = Lab(room, clock=Followed())
    found: dict[str, float] = {}

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1"))
        await asyncio.sleep(300)
        found["begun"] = lab.clock.monotonic()
        await deployed(plane, an_order("v2", strategy=JUDGED))
        found["ended"] = lab.clock.monotonic()
        await asyncio.sleep(300)

    lab.run(scene)
    assert isinstance(lab.clock, Followed)
    assert found["ended"] - found["begun"] > 360
    assert any(at < found["begun"] for at in lab.clock.at)
    assert any(at > found["ended"] for at in lab.clock.at)
    assert not any(found["begun"] < at < found["ended"] for at in lab.clock.at)


def test_a_judgement_is_no_longer_because_the_clock_was_set_back_while_no_control_plane_ran(room: Path) -> None:
    lab = Lab(room)

    async def begins(plane: ControlPlane) -> str:
        await deployed(plane, an_order("v1"))
        answer = await plane.deploy(an_order("v2", strategy=JUDGED), Asker(key="once"))
        await asyncio.sleep(60)
        assert answer.rollout
        return answer.rollout

    async def goes_on(plane: ControlPlane) -> float:
        began = lab.clock.monotonic()
        answer = await plane.deploy(an_order("v2", strategy=JUDGED), Asker(key="once"))
        rollout = await ended(plane, answer)
        assert (rollout.id, rollout.outcome) == (known, "promoted")
        return lab.clock.monotonic() - began

    known = lab.run(begins)
    lab.clock.set(-2 * HOUR)
    assert lab.run(goes_on) < 1200  # twice three minutes, of which one has passed


def test_what_served_last_is_gone_back_to_though_the_clock_was_set_back_since(room: Path) -> None:
    lab = Lab(room)
    orders = [an_order(f"v{number}", strategy=Rolling(keep=timedelta(0)), retain=3) for number in (1, 2, 3, 4)]

    async def deploys(plane: ControlPlane, *orders: Order) -> None:
        for order in orders:
            assert (await deployed(plane, order)).outcome == "promoted"

    async def goes_back(plane: ControlPlane) -> tuple[str | None, list[str | None]]:
        history = [rollout.new for rollout in plane.journal.rollouts("shop")]
        return (await ended(plane, await plane.services["shop"].rollback(None, Asker()))).new, history

    lab.run(lambda plane: deploys(plane, *orders[:2]))
    lab.clock.set(-2 * HOUR)
    lab.run(lambda plane: deploys(plane, *orders[2:]))
    new, history = lab.run(goes_back)
    assert (new, history) == ("v3.2", ["v4.1", "v3.1", "v2.1", "v1.1"])
