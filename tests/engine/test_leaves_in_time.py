"""Settings of the manifest that are about time and order, on virtual time: changing one changes what happens.

Every test deploys a manifest twice, with one setting changed, and says what both do.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from segue.api.bodies import Deploy, order
from segue.core.traffic import InstanceId
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker
from segue.engine.records import Event, RolloutRecord
from segue.errors import Refused
from segue.testing.calls import Start, Stop
from segue.testing.fake_platform import FakePlatform
from segue.testing.fakes import Behaviour, Script
from segue.testing.plane import Lab, deployed, tidied
from segue.testing.site import as_user

QUICK = {"rolling": {"first_judge": "0s", "judge": "0s"}}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def deploys(
    plane: ControlPlane, version: str, health: Mapping[str, Any] | None = None, **settings: Any
) -> RolloutRecord:
    """The rollout of `version` by a manifest with `settings`; the fakes answer its health and smoke tests."""
    manifest = {
        "service": "shop",
        "run": {"process": {"command": "serve {version}", **as_user()}},
        "health": {"command": "health {url}", **(health or {})},
        "smoke": [{"command": "smoke {url}"}],
        "strategy": QUICK,
        **settings,
    }
    return await deployed(
        plane, order("shop", Deploy(manifest=manifest, folder="/nowhere", version=version)), Asker()
    )


def write(plane: ControlPlane, version: str) -> None:
    """Let the instance of `version` and its checks write a line."""
    assert isinstance(plane.world.platform, FakePlatform)
    plane.world.platform.write(InstanceId(f"shop-{version}.1-1"), version)
    (plane.home / "checks").mkdir(exist_ok=True)
    (plane.home / "checks" / f"shop-{version}.1.log").write_text(version)


async def written(plane: ControlPlane) -> set[str]:
    """The versions of which there is a log; there is one of their checks as well, and of no others'."""
    platform = plane.world.platform
    names = [InstanceId(f"shop-v{number}.1-1") for number in (1, 2, 3)]
    lines = {line for name in names async for line in platform.logs(name, lines=1, follow=False)}
    assert lines == {log.read_text() for log in (plane.home / "checks").iterdir()}
    return lines


async def events(plane: ControlPlane, rollout: RolloutRecord, kind: str) -> list[Event]:
    """What clients were told of `rollout`, by kind of event."""
    return [event for event in plane.journal.events(0, rollout=rollout.id) if event.event == kind]


def seconds(rollout: RolloutRecord) -> float:
    """How long it took until it was decided."""
    assert rollout.decided is not None
    return (rollout.decided - rollout.started).total_seconds()


def most(lab: Lab) -> int:
    """The most instances that ran at the same time."""
    running = most = 0
    for call in lab.world.record.calls:
        match call:
            case Start():
                running += 1
            case Stop():
                running -= 1
        most = max(most, running)
    return most


# health


@pytest.mark.leaf("health.every", "health.unhealthy")
@pytest.mark.parametrize(("every", "unhealthy", "least", "longest"), [(1, 2, 1, 2), (10, 2, 10, 20), (1, 7, 6, 7)])
def test_a_sick_instance_is_out_after_so_many_checks_in_a_row(
    lab: Lab, every: int, unhealthy: int, least: float, longest: float
) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deploys(plane, "v1", {"every": f"{every}s", "unhealthy": unhealthy}, replicas=2)
        lab.world.platform.sick.add(InstanceId("shop-v1.1-1"))
        fleet, began = plane.services["shop"].keeper.fleet, lab.clock.monotonic()
        await plane.services["shop"].keeper.bell.until(lambda: fleet.ready(fleet.members[0].revision) == 1)
        assert least - 0.1 <= lab.clock.monotonic() - began <= longest + 0.1

    lab.run(scene)


@pytest.mark.leaf("health.healthy")
@pytest.mark.parametrize(("healthy", "least"), [(1, 0.0), (5, 0.4)])
def test_an_instance_is_ready_after_so_many_good_checks_in_a_row(lab: Lab, healthy: int, least: float) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout = await deploys(plane, "v1", {"healthy": healthy, "every": "1s"})
        assert least <= seconds(rollout) < least + 0.3

    lab.run(scene)


@pytest.mark.leaf("health.min_ready")
@pytest.mark.parametrize("min_ready", [0, 40])
def test_an_instance_counts_when_it_has_been_healthy_for_min_ready(lab: Lab, min_ready: int) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout = await deploys(plane, "v1", {"min_ready": f"{min_ready}s"})
        assert min_ready <= seconds(rollout) < min_ready + 3

    lab.run(scene)


@pytest.mark.leaf("health.deadline")
@pytest.mark.parametrize(("deadline", "outcome"), [("20s", "rolled_back"), ("40s", "promoted")])
def test_an_instance_that_is_not_ready_by_the_deadline_is_refused(lab: Lab, deadline: str, outcome: str) -> None:
    async def scene(plane: ControlPlane) -> None:
        lab.world.platform.order("v1.1", Behaviour(ready=30))
        rollout = await deploys(plane, "v1", {"deadline": deadline})
        assert rollout.outcome == outcome
        assert 20 <= seconds(rollout) < 32

    lab.run(scene)


# stop


@pytest.mark.leaf("stop.drain")
@pytest.mark.parametrize("drain", [5, 50])
def test_requests_are_waited_for_as_long_as_drain_and_then_cut(lab: Lab, drain: int) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deploys(plane, "v1", stop={"drain": f"{drain}s"})
        lab.world.router.in_flight[InstanceId("shop-v1.1-1")] = 2
        rollout = await deploys(plane, "v2")
        began = lab.clock.monotonic()
        await tidied(plane)
        assert drain - 1 <= lab.clock.monotonic() - began <= drain + 1
        stopped = [
            event.body for event in await events(plane, rollout, "instance") if event.body["state"] == "stopped"
        ]
        assert [body["detail"] for body in stopped] == ["2 requests in flight at the drain's end"]

    lab.run(scene)


@pytest.mark.leaf("stop.spread")
@pytest.mark.parametrize(("spread", "gaps"), [("0s", [0, 0, 0]), ("60s", [15, 15, 15])])
def test_a_versions_instances_are_signalled_over_spread(lab: Lab, spread: str, gaps: list[int]) -> None:
    async def scene(plane: ControlPlane) -> None:
        at_once = {"blue_green": {"judge": "0s", "keep": "0s"}}
        await deploys(plane, "v1", replicas=4, stop={"spread": spread})
        await deploys(plane, "v2", replicas=4, strategy=at_once)
        ends: list[float] = []
        bell, fleet = plane.services["shop"].keeper.bell, plane.services["shop"].keeper.fleet
        for left in (7, 6, 5, 4):
            await bell.until(lambda left=left: len(fleet.members) <= left)
            ends.append(lab.clock.monotonic())
        assert [round(after - before) for before, after in pairwise(ends)] == gaps

    lab.run(scene)


@pytest.mark.leaf("stop.grace")
@pytest.mark.parametrize(("grace", "detail"), [("10s", None), ("3s", "killed after the grace")])
def test_an_instance_that_takes_longer_than_grace_to_end_is_killed(lab: Lab, grace: str, detail: str | None) -> None:
    async def scene(plane: ControlPlane) -> None:
        lab.world.platform.order("v1.1", Behaviour(ends=5))
        await deploys(plane, "v1", stop={"grace": grace})
        rollout = await deploys(plane, "v2")
        await tidied(plane)
        stopped = [
            event.body for event in await events(plane, rollout, "instance") if event.body["state"] == "stopped"
        ]
        assert [body["detail"] for body in stopped] == [detail]

    lab.run(scene)


# hooks


@pytest.mark.leaf("hooks.timeout")
@pytest.mark.parametrize(("timeout", "outcome"), [("1m", "rolled_back"), ("5m", "promoted")])
def test_a_hook_that_takes_longer_than_its_timeout_has_failed(lab: Lab, timeout: str, outcome: str) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deploys(plane, "v1")
        lab.world.commands.order("migrate", Script(seconds=120))
        rollout = await deploys(plane, "v2", hooks={"before": "migrate", "timeout": timeout})
        assert rollout.outcome == outcome
        assert ("timed out after 60 s" in rollout.log) == (outcome == "rolled_back")

    lab.run(scene)


# strategy


async def judged(lab: Lab, plane: ControlPlane, strategy: Any, replicas: int = 4) -> tuple[RolloutRecord, list[int]]:
    """The second rollout by `strategy`, and how long each of its judgements took."""
    await deploys(plane, "v1", replicas=replicas)
    lab.world.record.calls.clear()
    rollout = await deploys(plane, "v2", replicas=replicas, strategy=strategy)
    assert rollout.outcome == "promoted"
    steps = [event.body for event in await events(plane, rollout, "ended")]
    await tidied(plane)
    return rollout, [round(step["seconds"]) for step in steps if step["text"].startswith("judge")]


@pytest.mark.leaf("strategy.rolling.batch", "strategy.rolling.surge")
@pytest.mark.parametrize(
    ("batch", "surge", "batches", "peak"), [(1, 1, 4, 1), (2, 2, 2, 2), (1, 2, 4, 1), (2, 1, 4, 1)]
)
def test_rolling_takes_batches_in_the_room_of_its_surge(
    lab: Lab, batch: int, surge: int, batches: int, peak: int
) -> None:
    async def scene(plane: ControlPlane) -> None:
        options = {"batch": batch, "surge": surge, "first_judge": "0s", "judge": "0s"}
        _, judgements = await judged(lab, plane, {"rolling": options})
        assert len(judgements) == batches
        assert most(lab) == peak

    lab.run(scene)


@pytest.mark.leaf("strategy.rolling.first_judge", "strategy.rolling.judge")
@pytest.mark.parametrize(("first", "judge"), [(40, 7), (20, 15)])
def test_rolling_looks_at_the_first_batch_for_first_judge_and_at_the_others_for_judge(
    lab: Lab, first: int, judge: int
) -> None:
    async def scene(plane: ControlPlane) -> None:
        strategy = {"rolling": {"first_judge": f"{first}s", "judge": f"{judge}s"}}
        rollout, judgements = await judged(lab, plane, strategy)
        assert judgements == [first, judge, judge, judge]
        assert seconds(rollout) >= first + 3 * judge

    lab.run(scene)


@pytest.mark.leaf("strategy.in_place.batch")
@pytest.mark.parametrize(("batch", "batches", "least"), [(1, 4, 3), (2, 2, 2), (3, 2, 1)])
def test_in_place_takes_batches_out_of_what_there_is(lab: Lab, batch: int, batches: int, least: int) -> None:
    async def scene(plane: ControlPlane) -> None:
        strategy = {"in_place": {"batch": batch, "first_judge": "0s", "judge": "0s"}}
        _, judgements = await judged(lab, plane, strategy)
        assert len(judgements) == batches
        assert most(lab) == 0, "never more than the four that there are"
        stops = [call for call in lab.world.record.calls if isinstance(call, Start | Stop)]
        assert [isinstance(call, Stop) for call in stops].index(False) == 4 - least

    lab.run(scene)


@pytest.mark.leaf("strategy.in_place.first_judge", "strategy.in_place.judge")
@pytest.mark.parametrize(("first", "judge"), [(40, 7), (20, 15)])
def test_in_place_looks_at_the_first_batch_for_first_judge_and_at_the_others_for_judge(
    lab: Lab, first: int, judge: int
) -> None:
    async def scene(plane: ControlPlane) -> None:
        strategy = {"in_place": {"first_judge": f"{first}s", "judge": f"{judge}s"}}
        _, judgements = await judged(lab, plane, strategy)
        assert judgements == [first, judge, judge, judge]

    lab.run(scene)


@pytest.mark.leaf("strategy.blue_green.judge")
@pytest.mark.parametrize("judge", [10, 60])
def test_blue_green_waits_for_silence_for_judge_after_the_switch(lab: Lab, judge: int) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout, judgements = await judged(
            lab, plane, {"blue_green": {"judge": f"{judge}s", "keep": "0s"}}, replicas=1
        )
        assert judgements == [judge]
        assert judge <= seconds(rollout) < judge + 5

    lab.run(scene)


@pytest.mark.leaf("strategy.rolling.keep", "strategy.blue_green.keep")
@pytest.mark.parametrize("name", ["rolling", "blue_green"])
@pytest.mark.parametrize("keep", [0, 120])
def test_the_old_version_stays_warm_for_keep(lab: Lab, name: str, keep: int) -> None:
    async def scene(plane: ControlPlane) -> None:
        await judged(lab, plane, {name: {"judge": "0s", "keep": f"{keep}s"}}, replicas=2)
        decided = lab.clock.monotonic()
        keeper = plane.services["shop"].keeper
        await keeper.bell.until(lambda: all(member.revision == "v2.1" for member in keeper.fleet.members))
        assert keep - 3 <= lab.clock.monotonic() - decided <= keep + 3

    lab.run(scene)


# retain


@pytest.mark.leaf("retain")
@pytest.mark.parametrize("retain", [1, 2])
def test_so_many_versions_can_be_gone_back_to(lab: Lab, retain: int) -> None:
    async def scene(plane: ControlPlane) -> None:
        for version in ("v1", "v2", "v3"):
            await deploys(plane, version, retain=retain)
            write(plane, version)
            await tidied(plane)
            await plane.world.clock.sleep(10)  # what lingers in the router is not forgotten
        shop = plane.services["shop"]
        await plane.tidy()
        assert await written(plane) == {"v2", "v3"} | ({"v1"} if retain == 2 else set())
        if retain == 2:
            assert (await shop.rollback("v1", Asker())).rollout
        else:
            with pytest.raises(Refused, match="v1 is not retained"):
                await shop.rollback("v1", Asker())
            assert (await shop.rollback("v2", Asker())).rollout

    lab.run(scene)
