"""A past rollout judged again, from what was heard of it, with the settings that it had or with others.

A replay changes only what the judge says. The traffic is as it was: where the judge would have said something else,
another split would have followed, and nobody knows what would have come of that.

Rule 1: what is decided is decided by `deciding.py`, as in the rollout itself. With its own settings a replay comes to
what was decided, by the same numbers; where it does not, the record is not whole (`flaws`).
Rule 2: the judge is asked when it was asked then: those moments are recorded (`judging` events say how much was
heard, and the entry ``said`` stands where something was decided). Where the judge was asked no more, because a person
was, it is asked at each entry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from segue.core.release import NOTHING, version_of
from segue.core.steps import Judge, Proof
from segue.core.verdict import Basis, Judgement, decode
from segue.engine.deciding import Decided, Leaving, Question, Wait, decide
from segue.engine.hearing import Entry, Hearing
from segue.engine.life import KEPT_POLLS
from segue.engine.records import Event, Judging, RolloutRecord, StepRecord
from segue.errors import Refused

SLACK = timedelta(milliseconds=50)
"""A word that decided nothing is dated so much later, at most, than the judge was asked for it."""
ROUNDED = timedelta(milliseconds=1)
FOREVER = timedelta(days=3650)
NOTICED = 2.0
"""Seconds within which an alarm is noticed."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The judge is asked about the step `number`, which has lasted for `waited`; `after`: since the rollout began.

    `watched`: the time in which nobody looked is taken off `waited` already.
    """

    number: int
    after: float
    waited: timedelta
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """What was decided, so many seconds `after` the rollout was asked for."""

    after: float
    decided: Decided


@dataclass(frozen=True, slots=True)
class Past:
    """How a rollout was judged: its judgements in order, the entries that count, and when the judge was asked.

    `moments`: by how many entries had been heard; `latest`: at the last moment, by step. `asked`: what a person was
    asked, by step.
    """

    record: RolloutRecord
    steps: Sequence[StepRecord]
    entries: Sequence[Entry]
    moments: Mapping[int, Sequence[Moment]]
    latest: Mapping[int, int]
    asked: Mapping[int, str]


@dataclass(slots=True)
class Again:
    """What the judge says: the alarm, what was decided at each step, and of the others what could be said last."""

    alarm: Said | None = None
    steps: dict[int, Said] = field(default_factory=dict)
    last: dict[int, Judgement] = field(default_factory=dict)


# Reading the record


def past(record: RolloutRecord, steps: Sequence[StepRecord], events: Sequence[Event], polls: Sequence[Entry]) -> Past:
    """What there is to judge again. Raises Refused where there is nothing, or no more."""
    there = [step for step in steps if step.way == "there"]
    _refuse_nothing(record, there, polls)
    judged = [step for step in there if isinstance(step.step, Judge)]
    ended = _ended(record, there, events)
    entries = [entry for entry in polls if entry["at"] <= ended]
    words = [event for event in events if event.event == "judging" and "waited" in event.body]
    moments: defaultdict[int, list[Moment]] = defaultdict(list)
    for step in judged:
        for heard, moment in _moments(record, step, words, entries):
            moments[heard].append(moment)
    asked = {event.body["step"]: event.body["text"] for event in events if event.event == "holding"}
    latest = {moment.number: heard for heard in sorted(moments) for moment in moments[heard]}
    return Past(record, judged, entries, moments, latest, asked)


def _ended(record: RolloutRecord, there: Sequence[StepRecord], events: Sequence[Event]) -> float:
    """When the judge was heard no more: the rollout turned back, or a person promoted it in full.

    What was seen on the way back is not what would have been seen otherwise.
    """
    ends = [_after(record, event.at) for event in events if event.event == "turned_back" or _in_full(record, event)]
    if record.turned is not None and not ends:  # events may be lost in a crash
        ends = [_after(record, step.ended) for step in there[-1:] if step.ended]
    return min(ends) + ROUNDED.total_seconds() if ends else float("inf")


def _in_full(record: RolloutRecord, event: Event) -> bool:
    return record.person.full and event.event == "went_on" and "without further judging" in event.body["text"]


def _refuse_nothing(record: RolloutRecord, there: Sequence[StepRecord], polls: Sequence[Entry]) -> None:
    if record.trial is None:
        raise Refused(
            f"no version was on trial in rollout {record.id}: there is nothing to judge again", next="segue history"
        )
    if not polls:
        given = any(record.new in step.demand.shares for step in there)
        why = (
            f"what was seen of it is not kept any more: it is for the last {KEPT_POLLS} rollouts of a service"
            if given and record.ended
            else f"{version_of(record.trial)} was not given any traffic"
        )
        raise Refused(f"rollout {record.id} cannot be judged again: {why}", next=f"segue explain {record.id}")
    if "at" not in polls[0]:
        why = "it was recorded by a version of Segue that did not write down when each look was taken"
        raise Refused(f"rollout {record.id} cannot be judged again: {why}", next=f"segue explain {record.id}")


def _moments(
    record: RolloutRecord, step: StepRecord, words: Sequence[Event], entries: Sequence[Entry]
) -> Iterator[tuple[int, Moment]]:
    """When the judge was asked about `step`, each with how many entries had been heard."""
    began, number = _after(record, step.began), step.number
    ended = _after(record, step.ended) if step.ended else float("inf")

    def moment(after: float, more: timedelta) -> Moment:
        return Moment(number, after, timedelta(seconds=after - began) + more)

    # Silence is over when the record says so: it may have waited for the first answer of a source, too.
    early = -SLACK if isinstance(step.step, Judge) and isinstance(step.step.until, Proof) else -FOREVER
    for word in words:
        if word.body["step"] == number and step.began <= word.at:
            waited = timedelta(seconds=word.body["waited"])
            yield word.body["heard"], Moment(number, _after(record, word.at), waited + early, watched=True)
    said = [heard for heard, entry in enumerate(entries, 1) if entry == {**entry, "what": "said", "number": number}]
    if not said:
        return
    last = said[-1]  # what was said before a crash, and not written down, was asked for again
    yield last - 1, moment(entries[last - 1]["at"], ROUNDED)
    for heard, entry in enumerate(entries[last:], last + 1):
        if entry["at"] <= ended:
            yield heard, moment(entry["at"], -SLACK)


def _after(record: RolloutRecord, at: datetime) -> float:
    return (at - record.started).total_seconds()


# Judging again


class _Seen:
    """What was heard up to some entry, as `decide` asks for it."""

    def __init__(self, record: RolloutRecord, judging: Judging) -> None:
        self.hearing = Hearing(judging)
        assert record.new and record.old
        self._names = version_of(record.new), version_of(record.old)

    @property
    def beside(self) -> int:
        return self.hearing.beside

    @property
    def asking(self) -> bool:
        return self.hearing.voices.open

    def silence(self) -> Judgement:
        return self.hearing.silence(*self._names)

    def proof(self) -> Judgement:
        return self.hearing.proof(*self._names)


def again(past: Past, judging: Judging) -> Again:
    """What a judge with the settings `judging` says of it, up to the first alarm. It may take seconds."""
    seen, found = _Seen(past.record, judging), Again()
    steps = {step.number: step for step in past.steps}
    _ask(past, steps, seen, found, judging)
    for entry in past.entries:
        if found.alarm is not None and not _noticed_with(entry, found.alarm):
            break
        seen.hearing.take(entry)
        if found.alarm is None and seen.hearing.alarm:
            found.alarm = Said(entry["at"], seen.silence())
        elif found.alarm is not None and entry["what"] == "said":  # in these words it was noticed
            found.alarm = Said(found.alarm.after, seen.silence())
            break
        _ask(past, steps, seen, found, judging)
    cut = past.steps[-1] if past.steps and past.steps[-1].outcome != "done" else None
    if cut is not None and found.alarm is None and cut.number not in found.steps:
        found.last[cut.number] = _last_word(cut, seen)
    return found


def _last_word(step: StepRecord, seen: _Seen) -> Judgement:
    """What can be said at `step` where nothing is decided."""
    return seen.proof() if isinstance(step.step, Judge) and isinstance(step.step.until, Proof) else seen.silence()


def _noticed_with(entry: Entry, alarm: Said) -> bool:
    """Whether the alarm was noticed with `entry` or a later one: what was seen until then is told with it."""
    return bool(entry["at"] - alarm.after <= NOTICED)


def _ask(past: Past, steps: Mapping[int, StepRecord], seen: _Seen, found: Again, judging: Judging) -> None:
    """Ask about the steps about which the judge was asked when so much had been heard."""
    for moment in past.moments.get(seen.hearing.heard, ()):
        if moment.number in found.steps or found.alarm is not None:
            continue
        step = steps[moment.number]
        assert isinstance(step.step, Judge)
        until, new, old = step.step.until, past.record.new, past.record.old
        shares = (step.demand.share(version) if version else NOTHING for version in (new, old))
        unseen = timedelta(seconds=0 if moment.watched else seen.hearing.unseen(_after(past.record, step.began)))
        decided = decide(Wait(until, moment.waited - unseen, *shares), seen, judging)
        if decided is not None:
            found.steps[moment.number] = Said(moment.after, decided)
        elif past.latest[moment.number] == seen.hearing.heard:
            found.last[moment.number] = _last_word(step, seen)


# Whether a replay with the rollout's own settings comes to what was decided


def flaws(past: Past, was: Again) -> list[str]:
    """Where `was`, judged with the rollout's own settings, is not what was decided then. Nothing: it is the same."""
    pairs = [(f"step {step.number}", *_pair(past, step, was)) for step in past.steps]
    if _said(past, 0) and past.record.turned and past.record.basis == "evidence":
        now = Leaving(_text(was.alarm.decided)) if was.alarm else None
        pairs.append(("the alarm", Leaving(past.record.turned), now))
    return [
        f"{what}: `{_text(then)}` was decided, not `{now and _text(now)}`"
        for what, then, now in pairs
        if then is not None and then != now and not (was.alarm and _lines(was.alarm.decided))
    ]


def _pair(past: Past, step: StepRecord, was: Again) -> tuple[Decided | None, Decided | None]:
    """What was decided at `step` by what was heard, as the record has it (None: nothing) and as it is judged now."""
    then = _recorded(past, step)
    now = was.alarm if isinstance(then, Judgement) and then.alarm else was.steps.get(step.number)
    return then, now.decided if now else None


def _recorded(past: Past, step: StepRecord) -> Decided | None:
    verdict = decode(step.verdict) if step.verdict else None
    if verdict is not None and verdict.alarm:
        return verdict
    if not _said(past, step.number):
        return None
    if step.number in past.asked:
        return Question(past.asked[step.number])
    if verdict is not None:
        return verdict if verdict.basis is not Basis.PERSON else None
    return Leaving(past.record.turned) if past.record.turned and step.outcome == "failed" else None


def _said(past: Past, number: int) -> bool:
    return any(entry["what"] == "said" and entry["number"] == number for entry in past.entries)


def _lines(decided: Decided) -> bool:
    """Whether log lines decided: whose they were, and what the last of them said, no entry holds."""
    return isinstance(decided, Judgement) and "lines" in decided.numbers


def _text(decided: Decided) -> str:
    return decided.text if isinstance(decided, Question) else decided.reason
