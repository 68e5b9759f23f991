"""What instances log is evidence: the case of the textbook, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from segue.core.release import Rolling
from segue.core.traffic import InstanceId
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker
from segue.engine.records import Judging, RolloutRecord
from segue.evidence.logs import LogLines
from segue.ports import Matches
from segue.testing.calls import Start
from segue.testing.fakes import losses
from segue.testing.plane import Lab, an_order, deployed, ended, status, tidied

ONE_FIRST = Rolling(first_judge=timedelta(seconds=30), judge=timedelta(seconds=5))
NEW = InstanceId("shop-v2.1-1")
OLD = [InstanceId(f"shop-v1.1-{number}") for number in range(1, 11)]


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


def rollout(lab: Lab, writers: Iterable[InstanceId], *, rate: float, match: str = "ERROR|Traceback") -> RolloutRecord:
    """How a rolling update of ten ends whose first new instance, and whoever writes, logs a traceback a second."""

    async def scene(plane: ControlPlane) -> RolloutRecord:
        await deployed(plane, an_order("v1", replicas=10))
        lab.world.evidence.flow("shop", rate=rate)
        order = an_order("v2", replicas=10, strategy=ONE_FIRST, judging=replace(Judging(), logs=(match,)))
        answer = await plane.deploy(order, Asker())
        while not lab.world.router.shares("shop").get("v2.1"):  # type: ignore[call-overload]
            await asyncio.sleep(0.05)
        for _ in range(25):
            for writer in writers:
                lab.world.platform.write(writer, "Traceback (most recent call last): KeyError: 'price'")
                lab.world.platform.write(writer, "GET / 200")
            await asyncio.sleep(1)
        found = await ended(plane, answer)
        await tidied(plane)
        assert status(plane)["services"][0]["state"] == "steady"
        return found

    found = lab.run(scene)
    assert list(losses(lab.world.record.calls)) == []
    return found


@pytest.mark.parametrize("rate", [0, 1, 100])
def test_tracebacks_of_the_first_of_ten_stop_the_rollout_though_http_is_well(lab: Lab, rate: float) -> None:
    found = rollout(lab, [NEW], rate=rate)
    assert (found.outcome, found.exit, found.basis) == ("rolled_back", 1, "evidence")
    reason = found.turned or ""
    assert reason.startswith(f"{NEW} wrote ")
    assert reason.endswith(
        "lines that match `ERROR|Traceback`, v1's 10 instances 0 in the same time: "
        "Traceback (most recent call last): KeyError: 'price'"
    )
    assert found.log == (f"{NEW} | Traceback (most recent call last): KeyError: 'price'",)
    assert max(started(lab)) == NEW, "it stopped at 1 of 10"


def started(lab: Lab) -> list[InstanceId]:
    """The instances of v2 that were ever started."""
    starts = (call.intent for call in lab.world.record.calls if isinstance(call, Start))
    return [intent.instance for intent in starts if intent.revision == "v2.1"]


def test_what_the_old_version_logs_as_often_is_held_against_nobody(lab: Lab) -> None:
    assert rollout(lab, [NEW, *OLD[1:]], rate=100).outcome == "promoted"


def test_lines_that_do_not_match_are_no_evidence(lab: Lab) -> None:
    assert rollout(lab, [NEW], rate=100, match="panic").outcome == "promoted"


def test_only_lines_that_come_while_somebody_attends_count(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=2))
        platform, one, two = lab.world.platform, OLD[0], OLD[1]
        platform.write(one, "ERROR before")
        lines = LogLines(platform, ["ERROR", "FATAL"])
        lines.attend([one])
        await asyncio.sleep(1)
        for instance, line in (one, "ERROR 1"), (one, "fine"), (one, "FATAL and ERROR 2"), (two, "ERROR"):
            platform.write(instance, line)
        await asyncio.sleep(1)
        assert lines.matches() == {one: Matches(2, "FATAL and ERROR 2")}
        lines.attend([two])
        platform.write(one, "ERROR 3")
        await asyncio.sleep(1)
        assert lines.matches() == {one: Matches(2, "FATAL and ERROR 2"), two: Matches()}
        await lines.close()

    lab.run(scene)
