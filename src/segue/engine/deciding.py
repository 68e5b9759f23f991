"""What becomes of a judgement that is waited for, by what was heard so far.

Rule: nothing here asks the clock, the router or the journal, so a replay decides as the runner did (`replay.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from math import log
from typing import Protocol

from segue.core import quantities
from segue.core.release import Share
from segue.core.steps import Proof, Silence
from segue.core.verdict import Basis, Judgement, Verdict
from segue.engine.records import Course, Judging
from segue.judge import reasons

SOME = 200
"""Requests that a proof needs at least, where nothing is known of the old version."""

AGAINST = log(5)
"""The logarithm of evidence that leans against the new version: of healthy ones at most one of five ever shows it."""


class Seen(Protocol):
    """What was heard so far, and what the judge makes of it."""

    @property
    def beside(self) -> int:
        """The old version's attempts since the step that is being proven began."""
        ...

    @property
    def asking(self) -> bool:
        """Whether a source has yet to say anything about the present split; it will, within its own time."""
        ...

    def silence(self) -> Judgement:
        """Whether there is an alarm, and what can be said of the new version now."""
        ...

    def proof(self) -> Judgement:
        """Whether the new version is shown to be within the margins of the step."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What a person must be asked, for the evidence does not say."""

    text: str


@dataclass(frozen=True, slots=True)
class Leaving:
    """Why the new version is left although nothing was shown against it."""

    reason: str


Decided = Judgement | Question | Leaving


@dataclass(frozen=True, slots=True)
class Wait:
    """A judgement that has been waited for, `until` what, for how long; `new` and `old` are the versions' shares."""

    until: Silence | Proof
    waited: timedelta
    new: Share
    old: Share

    @property
    def left(self) -> timedelta:
        """For how long it is waited at most from now on."""
        end = self.until.length if isinstance(self.until, Silence) else self.until.most
        return end - self.waited


def decide(wait: Wait, seen: Seen, judging: Judging) -> Decided | None:
    """What is decided now, if anything is."""
    decided = _decide(wait, seen, judging)
    if judging.require_evidence and isinstance(decided, Judgement) and decided.verdict is Verdict.PASS:
        return _with_evidence(decided)
    return decided


def _decide(wait: Wait, seen: Seen, judging: Judging) -> Decided | None:
    if isinstance(wait.until, Silence):
        said = seen.silence()
        return said if wait.waited >= wait.until.length and (said.alarm or not seen.asking) else None
    if wait.waited < wait.until.least:
        return None
    said = seen.proof()
    if said.verdict is not Verdict.UNDECIDED:
        return said
    if not said.numbers.get("waits") and cannot_come(said, wait, seen.beside) and not _goes_too_far(judging, said):
        return _otherwise(judging.low_traffic, "low_traffic", _too_little(said, wait.new), said)
    if wait.waited >= wait.until.most:
        why = f"{said.reason}; not proven within {wait.until.most.total_seconds():g} s"
        return _otherwise(judging.undecided, "undecided", why, said)
    return None


def _goes_too_far(judging: Judging, said: Judgement) -> bool:
    """Whether it would be gone on by health alone although what little there is leans against the new version."""
    against = said.numbers.get("ln_e")
    return judging.low_traffic == "continue" and isinstance(against, float) and against >= AGAINST


def _with_evidence(said: Judgement) -> Judgement | Question:
    """`said`, which passes; a person is asked where that rests on health alone, or where a source is silent."""
    if said.basis is Basis.HEALTH or said.numbers.get("missing"):
        return Question(f"{said.reason}; evidence is required")
    return said


def cannot_come(said: Judgement, wait: Wait, beside: int) -> bool:
    """Whether even a good version would not have its proof with the traffic so far, going on until the end.

    Requests that the new version has not answered yet are not counted anywhere; how many it was given is read
    from those of the old one `beside` it, too. Of few requests three standard deviations more are taken to come.
    """
    expected = beside * float(wait.new / wait.old) if wait.old else 0.0
    given = max(float(said.numbers.get("requests") or 0), expected)
    if not given:
        return True
    at_most = (given + 3 * given**0.5) * ((wait.waited + wait.left) / wait.waited)
    return bool(at_most < float(said.numbers.get("whole") or SOME))


def _too_little(said: Judgement, share: Share) -> str:
    seen, whole = int(said.numbers.get("requests") or 0), said.numbers.get("whole")
    some = f"about {whole:,}" if whole else "some hundreds"
    return f"{reasons.share(share)}: {quantities.count(seen, 'request')}, a verdict needs {some}"


def _otherwise(course: Course, setting: str, why: str, said: Judgement) -> Decided:
    """What is done where the evidence does not say."""
    match course:
        case "continue":
            reason = f"{why}; going on by health alone, `judge.{setting}`"
            return Judgement(Verdict.PASS, Basis.HEALTH, reason, said.numbers)
        case "hold":
            return Question(why)
        case "rollback":
            return Leaving(f"{why}; going back, `judge.{setting}`")
