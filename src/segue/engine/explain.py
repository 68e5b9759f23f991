"""Why a rollout went as it went: everything that was decided, in its order, from what was written down of it.

The steps and the rollout's own record are the journal's, and whole. Events add what stands nowhere else (hooks, what
persons were asked and said, notes); a crash may have lost the last of them, and then they are missing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from typing import Any

from segue.core import quantities
from segue.core.release import ALL, Revision, version_of
from segue.core.steps import Check, Judge, Proof, Shift, Silence
from segue.engine.records import ITSELF, Event, RolloutRecord, StepRecord, VersionRecord
from segue.judge import reasons, words
from segue.judge.words import Names

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that was decided, or happened and decided something: `what` kind of thing, `why`, and when.

    `what`: asked, hook, checked, shift, judged, held, person, instance, alarm, turned_back, note,
    decided, now, later. `seq`: the number of the event that told of it; 0: none did.
    """

    at: datetime
    what: str
    text: str
    why: Sequence[str] = ()
    verdict: Mapping[str, Any] | None = None
    seq: int = 0

    def document(self, started: datetime) -> Document:
        """The decision as JSON; `after` in seconds since the rollout was asked for."""
        after = round((self.at - started).total_seconds(), 3)
        told = {"at": self.at.isoformat(), "after": after, "what": self.what, "text": self.text, "why": [*self.why]}
        return {**told, "verdict": dict(self.verdict) if self.verdict else None}


@dataclass(frozen=True, slots=True)
class Told:
    """What was written down of a rollout. `requests`: the account. `later`: what went back from it in keep."""

    record: RolloutRecord
    steps: Sequence[StepRecord]
    events: Sequence[Event]
    versions: Sequence[VersionRecord]
    requests: Mapping[str, Any]
    later: Sequence[RolloutRecord]

    @property
    def names(self) -> Names:
        """What the versions are called."""
        new, old = self.record.new, self.record.old
        return Names(version_of(new) if new else "nothing", version_of(old) if old else "nothing")

    def seq(self, event: str, **body: Any) -> int:
        """The number of the event of that kind with that in its body; 0: there is none."""
        wanted = body.items()
        return next((one.seq for one in self.events if one.event == event and wanted <= one.body.items()), 0)


def explain(told: Told, now: datetime) -> Document:
    """The explanation as JSON: in one sentence (`because`), and every decision (`decisions`)."""
    found = _in_order([*_of_steps(told), *_of_events(told), *_turned(told), *_ends(told, now)])
    return {
        "because": _because(told),
        "decisions": [one.document(told.record.started) for one in found],
        "users": words.users(told.requests),
    }


def _in_order(found: Sequence[Decision]) -> Sequence[Decision]:
    """By what was told first: the machine's clock may have been set. Where that is not known, by the time of day."""
    if all(one.seq or one.what in _LAST for one in found):
        return sorted(found, key=lambda one: one.seq or inf)
    return sorted(found, key=lambda one: (one.at, one.seq or inf))


_LAST = ("now", "later")


def _because(told: Told) -> str:
    record, new = told.record, told.names.new
    reason = record.reason or record.turned
    if record.decided is None:
        return f"It goes on: {_now(told)}"
    if record.trial is None or record.outcome not in ("promoted", "rolled_back", "superseded"):
        return reason or f"{record.kind} is done"
    basis = "replaced" if record.replaced else record.basis or "health"
    if record.outcome == "promoted":
        return f"{new} was promoted {_PROMOTED[basis]}: {reason}"
    return f"{new} was taken back{_TAKEN_BACK[basis]}: {reason}"


_PROMOTED = {
    "evidence": "on evidence",
    "health": "on health and checks alone, without a proof",
    "person": "by a person",
}
_TAKEN_BACK = {"evidence": " on evidence", "health": "", "person": " by a person", "replaced": " for another deploy"}


# What steps tell


def _of_steps(told: Told) -> Iterator[Decision]:
    for step in told.steps:
        if step.ended is None or step.outcome != "done":
            continue
        seq = told.seq("ended", way=step.way, step=step.number)
        match step.step:
            case Check(version):
                yield Decision(step.ended, "checked", _checked(told, version), seq=seq)
            case Shift(shares):
                yield Decision(step.ended, "shift", _shift(told, dict(shares), step.way), seq=seq)
            case Judge() if step.verdict:
                yield replace(_judged(told, step, step.ended), seq=seq)


def _checked(told: Told, revision: Revision) -> str:
    known = next((one.version for one in told.versions if one.revision == revision), None)
    passed = []
    if known and known.smoke:
        passed.append(_count(len(known.smoke), "smoke test"))
    if known and known.warm_up:
        passed.append(_count(known.warm_up.requests, "warm-up request"))
    more = f" and passed {' and '.join(passed)}" if passed else ""
    return f"each instance of {version_of(revision)} is healthy{more}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _shift(told: Told, shares: Mapping[Revision, Any], way: str) -> str:
    if not shares:
        return "nobody is given any traffic"
    again = " again" if way == "back" else ""
    all_of_it = next((version for version, share in shares.items() if share == ALL), None)
    if all_of_it:
        return f"{version_of(all_of_it)} has all of the traffic{again}"
    order = sorted(shares, key=lambda version: version != told.record.new)
    return ", ".join(
        f"{version_of(version)} has {reasons.share(shares[version])} of the traffic" for version in order
    )


def _judged(told: Told, step: StepRecord, ended: datetime) -> Decision:
    assert isinstance(step.step, Judge) and step.verdict
    verdict, lasted = step.verdict, quantities.clock((ended - step.began).total_seconds())
    if verdict["basis"] == "person":
        return Decision(ended, "person", verdict["reason"], verdict=verdict)
    how = f"judged for {lasted}"
    if isinstance(step.step.until, Silence):
        how = f"no alarm for {lasted}"
    elif verdict["basis"] == "evidence":
        how = f"proven after {lasted}"
    return Decision(ended, "judged", f"{how}: {verdict['reason']}", _behind(told, step), verdict)


def _behind(told: Told, step: StepRecord | None) -> tuple[str, ...]:
    """What stands behind the verdict that ended `step`."""
    if step is None or not step.verdict:
        return ()
    proof = isinstance(step.step, Judge) and isinstance(step.step.until, Proof)
    judging = told.record.judging
    return tuple(words.behind(step.verdict, proof, judging.settings, told.names))


# What events tell


def _of_events(told: Told) -> Iterator[Decision]:
    for event in told.events:
        if found := _of_event(told, event):
            yield replace(found, seq=event.seq)


def _of_event(told: Told, event: Event) -> Decision | None:
    body = event.body
    match event.event:
        case "accepted":
            return Decision(event.at, "asked", _asked(told))
        case "hook" if body["state"] == "ended":
            return Decision(event.at, "hook", f"the {body['hook']} hook exited with status {body['status']}")
        case "holding":
            return _held(told, event)
        case "went_on" | "paused" | "resumed":
            return Decision(event.at, "person", body["text"])
        case "note":
            return Decision(event.at, "note", body["text"])
        case "instance" if _troubled(event):
            return Decision(event.at, "instance", f"{body['instance']}: {body['detail']}")
    return None


def _troubled(event: Event) -> bool:
    detail = event.body.get("detail")
    return bool(detail) and event.body["state"] in ("starting", "unready") and detail != "started"


def _asked(told: Told) -> str:
    record, names = told.record, told.names
    reason = f": {record.asked}" if record.asked else ""
    who = "Segue itself" if record.who == ITSELF else record.who
    if record.release is None or record.new is None:
        return f"{who} asked for {record.kind}{reason}"
    instead = f" in place of {names.old}" if record.old and record.old != record.new else ""
    strategy = {"blue_green": "blue/green", "in_place": "in place"}.get(record.strategy, record.strategy)
    how = "" if record.kind == "rollback" else f", {strategy}"
    return f"{who} asked for {names.new}{instead}{how}{reason}"


def _held(told: Told, event: Event) -> Decision:
    number, question = event.body["step"], event.body["text"]
    judged = any(s.way == "there" and s.number == number and isinstance(s.step, Judge) for s in told.steps)
    within = quantities.clock(told.record.answered_within.total_seconds())
    setting = "most" if told.record.experiment else "approve_within"
    why = words.because(question, judged), f"Without an answer within {within} it goes back ({setting})."
    return Decision(event.at, "held", f"a person was asked: {question}", why)


# Turning back


def _turned(told: Told) -> Iterator[Decision]:
    record = told.record
    if record.turned is None:
        return
    last = next((step for step in reversed(told.steps) if step.way == "there"), None)
    events = [event.at for event in told.events if event.event == "turned_back"]
    at = events[0] if events else (last and last.ended) or record.decided or record.started
    verdict = last.verdict if last and last.outcome != "done" else None
    what = "alarm" if record.basis == "evidence" else "turned_back"
    said = f"{'alarm' if what == 'alarm' else 'turned back'}: {record.turned}"
    why = _behind(told, last if verdict else None)
    yield Decision(at, what, said, why, verdict, seq=told.seq("turned_back"))


# How it ended, and what goes on


def _ends(told: Told, now: datetime) -> Iterator[Decision]:
    record = told.record
    if record.decided is None:
        yield Decision(now, "now", _now(told))
        return
    yield Decision(record.decided, "decided", _decided(told), _first(told), seq=told.seq("finished"))
    for rollout in told.later:
        text = f"while {told.names.old} was kept, rollout {rollout.id} went back to it: {rollout.asked}"
        yield Decision(rollout.started, "later", text)


def _decided(told: Told) -> str:
    record, names = told.record, told.names
    match record.outcome:
        case "promoted" if record.release:
            return f"promoted: {names.new} serves"
        case "rolled_back" | "superseded":
            rest = f"{names.old} serves as before" if record.old and record.old != record.new else "as before"
            return f"{(record.outcome or '').replace('_', ' ')}: {rest}"
    return f"{(record.outcome or 'done').replace('_', ' ')}: {record.reason}"


def _first(told: Told) -> tuple[str, ...]:
    """What the launch of a first version rests on."""
    record = told.record
    if record.outcome == "promoted" and record.release and record.release.old is None:
        return ("There was no version beside it to compare with: this rests on health and checks.",)
    return ()


def _now(told: Told) -> str:
    """What goes on in a rollout that is not decided."""
    record = told.record
    if record.person.asked is not None:
        return f"it waits for a person: {record.person.asked}"
    running = [step for step in told.steps if step.way == record.way and step.ended is None]
    paused = "it is paused" if record.person.paused else ""
    if not running:
        begun = any(step.way == record.way for step in told.steps)
        return paused or ("the next step begins" if begun else "it is being prepared")
    step = running[-1]
    said = [e for e in told.events if e.event == "judging" and e.body["step"] == step.number and e.at >= step.began]
    so_far = f": {said[-1].body['text']}" if said and record.turned is None else ""
    return f"{f'{paused}; ' if paused else ''}step {step.number} of {len(record.steps)}, {step.step}{so_far}"
