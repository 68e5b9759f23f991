"""What lasts for hours is written down seldom while nothing is new, and at once when something is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from segue.core.release import Experiment, Goal
from segue.core.version import Health
from segue.engine.calm import FEW, SELDOM, Calm
from segue.engine.control import ControlPlane
from segue.engine.orders import Answer, Asker
from segue.testing.plane import Lab, an_order, deployed, ended


def test_a_few_failures_and_the_usual_ones_may_wait_and_nothing_waits_for_long() -> None:
    calm = Calm()
    assert calm.says(0, 5.0) and calm.says(FEW, 5.0) and not calm.says(FEW + 1, 5.0)
    assert not calm.says(0, SELDOM), "it is told after a while"
    assert not calm.says(-1, 5.0), "counts that went back are told at once"
    calm.add(100, 100.0)
    assert calm.says(FEW + 20, 10.0) and not calm.says(FEW + 21, 10.0)


@pytest.mark.parametrize("usual", [0.0, 0.02])
def test_while_a_person_is_asked_for_long_little_is_written_and_a_break_is_seen_at_once(
    room: Path, usual: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.engine.run.lasts", lambda waited: waited > timedelta(seconds=60))
    lab, health = Lab(room), Health(command="health {url}", every=timedelta(seconds=10), healthy=1)

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=1, health=health))
        lab.world.evidence.flow("shop", rate=50, failing={"v1.1": usual, "v2.1": usual})
        how = Experiment(Goal("/"), keep=timedelta(0))
        answer = await plane.deploy(an_order("v2", replicas=1, health=health, strategy=how), Asker())
        assert answer.rollout
        await plane.world.clock.sleep(90)
        before = len(plane.journal.polls(answer.rollout))
        await plane.world.clock.sleep(2 * SELDOM)
        assert 2 <= len(plane.journal.polls(answer.rollout)) - before <= 4
        polls = plane.journal.polls(answer.rollout)
        lab.world.evidence.flow("shop", rate=50, failing={"v1.1": usual, "v2.1": 0.5})
        began = plane.world.clock.monotonic()
        done = await ended(plane, Answer(answer.rollout, ""))
        assert (done.outcome, done.basis) == ("rolled_back", "evidence")
        assert plane.world.clock.monotonic() - began < 30
        counted = sum(entry["new"][0] for entry in polls if "new" in entry)
        assert counted >= 50 / 2 * 300, "what waited is counted as well"

    lab.run(scene)
