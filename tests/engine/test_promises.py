"""What must hold whatever happens: each of these tests catches some of the mutants in `mutants.py`.

They are quick, for they are run once for every mutant.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from segue.core.release import BlueGreen, How, Rolling
from segue.core.traffic import Endpoint, Traffic
from segue.engine.control import ControlPlane
from segue.engine.orders import Answer, Asker
from segue.engine.records import Hooks
from segue.testing.calls import Apply, Began, Start, Stop
from segue.testing.clock import Crashed
from segue.testing.fakes import Behaviour, Script, losses
from segue.testing.plane import Lab, an_order, deployed, ended, status, tidied

QUICK = Rolling(first_judge=timedelta(seconds=2), judge=timedelta(seconds=1))
AT_ONCE = BlueGreen(judge=timedelta(0), keep=timedelta(0))
TWO = 2


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room / "lab")


def launched(lab: Lab) -> None:
    async def launch(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=TWO))

    lab.run(launch)


async def update(plane: ControlPlane, strategy: How = QUICK) -> dict[str, Any]:
    """Ask for v2, as a client repeats it after a crash; how it ended and what serves."""
    answer = await plane.deploy(an_order("v2", replicas=TWO, strategy=strategy), Asker(key="the-same"))
    rollout = await ended(plane, answer)
    await tidied(plane)
    found = status(plane)["services"][0]
    return {"outcome": rollout.outcome, "exit": rollout.exit, "state": found["state"], "stable": found["stable"]}


def wrongs(lab: Lab, version: str, covered: bool = True) -> list[str]:
    """What is wrong with the world in which `version` is to serve alone.

    `covered`: no instance died by itself, so that every share must have had its instances at all times.
    """
    running = sorted(str(instance.intent.revision) for instance in lab.world.platform.running)
    found = [] if running == [version] * TWO else [f"running: {running}"]
    return found + list(losses(lab.world.record.calls)) + (lab.cover()[:3] if covered else [])


def test_no_step_ends_and_nothing_is_stopped_before_the_router_has_confirmed(lab: Lab) -> None:
    launched(lab)

    async def scene(plane: ControlPlane) -> None:
        router, gate = lab.world.router, lab.world.router.confirming
        answer = await plane.deploy(an_order("v2", replicas=TWO, strategy=AT_ONCE), Asker())
        while not any(instance.intent.revision == "v2.1" for instance in lab.world.platform.running):
            await asyncio.sleep(0.001)
        gate.close()
        await asyncio.sleep(5)  # v2 is healthy, but the router does not count it yet
        assert outcomes(plane, answer) == [None]
        while len(ready_endpoints(lab, "v2.1")) < TWO:
            gate.let_through()
            await asyncio.sleep(0.001)
        await asyncio.sleep(5)  # v2 is to be given everything, but the router has not confirmed it
        assert outcomes(plane, answer) == ["done", "done", None]
        while router.shares("shop") != {"v2.1": Fraction(1)}:
            gate.let_through()
            await asyncio.sleep(0.001)
        await asyncio.sleep(4)  # v1 is to leave, but the router has not confirmed that it drains
        assert not any(isinstance(call, Stop) for call in lab.world.record.calls)
        gate.open()
        assert (await ended(plane, answer)).outcome == "promoted"
        await tidied(plane)

    lab.run(scene)
    assert wrongs(lab, "v2.1") == []


def outcomes(plane: ControlPlane, answer: Answer) -> list[str | None]:
    """How the steps that have begun have ended."""
    assert answer.rollout is not None
    return [step.outcome for step in plane.journal.steps(answer.rollout)]


def ready_endpoints(lab: Lab, version: str) -> list[Endpoint]:
    """The endpoints of a version that the confirmed table calls ready."""
    backends = lab.world.router.table.services["shop"].backends
    ends = [end for backend in backends if backend.revision == version for end in backend.endpoints]
    return [end for end in ends if end.state is Traffic.READY]


def test_a_version_whose_instances_died_while_no_control_plane_ran_is_given_nothing_before_they_are_back(
    room: Path,
) -> None:
    def shifts(lab: Lab) -> int:
        """The number of the act that gives v2 its first share."""
        acts = enumerate(lab.world.record.acts, 1)
        tables = ((number, act.table.services.get("shop")) for number, act in acts if isinstance(act, Apply))
        return next(n for n, t in tables if t and any(b.share and b.revision == "v2.1" for b in t.backends))

    whole, lab = Lab(room / "whole"), Lab(room / "lab")
    launched(whole)
    whole.run(update)
    launched(lab)
    lab.world.record.crash_at(shifts(whole))
    with suppress(Crashed):
        lab.run(update)
    for instance in lab.world.platform.running:
        if instance.intent.revision == "v2.1":
            lab.world.platform.exit(instance.id)
    lab.run(update)
    assert lab.cover() == []


def test_an_instance_is_stopped_only_when_the_barrier_is_passed_and_nothing_is_in_flight(lab: Lab) -> None:
    launched(lab)

    async def scene(plane: ControlPlane) -> None:
        router, record = lab.world.router, lab.world.record
        for instance in lab.world.platform.running:
            router.in_flight[instance.id] = 1
        router.settling.close()
        answer = await plane.deploy(an_order("v2", replicas=TWO, strategy=AT_ONCE), Asker())
        await asyncio.sleep(4)
        assert not any(isinstance(call, Stop) for call in record.calls)
        router.settling.open()
        await asyncio.sleep(4)
        assert not any(isinstance(call, Stop) for call in record.calls)
        router.in_flight.clear()
        await ended(plane, answer)
        await tidied(plane)

    lab.run(scene)
    assert wrongs(lab, "v2.1") == []


def test_a_split_takes_effect_only_when_ready_instances_cover_it(lab: Lab) -> None:
    launched(lab)

    async def scene(plane: ControlPlane) -> None:
        platform, router = lab.world.platform, lab.world.router
        platform.order("v2.1", Behaviour(ready=3))
        answer = await plane.deploy(an_order("v2", replicas=TWO, strategy=AT_ONCE), Asker())
        while router.shares("shop") != {"v2.1": Fraction(1)}:
            ready = [
                i for i in platform.running if platform.healthy(i.intent.address) and i.intent.revision == "v2.1"
            ]
            await asyncio.sleep(0.005)
        assert len(ready) == TWO
        await ended(plane, answer)

    lab.run(scene)


def test_a_stranger_on_the_port_is_not_the_instance(lab: Lab) -> None:
    launched(lab)
    lab.world.platform.order("v2.1", Behaviour(stranger=True))
    assert lab.run(update)["outcome"] == "rolled_back"
    assert wrongs(lab, "v1.1") == []


def test_an_instance_that_fails_its_smoke_test_is_given_no_request(lab: Lab) -> None:
    launched(lab)
    lab.world.platform.order("v2.1", Behaviour(smoke="GET / answered 500, not 200"))
    assert lab.run(update)["outcome"] == "rolled_back"
    tables = [table.services["shop"] for _, table in lab.world.router.history if table.services]
    given = {backend.revision for table in tables for backend in table.backends if backend.share}
    assert given == {"v1.1"}


def test_a_version_that_loses_an_instance_while_it_is_judged_is_taken_back(lab: Lab) -> None:
    launched(lab)
    lab.world.platform.order("v2.1", Behaviour(exits=1.5))
    assert lab.run(update) == {"outcome": "rolled_back", "exit": 1, "state": "steady", "stable": "v1"}
    assert list(losses(lab.world.record.calls)) == []


def test_a_kept_version_is_one_switch_away_and_retired_when_keep_is_over(lab: Lab) -> None:
    launched(lab)

    async def scene(plane: ControlPlane) -> None:
        keep = BlueGreen(judge=timedelta(seconds=1), keep=timedelta(seconds=30))
        await update(plane, keep)
        starts = sum(isinstance(call, Start) for call in lab.world.record.calls)
        back = await ended(plane, await plane.services["shop"].rollback(None, Asker()))
        assert (back.outcome, status(plane)["services"][0]["stable"]) == ("promoted", "v1")
        assert sum(isinstance(call, Start) for call in lab.world.record.calls) == starts
        await tidied(plane)
        await deployed(plane, an_order("v3", replicas=TWO, strategy=keep))
        assert len(lab.world.platform.running) == 2 * TWO
        await asyncio.sleep(40)
        await tidied(plane)

    lab.run(scene)
    assert wrongs(lab, "v3.1") == []


def test_an_instance_that_the_kept_version_loses_does_not_turn_the_rollback_to_it(lab: Lab) -> None:
    launched(lab)

    async def scene(plane: ControlPlane) -> None:
        await update(plane, BlueGreen(judge=timedelta(seconds=1), keep=timedelta(minutes=5)))
        lab.world.router.confirming.close()
        answer = await plane.services["shop"].rollback(None, Asker())
        await asyncio.sleep(0.1)  # the router is asked to switch
        kept = [there.id for there in lab.world.platform.running if there.intent.revision == "v1.1"]
        lab.world.platform.exit(kept[0])
        await asyncio.sleep(0.1)
        lab.world.router.confirming.open()
        back = await ended(plane, answer)
        assert (back.outcome, status(plane)["services"][0]["stable"]) == ("promoted", "v1")
        await asyncio.sleep(10)
        await tidied(plane)

    lab.run(scene)
    assert wrongs(lab, "v1.1", covered=False) == []


def test_an_instance_that_ended_thrice_and_serves_again_is_in_nobody_s_way(lab: Lab) -> None:
    launched(lab)

    async def scene(plane: ControlPlane) -> None:
        shop = plane.services["shop"]
        for _ in range(3):
            dies = min(lab.world.platform.running, key=lambda there: there.id)
            lab.world.platform.exit(dies.id)
            while shop.keeper.fleet.ready(dies.intent.revision) == TWO:
                await asyncio.sleep(0.01)
            while shop.keeper.fleet.ready(dies.intent.revision) < TWO:
                await asyncio.sleep(0.1)
        scaled = await ended(plane, await shop.scale(TWO + 1, Asker()))
        assert (scaled.outcome, scaled.reason) == ("promoted", "shop has 3 instances")

    lab.run(scene)


def test_a_version_that_segue_has_left_for_its_failures_is_not_what_a_rollback_goes_to(lab: Lab) -> None:
    launched(lab)

    async def scene(plane: ControlPlane) -> None:
        shop, keep = plane.services["shop"], BlueGreen(judge=timedelta(seconds=1), keep=timedelta(minutes=5))
        for name in ("v2", "v3"):
            await deployed(plane, an_order(name, replicas=TWO, strategy=keep))
        lost = next(there for there in lab.world.platform.running if there.intent.revision == "v3.1")
        lab.world.platform.exit(lost.id)
        while (shop.record.stable, shop.rollout) != ("v2.1", None):
            await asyncio.sleep(0.1)
        await tidied(plane)
        assert shop.previous() == "v1"
        back = await ended(plane, await shop.rollback("v3", Asker(if_busy="wait")))
        assert (back.outcome, shop.record.stable, shop.previous()) == ("promoted", "v3.2", "v2")

    lab.run(scene)


def test_a_machine_that_restarted_in_mid_rollout_brings_the_stable_version_back(lab: Lab) -> None:
    launched(lab)

    async def half(plane: ControlPlane) -> None:
        await plane.deploy(an_order("v2", replicas=TWO, strategy=QUICK), Asker(key="the-same"))
        while not lab.world.router.shares("shop").get("v2.1"):  # type: ignore[call-overload]
            await asyncio.sleep(0.05)

    lab.run(half)
    for instance in lab.world.platform.running:
        lab.world.platform.exit(instance.id)
    lab.boot = "boot-2"

    async def after(plane: ControlPlane) -> None:
        rollout = plane.journal.rollouts("shop", 1)[0]
        found = await ended(plane, await plane.deploy(an_order("v2", replicas=TWO), Asker(key="the-same")))
        assert found.id == rollout.id
        assert (found.outcome, found.turned) == ("rolled_back", "the machine restarted")
        await tidied(plane)

    lab.run(after)
    assert status_of(lab) == ("steady", "v1")


def status_of(lab: Lab) -> tuple[str, str]:
    async def look(plane: ControlPlane) -> tuple[str, str]:
        await tidied(plane)
        found = status(plane)["services"][0]
        return found["state"], found["stable"]

    return lab.run(look)


def test_a_crash_around_each_start_and_stop_leaves_no_instance_twice_and_none_behind(room: Path) -> None:
    whole = Lab(room / "whole")
    launched(whole)
    before = len(whole.world.record.acts)
    whole.run(update)
    acts = whole.world.record.acts
    chosen = [number for number in range(before + 1, len(acts) + 1) if isinstance(acts[number - 1], Start | Stop)]
    for number in chosen:
        for after in (False, True):
            lab = Lab(room / f"{number}-{after}")
            launched(lab)
            lab.world.record.crash_at(number, after=after)
            with suppress(Crashed):
                lab.run(update)
            assert lab.run(update)["outcome"] == "promoted"
            assert wrongs(lab, "v2.1") == [], f"crash {'after' if after else 'before'} act {number}"


BRIEFLY = (Behaviour(exits=1.5), Behaviour())
NEVER = (Behaviour(), Behaviour(exits=0.02))


@pytest.mark.parametrize("broken", [(), NEVER, BRIEFLY], ids=["good", "broken", "broken once"])
def test_a_crash_after_any_write_of_the_journal_changes_nothing_of_the_end(
    room: Path, broken: tuple[Behaviour, ...]
) -> None:
    def fresh(name: str) -> Lab:
        lab = Lab(room / name)
        launched(lab)
        if broken:
            lab.world.platform.order("v2.1", *broken)
        return lab

    whole = fresh("whole")
    before = whole.writes
    expected = whole.run(update)
    assert expected["outcome"] == ("rolled_back" if broken else "promoted")
    for write in range(1, whole.writes - before, 1 if broken == BRIEFLY else 4):
        lab = fresh(f"write-{write}")
        lab.crash_at_write = before + write
        with suppress(Crashed):
            lab.run(update)
        assert lab.run(update) == expected, f"crash after write {write}"
        assert wrongs(lab, "v1.1" if broken else "v2.1", covered=broken != BRIEFLY) == [], f"crash after {write}"


def test_a_hook_that_failed_has_failed_after_a_crash_too(room: Path) -> None:
    async def migrate(plane: ControlPlane) -> str | None:
        order = an_order("v2", replicas=TWO, strategy=QUICK, hooks=Hooks(before="migrate"))
        return (await ended(plane, await plane.deploy(order, Asker(key="the-same")))).outcome

    def fresh(name: str) -> Lab:
        lab = Lab(room / name)
        launched(lab)
        lab.world.commands.order("migrate", Script(status=1, seconds=1.0))
        return lab

    whole = fresh("whole")
    before = whole.writes
    assert whole.run(migrate) == "rolled_back"
    for write in range(1, whole.writes - before):
        lab = fresh(f"write-{write}")
        lab.crash_at_write = before + write
        with suppress(Crashed):
            lab.run(migrate)
        assert lab.run(migrate) == "rolled_back", f"crash after write {write}"
        assert sum(call == Began("migrate") for call in lab.world.record.calls) == 1
