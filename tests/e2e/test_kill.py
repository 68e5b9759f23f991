"""Killed with SIGKILL at any moment, under load: nothing is lost, and it ends as it would have ended.

Which moments are tried here is drawn by the seed in each name; ``make crash`` tries them all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from segue.testing.kills import Blow, End, Gap, Moment, Point, Stage, Victim, kill
from segue.testing.site import Segue, Shop


@pytest.fixture
def stage(segue: Segue, shop: Shop, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A shop under load whose first version serves. Nothing may be lost in the whole test."""
    stage = Stage(segue, shop, Random(request.node.name))
    try:
        stage.launch()
        yield stage
        if stage.probe:
            assert stage.rest().lost == ()
    finally:
        print(stage.said)
        stage.close()


def gaps(stage: Stage, end: End, since: str = "before 1 ") -> list[Gap]:
    """The gaps between the entries of an operation's journal, from the first whose name begins with `since`."""
    found = stage.witness.gaps(end.rollout)
    return found[next(at for at, gap in enumerate(found) if gap.name.startswith(since)) :]


def test_every_entry_of_the_journal_opens_or_closes_a_gap(stage: Stage) -> None:
    whole = stage.refused()
    found = gaps(stage, whole)
    entries = list(stage.witness.entries(whole.rollout))
    assert [found[0].opens, *(gap.closes for gap in found)] == entries
    assert [gap.name for gap in found[:4]] == [
        "before 1 run",
        "between 1 run",
        "before 2 scale up",
        "between 2 scale up",
    ]
    assert [gap.name for gap in found[-3:]] == ["between back 4 run", "after back 4 run", "tidying up"]
    assert (found[-1].opens, found[-1].closes) == ("decided", "ended")


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_rollout_ends_the_same_though_the_control_plane_is_killed(seed: int, stage: Stage) -> None:
    whole = stage.update()
    envoy, plane = stage.envoy(), stage.answering()
    for gap in stage.random.sample(gaps(stage, whole), 3):
        assert stage.update(kill(gap)) == whole, f"killed {gap}"
    assert (whole.exit, whole.running, whole.starts, whole.told) == (0, True, 2, 1)
    assert stage.envoy() == envoy
    assert stage.answering() != plane


@pytest.mark.parametrize("seed", range(1))
def test_a_version_that_is_refused_is_refused_though_the_control_plane_is_killed(seed: int, stage: Stage) -> None:
    whole = stage.refused()
    envoy = stage.envoy()
    for gap in stage.random.sample(gaps(stage, whole, "between 5 judge"), 3):
        assert stage.refused(kill(gap)) == whole, f"killed {gap}"
    assert (whole.exit, whole.hooks[-1].split()[0], whole.running) == (1, "on_rollback", True)
    assert stage.envoy() == envoy


@pytest.mark.slow
def test_scaling_and_going_down_end_the_same_though_the_control_plane_is_killed(stage: Stage) -> None:
    more, fewer = stage.scale(count=3), stage.scale(count=2)
    assert stage.scale(kill(Point("scale up", Moment.BETWEEN)), count=3) == more
    assert stage.scale(kill(Point("scale down", Moment.BETWEEN)), count=2) == fewer
    stopped = stage.down(kill(Point("scale down", Moment.BETWEEN)))
    assert (stopped.exit, stopped.running, stopped.told) == (0, True, 1)
    assert stage.instances() == []


@pytest.mark.slow
def test_a_rollout_ends_the_same_though_each_control_plane_is_killed_while_it_recovers(stage: Stage) -> None:
    whole = stage.update()
    envoy = stage.envoy()
    assert stage.update(Blow(Point("shift", Moment.BETWEEN), lambda stage: stage.kill_again(3))) == whole
    assert stage.envoy() == envoy


def test_a_control_plane_that_stands_still_is_not_replaced(stage: Stage) -> None:
    whole = stage.update()
    plane, envoy = stage.answering(), stage.envoy()
    seconds: list[int] = []

    def stand_still(stage: Stage) -> None:
        os.kill(plane, signal.SIGSTOP)
        try:
            seconds.append(stage.segue("serve", expect=None).returncode)
        finally:
            os.kill(plane, signal.SIGCONT)

    assert stage.update(Blow(Point("scale up", Moment.BETWEEN), stand_still)) == whole
    assert seconds == [3]
    assert (stage.answering(), stage.envoy()) == (plane, envoy)


@pytest.mark.slow
def test_a_control_plane_that_stands_still_for_ten_seconds_goes_on(stage: Stage) -> None:
    whole = stage.update()
    plane = stage.answering()
    assert stage.update(Blow(Point("judge", Moment.BETWEEN), lambda stage: stage.freeze(10))) == whole
    assert stage.answering() == plane


@pytest.mark.parametrize("victim", [Victim.ENVOY, pytest.param(Victim.BOTH, marks=pytest.mark.slow)])
def test_a_rollout_ends_the_same_though_envoy_is_killed(victim: Victim, stage: Stage) -> None:
    """Requests are lost only while there is no Envoy; how many, and for how long, is printed."""
    whole = stage.update()
    envoy, without = stage.envoy(), []
    what = stage.random.choice(["scale up", "shift", "judge"])

    def blow(stage: Stage) -> None:
        stage.kill(victim)
        without.append(stage.until_served())

    found = stage.update(Blow(Point(what, Moment.BETWEEN), blow))
    print(f"{victim} killed in {what}: nobody served for {without[0]:.2f} s, {found.lost} requests lost")
    assert replace(found, lost=0, balanced=True) == whole
    assert stage.envoy() != envoy
    before = stage.rest()
    stage.load()
    assert before.by_status.keys() == {200}  # what was lost was lost for want of an Envoy, not by an answer


def test_a_new_version_whose_instance_is_killed_in_the_judgement_is_refused(stage: Stage) -> None:
    old = stage.instances()
    found = stage.update(kill(Point("judge", Moment.BETWEEN), Victim.INSTANCE))
    assert (found.exit, found.lost, found.running) == (1, 0, True)
    assert set(stage.instances()) == set(old)
    assert stage.shop.status()["stable"] == "v1"
