"""Whole lives of a service in which anything may go wrong; what the simulation has found is tested by itself below.

`SEGUE_SEEDS` says how many seeds are played. The mutants of `mutants.py` are caught within a thousand of them:
`pytest -m slow -s tests/engine/test_simulation.py` says at which one.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from mutants import MUTANTS, Mutant

import segue
from segue.core.release import BlueGreen, Rolling
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker
from segue.testing.clock import Crashed
from segue.testing.fakes import Behaviour
from segue.testing.plane import Lab, an_order, deployed, ended, tidied
from segue.testing.simulation import played

SEEDS = int(os.environ.get("SEGUE_SEEDS", "50"))
SOURCE = Path(segue.__file__).parent
QUICK = Rolling(first_judge=timedelta(seconds=2), judge=timedelta(seconds=1))
AT_ONCE = BlueGreen(judge=timedelta(0), keep=timedelta(0))
SHIFT = 3
"""The number of its step that gives the new version everything."""


def simulation(*words: str, source: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segue.testing.simulation", *words]
    environment = {**os.environ, **({"PYTHONPATH": str(source)} if source else {})}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600, check=False)


def test_no_life_breaks_a_promise() -> None:
    done = simulation("--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_seed_is_the_same_story_every_time() -> None:
    first = next(story for story in map(played, range(20)) if len(story.struck) > 2)
    assert played(first.seed) == first


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught_within_a_thousand_seeds(room: Path, mutant: Mutant) -> None:
    shutil.copytree(SOURCE, room / "segue", ignore=shutil.ignore_patterns("__pycache__"))
    file = room / "segue" / mutant.file
    file.write_text(file.read_text().replace(mutant.old, mutant.new))
    done = simulation("--seeds", "1000", source=room)
    caught = re.search(r"^seed (\d+): (.*)$", done.stdout, re.MULTILINE)
    print(f"\n| {mutant.name} | {caught and caught[1]} | {caught and caught[2][:120]} |", flush=True)
    assert done.returncode == 1, f"{done.stdout[-500:]}{done.stderr[-500:]}"
    assert caught, done.stderr[-2000:]


# What it has found


def launched(lab: Lab) -> None:
    async def launch(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=2))

    lab.run(launch)


def test_what_was_rolled_back_a_moment_ago_is_not_forgotten_while_the_router_knows_it(room: Path) -> None:
    lab = Lab(room / "lab")
    launched(lab)
    lab.world.platform.order("v2.1", Behaviour(exits=0.02))
    failures: list[object] = []

    async def scene(plane: ControlPlane) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        await deployed(plane, an_order("v2", replicas=2, strategy=QUICK))
        await deployed(plane, an_order("v3", replicas=2, strategy=AT_ONCE))
        await asyncio.sleep(10)
        await tidied(plane)

    lab.run(scene)
    assert failures == []


def test_what_failed_to_be_given_its_share_is_not_given_it_by_another_control_plane(room: Path) -> None:
    async def turned(plane: ControlPlane, lab: Lab, writes: int) -> None:
        """v2 is to be given everything; its instances die, and somebody takes it back, before the router confirms."""
        gate = lab.world.router.confirming
        gate.close()
        answer = await plane.deploy(an_order("v2", replicas=2, strategy=AT_ONCE), Asker(key="the-same"))
        while len(plane.journal.steps(answer.rollout or "")) < SHIFT:
            if len(plane.journal.steps(answer.rollout or "")) < SHIFT - 1:
                gate.let_through()
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)
        lab.world.platform.order("v2.1", Behaviour(ready=5))
        lab.crash_at_write = lab.writes + writes
        for instance in lab.world.platform.running:
            if instance.intent.revision == "v2.1":
                lab.world.platform.exit(instance.id)
        await plane.services["shop"].rollback(None, Asker())
        await ended(plane, answer)

    for writes in range(3, 8):
        lab = Lab(room / f"write-{writes}")
        launched(lab)
        with suppress(Crashed):
            lab.run(lambda plane, lab=lab, writes=writes: turned(plane, lab, writes))  # type: ignore[misc]
        lab.world.router.confirming.open()
        lab.run(update)
        assert lab.cover() == [], f"crash after write {writes}"


async def update(plane: ControlPlane) -> tuple[str | None, str | None]:
    answer = await plane.deploy(an_order("v2", replicas=2, strategy=AT_ONCE), Asker(key="the-same"))
    found = await ended(plane, answer)
    await tidied(plane)
    return found.outcome, found.turned


def test_a_machine_that_restarted_is_not_forgotten_by_a_crash_that_follows(room: Path) -> None:
    async def half(plane: ControlPlane) -> None:
        await plane.deploy(an_order("v2", replicas=2, strategy=AT_ONCE), Asker(key="the-same"))

    for writes in range(1, 6):
        lab = Lab(room / f"write-{writes}")
        launched(lab)
        lab.run(half)
        for instance in lab.world.platform.running:
            lab.world.platform.exit(instance.id)
        lab.boot = "boot-2"
        lab.crash_at_write = lab.writes + writes
        with suppress(Crashed):
            lab.run(update)
        assert lab.run(update) == ("rolled_back", "the machine restarted"), f"crash after write {writes}"
