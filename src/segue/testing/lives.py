"""One life of a service: a scene played to its end, over as many control planes as it takes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from segue.core.demand import Demand
from segue.engine import database, keeper
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker, Busy
from segue.engine.service import Service
from segue.errors import SegueError
from segue.ports import Instance
from segue.testing import scenes
from segue.testing.chaos import Storm, StormyWorld
from segue.testing.clock import Crashed, NothingLeft, VirtualClock
from segue.testing.inquest import Inquest
from segue.testing.plane import Lab
from segue.testing.witness import Witness

_NAMED = re.compile(r"\b\d{8}-\d{6}-[0-9a-f]{6}\b")
"""A rollout's name: its end is drawn by nobody's seed."""

T = TypeVar("T")

SHOP = "shop"
ASKED = {"/": Fraction(1, 2), "/cart": Fraction(1, 2)}
"""What users ask for."""
AT_MOST = 1500.0
"""Seconds, of virtual time, in which everything must have come to its end once nothing goes wrong any more."""


@dataclass(kw_only=True)
class StormyLab(Lab):
    """A lab in whose world anything may go wrong. What is heard and seen is told to `inquest`."""

    storm: Storm
    current: ControlPlane | None = None

    def __post_init__(self) -> None:
        self.stormy = self.world = StormyWorld(self.storm, self.clock)
        self.witness = Witness(self.stormy, self._demand, self._known)
        self.inquest = Inquest(self.stormy, self.witness)
        record = self.stormy.record
        record.see, record.died, record.write_crash = self.witness.see, self._died, self._crash_after

    def _count_writes(self, plane: ControlPlane) -> None:
        super()._count_writes(plane)
        self.current = plane
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        loop.run_in_executor = _at_once  # type: ignore[method-assign, assignment]
        self.inquest.attend(plane.journal)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not loop.crashed:  # type: ignore[attr-defined]
            self.witness.accuse(f"the control plane failed: {context.get('exception', context['message'])!r}")

    def _demand(self) -> Demand:
        service = self.current.services.get(SHOP) if self.current else None
        return service.keeper.demand if service else Demand()

    def _known(self) -> set[str]:
        assert self.current is not None
        return {record.intent.nonce for record in self.current.journal.intents(SHOP)}

    def _died(self, instance: Instance) -> None:
        service = self.current.services.get(SHOP) if self.current else None
        if service is not None:
            self.inquest.died(instance, service)

    def _crash_after(self, writes: int) -> None:
        self.crash_at_write = self.writes + writes


def _at_once(executor: object, work: Callable[..., T], *words: Any) -> asyncio.Future[T]:
    """What a thread would do, done now: a thread takes real time, and no two lives would be alike."""
    job: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    try:
        job.set_result(work(*words))
    except Exception as error:  # noqa: BLE001 - it belongs to who waits for the job
        job.set_exception(error)
    return job


class Play:
    """One scene, from its seed to its end, over as many control planes as it takes."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = Random(seed)
        self.scene = scenes.drawn(self.rng)
        clock = VirtualClock()
        storm = Storm(self.rng, clock, self.scene.odds, self.scene.kinds)
        self.lab = StormyLab(folder=folder, clock=clock, storm=storm)
        self.at = 0
        self.answers: dict[str, str | None] = {}
        self.said: set[tuple[int, int]] = set()
        self._prepare()

    def _prepare(self) -> None:
        lab, failing = self.lab, {}
        for deployment in self.scene.deployments:
            version = f"{deployment.order.version}.1"
            lab.world.platform.order(version, *deployment.behaviours)
            if deployment.failing:
                failing[version] = deployment.failing
            if deployment.never:
                lab.witness.doomed.add(version)
            if deployment.hook:
                lab.world.commands.order(f"before {deployment.order.version}", deployment.hook)
            lab.stormy.record.say(f"drawn: {deployment}")
        lab.world.evidence.flow(SHOP, rate=self.scene.rate, failing=failing, paths=ASKED)

    def play(self) -> None:
        """Play it to its end; what was found is in the witness."""
        with _disk(self.lab.storm):
            while True:
                try:
                    self.lab.run(self._act)
                    return
                except (Crashed, NothingLeft) as end:
                    if isinstance(end, NothingLeft):
                        self.lab.witness.found.append("every task waits for another one")
                    if self.lab.current is not None:
                        self.lab.current.journal.close()
                    if self.lab.witness.found:
                        return
                    self._meanwhile()

    def _meanwhile(self) -> None:
        """What happens while no control plane runs."""
        lab, platform = self.lab, self.lab.world.platform
        lab.stormy.record.say("      -- the control plane is gone")
        lab.clock.pass_by(self.rng.choice((0.0, 0.2, 3.0)))
        if lab.storm.rebooted:
            lab.storm.rebooted = False
            lab.boot += "'"
            lab.inquest.rebooted = True
            for instance in platform.running:
                platform.exit(instance.id)
        elif platform.running and "death" in self.scene.kinds and self.rng.random() < 0.3:
            lab.storm.struck.append("death")
            platform.exit(self.rng.choice(platform.running).id)
        lab.stormy.record.say("      -- another one comes up")

    async def _act(self, plane: ControlPlane) -> None:
        async with asyncio.timeout(100 * AT_MOST):
            while self.at < len(self.scene.deployments):
                await self._deploy(plane, self.scene.deployments[self.at])
                self.at += 1
        self.lab.storm.calm()
        try:
            async with asyncio.timeout(AT_MOST):
                await self._quiet(plane)
        except TimeoutError:
            self.lab.inquest.endless(plane)
            return
        self.lab.inquest.hold(plane, self.answers)

    async def _deploy(self, plane: ControlPlane, deployment: scenes.Deployment) -> None:
        key = f"deployment {self.at}"
        busy: Busy = "replace" if self.at and self.scene.deployments[self.at - 1].wait is not None else "wait"
        try:
            answer = await plane.deploy(deployment.order, Asker(key=key, if_busy=busy))
        except SegueError as error:
            self.lab.stormy.record.say(f"      .. refused: {_NAMED.sub('…', error.message)}")
            return
        self.lab.stormy.record.say(f"      .. {deployment.order.version} is answered: {answer.message or 'it comes'}")
        if key in self.answers and self.answers[key] != answer.rollout:
            self.lab.witness.accuse("the same request was answered twice, and not alike")
        self.answers[key] = answer.rollout
        service = plane.services[SHOP]
        words = [asyncio.ensure_future(self._say(service, n, word)) for n, word in enumerate(deployment.words)]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(deployment.wait):
                    await self._ended(plane, service, answer.rollout)
                if answer.rollout:
                    self.lab.inquest.judge(plane.journal.rollout(answer.rollout), deployment)
        finally:
            for word in words:
                word.cancel()

    async def _ended(self, plane: ControlPlane, service: Service, rollout: str | None) -> None:
        """Return when `rollout` has ended; after a time somebody answers what it asks."""
        while rollout and (record := plane.journal.rollout(rollout)) and record.ended is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(20):
                    await service.keeper.bell.until(lambda: _idle(service))
            await self._answer(service)

    async def _answer(self, service: Service) -> None:
        """A person answers what the rollout asks, if it asks anything."""
        running, asker = service.rollout, Asker("an operator")
        with suppress(SegueError):
            if running and running.person.paused:
                await service.resume(asker)
            elif running and running.person.asked is not None:
                await (service.promote(asker) if self.rng.random() < 0.7 else service.rollback(None, asker))

    async def _say(self, service: Service, number: int, word: scenes.Word) -> None:
        """A person says one word, once."""
        await asyncio.sleep(word.after)
        if (self.at, number) in self.said:
            return
        self.said.add((self.at, number))
        self.lab.stormy.record.say(f"      .. somebody says {word.what}")
        asker = Asker("somebody", if_busy="refuse" if word.number % 2 else "replace")
        try:
            match word.what:
                case "scale":
                    await service.scale(word.number, asker)
                case "promote --full":
                    await service.promote(asker, full=True)
                case "rollback":
                    await service.rollback(None, asker)
                case what:
                    await getattr(service, what)(asker)
        except SegueError as error:
            self.lab.stormy.record.say(f"      .. refused: {_NAMED.sub('…', error.message)}")

    async def _quiet(self, plane: ControlPlane) -> None:
        """Return when nothing is left to be done."""
        while (service := plane.services.get(SHOP)) is not None:
            await self._answer(service)
            demand, fleet = service.keeper.demand, service.keeper.fleet
            ready = {revision: fleet.ready(revision) for revision in demand.counts}
            tidy = ready == dict(demand.counts) and len(fleet.members) == sum(ready.values())
            if _idle(service) and tidy and demand.kept is None:
                break
            await asyncio.sleep(0.7)
        await asyncio.sleep(6)


def _idle(service: Service) -> bool:
    """Whether no rollout goes on."""
    return service.runner is None or service.runner.record.ended is not None


@contextmanager
def _disk(storm: Storm) -> Iterator[None]:
    """The journal's disk is full when the storm says so. The reserve is small, for every scene writes one."""
    room, reserve, every = database._room, database.RESERVE_BYTES, keeper.LOOK_EVERY
    database.RESERVE_BYTES, keeper.LOOK_EVERY = 4096, 0.05
    database._room = lambda folder: 0 if storm.clock.monotonic() < storm.full_until else 1 << 30
    try:
        yield
    finally:
        database._room, database.RESERVE_BYTES, keeper.LOOK_EVERY = room, reserve, every
