"""One service: what may be asked of it, one rollout at a time, and what is done by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from segue.core import strategies
from segue.core.release import MOST, BlueGreen, How, Return, Revision, Side, later, version_of
from segue.engine.beginning import HOW, Beginning
from segue.engine.certificates import Certificates, follow
from segue.engine.clock import Clock
from segue.engine.guard import Guard
from segue.engine.journal import Journal
from segue.engine.life import Life
from segue.engine.orders import Answer, Asker, Order
from segue.engine.recent import Recent
from segue.engine.records import ITSELF, Hooks, IntentRecord, RolloutRecord, ServiceRecord, StepRecord, VersionRecord
from segue.engine.run import Runner
from segue.engine.setback import Setback
from segue.errors import Refused, Usage


class Service:
    """One service under a control plane. Every request is journalled before it is answered."""

    def __init__(self, life: Life, certificates: Certificates, journal: Journal, clock: Clock) -> None:
        self.name, self.keeper, self.catalog = life.name, life.keeper, life.catalog
        self._life, self._certificates, self._journal, self._clock = life, certificates, journal, clock
        self._beginning = Beginning(life, journal, clock)
        self._turn = asyncio.Lock()

    @property
    def record(self) -> ServiceRecord:
        """What the journal holds of the service."""
        return self._life.record

    @property
    def runner(self) -> Runner | None:
        """What carries out the newest rollout."""
        return self._life.runner

    @property
    def rollout(self) -> RolloutRecord | None:
        """The rollout that is not decided yet."""
        return self._life.rollout

    @property
    def recent(self) -> Recent:
        """What it did in the last minutes."""
        return self._life.recent

    @property
    def waits(self) -> bool:
        """Whether it waits for a time of day: in a rollout, or for the end of keep."""
        return self.rollout is not None or self.keeper.demand.kept_until is not None

    @property
    def certificate_problem(self) -> str | None:
        """Why the files of the certificate that users are shown cannot be used as they are now."""
        tls = self.record.route.tls if self.record.stable else None
        return self._certificates.problem(tls) if tls else None

    def steps(self, rollout: str) -> list[StepRecord]:
        """The steps of a rollout that have begun."""
        return self._journal.steps(rollout)

    def side(self) -> Side | None:
        """The version that serves, and its size."""
        return self._life.side()

    def previous(self) -> str | None:
        """The version that a rollback goes to now: the kept one, or the last other one that served and did not fail.

        Who does not know yet that Segue has gone back by itself must not bring the bad version back.
        """
        if kept := self.keeper.demand.kept:
            return version_of(kept)
        return next(self.catalog.served(self.record.stable, failed=False), None)

    # Running

    def begin(self) -> None:
        """Keep the demand true, and do what is due by the clock."""
        self._life.begin()
        self._life.spawn(self._retire_when_due())
        self._life.spawn(self._go_back_in_keep())
        self._life.spawn(follow(self.keeper, self._certificates, self._journal, self._clock))

    async def close(self) -> None:
        """Stop looking after the service; everything runs on."""
        await self._life.close()

    def carry_out(self, record: RolloutRecord) -> Runner:
        """Carry `record` out, from wherever it stands."""
        return self._life.carry_out(record)

    def bury(self, dead: Sequence[IntentRecord], runner: Runner | None = None) -> None:
        """Forget instances that are dead: at once, or when `runner` has turned back because of them."""
        self._life.bury(dead, runner)

    async def _retire_when_due(self) -> None:
        while True:
            until = self.keeper.demand.kept_until
            if until is None or self.rollout is not None:
                await self.keeper.bell.rung()
                continue
            left = (until - self._clock.now()).total_seconds()
            if left > 0:
                await self._clock.sleep(min(left, 1.0))
            else:
                with suppress(Refused):  # somebody else ended it at the same moment
                    await self.retire(Asker(ITSELF, "keep is over", if_busy="wait"))

    async def _go_back_in_keep(self) -> None:
        """Go back by itself when the version that serves fails while another one is kept."""
        guard = Guard(self._life, self._journal, self._clock)
        while True:
            setback = await guard.alarm()
            suffered = guard.suffered()
            with suppress(Refused):  # a person was quicker
                asker = Asker(ITSELF, setback.reason, basis=setback.basis.value, log=setback.log)
                answer = await self.rollback(None, asker)
                if suffered:
                    self._journal.tell("note", service=self.name, rollout=answer.rollout, text=suffered)

    # Requests

    async def deploy(self, order: Order, asker: Asker) -> Answer:
        """Replace the version that serves by the one that `order` describes, as it is now."""
        stands_in_line = self.rollout is not None and asker.if_busy != "refuse" and not self._answered(asker)
        meant = await self.catalog.digest(order) if stands_in_line else None
        return await self._one_at_a_time(asker, lambda: self._deploy(order, asker, meant))

    async def _deploy(self, order: Order, asker: Asker, meant: str | None) -> Answer:
        self._refuse_past_hook(order.version, "segue deploy --version ANOTHER")
        digest = await self.catalog.digest(order)
        if meant not in (None, digest):
            raise Refused(
                f"what {order.version} is made of changed while it stood in line: nothing is deployed",
                next="segue deploy",
            )
        version = self.catalog.new(order, digest)
        if (answer := self._already(order, asker)) is not None:
            return answer
        self._refuse_before_hook()
        release = self._beginning.release(version, order.replicas, order.strategy)
        return self._beginning.roll_out("deploy", order.strategy.name, release, asker, version, order)

    def _already(self, order: Order, asker: Asker) -> Answer | None:
        """The answer where the version serves as it is ordered; how the next one comes is noted all the same."""
        record, serving = self.record, self.record.stable
        if serving is None or version_of(serving) != order.version or order.route != record.route:
            return None
        how = HOW.dump_python(later(order.strategy), mode="json")
        self._journal.put_service(replace(record, strategy=how, retain=order.retain))
        if order.replicas != self.keeper.demand.count(serving):
            return self._scale(order.replicas, asker)
        return Answer(None, f"{order.version} already serves {self.name}")

    async def rollback(self, to: str | None, asker: Asker) -> Answer:
        """Bring the old version back: the running rollout's, the kept one, or one that is retained."""
        if answer := self._answered(asker):
            return answer
        running = self.rollout
        if running and self.runner and running.release and to in (None, running.old and version_of(running.old)):
            self.runner.turn(Setback(asker.reason or f"rolled back by {asker.who}", person=True))
            self._beginning.remember(asker, running.id)
            return Answer(running.id)
        return await self._one_at_a_time(asker, lambda: self._rollback(to, asker))

    async def promote(self, asker: Asker, *, full: bool = False) -> Answer:
        """Let the running rollout go on past what a person is asked; with `full` judge and ask no more."""
        return self._tell_runner(asker, lambda runner: runner.promote(asker.who, asker.reason, full=full))

    async def pause(self, asker: Asker) -> Answer:
        """Let the running rollout begin no further step."""
        return self._tell_runner(asker, lambda runner: runner.pause(asker.who, paused=True))

    async def resume(self, asker: Asker) -> Answer:
        """Let the rollout that is paused go on."""
        return self._tell_runner(asker, lambda runner: runner.pause(asker.who, paused=False))

    def _tell_runner(self, asker: Asker, tell: Callable[[Runner], None]) -> Answer:
        """Tell the rollout that runs what a person says. Raises Refused where none does."""
        if answer := self._answered(asker):
            return answer
        if self.runner is None or (running := self.rollout) is None:
            raise Refused(f"no rollout of {self.name} runs", next="segue status")
        with self._journal.transaction():
            tell(self.runner)
            self._beginning.remember(asker, running.id)
        return Answer(running.id)

    async def _rollback(self, to: str | None, asker: Asker) -> Answer:
        target, how = self._target(to)
        kept = target.revision == self.keeper.demand.kept
        version = target if kept else self.catalog.again(target)
        release = self._beginning.release(version, self._size(), Return(how))
        return self._beginning.roll_out("rollback", "rollback", release, asker, version)

    async def scale(self, count: int, asker: Asker) -> Answer:
        """Have `count` instances of the version that serves."""
        if not 1 <= count <= MOST:
            raise Usage(f"a service has 1 to {MOST:,} instances", next="segue down" if count < 1 else "segue scale N")

        async def scale() -> Answer:
            return self._scale(count, asker)

        return await self._one_at_a_time(asker, scale)

    def _scale(self, count: int, asker: Asker) -> Answer:
        stable, demand = self._serving(), self.keeper.demand
        if demand.count(stable) == demand.sizes.get(stable) == count:
            return Answer(None, f"{self.name} already has {count} instance{'' if count == 1 else 's'}")
        record = self._beginning.new("scale", "scale", asker, old=stable, new=stable)
        kept = demand.kept if demand.kept and demand.count(demand.kept) >= demand.count(stable) else None
        sizes = {**demand.sizes, stable: count, **({kept: count} if kept else {})}
        plan = strategies.adjust(stable, count, kept)
        return self._beginning.begin(replace(record, plan=plan, start=replace(demand, sizes=sizes)), asker)

    async def restart(self, asker: Asker) -> Answer:
        """Replace all instances by fresh ones of the same version, by the service's strategy."""
        return await self._one_at_a_time(asker, lambda: self._restart(asker))

    async def _restart(self, asker: Asker) -> Answer:
        self._refuse_before_hook()
        version = self.catalog.again(self.catalog.known[self._serving()])
        how = HOW.validate_python(self.record.strategy)
        release = self._beginning.release(replace(version, hooks=Hooks()), self._size(), how)
        return self._beginning.roll_out("restart", how.name, release, asker, version)

    async def retire(self, asker: Asker) -> Answer:
        """End keep: stop the old version's instances."""
        return await self._one_at_a_time(asker, lambda: self._retire(asker))

    async def _retire(self, asker: Asker) -> Answer:
        demand = self.keeper.demand
        if demand.kept is None:
            raise Refused(f"no old version of {self.name} is kept", next="segue status")
        after = self._after_to_come
        record = self._beginning.new(
            "retire", "retire", asker, old=demand.kept, new=self.record.stable if after else None
        )
        start = replace(demand, kept=None, kept_until=None)
        return self._beginning.begin(
            replace(record, plan=strategies.retire(demand.kept, after=after), start=start), asker
        )

    @property
    def _after_to_come(self) -> bool:
        """Whether the version that serves has a hook that runs when nothing older is left."""
        stable, kept = self.record.stable, self.keeper.demand.kept
        return bool(kept and stable and self.catalog.known[stable].hooks.after)

    def _refuse_before_hook(self) -> None:
        """Raise Refused while an `after` hook is to come: what follows would be built on what it has not done yet."""
        if self._after_to_come:
            name = self.record.stable and version_of(self.record.stable)
            raise Refused(
                f"the after hook of {name} is still to run, when keep is over: until then one can only go back",
                next="segue retire, which runs it, or segue rollback",
            )

    def _refuse_past_hook(self, name: str, next: str) -> None:
        """Raise Refused for what is older than the version whose `after` hook has run."""
        sealed, found = self.record.sealed, self.catalog.named(name)
        if sealed is None or found is None:
            return
        by = version_of(Revision(sealed["version"]))
        if found.name != by and found.created.isoformat() < sealed["at"]:
            when = f"{sealed['at'][:19].replace('T', ' ')} UTC"
            what = f"the {sealed['hook']} hook of {by} has run ({when})"
            raise Refused(f"{self.name} cannot go back to {name}: {what}", next=next)

    async def down(self, asker: Asker) -> Answer:
        """Drain and stop everything."""
        return await self._one_at_a_time(asker, lambda: self._down(asker))

    async def _down(self, asker: Asker) -> Answer:
        demand, stable = self.keeper.demand, self.record.stable
        if not demand.counts and stable is None:
            return Answer(None, f"{self.name} is not running")
        record = self._beginning.new("down", "down", asker, old=stable, new=None)
        start = replace(demand, kept=None, kept_until=None)
        return self._beginning.begin(replace(record, plan=strategies.down(demand), start=start), asker)

    # What every request needs

    async def _one_at_a_time(self, asker: Asker, request: Callable[[], Awaitable[Answer]]) -> Answer:
        """Answer a request when no rollout runs; the same one again is given the same answer."""
        async with self._turn:
            if answer := self._answered(asker):
                return answer
            await self._not_busy(asker)
            return await request()

    def _answered(self, asker: Asker) -> Answer | None:
        """What the same request was answered before, if it was."""
        found = self._journal.answered(asker.key, asker.what) if asker.key else None
        return Answer(found) if found else None

    async def _not_busy(self, asker: Asker) -> None:
        """Return when no rollout runs. Raises Refused where the asker does not want to wait or replace."""
        if (running := self.rollout) and self.runner:
            if asker.if_busy == "refuse":
                raise Refused(
                    f"{self.name} is busy: rollout {running.id} ({running.strategy}) has not ended",
                    next="segue wait, or segue deploy --if-busy wait",
                )
            if asker.if_busy == "replace":
                self.runner.turn(Setback(f"replaced by a newer request of {asker.who}", replaced=True))
        runner = self.runner
        if runner:
            await self.keeper.bell.until(lambda: runner.record.ended is not None)

    def _serving(self) -> Revision:
        stable = self.record.stable
        if stable is None:
            raise Refused(f"nothing serves {self.name}", next="segue deploy")
        return stable

    def _size(self) -> int:
        """How many instances serve, or served when something last did."""
        if side := self.side():
            return side.size
        last = (rollout.release for rollout in self._journal.past(self.name) if rollout.release)
        return next((release.new.size for release in last), 1)

    def _target(self, to: str | None) -> tuple[VersionRecord, How]:
        """The version to go back to, and how: a kept one is there already, at strength."""
        kept, stable = self.keeper.demand.kept, self.record.stable
        if kept and to in (None, version_of(kept)):
            return self.catalog.known[kept], BlueGreen()
        name = to or self.previous()
        known = self.catalog.named(name) if name else None
        if name:
            self._refuse_past_hook(name, "segue deploy")
        if known is None:
            what = f"version {to} is not retained" if to else "there is nothing to go back to"
            raise Refused(f"{self.name}: {what}", next="segue history")
        if stable and known.name == version_of(stable):
            raise Refused(f"{known.name} already serves {self.name}", next="segue status")
        return known, HOW.validate_python(self.record.strategy)
