"""The watch of one rollout: compares new with old all the time from the first Shift, and may raise an alarm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from segue.core.release import Revision, version_of
from segue.core.samples import percentile, since, went_back
from segue.core.steps import Gate
from segue.core.traffic import InstanceId, Sample
from segue.core.verdict import Basis, Judgement, Verdict
from segue.engine import hearing as entries
from segue.engine import ledger as ledgers
from segue.engine.clock import Clock
from segue.engine.hearing import Entry, Hearing
from segue.engine.journal import Journal
from segue.engine.keeper import Keeper
from segue.engine.ledger import Counts, Ledger
from segue.engine.member import State
from segue.engine.recent import Recent
from segue.engine.records import RolloutRecord
from segue.engine.trial import PATIENCE
from segue.errors import RouterLost
from segue.judge.errors import Counts as Lines
from segue.ports import Evidence, Matches
from segue.ports import Lines as LineReader

TIMES_USUAL = 3
"""The shield waits so many times as long as the slowest in a thousand of the old version's answers take."""

A_SECOND = 100
"""What a second of all of the traffic weighs. Lines are compared by shares: they may come without a request."""


SOME = 200
"""Requests that a proof needs at least, where nothing is known of the old version."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a watch sees: the router's evidence, what is usual, and a reader of log lines for the patterns given."""

    evidence: Evidence
    recent: Recent
    lines: Callable[[Sequence[str]], LineReader]


class Watch:
    """Counts what happens during `rollout`, and judges its new version by it."""

    def __init__(
        self, rollout: RolloutRecord, *, sight: Sight, keeper: Keeper, journal: Journal, clock: Clock
    ) -> None:
        self.rollout = rollout
        self._sight, self._keeper, self._journal, self._clock = sight, keeper, journal, clock
        self._turn = asyncio.Lock()
        kept = journal.ledger(rollout.id)
        self.ledger = ledgers.decode(kept) if kept else Ledger()
        self._hearing = Hearing(rollout.judging)
        self._usual = Sample()
        self._last: Mapping[Revision, Sample] | None = None
        self._from: Mapping[Revision, Sample] = {}
        self._at = clock.monotonic()
        self._reader = sight.lines(rollout.judging.logs) if rollout.judging.logs and rollout.trial else None
        self._logged: Mapping[InstanceId, Matches] = {}
        self._worst: tuple[InstanceId, Matches] | None = None
        self._replay()

    def _replay(self) -> None:
        """Hear again what was seen before a restart; what came meanwhile was not seen."""
        known = self._journal.polls(self.rollout.id)
        for entry in known:
            self._hearing.take(entry)
        if known:
            self._note(entries.closed())

    def _note(self, entry: Entry) -> None:
        self._journal.put_poll(self.rollout.id, dict(entry))
        self._hearing.take(entry)

    # Seeing

    async def look(self, *, account: bool = True) -> None:
        """Count now, and write down what was counted; with `account` in the rollout's own account, too."""
        async with self._turn:  # counts that are added out of turn would look like a router that began anew
            try:
                samples = await self._sight.evidence.sample(self.rollout.service)
                books = await self._sight.evidence.books(self.rollout.service) if account else None
            except RouterLost:
                self._last = None
                return
            if books is not None:
                self.ledger.look(Counts(samples, books))
                self._journal.put_ledger(self.rollout.id, ledgers.encode(self.ledger))
            self._hear(samples)

    def _hear(self, samples: Mapping[Revision, Sample]) -> None:
        """Tell the judge what came since the last look, once the new version is on trial."""
        old = self.rollout.old
        if old is not None:
            self._usual = self._sight.recent.last(old, samples.get(old, Sample()))
        last, self._last = self._last, samples
        self._from = self._from or samples
        now = self._clock.monotonic()
        seconds = now - self._at
        lines = self._lines(seconds)
        if self._hearing.comparison is None or self.rollout.new is None or old is None:
            self._at = now
        elif last is None or any(went_back(samples[v], last[v]) for v in samples if v in last):
            self._at = now
            self._note(entries.closed())
        else:
            came, of_old = _came(samples, last, self.rollout.new), _came(samples, last, old)
            if came.attempts or of_old.attempts or any(count.new or count.old for count in lines):
                self._at = now  # where nothing came, the next look takes these seconds with it
                beside = of_old if of_old.attempts or self._keeper.demand.share(old) else None
                self._note(entries.look(seconds, came, beside, timed=self._settled(), lines=lines))

    def _settled(self) -> bool:
        """Whether no instance of the new version is in its first seconds."""
        new, now, settle = self.rollout.new, self._clock.now(), self.rollout.judging.settle
        members = self._keeper.fleet.of(new) if new else []
        return all(now - member.since >= settle for member in members if member.state is State.READY)

    def _lines(self, seconds: float) -> tuple[Lines, ...]:
        """What was logged since the last look that speaks against a version, beside the share it had."""
        new, old = self.rollout.new, self.rollout.old
        if self._reader is None or new is None or old is None:
            return ()
        members = {member.id: member.revision for member in self._keeper.fleet.members}
        self._reader.attend(members)
        found, before = self._reader.matches(), self._logged
        self._logged = found
        grown = {i: found[i].count - (before[i].count if i in before else 0) for i in found}
        came = {v: sum(n for i, n in grown.items() if members.get(i) == v) for v in (new, old)}
        self._worst = max(
            ((i, found[i]) for i in found if members.get(i) == new and found[i].count),
            key=lambda one: one[1].count,
            default=self._worst,
        )
        worth = {v: round(A_SECOND * seconds * float(self._keeper.demand.share(v)), 3) for v in (new, old)}
        return (Lines(came[new], worth[new], came[old], worth[old]),)

    # What the runner tells

    async def shifting(self) -> None:
        """A split is about to begin; before the first one, what the old version did so far is what is usual."""
        await self.look()
        self._note(entries.closed() if self._hearing.comparison is not None else entries.before(self._usual))

    async def shifted(self) -> None:
        """A split is in force."""
        await self.look()
        if self._hearing.comparison is not None:
            self._note(entries.closed())

    def prove(self, number: int, gate: Gate) -> None:
        """The step `number` waits for a proof from now on."""
        if self._hearing.proving != number:
            self._note(entries.prove(number, gate))
            self._from = self._last or {}

    async def close(self) -> None:
        """See nothing any more."""
        if self._reader is not None:
            await self._reader.close()

    @property
    def patience(self) -> timedelta:
        """How long the shield waits for the new version alone: longer than the old one ever takes."""
        slowest = percentile(self._usual, 0.999)
        return max(PATIENCE, timedelta(microseconds=TIMES_USUAL * (slowest or 0)))

    # What can be said

    def silence(self) -> Judgement:
        """Whether there is an alarm, and what can be said of the new version now."""
        comparison = self._hearing.comparison
        return self._plain() or (comparison.silence(*self._names) if comparison else self._nothing_yet())

    def proof(self) -> Judgement:
        """Whether the new version is shown to be within the margins of the step."""
        comparison = self._hearing.comparison
        return self._plain() or (comparison.proof(*self._names) if comparison else self._nothing_yet())

    def _plain(self) -> Judgement | None:
        """The alarm that needs no comparison of numbers, if there is one."""
        if self._hearing.lines_alarm:
            return self._logs_too_much()
        if self._hearing.outage.alarm:
            reason = f"{self._names[0]} failed each of its last {self._hearing.outage.failed:,} requests"
            return Judgement(Verdict.FAIL, Basis.EVIDENCE, reason, {"failed": self._hearing.outage.failed})
        return None

    def cannot_come(self, said: Judgement, waited: timedelta, left: timedelta) -> bool:
        """Whether even a good version would not have its proof with the traffic of `waited`, going on for `left`.

        Requests that the new version has not answered yet are not counted anywhere; how many it was given is read
        from those of the old one, too. Of few requests three standard deviations more are taken to come.
        """
        given = max(float(said.numbers.get("requests") or 0), self._expected())
        if not given:
            return True
        at_most = (given + 3 * given**0.5) * ((waited + left) / waited)
        return bool(at_most < float(said.numbers.get("whole") or SOME))

    def _expected(self) -> float:
        """How many requests the new version has had since the proof began, going by the old one's and the shares."""
        new, old, demand = self.rollout.new, self.rollout.old, self._keeper.demand
        if new is None or old is None or self._last is None or not demand.share(old):
            return 0.0
        theirs = _came(self._last, self._from, old).attempts
        return theirs * float(demand.share(new) / demand.share(old))

    @property
    def log(self) -> tuple[str, ...]:
        """The line that raised the alarm, if one did, after its instance's name."""
        if not self._hearing.lines_alarm or self._worst is None:
            return ()
        instance, matches = self._worst
        return (f"{instance} | {matches.last}",)

    @property
    def _names(self) -> tuple[str, str]:
        new, old = self.rollout.new, self.rollout.old
        return version_of(new) if new else "the new version", version_of(old) if old else "the old version"

    def _nothing_yet(self) -> Judgement:
        return Judgement(Verdict.PASS, Basis.HEALTH, f"No user request reached {self._names[0]}")

    def _logs_too_much(self) -> Judgement:
        new, old = self._names
        instance, matches = self._worst or (InstanceId(new), Matches())
        patterns = " or ".join(f"`{pattern}`" for pattern in self.rollout.judging.logs)
        theirs = [m.count for i, m in self._logged.items() if i.startswith(f"{self.rollout.service}-{old}.")]
        reason = (
            f"{instance} wrote {matches.count} lines that match {patterns}, {old}'s {len(theirs)} instances "
            f"{sum(theirs)} in the same time: {matches.last}"
        )
        return Judgement(Verdict.FAIL, Basis.EVIDENCE, reason, {"instance": instance, "lines": matches.count})


def _came(samples: Mapping[Revision, Sample], last: Mapping[Revision, Sample], version: Revision) -> Sample:
    """What came of `version` between two looks."""
    return since(samples.get(version, Sample()), last.get(version, Sample()))
