"""The watch of one rollout: compares new with old all the time from the first Shift, and may raise an alarm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from segue.core import quantities
from segue.core.paths import busiest
from segue.core.release import NOTHING, Revision, Share, version_of
from segue.core.samples import percentile, since, went_back
from segue.core.sources import About, Asked
from segue.core.steps import Gate
from segue.core.traffic import InstanceId, Sample
from segue.core.verdict import Basis, Judgement, Verdict
from segue.engine import hearing as entries
from segue.engine import ledger as ledgers
from segue.engine.calm import Calm
from segue.engine.clock import Clock
from segue.engine.hearing import Entry, Hearing
from segue.engine.inquiry import Inquiry
from segue.engine.journal import Journal
from segue.engine.keeper import Keeper
from segue.engine.ledger import Counts
from segue.engine.member import State
from segue.engine.people import People
from segue.engine.recent import Recent
from segue.engine.records import RolloutRecord
from segue.engine.trial import PATIENCE
from segue.errors import RouterLost
from segue.judge.errors import Counts as Lines
from segue.judge.instances import to_blame
from segue.ports import Evidence, Matches, Source
from segue.ports import Lines as LineReader

TIMES_USUAL = 3
"""The shield waits so many times as long as the slowest in a thousand of the old version's answers take."""

ENOUGH_PATHS = 200
"""The paths of so many requests tell which ones are busy."""

A_SECOND = 100
"""What a second of all of the traffic weighs. Lines are compared by shares: they may come without a request."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a watch sees: the router's evidence, what is usual, and a reader of log lines for the patterns given.

    `source`: who is asked where a manifest names one; `about`: what it is told of the rollout and the new share.
    """

    evidence: Evidence
    recent: Recent
    lines: Callable[[Sequence[str]], LineReader]
    source: Callable[[Asked], Source]
    about: Callable[[RolloutRecord, Share], About]


class Watch:
    """Counts what happens during `rollout`, and judges its new version by it."""

    def __init__(
        self, rollout: RolloutRecord, *, sight: Sight, keeper: Keeper, journal: Journal, clock: Clock
    ) -> None:
        self.rollout = rollout
        self._sight, self._keeper, self._journal, self._clock = sight, keeper, journal, clock
        self._turn = asyncio.Lock()
        self.ledger = ledgers.decode(journal.ledger(rollout.id))
        self._hearing = Hearing(rollout.judging)
        self._usual = Sample()
        self._last: Mapping[Revision, Sample] | None = None
        self._at = clock.monotonic()
        self._answered = 0, self._at
        self._looked = self._now
        self._calm = Calm()
        self._reader = sight.lines(rollout.judging.logs) if rollout.judging.logs and rollout.trial else None
        self._logged: Mapping[InstanceId, Matches] = {}
        self._worst: tuple[InstanceId, Matches] | None = None
        asked = rollout.judging.asked if rollout.trial else ()
        self._inquiry = Inquiry(asked, [sight.source(one) for one in asked], clock)
        self._paths: list[str] = []
        self._people = People(rollout, sight.evidence, journal)
        self._replay()

    def _replay(self) -> None:
        """Hear again what was seen before a restart; what came meanwhile was not seen."""
        known = self._journal.polls(self.rollout.id)
        for entry in known:
            self._hearing.take(entry)
        if known:
            self._looked = known[-1].get("at", 0.0)
            self._note(entries.closed())
            self._split()

    def _split(self) -> None:
        """The split of the traffic has changed, or it was not seen for how long it has been as it is."""
        if self.rollout.judging.asked:
            self._note(entries.split())
            self._inquiry.split()

    @property
    def _now(self) -> float:
        """Seconds since the rollout was asked for."""
        return round((self._clock.now() - self.rollout.started).total_seconds(), 3)

    def _note(self, entry: Entry) -> None:
        entry = {**entry, "at": self._now}
        self._journal.put_poll(self.rollout.id, entry)
        self._hearing.take(entry)

    def _opened(self) -> None:
        """There was a look. For as long as there was none before it, nobody watched: that is no silence."""
        if self._last is None and self._hearing.comparison is not None:
            self._note(entries.gap(max(0.0, self._now - self._looked)))
        self._looked = self._now

    # Seeing

    async def look(self, *, account: bool = True, seldom: bool = False) -> None:
        """Count now, and write down what was counted; with `account` in the rollout's own account, too.

        With `seldom` nothing waits for what is judged: what is nothing new may be told together with what comes.
        """
        async with self._turn:  # counts that are added out of turn would look like a router that began anew
            try:
                samples = await self._sight.evidence.sample(self.rollout.service)
                books = await self._sight.evidence.books(self.rollout.service) if account else None
            except RouterLost:
                self._last = None
                return
            self._opened()
            if books is not None:
                gaps = self.ledger.gaps
                self.ledger.look(Counts(samples, books))
                if self.ledger.gaps > gaps:
                    self._tell("the router began anew: of what ended since the last look nothing is known")
                self._journal.put_ledger(self.rollout.id, ledgers.encode(self.ledger))
            self._hear(samples, seldom=seldom)
            await self._see_who_waits(samples)
            self._inquire()
            await self._learn()
            await self._people.look()

    async def _see_who_waits(self, samples: Mapping[Revision, Sample]) -> None:
        """See how many requests are under way when the new version, which is alone, answers nobody any more."""
        new, old, now = self.rollout.new, self.rollout.old, self._clock.monotonic()
        if new is None or old is None or self._hearing.comparison is None:
            return
        if (attempts := samples.get(new, Sample()).attempts) != self._answered[0]:
            self._answered = attempts, now
        share, silent = self._keeper.demand.share, now - self._answered[1]
        if share(new) and not share(old) and self._hearing.standstill.strange(silent):
            with suppress(RouterLost):
                self._note(entries.waits(silent, await self._keeper.under_way(new)))

    def _tell(self, note: str) -> None:
        self._journal.tell("note", service=self.rollout.service, rollout=self.rollout.id, text=note)

    def suffered(self) -> str | None:
        """How many attempts on the new version failed since its first share; None: none did."""
        if self._hearing.comparison is None or self.rollout.new is None:
            return None
        name = version_of(self.rollout.new)
        numbers = self._hearing.comparison.silence(name, "").numbers
        failed, tried = (int(numbers[key] or 0) for key in ("new_failures", "new_attempts"))
        of = quantities.count(tried, "attempt")
        return f"since its first share {failed:,} of {of} on {name} failed" if failed else None

    async def _learn(self) -> None:
        """Find out which paths are to be told apart, until that is known, and have the router do it."""
        if self._hearing.paths is None and self._learns:
            with suppress(RouterLost):
                self._paths += await self._sight.evidence.paths(self.rollout.service)
            if len(self._paths) >= ENOUGH_PATHS and self._learns:
                self._note(entries.paths(busiest(self._paths)))
                self._keeper.tell_apart(entries.named(self._hearing.paths or ()))

    @property
    def _learns(self) -> bool:
        """Whether paths are being learned for this rollout: its version is the one on trial."""
        trial = self._keeper.trial
        return trial is not None and trial.revision == self.rollout.trial and trial.paths is None

    def _inquire(self) -> None:
        """Tell the judge what was answered since the last look, and ask what is to be asked now."""
        demand = self._keeper.demand
        new, old = (demand.share(version) if version else NOTHING for version in (self.rollout.new, self.rollout.old))
        for number, said, current in self._inquiry.heard():
            self._note(entries.answer(number, said, (float(new), float(old)), current=current))
        if self._hearing.comparison is not None and new:
            self._inquiry.ask(lambda: self._sight.about(self.rollout, new), beside=bool(old))

    def _hear(self, samples: Mapping[Revision, Sample], *, seldom: bool) -> None:
        """Tell the judge what came since the last look, once the new version is on trial."""
        old = self.rollout.old
        if old is not None:
            self._usual = self._sight.recent.last(old, samples.get(old, Sample()))
        last, self._last = self._last, samples
        now = self._clock.monotonic()
        seconds = now - self._at
        anew = last is None or any(went_back(samples[v], last[v]) for v in samples if v in last)
        if seldom and last and not anew and self._calm.says(_failures(samples) - _failures(last), seconds):
            self._last = last
            return
        lines = self._lines(seconds)
        if self._hearing.comparison is None or self.rollout.new is None or old is None:
            self._at = now
        elif last is None or anew:
            self._at = now
            self._note(entries.closed())
        else:
            came, of_old = _came(samples, last, self.rollout.new), _came(samples, last, old)
            self._calm.add(came.failures + of_old.failures, seconds)
            if came.attempts or of_old.attempts or any(count.new or count.old for count in lines):
                self._at = now  # where nothing came, the next look takes these seconds with it
                beside = of_old if of_old.attempts or self._keeper.demand.share(old) else None
                self._note(entries.look(seconds, came, beside, age=self._age(), lines=lines))

    def _age(self) -> float | None:
        """For how many seconds the youngest ready instance of the new version has been ready."""
        new, now = self.rollout.new, self._clock.now()
        members = self._keeper.fleet.of(new) if new else []
        ages = [now - member.since for member in members if member.state is State.READY]
        return min(ages) // timedelta(milliseconds=100) / 10 if ages else None

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
        self._inquiry.splitting()
        self._note(entries.closed() if self._hearing.comparison is not None else entries.before(self._usual))

    async def shifted(self) -> None:
        """A split is in force."""
        await self.look()
        if self._hearing.comparison is not None:
            self._note(entries.closed())
            self._split()

    def prove(self, number: int, gate: Gate) -> None:
        """The step `number` waits for a proof from now on."""
        if self._hearing.proving != number:
            self._note(entries.prove(number, gate))

    def said(self, number: int) -> None:
        """What was seen so far has decided what the step `number` waited for; 0: it has raised the alarm."""
        self._note(entries.said(number))

    async def close(self) -> None:
        """See nothing any more."""
        await self._inquiry.close()
        if self._reader is not None:
            await self._reader.close()

    @property
    def patience(self) -> timedelta:
        """How long the shield waits for the new version alone: longer than the old one ever takes."""
        slowest = percentile(self._usual, 0.999)
        return max(PATIENCE, timedelta(microseconds=TIMES_USUAL * (slowest or 0)))

    # What can be said

    def watched(self, began: datetime) -> timedelta:
        """For how long somebody has looked since `began`: neither we nor the router were away."""
        after = (began - self.rollout.started).total_seconds()
        unseen = self._hearing.unseen(after)
        if self._last is None:
            unseen += max(0.0, self._now - max(self._looked, after))
        return self._clock.now() - began - timedelta(seconds=unseen)

    async def to_blame(self) -> str | None:
        """Which instance of the new version fails far more than its others, in a sentence; None: none is known to."""
        try:
            found = await self._sight.evidence.instances(self.rollout.service)
        except RouterLost:
            return None
        ours = f"{self.rollout.service}-{self.rollout.new}-"
        return to_blame({i: (one.attempts, one.failures) for i, one in found.items() if i.startswith(ours)})

    def silence(self) -> Judgement:
        """Whether there is an alarm, and what can be said of the new version now."""
        return self._logs_too_much() or self._hearing.silence(*self._names)

    def proof(self) -> Judgement:
        """Whether the new version is shown to be within the margins of the step."""
        return self._logs_too_much() or self._hearing.proof(*self._names)

    @property
    def beside(self) -> int:
        """The old version's attempts since the step that is being proven began."""
        return self._hearing.beside

    @property
    def heard(self) -> int:
        """How many entries what is said now rests on."""
        return self._hearing.heard

    @property
    def asking(self) -> bool:
        """Whether a source has yet to say anything about the present split; it will, within its own time."""
        return self._hearing.voices.open

    @property
    def log(self) -> tuple[str, ...]:
        """The line that raised the alarm, if one did, after its instance's name; or what a command printed."""
        if not self._hearing.lines_alarm or self._worst is None:
            return self._hearing.voices.alarm.lines if self._hearing.voices.alarm else ()
        instance, matches = self._worst
        return (f"{instance} | {matches.last}",)

    @property
    def _names(self) -> tuple[str, str]:
        new, old = self.rollout.new, self.rollout.old
        return version_of(new) if new else "the new version", version_of(old) if old else "the old version"

    def _logs_too_much(self) -> Judgement | None:
        """The alarm of log lines, if there is one, with the line and whose it is: no entry holds that."""
        if not self._hearing.lines_alarm:
            return None
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


def _failures(samples: Mapping[Revision, Sample]) -> int:
    return sum(sample.failures for sample in samples.values())
