"""Beginning a rollout: planned, checked on paper, written down whole, and only then carried out."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from segue.core import simulate, strategies
from segue.core.demand import Demand
from segue.core.quantities import count
from segue.core.release import ALL, How, Release, Return, Revision, Side, Strategy, later, version_of
from segue.engine.clock import Clock
from segue.engine.journal import Journal
from segue.engine.life import Life
from segue.engine.orders import Answer, Asker, Order
from segue.engine.records import Judging, RolloutRecord, ServiceRecord, VersionRecord
from segue.errors import Refused, Usage

HOW: TypeAdapter[How] = TypeAdapter(How)


def resized(release: Release) -> str | None:
    """That the new version does not have as many instances as the old one, where it is so."""
    old, new = release.old, release.new
    if old is None or old.size == new.size:
        return None
    gets = f"{version_of(new.revision)} gets {count(new.size, 'instance')}"
    return f"{gets} where {version_of(old.revision)} has {old.size}: `replicas` says so"


class Beginning:
    """Begins the rollouts of the service whose life is `life`."""

    def __init__(self, life: Life, journal: Journal, clock: Clock) -> None:
        self._life, self._journal, self._clock = life, journal, clock

    def release(self, version: VersionRecord, size: int, how: Strategy) -> Release:
        """The way from what serves to `size` instances of `version`. Raises Usage where `how` cannot go it."""
        hooks, judged = version.hooks, not isinstance(how, Return)
        try:
            return Release(
                Side(version.revision, size),
                self._life.side(),
                how,
                before=judged and hooks.before is not None,
                on_rollback=judged and hooks.on_rollback is not None,
            )
        except ValueError as error:
            raise Usage(str(error), next="segue plan") from error

    def remember(self, asker: Asker, rollout: str) -> None:
        """Write down that this request is answered by `rollout`."""
        if asker.key:
            self._journal.put_request(asker.key, rollout, asker.what)

    def roll_out(
        self,
        kind: str,
        strategy: str,
        release: Release,
        asker: Asker,
        version: VersionRecord,
        order: Order | None = None,
    ) -> Answer:
        """Plan `release` and begin to carry it out. Raises Refused where the plan is not safe."""
        start = self._start(release)
        plan = strategies.forward(release, start)
        if found := simulate.flaws(release, start, plan):
            raise Refused(f"the plan is not safe: {found[0]}", next="segue plan")
        service = self._life.record
        if order is not None:
            how = HOW.dump_python(later(order.strategy), mode="json")
            route = service.route if service.stable else order.route
            service = replace(service, strategy=how, retain=order.retain, route=route)
        old = release.old.revision if release.old else None
        record = replace(
            self.new(kind, strategy, asker, old=old, new=release.new.revision),
            release=release,
            plan=plan,
            start=start,
            manifest=order.manifest if order else None,
            route=order.route if order else None,
            judging=order.judging if order else self._usual_judging(),
        )
        return self.begin(record, asker, service, version)

    def _usual_judging(self) -> Judging:
        """How the last deployment was judged: what has no manifest of its own is judged likewise."""
        found = (rollout.judging for rollout in self._journal.past(self._life.name) if rollout.manifest)
        return replace(next(found, Judging()), require_evidence=False)

    def _start(self, release: Release) -> Demand:
        """The demand that `release` starts from: what is kept stays only if it is what one goes back to."""
        demand, old, new = self._life.keeper.demand, release.old, release.new
        counts = {side.revision: demand.count(side.revision) for side in (old, new) if side}
        shares = {old.revision: ALL} if old else {}
        return Demand(counts, shares, {side.revision: side.size for side in (old, new) if side}, release.slack)

    def new(
        self, kind: str, strategy: str, asker: Asker, *, old: Revision | None, new: Revision | None
    ) -> RolloutRecord:
        """A rollout that has no plan yet."""
        now = self._clock.now()
        return RolloutRecord(
            id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
            service=self._life.name,
            kind=kind,
            strategy=strategy,
            old=old,
            new=new,
            who=asker.who,
            asked=asker.reason,
            started=now,
            basis=asker.basis,
            log=asker.log,
        )

    def begin(
        self,
        record: RolloutRecord,
        asker: Asker,
        service: ServiceRecord | None = None,
        version: VersionRecord | None = None,
    ) -> Answer:
        """Write the rollout down, all of it in one transaction, and begin to carry it out."""
        with self._journal.transaction():
            self._journal.put_service(service or self._life.record)
            if version is not None:
                self._life.catalog.put(version)
            self._journal.put_rollout(record)
            self.remember(asker, record.id)
            self._announce(record)
        self._life.carry_out(record)
        return Answer(record.id)

    def _announce(self, record: RolloutRecord) -> None:
        def tell(event: str, **body: Any) -> None:
            self._journal.tell(event, service=self._life.name, rollout=record.id, **body)

        said = {"kind": record.kind, "strategy": record.strategy, "who": record.who, "reason": record.asked}
        tell("accepted", **said, **record.versions)
        if (kept := self._life.keeper.demand.kept) and not record.start.count(kept):
            tell("note", text=f"{version_of(kept)} is no longer kept")
        if record.release and (sizes := resized(record.release)):
            tell("note", text=sizes)
        peak = simulate.peak(record.start, record.plan)
        tell("planned", steps=[str(step) for step in record.plan], peak=peak, notes=[])
