"""What a plan says beforehand of its judgements, and whether it comes true, on virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from segue.core.release import BlueGreen, Canary, Revision, Rolling
from segue.core.sources import Metric
from segue.core.version import Health
from segue.engine.control import ControlPlane
from segue.engine.orders import Order
from segue.engine.plans import preview
from segue.engine.records import Judging
from segue.engine.usual import LONGEST, SHORTLY, Meter, Usual
from segue.judge.settings import Margin, Settings
from segue.testing.plane import Lab, an_order, deployed

V1 = Revision("v1.1")
QUICK = Canary(least=timedelta(seconds=10), most=timedelta(minutes=5), keep=timedelta(0))
SELDOM = Health(command="health {url}", every=timedelta(seconds=20), healthy=1)


def shop(version: str, **changes: Any) -> Order:
    """An order of four instances that are seldom asked how they are."""
    return an_order(version, health=SELDOM, **changes)


CANARY = shop("v2", strategy=QUICK)


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


def play(lab: Lab, scene: Callable[[ControlPlane], Awaitable[None]], rate: float = 0, **failing: float) -> None:
    """Play `scene` on a shop whose v1 has `rate` requests a second, of which the versions fail the parts given."""

    async def whole(plane: ControlPlane) -> None:
        await deployed(plane, shop("v1"))
        lab.world.evidence.flow("shop", rate=rate, failing={f"{name}.1": part for name, part in failing.items()})
        await scene(plane)

    lab.run(whole)


async def planned(plane: ControlPlane, order: Order = CANARY, after: float = 0) -> dict[str, Any]:
    """The plan of `order` as the API answers it, `after` so many seconds of measuring."""
    meter = Meter(plane)
    await meter.usual("shop", V1)
    await plane.world.clock.sleep(after)
    return preview(plane.services["shop"], order, await meter.usual("shop", V1))


def proofs(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in plan["judgements"] if one["waits_for"] == "proof"]


# How the traffic is measured


def test_the_first_who_asks_waits_and_the_next_one_is_answered_from_all_the_time_since(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        meter, began = Meter(plane), lab.clock.monotonic()
        first = await meter.usual("shop", V1)
        assert (first.seconds, lab.clock.monotonic() - began) == (SHORTLY, SHORTLY)
        assert first.rate == pytest.approx(20)
        await lab.clock.sleep(58)
        then = await meter.usual("shop", V1)
        assert (then.seconds, lab.clock.monotonic() - began) == (60, 60)
        assert (then.sample.attempts, then.rate) == (1200, pytest.approx(20))

    play(lab, scene, rate=20)


def test_what_was_more_than_ten_minutes_ago_is_of_another_time(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        meter = Meter(plane)
        await meter.usual("shop", V1)
        lab.world.evidence.flow("shop", rate=2)
        await lab.clock.sleep(LONGEST + 1)
        usual = await meter.usual("shop", V1)
        assert SHORTLY <= usual.seconds <= LONGEST
        assert usual.rate == pytest.approx(2, rel=0.01)

    play(lab, scene, rate=500)


def test_counts_that_begin_anew_are_measured_anew(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        meter = Meter(plane)
        await meter.usual("shop", V1)
        await lab.clock.sleep(100)
        await meter.usual("shop", V1)
        lab.world.evidence.restart()
        usual = await meter.usual("shop", V1)
        assert (usual.seconds, usual.rate) == (SHORTLY, pytest.approx(20))

    play(lab, scene, rate=20)


def test_where_few_attempts_are_counted_the_rate_is_that_of_all_requests(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        lab.world.evidence.few = Fraction(1, 10)
        meter = Meter(plane)
        await meter.usual("shop", V1)
        await lab.clock.sleep(598)
        usual = await meter.usual("shop", V1)
        assert (usual.sample.attempts, usual.sample.failures) == (600 * 200, 600 * 20)
        assert (usual.requests, usual.failures) == (pytest.approx(600 * 2000, abs=1), 600 * 200)
        plan = preview(plane.services["shop"], CANARY, usual)
        assert plan["traffic"]["text"] == "2,000 requests a second reached v1 in the last 10 min, 120,000 failed"

    play(lab, scene, rate=2000, v1=0.1)


def test_without_a_router_nothing_is_known(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        lab.world.router.lose(1)
        assert await Meter(plane).usual("shop", V1) == Usual()

    play(lab, scene, rate=20)


# What is said beforehand


def test_at_little_traffic_each_proof_says_what_is_done_without_it(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        plan = await planned(plane, after=600)
        assert plan["traffic"]["text"] == "0.1 requests a second reached v1 in the last 10 min"
        assert [one["possible"] for one in proofs(plan)] == [False, False]
        assert proofs(plan)[0]["text"] == (
            "10 %: 3 requests in 5 min, a verdict needs about 910; going on by health alone, `judge.low_traffic`"
        )

    play(lab, scene, rate=0.1)


@pytest.mark.parametrize(("every", "in_time"), [(10, True), (60, False)])
def test_a_proof_that_waits_longer_for_a_metric_than_it_may_is_said_to(lab: Lab, every: int, in_time: bool) -> None:
    metric = Metric("http://p", "failed", timedelta(seconds=every), worse="higher")
    order = replace(CANARY, judging=replace(CANARY.judging, metrics=(metric,)))

    async def scene(plane: ControlPlane) -> None:
        first, then = proofs(await planned(plane, order))
        assert first["compares"] == {"metric": "`failed`", "comparisons": 12, "seconds": 12 * every}
        assert (first["possible"], then["possible"], then["compares"]) == (in_time, True, None)
        late = (
            "10 %: `failed` is to be compared 12 times, which takes 12 min; the step waits 5 min at most; "
            "a person is asked, `judge.undecided`"
        )
        assert first["text"] == (None if in_time else late)

    play(lab, scene, rate=200)


@pytest.mark.parametrize(("course", "words"), [("hold", "a person is asked"), ("rollback", "going back")])
def test_what_is_done_is_what_the_manifest_says(lab: Lab, course: Any, words: str) -> None:
    async def scene(plane: ControlPlane) -> None:
        plan = await planned(plane, replace(CANARY, judging=Judging(low_traffic=course)))
        assert proofs(plan)[0]["text"].endswith(f"; {words}, `judge.low_traffic`")

    play(lab, scene, rate=0.1)


def test_without_any_traffic_it_is_said_how_much_would_be_needed(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        plan = await planned(plane)
        assert plan["traffic"]["text"] == "no request reached v1 in the last 2 s"
        first = proofs(plan)[0]
        assert first["needs_rate"] == pytest.approx(first["needs"] / 0.1 / 300)
        assert not any(found["in_time"] for found in first["finds"])
        assert first["finds"][0]["from_rate"] < first["finds"][2]["from_rate"]

    play(lab, scene)


def test_what_is_not_known_is_neither_possible_nor_impossible(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        plan = preview(plane.services["shop"], CANARY)
        assert plan["traffic"]["text"] == "how many requests reach v1 was not measured yet"
        assert {one["possible"] for one in plan["judgements"]} == {None}

    play(lab, scene, rate=50)


def test_what_somebody_says_counts_instead_of_what_was_measured(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        plan = preview(plane.services["shop"], CANARY, replace(await Meter(plane).usual("shop", V1), told=100.0))
        assert plan["traffic"]["text"] == "100 requests a second, as you say"
        assert [one["possible"] for one in proofs(plan)] == [True, True]

    play(lab, scene, rate=0.1)


def test_too_few_requests_for_a_silence_are_said_to_be_too_few(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        rolling = Rolling(first_judge=timedelta(seconds=10), judge=timedelta(seconds=100))
        first, *others = (await planned(plane, shop("v2", strategy=rolling)))["judgements"]
        assert first["text"] == "25 %: about 2 requests in 10 s, too few to judge; health alone"
        assert [one["text"] for one in others] == [None, None, None]

    play(lab, scene, rate=1)


def test_a_first_version_has_nothing_to_be_compared_with(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        plan = preview(None, an_order())
        assert (plan["traffic"], plan["judgements"], plan["kept_minutes"]) == (None, [], 0.0)

    lab.run(scene)


def test_keeping_the_old_version_is_part_of_what_a_plan_costs(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        plan = await planned(plane, shop("v2", strategy=BlueGreen(keep=timedelta(minutes=10))))
        assert plan["kept_minutes"] == 40

    play(lab, scene)


# Whether it comes true


def test_a_proof_that_was_said_to_come_comes_about_when_it_was_said_to(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        plan = await planned(plane, after=60)
        assert [one["possible"] for one in proofs(plan)] == [True, True]
        done = await deployed(plane, CANARY)
        assert (done.outcome, done.basis) == ("promoted", "evidence")
        assert done.decided is not None
        took = (done.decided - done.started).total_seconds()
        assert plan["seconds"] / 2 < took < plan["seconds"] * 2

    play(lab, scene, rate=50)


def test_a_proof_that_was_said_not_to_come_does_not(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        plan = await planned(plane, after=60)
        assert [one["possible"] for one in proofs(plan)] == [False, False]
        done = await deployed(plane, CANARY)
        assert done.outcome == "promoted"
        said = {step.number: step.verdict for step in plane.journal.steps(done.id) if step.verdict}
        for one in proofs(plan):
            assert said[one["step"]]["basis"] == "health"
            assert said[one["step"]]["reason"].endswith("; going on by health alone, `judge.low_traffic`")

    play(lab, scene, rate=1)


def test_harm_is_seen_about_when_it_was_said_to_be(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        judging = Judging(settings=Settings(first=Margin(1.0, 0.0, 0.0)))
        first = proofs(await planned(plane, replace(CANARY, judging=judging), after=60))[0]
        found = next(one for one in first["finds"] if one["harm"] == "5 points more fail")
        done = await deployed(plane, replace(CANARY, judging=judging))
        assert done.outcome == "rolled_back"
        step = next(step for step in plane.journal.steps(done.id) if step.number == first["step"])
        assert step.ended is not None
        assert found["seconds"] / 2 < (step.ended - step.began).total_seconds() < found["seconds"] * 2

    play(lab, scene, rate=200, v2=0.05)


def test_what_was_noted_once_a_minute_is_there_for_the_first_who_asks(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await lab.clock.sleep(300)
        began = lab.clock.monotonic()
        usual = await Meter(plane).usual("shop", V1)
        assert lab.clock.monotonic() == began, "nobody waits"
        assert 180 < usual.seconds <= 300 and usual.rate == pytest.approx(20, rel=0.01)

    play(lab, scene, rate=20)
