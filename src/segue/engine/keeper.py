"""The keeper of one service: the only one that starts, stops and routes. It makes the demand true.

Rule 1: a demanded split of the traffic takes effect only when ready instances cover it; until then the last
split stays.
Rule 2: an instance is stopped only because the demand has no place for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from segue.core.demand import Demand
from segue.core.release import Revision, Share
from segue.core.traffic import Backend, Certificate, Route, ServiceTable, Tls, Traffic
from segue.core.version import Version
from segue.engine.bell import Bell
from segue.engine.clock import Clock
from segue.engine.fleet import Fleet
from segue.engine.health import RunCommand
from segue.engine.journal import Journal
from segue.engine.member import Member, State
from segue.engine.records import RolloutRecord
from segue.engine.routing import TableKeeper
from segue.engine.trial import PATIENCE, Trial
from segue.errors import RouterLost, RouterRefused
from segue.ports import Platform, Router

LOOK_EVERY = 0.01
"""Seconds between two looks at what the router counts."""

AT_ONCE = 32
"""Instances of a service that start at the same time: more would only wait for each other's processors and memory."""

LINGER = 3.0
"""Seconds that the router knows a version after its last instance, besides the time that the shield waits for it."""


class Keeper:
    """Makes `demand` true for one service, for as long as `run` runs."""

    def __init__(
        self,
        service: str,
        route: Route,
        *,
        platform: Platform,
        router: Router,
        tables: TableKeeper,
        journal: Journal,
        clock: Clock,
        run: RunCommand,
        version: Callable[[Revision], Version],
        token: Callable[[], str],
        certificate: Callable[[Tls | None], Certificate | None] = lambda tls: None,
    ) -> None:
        self.service, self.route, self.demand, self.version = service, route, Demand(), version
        self.trial: Trial | None = None
        self.rollout: str | None = None
        self.refusal: str | None = None
        self.bell = Bell()
        self._router, self._tables, self._journal, self._clock = router, tables, journal, clock
        self._token, self._certificate, self._patience = token, certificate, PATIENCE
        self._shares: Mapping[Revision, Share] = {}
        self._last_there: dict[Revision, float] = {}
        self.fleet = Fleet(
            service,
            platform=platform,
            router=router,
            journal=journal,
            clock=clock,
            bell=self.bell,
            run=run,
            routed=self._routed,
            rollout=lambda: self.rollout,
        )

    def want(self, demand: Demand) -> None:
        """Make `demand` true from now on."""
        self.demand, self.refusal = demand, None
        self.bell.ring()

    def resume(self, demand: Demand, before: Demand) -> None:
        """Go on after a restart: `before` is what was true when `demand` was begun."""
        self.demand = demand
        best = demand if self._covered(demand) else min((before, demand), key=self._wanting)
        self._shares = best.shares
        self._last_there = dict.fromkeys({*demand.sizes, *before.sizes}, self._clock.monotonic())

    def try_out(self, rollout: RolloutRecord, patience: timedelta | None = None, busy: int | None = None) -> None:
        """The router is to treat the version that `rollout` brings as one on trial; None: as it was told before."""
        if rollout.trial is not None:
            before = self.trial or Trial(rollout.trial)
            self._patience = before.patience if patience is None else patience
            trial = Trial(rollout.trial, self._patience, before.busy if busy is None else busy, paths=before.paths)
            self.trial = trial.of(rollout, self._token)
            self.bell.ring()

    def tell_apart(self, paths: tuple[str, ...]) -> None:
        """The router is to count these paths by themselves as well, for as long as a version is on trial."""
        if self.trial is not None:
            self.trial = replace(self.trial, paths=paths)
            self.bell.ring()

    async def busy(self, revision: Revision | None) -> int:
        """How many requests an instance of `revision` has at a time now, on average; 0 where that cannot be seen."""
        if revision is None:
            return 0
        try:
            return await self.under_way(revision) // max(1, len(self.fleet.of(revision)))
        except RouterLost:
            return 0

    async def under_way(self, revision: Revision) -> int:
        """How many requests the instances of `revision` have now. Raises RouterLost."""
        seen = await self._router.observe(self.service)
        return sum(seen[member.id].in_flight for member in self.fleet.of(revision) if member.id in seen)

    def settle(self) -> None:
        """No version is on trial any more."""
        self.trial = None
        self.bell.ring()

    # Making it true

    async def run(self) -> None:
        """Keep the demand true, for ever."""
        while True:
            waits = [asyncio.ensure_future(self.bell.rung())]
            try:
                self._staff()
                await self._route()
                if self._lingering():
                    waits.append(asyncio.ensure_future(self._clock.sleep(self._linger)))
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    def _staff(self) -> None:
        """Start what is lacking, some at a time, and retire what has no place."""
        for revision, count in self.demand.counts.items():
            there = self.fleet.of(revision)
            room = AT_ONCE - sum(member.state is State.STARTING for member in there)
            for _ in range(min(count - len(there), room)):
                self.fleet.add(self.version(revision))
        surplus: list[Member] = []
        for revision in {member.revision for member in self.fleet.members}:
            there = sorted(self.fleet.of(revision), key=_worth)
            surplus += there[: max(0, len(there) - self.demand.count(revision))]
        if surplus:
            self.fleet.retire(surplus)

    async def _route(self) -> None:
        """Tell the router how things are; a table that it refuses is given up until the next demand."""
        if self.refusal is not None:
            return
        if self._covered(self.demand):
            self._shares = self.demand.shares
        table = self.table()
        if table == self._tables.confirmed.get(self.service):
            return
        began = self._clock.monotonic()
        shifted = self._shares != self._confirmed_shares()
        try:
            await self._tables.put(self.service, table)
        except RouterRefused as refusal:
            self.refusal = refusal.message
        except RouterLost:
            await self._clock.sleep(LOOK_EVERY)
        else:
            if shifted:
                self._tell_shift((self._clock.monotonic() - began) * 1000)
        self.bell.ring()

    def table(self) -> ServiceTable | None:
        """How the service is to be routed now; None: nothing of it is left."""
        if not self._shares and not self.fleet.members:
            return None
        revisions = sorted(self.told())
        shown = self._certificate(self.route.tls)
        table = ServiceTable(self.service, self.route, tuple(map(self._backend, revisions)), certificate=shown)
        if self.trial is None:
            return table
        others = [version for version in self.demand.sizes if version != self.trial.revision]
        ready = sum(self.fleet.ready(version) for version in others)
        return self.trial.told(table, ready, sum(self.demand.sizes[version] for version in others))

    def told(self) -> set[Revision]:
        """The revisions that the router is told of, or was a moment ago: they are not to be forgotten."""
        return self._there() | self._lingering() | set(self._shares)

    def _there(self) -> set[Revision]:
        """The revisions that have instances; when each last had one is noted."""
        there = {member.revision for member in self.fleet.members}
        self._last_there |= dict.fromkeys(there, self._clock.monotonic())
        return there

    def _lingering(self) -> set[Revision]:
        """The revisions that have no instance any more, but had one a moment ago.

        A request that began on trial may still ask for the old version (`LINGER`): without its cluster that
        second attempt would end the first one, too.
        """
        now, there = self._clock.monotonic(), self._there()
        self._last_there = {v: at for v, at in self._last_there.items() if now - at < self._linger or v in there}
        return set(self._last_there) - there

    @property
    def _linger(self) -> float:
        """Seconds that a version stays in the table: longer than a request may wait for its second attempt."""
        return LINGER + self._patience.total_seconds()

    def _backend(self, revision: Revision) -> Backend:
        members = (member for member in self.fleet.members if member.revision == revision)
        endpoints = tuple(filter(None, (member.endpoint() for member in members)))
        return Backend(revision, self._shares.get(revision, Share(0)), endpoints, self.version(revision).protocol)

    def _covered(self, demand: Demand) -> bool:
        """Whether ready instances cover every share, as far as the demand has instances for it."""
        return all(self.fleet.ready(version) >= _needed(demand, version) for version in demand.shares)

    def _wanting(self, demand: Demand) -> tuple[Share, Share]:
        """The shares that are demanded of versions without a ready instance, and of those with too few."""
        none = (share for version, share in demand.shares.items() if not self.fleet.ready(version))
        few = (share for v, share in demand.shares.items() if self.fleet.ready(v) < _needed(demand, v))
        return sum(none, Share(0)), sum(few, Share(0))

    def _confirmed_shares(self) -> dict[Revision, Share]:
        table = self._tables.confirmed.get(self.service)
        return {b.revision: b.share for b in table.backends if b.share} if table else {}

    def _tell_shift(self, milliseconds: float) -> None:
        self._journal.tell(
            "traffic",
            service=self.service,
            rollout=self.rollout,
            shares={revision: float(share) for revision, share in self._shares.items()},
            confirmed_ms=round(milliseconds, 2),
        )

    def _routed(self, member: Member) -> bool:
        """Whether the router has confirmed `member` as it is."""
        table = self._tables.confirmed.get(self.service)
        known = {e.instance: e for b in table.backends for e in b.endpoints} if table else {}
        return known.get(member.id) in (member.endpoint(), None)

    # Waiting until it is true

    async def scaled_up(self, version: Revision, count: int) -> None:
        """Return when the router counts `count` healthy instances of `version`. Raises RouterRefused."""
        while self._told_of(version) < count or await self._counted(version) < count:
            if self.refusal is not None:
                raise RouterRefused(self.refusal)
            await self._clock.sleep(LOOK_EVERY)

    def _told_of(self, version: Revision) -> int:
        """How many instances of `version` the router was told are ready: before that it need not be asked."""
        table = self._tables.confirmed.get(self.service)
        ends = (end for b in table.backends if b.revision == version for end in b.endpoints) if table else ()
        return sum(end.state is Traffic.READY for end in ends)

    async def _counted(self, version: Revision) -> int:
        if self.fleet.ready(version) == 0:
            return 0
        try:
            seen = await self._router.observe(self.service)
        except RouterLost:
            return 0
        ours = {member.id for member in self.fleet.of(version)}
        return sum(observed.healthy for instance, observed in seen.items() if instance in ours)

    async def scaled_down(self, version: Revision, count: int) -> None:
        """Return when there is no instance of `version` beyond `count`, not even one that drains."""
        await self.bell.until(lambda: sum(m.revision == version for m in self.fleet.members) <= count)

    async def checked(self, version: Revision) -> None:
        """Return when every instance of `version` that there is to be has passed its checks."""

        def passed() -> bool:
            return sum(member.checked for member in self.fleet.of(version)) >= self.demand.count(version)

        await self.bell.until(passed)

    async def shifted(self, shares: Mapping[Revision, Share]) -> None:
        """Return when the router has confirmed `shares`. Raises RouterRefused."""
        await self.bell.until(lambda: self.refusal is not None or self._confirmed_shares() == dict(shares))
        if self.refusal is not None:
            raise RouterRefused(self.refusal)

    async def tidy(self, keep: Callable[[Member], bool]) -> None:
        """Return when no instance is left that `keep` does not want."""
        await self.bell.until(lambda: all(keep(member) for member in self.fleet.members))

    def lost(self, version: Revision) -> str | None:
        """Why `version` no longer covers the share it is given; None: it does."""
        needed, ready = _needed(self.demand, version), self.fleet.ready(version)
        if ready >= needed or not self._confirmed_shares().get(version):
            return None
        why = "; ".join(self.fleet.problems(version))
        of = f"{ready} of the {needed} instances" if needed > 1 else "the one instance"
        are = "are" if needed > 1 else "is not"
        return f"{of} that {version}'s share needs {are} ready ({why or 'no reason known'})"

    def set_route(self, route: Route) -> None:
        """Where users reach the service from now on."""
        self.route = route
        self.bell.ring()


def _worth(member: Member) -> tuple[bool, bool, int]:
    """What is least worth keeping comes first: what is not ready, then what is newest."""
    return (member.state is State.READY, member.instance is not None, -member.ordinal)


def _needed(demand: Demand, version: Revision) -> int:
    """Ready instances of `version` that its share needs, as far as the demand has them."""
    return min(demand.count(version), demand.needed(version))
