"""What would have been otherwise with other settings: a replay beside another one with the rollout's own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segue.core.release import version_of
from segue.core.steps import Judge, Proof
from segue.core.verdict import Judgement
from segue.engine.deciding import Decided, Leaving, Question
from segue.engine.records import Judging, StepRecord
from segue.engine.replay import Again, Past, Said, again, flaws
from segue.judge import words
from segue.judge.words import Compared, Word

Document = dict[str, Any]


def otherwise(past: Past, changes: Mapping[str, Any]) -> Document:
    """The comparison as JSON. It may take seconds: nothing of it needs the journal. Raises ValueError."""
    own = past.record.judging
    judging = changed(own, changes)
    was, now = again(past, own), again(past, judging)
    steps = [_compared(past, step, was, now) for step in past.steps]
    left = _left(past, was), _left(past, now)
    assert past.record.new
    said = words.differences(version_of(past.record.new), *left, steps)
    return {
        "settings": [_setting(key, own, judging) for key in changes],
        "different": bool(said),
        "said": said or ["Nothing would have been decided otherwise."],
        "note": words.PAST,
        "was": _word(left[0]),
        "now": _word(left[1]),
        "steps": [
            {"number": number, "step": one.name, "began": one.began, "was": _word(one.was), "now": _word(one.now)}
            for number, one in zip((step.number for step in past.steps), steps, strict=True)
        ],
        "flaws": flaws(past, was),
    }


def _setting(key: str, was: Judging, now: Judging) -> Document:
    return {"key": key, "was": words.value(key, setting(was, key)), "now": words.value(key, setting(now, key))}


def _compared(past: Past, step: StepRecord, was: Again, now: Again) -> Compared:
    assert isinstance(step.step, Judge)
    began = round((step.began - past.record.started).total_seconds(), 3)
    ended = (step.ended - past.record.started).total_seconds() if step.ended else float("inf")
    until = step.step.until
    most = until.most.total_seconds() if isinstance(until, Proof) else None
    then, now_ = (_at_step(one, step.number, ended) for one in (was, now))
    return Compared(f"Step {step.number}, {step.step},", began, then, now_, most)


def _at_step(said: Again, number: int, ended: float) -> Word:
    """What is said at a step that lasted until `ended`."""
    if found := said.steps.get(number):
        return _spoken(found)
    if said.alarm and said.alarm.after <= ended:
        return _spoken(said.alarm)  # in this step, or before it
    if last := said.last.get(number):
        return Word("undecided", last.reason, basis=last.basis.value)
    return Word("undecided", "the judge was not asked")


def _left(past: Past, said: Again) -> Word | None:
    """Why the new version is left, if it is: the first thing that the judge said against it."""
    against = [one for one in said.steps.values() if isinstance(one.decided, Leaving)]
    against += [said.alarm] if said.alarm else []
    return _spoken(min(against, key=lambda one: one.after)) if against else None


def _spoken(said: Said) -> Word:
    decided = said.decided
    basis = decided.basis.value if isinstance(decided, Judgement) else None
    return Word(_kind(decided), decided.text if isinstance(decided, Question) else decided.reason, said.after, basis)


def _kind(decided: Decided) -> str:
    match decided:
        case Question():
            return "hold"
        case Leaving():
            return "rollback"
    return decided.verdict.value


def _word(word: Word | None) -> Document | None:
    if word is None:
        return None
    return {"decided": word.decided, "after": word.after, "basis": word.basis, "reason": word.reason}


# Settings by the names they have in the manifest

_SETTINGS = ("false_alarm", "alarm", "doubt", "first", "then")


def changed(judging: Judging, changes: Mapping[str, Any]) -> Judging:
    """`judging` with other values: by name, such as ``judge.alarm.errors``. Raises ValueError for impossible ones."""
    for key, value in changes.items():
        judging = _put(judging, _path(key), value)
    return judging


def setting(judging: Judging, key: str) -> Any:
    """The value of the setting that the manifest calls `key`."""
    found: Any = judging
    for name in _path(key):
        found = getattr(found, name)
    return found


def _path(key: str) -> Sequence[str]:
    names = key.removeprefix("judge.").removeprefix("promote.").split(".")
    return ("settings", *names) if names[0] in _SETTINGS else names


def _put(whole: Any, path: Sequence[str], value: Any) -> Any:
    name, *rest = path
    return replace(whole, **{name: _put(getattr(whole, name), rest, value) if rest else value})
