"""What a judgement rests on and how far it reaches, in words; and what other settings would have changed. Pure.

The judge's own sentences are in `reasons.py`; these stand beside them in an explanation.

Rule: never more than is known. Silence is no proof. Where evidence says nothing, nothing is said of it. Where a
record ends, what would have come is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import exp, floor
from typing import Any

from segue.core.quantities import clock
from segue.judge import reasons
from segue.judge.gathering import FOR_BOUNDS
from segue.judge.outage import ENOUGH
from segue.judge.settings import Margin, Settings

Numbers = Mapping[str, Any]
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Names:
    """What the versions are called."""

    new: str
    old: str


# What stands behind a judgement


def behind(verdict: Mapping[str, Any], proof: bool, settings: Settings, names: Names) -> Iterator[str]:
    """Sentences about a verdict (as `core.verdict.encode` writes it) of a step that waited for a `proof` or not."""
    numbers: Numbers = verdict["numbers"]
    if verdict["basis"] == "person":
        return
    if "failed" in numbers:
        yield (
            f"No statistics are in this: a version that fails {ENOUGH} requests in a row and answers none between "
            f"them is left, unless {names.old} fails most of its own."
        )
    elif "waiting" in numbers:
        yield (
            "No statistics are in this: while it was alone it answered nobody for longer than "
            f"{names.old} ever took, after it had answered many, and ever more requests waited."
        )
    elif verdict["verdict"] == "fail" and "new_attempts" not in numbers:
        yield _beside("lines" in numbers, numbers.get("ln_e") is not None, settings)
    elif verdict["verdict"] == "fail":
        bound = " are allowed" in verdict["reason"]  # nothing was beside it
        beyond = "a difference beyond what is allowed" if bound else f"a difference beyond {allowed(settings.alarm)}"
        yield f"An alarm takes {beyond} that chance makes in at most {_level(settings)}."
        if "worse" in numbers:
            yield (
                f"Only {numbers['worse']} got worse: on the others together {names.new} seems to have less than "
                "half of that, if anything."
            )
    elif verdict["basis"] == "evidence" and proof:
        yield (
            f"A version that is worse than that is taken for proven in at most {_percent(settings.doubt)} of steps "
            "(judge.promote.doubt)."
        )
        yield against(numbers, settings, names.new)
    elif verdict["basis"] == "evidence":
        yield "This is silence, no proof: nothing has shown that it is as good, and no alarm that it is worse."
        yield against(numbers, settings, names.new)
    else:
        yield "This rests on health and checks alone: too few requests came to compare the versions."
    yield from whole(verdict["reason"], numbers, names)


def _beside(lines: bool, compared: bool, settings: Settings) -> str:
    """What stands behind an alarm of another source than the router: log lines, a metric, a bound, a command."""
    if lines or compared:
        what = "Log lines" if lines else "Metrics that are compared"
        return f"{what} have a part of judge.false_alarm ({_percent(settings.false_alarm)}) for themselves."
    return "No statistics are in this: a source that was asked said so."


def allowed(margin: Margin) -> str:
    """What `judge.alarm` holds against nobody."""
    return f"judge.alarm ({_often(margin)}, {_percent(margin.latency)} slower)"


def _often(margin: Margin) -> str:
    more = f" and {_percent(margin.errors)} of all attempts more" if margin.errors else ""
    return f"{margin.ratio:g} times as many failures{more}"


def _level(settings: Settings) -> str:
    return f"{one_of(1 / settings.false_alarm)} rollouts (judge.false_alarm {_percent(settings.false_alarm)})"


def against(numbers: Numbers, settings: Settings, name: str) -> str:
    """What speaks against the version, by the evidence of harm, beside what an alarm takes."""
    log_e = float(numbers.get("ln_e") or 0.0)
    enough = 1 / (settings.false_alarm * (1 - FOR_BOUNDS))
    if exp(min(log_e, 50.0)) < 2:
        return f"Nothing speaks against {name} beyond chance."
    return (
        f"What speaks against {name} chance makes in up to {one_of(exp(min(log_e, 50.0)))} rollouts; "
        f"an alarm takes {one_of(enough)}."
    )


def whole(reason: str, numbers: Numbers, names: Names) -> Iterator[str]:
    """The counts of the whole rollout until then, unless the reason has them."""
    new, of_new = numbers.get("new_failures"), numbers.get("new_attempts")
    old, of_old = numbers.get("old_failures"), numbers.get("old_attempts")
    if new is None or not of_new or reasons.tried(new, of_new, names.new) in reason:
        return
    told = reasons.told(new, of_new, names.new)
    yield f"In the whole rollout until then: {told}" + (
        f", {reasons.shortly(old or 0, of_old, names.old)}." if of_old else "."
    )


def one_of(number: float) -> str:
    """``one of 100``; what is large is rounded down to two digits."""
    number = min(number, _MOST)
    digit = 10 ** max(len(str(floor(number))) - 2, 0)
    return f"one of {floor(number + 1e-9) // digit * digit:,}"


def _percent(part: float) -> str:
    return f"{part * 100:g} %"


def users(requests: Mapping[str, Any]) -> str:
    """What users had of a rollout, by the account of its requests."""
    if not requests["total"]:
        return "No user asked for anything meanwhile."
    bad = {
        "failed": sum(requests["failed_by"].values()),
        "cut": requests["cut"],
        "found no instance": requests["unserved"],
    }
    said = ", ".join(f"{count:,} {what}" for what, count in bad.items() if count) or "none failed"
    shielded = requests["shielded"]
    spared = f"; {shielded:,} were answered by another version than they were given to" if shielded else ""
    doubt = "" if requests["balanced"] else "; the account is not whole, for the router began to count anew"
    return f"Of {requests['total']:,} requests of users {said}{spared}{doubt}."


# What a person is asked, and why


def because(question: str, judged: bool) -> str:
    """The setting that made a person be asked in a judgement (`judged`), or before a step."""
    if not judged and "better than" in question:
        return "An experiment goes on until a person ends it."
    if not judged:
        return "The strategy asks before it goes on (approve: manual)."
    if "evidence is required" in question:
        return "It would have passed without evidence, and the deploy asked for some (--require-evidence)."
    if "not proven within" in question:
        return "There was traffic, and it was no proof: judge.undecided is `hold`."
    return "No verdict could come in time at that traffic: judge.low_traffic is `hold`."


# What other settings would have changed


@dataclass(frozen=True, slots=True)
class Word:
    """What the judge says at a step, or would say: `decided` is pass, fail, hold, rollback or undecided.

    `after`: seconds since the rollout was asked for; None: it has decided nothing by the end of the record.
    """

    decided: str
    reason: str
    after: float | None = None
    basis: str | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A step that was judged again: `was` and `now`. `most`: seconds that it waits at most."""

    name: str
    began: float
    was: Word
    now: Word
    most: float | None = None


def differences(name: str, was: Word | None, now: Word | None, steps: Sequence[Compared]) -> list[str]:
    """What would have been otherwise. `was` and `now`: why the version called `name` was, would have been left."""
    said = list(_left(name, was, now))
    end = now.after if now and now.after is not None else float("inf")
    for step in steps:
        if step.began <= end:
            said += _at_step(step, ended=was is not None)
    return said


def _left(name: str, was: Word | None, now: Word | None) -> Iterator[str]:
    if was and not now:
        yield (
            f"{name} would not have been taken back {_when(was)}. The record of its traffic ends there: "
            "what would have come of it is not known."
        )
    elif now and not was:
        yield (
            f"{name} would have been taken back {_when(now)}: {now.reason}. What came after that would not have "
            "come so."
        )
    elif was and now and abs((was.after or 0) - (now.after or 0)) >= _NOTICEABLE:
        yield f"{name} would have been taken back {_when(now)} and not {_when(was)}: {now.reason}."
    elif was and now and was.reason != now.reason:
        yield f"{name} would have been taken back at the same time, in other words: {now.reason}."


_NOTICEABLE = 0.5
"""Seconds that make a difference."""


def _when(word: Word) -> str:
    return f"after {clock(word.after or 0)}"


def _at_step(step: Compared, ended: bool) -> Iterator[str]:
    was, now = step.was, step.now
    same = was.decided == now.decided and was.basis == now.basis
    if "fail" in (was.decided, now.decided) or "rollback" in (was.decided, now.decided):
        if now.decided not in ("fail", "rollback", "undecided"):
            yield f"{step.name} {_would(step)}"
        return
    if same and (was.after is None or abs((was.after or 0) - (now.after or 0)) < _NOTICEABLE):
        return
    yield f"{step.name} {_would(step)}"


def _would(step: Compared) -> str:
    now, lasted = step.now, (step.now.after or 0) - step.began
    match now.decided:
        case "pass":
            instead = (
                f", and not after {clock((step.was.after or 0) - step.began)}" if step.was.decided == "pass" else ""
            )
            return f"would have been passed after {clock(lasted)}{instead}: {now.reason}."
        case "hold":
            return f"would have asked a person after {clock(lasted)}: {now.reason}."
    most = f", {clock(step.most)} at most" if step.most else ""
    return (
        f"would not have been passed then, but gone on waiting{most}: {now.reason}. What would have come of that is "
        "not known."
    )


PAST = "A replay changes only what the judge would have said: the traffic is as it was."


def value(key: str, setting: Any) -> str:
    """The value of a setting as it is written: ``0.02%``, ``1.1``, ``10s``, ``hold``."""
    if isinstance(setting, timedelta):
        return f"{setting.total_seconds():g}s"
    if isinstance(setting, str):
        return setting
    return f"{setting:g}" if key.endswith(".ratio") else f"{setting * 100:g}%"
