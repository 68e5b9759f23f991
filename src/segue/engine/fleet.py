"""The instances of one service: started, watched, restarted, taken out of the traffic, stopped.

Rule 1: the intent is journalled before anything is started, and a removal before anything is signalled.
Rule 2: an instance is ready only if the socket at its address is its own, its health says so, and it has
passed its smoke tests; only a ready instance is ever given to the router as ready.
Rule 3: how an instance is removed stands in `segue.engine.farewell`, and nowhere else is one told to end that serves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from zlib import crc32

import structlog

from segue.core.release import Revision
from segue.core.traffic import instance_id
from segue.core.version import Version
from segue.engine.bell import Bell
from segue.engine.clock import Clock
from segue.engine.farewell import Farewells
from segue.engine.health import RunCommand, probe, smoke, warm
from segue.engine.journal import Journal
from segue.engine.member import Member, State
from segue.engine.records import IntentRecord, Parting
from segue.errors import StartFailed
from segue.minding import beside
from segue.ports import Instance, Platform, Router

TRIES = 3
"""Starts of a new instance, each on another port, before it is called broken."""

FIRST_BACKOFF, LONGEST_BACKOFF, STEADY = 0.1, 30.0, 60.0
"""Seconds before a restart, doubled up to the longest; after a steady time it begins again from the first."""

STARTING_EVERY = 0.1
"""Seconds between two looks at an instance that starts."""

_NOT_READY = State.STARTING, State.UNREADY

log = structlog.get_logger()


class Fleet:
    """The instances of `service`. `routed` says whether the router has confirmed an endpoint as it is."""

    def __init__(
        self,
        service: str,
        *,
        platform: Platform,
        router: Router,
        journal: Journal,
        clock: Clock,
        bell: Bell,
        run: RunCommand,
        routed: Callable[[Member], bool],
        rollout: Callable[[], str | None],
    ) -> None:
        self.service = service
        self.members: list[Member] = []
        self._platform, self._journal, self._clock = platform, journal, clock
        self._bell, self._run, self._rollout = bell, run, rollout
        self._ordinals: dict[Revision, int] = {}
        self._farewells = Farewells(
            service,
            platform=platform,
            router=router,
            journal=journal,
            clock=clock,
            bell=bell,
            routed=routed,
            tell=self._tell,
        )

    def of(self, revision: Revision) -> list[Member]:
        """The instances of `revision` that are not leaving."""
        return [member for member in self.members if member.revision == revision and not member.leaving]

    def ready(self, revision: Revision) -> int:
        """How many instances of `revision` are ready."""
        return sum(member.state is State.READY for member in self.of(revision))

    def add(self, version: Version) -> None:
        """One more instance of `version`."""
        ordinal = self._ordinals.get(version.revision, 0) + 1
        member = self._member(version, ordinal)
        member.tasks.append(beside(self._live(member), member.id))

    def _member(self, version: Version, ordinal: int) -> Member:
        self._ordinals[version.revision] = max(ordinal, self._ordinals.get(version.revision, 0))
        id = instance_id(self.service, version.revision, ordinal)
        member = Member(id, version, ordinal, self._clock.now())
        self.members.append(member)
        return member

    async def adopt(self, record: IntentRecord, version: Version, instance: Instance) -> None:
        """Take over an instance that was found running, as its own health says it is now."""
        member = self._member(version, int(record.intent.instance.rpartition("-")[2]))
        member.intent, member.instance, member.parting = record.intent, instance, record.parting
        member.restarts, member.checked, member.since = record.restarts, record.checked, instance.started
        if record.stopping:
            self._set(member, State.DRAINING)
            return
        if record.checked and await self._serves(member, instance):
            member.state = State.READY  # clients were told when it became so

    async def _serves(self, member: Member, instance: Instance) -> bool:
        """Whether an instance that was ready once is so now; one that cannot be asked is taken to be."""
        try:
            healthy = await probe(member.version, instance.intent.address, self._run) is None
            return healthy and await self._platform.listens(instance)
        except OSError as error:
            log.warning("instance_not_asked", instance=member.id, error=str(error))
            return True

    def run_adopted(self) -> None:
        """Begin to look after the instances that were taken over."""
        for member in self.members:
            if not member.tasks:
                work = self._remove(member, timedelta(0)) if member.leaving else self._live(member)
                member.tasks.append(beside(work, member.id))

    async def close(self) -> None:
        """Look after nothing any more; the instances run on."""
        tasks = [task for member in self.members for task in member.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _set(self, member: Member, state: State, detail: str | None = None, **more: Any) -> None:
        if member.state is state and detail is None:
            return
        member.state, member.problem = state, detail
        self._tell(member, detail, **more)
        self._bell.ring()

    def _tell(self, member: Member, detail: str | None, **more: Any) -> None:
        """Tell clients how `member` is; of one that leaves it is told in the rollout that it leaves for."""
        self._journal.tell(
            "instance",
            service=self.service,
            rollout=(member.leaves_for if member.leaving else None) or self._rollout(),
            instance=member.id,
            state=member.state.value,
            detail=detail,
            pid=member.instance.pid if member.instance else None,
            address=member.intent.address if member.intent else None,
            **more,
        )

    # A life: start, become ready, serve, end, start again

    async def _live(self, member: Member) -> None:
        while not member.leaving:
            try:
                if member.instance is None:
                    await self._start(member)
                if member.instance is not None:
                    await self._attend(member, member.instance)
            except OSError as error:  # for a want of our own, which passes
                log.warning("instance_not_attended", instance=member.id, error=str(error))
                await self._clock.sleep(FIRST_BACKOFF)
                continue
            if not member.leaving:
                await self._rest(member)

    async def _start(self, member: Member) -> None:
        began = self._clock.monotonic()
        try:
            intent = await self._platform.place(member.version, member.id)
            self._journal.put_intent(intent, member.restarts, member.checked)
            member.intent = intent
            member.instance = await self._platform.start(member.version, intent)
        except StartFailed as error:
            member.log, member.fatal = error.log, True
            self._failed(member, error.message, began)
            self._forget(member)
            return
        member.since, member.fatal = member.instance.started, False
        self._set(member, State.STARTING, "started")

    async def _attend(self, member: Member, instance: Instance) -> None:
        began = self._clock.monotonic()
        watching = beside(self._watch_health(member, instance), member.id)
        try:
            status = await self._platform.gone(instance)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        if member.leaving:
            return
        await self._platform.stop(instance, member.version.stop.signal, timedelta(0))
        member.log = tuple([line async for line in self._platform.logs(member.id, lines=20, follow=False)])
        self._failed(member, _ended(status), began)
        self._forget(member)

    def _failed(self, member: Member, problem: str, began: float) -> None:
        served = member.state is State.READY and self._clock.monotonic() - began >= STEADY
        member.failures = 1 if served else member.failures + 1
        self._set(member, State.STARTING, problem)

    def _forget(self, member: Member) -> None:
        if member.intent is not None:
            self._journal.drop_intent(member.intent.nonce)
        member.intent = member.instance = None
        self._bell.ring()

    async def _rest(self, member: Member) -> None:
        member.restarts += 1
        await self._clock.sleep(min(FIRST_BACKOFF * 2 ** min(member.failures, 10), LONGEST_BACKOFF))

    def broken(self, revision: Revision) -> Member | None:
        """An instance of `revision` that cannot be started: its command does not run, or it ended too often."""
        starting = (m for m in self.of(revision) if m.state is State.STARTING)  # one that is ready was started
        return next((m for m in starting if m.fatal or m.failures >= TRIES), None)

    async def _watch_health(self, member: Member, instance: Instance) -> None:
        health, well, ill = member.version.health, 0, 0
        every = health.every.total_seconds()
        if member.state is State.READY:  # it was adopted, with many others: they are not to be asked all at once
            await self._clock.sleep(every * crc32(member.id.encode()) / 2**32)
        while True:
            try:
                problem = await probe(member.version, instance.intent.address, self._run)
                well, ill = (well + 1, 0) if problem is None else (0, ill + 1)
                if problem is not None and member.state is State.STARTING:
                    member.problem = problem
                elif ill == health.unhealthy and member.state is State.READY:
                    self._set(member, State.UNREADY, problem)
                elif well >= health.healthy and member.state in _NOT_READY and not member.fatal:
                    await self._become_ready(member, instance)
            except OSError as error:  # for a want of our own: the instance is as it was
                if well or ill:
                    log.warning("instance_not_asked", instance=member.id, error=str(error))
                well = ill = 0
            starting = member.state is State.STARTING
            await self._clock.sleep(min(every, STARTING_EVERY) if starting else every)

    async def _become_ready(self, member: Member, instance: Instance) -> None:
        if not await self._platform.listens(instance):
            self._note(member, f"{instance.intent.address} is answered by a process that is not this instance's")
            return
        if not member.checked:
            member.problem = "its smoke tests are not through"
            problem = await smoke(member.version, instance.intent.address, self._run, 30.0)
            if problem:
                member.fatal = True
                self._note(member, problem)
                return
            member.problem = "its warm-up requests are not through"
            await warm(member.version, instance.intent.address)
            if member.version.health.min_ready:
                member.problem = "it has not been healthy for `min_ready`"
                await self._clock.sleep(member.version.health.min_ready.total_seconds())
                if await probe(member.version, instance.intent.address, self._run) is not None:
                    return
            member.checked = True
            self._journal.mark_intent(instance.intent.nonce, checked=True)
        if not member.leaving:
            self._set(member, State.READY)

    def _note(self, member: Member, problem: str) -> None:
        if member.problem != problem:
            self._set(member, State.STARTING, problem)

    # The end of an instance

    def retire(self, members: list[Member]) -> None:
        """Take `members` out of the traffic and stop them, the signals to each version's spread as it says."""
        of = Counter(member.revision for member in members)
        before: Counter[Revision] = Counter()
        with self._journal.transaction():
            for member in members:
                delay = member.version.stop.spread * before[member.revision] / of[member.revision]
                before[member.revision] += 1
                self._leave(member)
                member.tasks.append(beside(self._remove(member, delay), member.id))

    def _leave(self, member: Member) -> None:
        """From now on `member` drains, for the rollout that runs."""
        member.parting = Parting(self._rollout() or member.leaves_for)
        if member.intent is not None:
            self._journal.mark_intent(member.intent.nonce, parting=member.parting)
        self._set(member, State.DRAINING)
        for task in member.tasks:
            task.cancel()

    async def _remove(self, member: Member, delay: timedelta) -> None:
        await asyncio.gather(*member.tasks[:-1], return_exceptions=True)
        while True:
            try:
                return await self._end(member, delay)
            except OSError as error:  # for a want of our own, which passes
                log.warning("instance_not_ended", instance=member.id, error=str(error))
                await self._clock.sleep(FIRST_BACKOFF)

    async def _end(self, member: Member, delay: timedelta) -> None:
        if member.instance is None and member.intent is not None:
            found = await self._platform.find([member.intent])
            member.instance = found[0] if found else None
        if member.instance is not None and member.intent is not None:
            farewell = await self._farewells.bid(member, member.intent, member.instance, delay)
            self._set(member, State.STOPPED, farewell.detail, farewell=asdict(farewell))
        if member.intent is not None:
            self._journal.drop_intent(member.intent.nonce)
        member.state = State.STOPPED
        self.members.remove(member)
        self._bell.ring()

    def problems(self, revision: Revision) -> Iterator[str]:
        """What keeps instances of `revision` from being ready."""
        for member in self.of(revision):
            if member.state is not State.READY and member.problem:
                yield member.trouble

    async def last_lines(self, revision: Revision, lines: int = 20) -> tuple[str, ...]:
        """The last lines that an instance of `revision` which is not ready has written."""
        for member in self.of(revision):
            if member.state is not State.READY:
                return tuple([line async for line in self._platform.logs(member.id, lines=lines, follow=False)])
        return ()


def _ended(status: int | None) -> str:
    if status is None:
        return "it ended"
    return f"it was ended by signal {-status}" if status < 0 else f"it exited with status {status}"
