"""An experiment, on virtual time: who is counted, what it shows, and the ways it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from segue.core.experiment import Visit
from segue.core.release import Experiment, Goal, Who
from segue.core.version import Health
from segue.engine import documents, people
from segue.engine.control import ControlPlane
from segue.engine.orders import Answer, Asker, Order
from segue.engine.plans import preview
from segue.engine.records import RolloutRecord
from segue.errors import Refused
from segue.testing.fakes import losses
from segue.testing.plane import Lab, an_order, deployed, ended, status, tidied

AB = Experiment(Goal("/thanks"), keep=timedelta(minutes=5), most=timedelta(days=14))
ANA = Asker("ana")


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


def play(lab: Lab, scene: Callable[[ControlPlane], Awaitable[None]], *, rate: float = 100, **reaching: float) -> None:
    """Play `scene` on a shop whose v1 serves `rate` new users a second; parts of each version's reach the goal."""

    async def whole(plane: ControlPlane) -> None:
        await deployed(plane, order("v1"))
        lab.world.evidence.flow("shop", rate=rate)
        lab.world.evidence.reaching = {"v1.1": reaching.get("v1", 0.05), "v2.1": reaching.get("v2", 0.05)}
        await scene(plane)
        assert list(losses(lab.world.record.calls)) == []

    lab.run(whole)


def order(version: str, **more: Any) -> Order:
    """An order of two instances whose health is asked for seldom: it is a long time."""
    health = Health(command="health {url}", every=timedelta(seconds=10), healthy=1)
    return an_order(version, replicas=2, health=health, **more)


async def begun(plane: ControlPlane, how: Experiment = AB) -> RolloutRecord:
    """The experiment, once a person is asked."""
    answer = await plane.deploy(order("v2", strategy=how), Asker())
    assert answer.rollout
    while not (found := plane.journal.rollout(answer.rollout)) or not found.person.asked:
        assert found is None or found.ended is None, found.reason
        await plane.world.clock.sleep(0.2)
    return found


def shown(plane: ControlPlane, rollout: RolloutRecord) -> dict[str, Any]:
    """What `segue experiment` is answered."""
    record = plane.journal.rollout(rollout.id)
    assert record
    return people.shown(plane.journal, record, plane.world.clock.now())


def test_a_better_version_is_told_to_be_kept_and_a_person_promotes_it(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout = await begun(plane)
        assert status(plane)["services"][0]["state"] == "holding"
        first = shown(plane, rollout)
        assert (first["say"], first["from"], first["to"], first["goal"]) == (
            "no difference yet",
            "v1",
            "v2",
            "/thanks",
        )
        await plane.world.clock.sleep(300)
        found = shown(plane, rollout)
        assert found["say"] == "keep" and found["ratio"]["low"] > 1 and found["split"]["trusted"]
        assert found["users"]["v1"] == pytest.approx(15_000, rel=0.01)
        assert found["reached"]["v2"] == pytest.approx(0.08 * 15_000, rel=0.01)
        assert found["words"][-1] == "Keep v2: `segue promote`."
        await plane.services["shop"].promote(ANA)
        done = await ended(plane, Answer(rollout.id, ""))
        assert (done.outcome, done.basis) == ("promoted", "person")
        await tidied(plane)
        after = shown(plane, rollout)
        assert after["reached"]["v2"] >= found["reached"]["v2"] and after["say"] == "keep" and after["until"] is None
        assert not any("segue promote" in sentence for sentence in after["words"]), "it was done"
        record = plane.journal.rollout(rollout.id)
        assert record and documents.report(plane.journal, record, plane.world.clock.now())["experiment"] == after
        assert plane.journal._db.all("SELECT * FROM told.visitor") == [], "who they were is kept no longer"

    play(lab, scene, v2=0.08)


def test_a_worse_version_is_told_to_be_dropped_and_goes_back_by_hand(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout = await begun(plane)
        await plane.world.clock.sleep(300)
        assert shown(plane, rollout)["say"] == "drop"
        await plane.services["shop"].rollback(None, ANA)
        done = await ended(plane, Answer(rollout.id, ""))
        assert (done.outcome, done.exit) == ("rolled_back", 7)

    play(lab, scene, v1=0.08)


def test_an_experiment_that_nobody_ends_goes_back_after_its_time_and_not_before(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout = await begun(plane, Experiment(Goal("/thanks"), most=timedelta(minutes=20)))
        await plane.world.clock.sleep(1100)
        still = shown(plane, rollout)
        assert (still["say"], still["outcome"]) == ("no difference yet", None) and still["detectable"] < 1.4
        done = await ended(plane, Answer(rollout.id, ""))
        assert done.outcome == "rolled_back"
        assert (
            done.reason
            == "nobody answered within 20 min: is v2.1 better than v1.1? `segue experiment` says what is known"
        )

    play(lab, scene, rate=10)


def test_errors_end_an_experiment_at_once(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout = await begun(plane)
        await plane.world.clock.sleep(700)
        lab.world.evidence.flow("shop", rate=100, failing={"v2.1": 0.5})
        began = plane.world.clock.monotonic()
        done = await ended(plane, Answer(rollout.id, ""))
        assert (done.outcome, done.basis) == ("rolled_back", "evidence")
        assert plane.world.clock.monotonic() - began < 300

    play(lab, scene)


def test_a_split_that_was_not_asked_for_is_not_to_be_trusted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout = await begun(plane)
        visits = lab.world.evidence.visits

        async def lossy(service: str) -> list[Visit]:
            return [visit for visit in await visits(service) if visit.version == "v1.1" or hash(visit.user) % 10]

        monkeypatch.setattr(lab.world.evidence, "visits", lossy)
        await plane.world.clock.sleep(300)
        found = shown(plane, rollout)
        assert (found["say"], found["split"]["trusted"]) == ("do not trust", False)

    play(lab, scene, v2=0.08)


def test_a_control_plane_that_is_restarted_counts_nobody_twice(lab: Lab) -> None:
    async def before(plane: ControlPlane) -> None:
        rollout = await begun(plane)
        await plane.world.clock.sleep(200)
        seen.append((rollout, shown(plane, rollout)))

    async def after(plane: ControlPlane) -> None:
        rollout, known = seen[0]
        lab.world.evidence._visited.clear()  # the file is read from its beginning
        await plane.world.clock.sleep(200)
        found = shown(plane, rollout)
        assert found["users"]["v2"] == pytest.approx(2 * known["users"]["v2"], rel=0.02)
        assert found["reached"]["v2"] == pytest.approx(2 * known["reached"]["v2"], rel=0.1)

    seen: list[tuple[RolloutRecord, dict[str, Any]]] = []
    play(lab, before)
    lab.run(after)


def test_what_is_no_experiment_is_refused(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        (launch,) = plane.journal.rollouts("shop")
        with pytest.raises(Refused, match="is no experiment"):
            shown(plane, launch)

    play(lab, scene)


def test_a_restart_and_a_way_back_later_are_no_experiments(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        rollout = await begun(plane)
        await plane.services["shop"].promote(ANA)
        await ended(plane, Answer(rollout.id, ""))
        await tidied(plane)
        again = await ended(plane, await plane.services["shop"].restart(ANA))
        assert (again.strategy, again.outcome) == ("rolling", "promoted")
        back = await ended(plane, await plane.services["shop"].rollback("v1", ANA))
        assert (back.outcome, back.new) == ("promoted", "v1.2")

    play(lab, scene)


def test_the_router_is_told_who_takes_part_while_it_goes_on_and_no_longer(lab: Lab) -> None:
    how = Experiment(Goal("/thanks"), Fraction(1, 4), who=Who("X-Country", ("KR",)), keep=timedelta(0))

    async def scene(plane: ControlPlane) -> None:
        rollout = await begun(plane, how)
        table = lab.world.router.table.services["shop"]
        assert table.experiment == how and table.sticky is not None
        assert {backend.revision: backend.share for backend in table.backends} == {
            "v1.1": Fraction(3, 4),
            "v2.1": Fraction(1, 4),
        }
        assert [len(backend.endpoints) for backend in table.backends] == [2, 1]
        await plane.services["shop"].promote(ANA)
        await ended(plane, Answer(rollout.id, ""))
        await tidied(plane)
        table = lab.world.router.table.services["shop"]
        assert (table.experiment, table.sticky) == (None, None)

    play(lab, scene)


def test_a_plan_says_that_a_person_ends_it(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        found = preview(plane.services["shop"], order("v2", strategy=AB))
        assert "a person ends it, within 14 days: the time is without that" in found["notes"]
        assert (found["strategy"], found["peak"], found["decided_after"]) == ("experiment", 4, 7)

    play(lab, scene)
