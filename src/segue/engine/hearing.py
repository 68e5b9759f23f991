"""What has been seen of a version on trial, entry by entry, and what the judge makes of it.

Rule 1: the judge is given nothing that is not an entry. So the same entries give the same verdict, after a crash too,
and with other settings the verdict that these would have given (`replay.py`).
Rule 2: what depends on a setting is decided when an entry is heard, not when it is written.

Each entry that is written down also says when, `at`: in seconds since the rollout was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from segue.core.paths import OTHERS
from segue.core.quantities import count, duration
from segue.core.sources import Answer, Nothing, Values, Word
from segue.core.steps import Gate
from segue.core.traffic import Sample
from segue.core.verdict import Basis, Judgement, Verdict
from segue.engine.records import Judging
from segue.judge.comparison import Comparison
from segue.judge.errors import Counts
from segue.judge.lines import Lines
from segue.judge.outage import Outage
from segue.judge.settings import Settings
from segue.judge.standstill import Standstill
from segue.judge.voices import Voices

LINES_PART, METRICS_PART = 0.1, 0.2
"""The parts of the allowed false alarms that log lines, and metrics that are compared, have where there are any."""

Entry = Mapping[str, Any]


def before(sample: Sample) -> Entry:
    """What the old version did in the ten minutes before the new one got its first share."""
    return {"what": "before", "old": _short(replace(sample, parts={}))}


def paths(found: Sequence[str]) -> Entry:
    """The paths that are told apart from now on, perhaps with all others together: looks have each of them."""
    return {"what": "paths", "paths": list(found)}


def named(paths: Iterable[str]) -> tuple[str, ...]:
    """Those of `paths` that the router is to know; what is left are the others."""
    return tuple(path for path in paths if path != OTHERS)


def look(
    seconds: float, new: Sample, old: Sample | None, *, age: float | None = None, lines: tuple[Counts, ...] = ()
) -> Entry:
    """What came in the last `seconds`; `old` of None: it has no share. `lines`: what was logged meanwhile.

    `age`: for how many seconds the youngest ready instance of the new version has been ready; None: there is none.
    """
    beside = old and _short(old)
    entry = {"what": "look", "seconds": round(seconds, 3), "new": _short(new), "old": beside, "age": age}
    return {**entry, "lines": [[c.new, c.of_new, c.old, c.of_old] for c in lines]}


def waits(seconds: float, waiting: int) -> Entry:
    """The new version, which is alone, has answered nobody for so many seconds; so many requests are under way."""
    return {"what": "waits", "seconds": round(seconds, 3), "waiting": waiting}


def split() -> Entry:
    """The split of the traffic has changed: who is asked besides the router is asked about it."""
    return {"what": "split"}


def answer(number: int, said: Answer, shares: tuple[float, float], *, current: bool) -> Entry:
    """What the source with this number said, while the new and the old version had these shares.

    `current`: it was asked about the present split.
    """
    entry = {"what": "answer", "number": number, "shares": list(shares), "current": current}
    match said:
        case Values(new, old):
            return {**entry, "new": new, "old": old}
        case Word(verdict, lines):
            return {**entry, "verdict": verdict.value, "lines": list(lines)}
        case Nothing(why):
            return {**entry, "why": why}


def closed() -> Entry:
    """Something changed, or was not seen: what came before is not pooled with what comes."""
    return {"what": "close"}


def gap(seconds: float) -> Entry:
    """Nobody has looked in the last `seconds`: the router, or the control plane, was not there."""
    return {"what": "gap", "seconds": round(seconds, 3)}


def prove(number: int, gate: Gate) -> Entry:
    """The step `number` waits for a proof: what counts for it begins anew."""
    return {"what": "prove", "number": number, "gate": gate.value}


def said(number: int) -> Entry:
    """What was heard so far has decided what the step `number` waited for; 0: it has raised the alarm."""
    return {"what": "said", "number": number}


class Hearing:
    """The entries of one rollout, heard by the judge in their order: so many were `heard`.

    `beside`: the old version's attempts since the step that is being proven began. `matched`: log lines so far.
    `paths`: those that are told apart; None: that is not decided yet.
    """

    def __init__(self, judging: Judging) -> None:
        self.comparison: Comparison | None = None
        self.heard = self.proving = self.beside = 0
        self.outage, self.standstill = Outage(), Standstill()
        self.paths: tuple[str, ...] | None = None
        self.lines_alarm = False
        self.matched = Counts()
        self._gaps: list[tuple[float, float]] = []
        self._settle = judging.settle.total_seconds()
        self._settings, self._lines, self.voices = _parts(judging)

    def take(self, entry: Entry) -> None:
        """Hear one entry."""
        self.heard += 1
        match entry["what"]:
            case "before":
                self.comparison = Comparison(self._settings, _sample(entry["old"]))
                self.outage, self.standstill = Outage(_sample(entry["old"])), Standstill(_sample(entry["old"]))
                self._tell_apart()
            case "paths":
                self.paths = tuple(entry["paths"])
                self._tell_apart()
            case "look":
                self._look(entry)
            case "waits":
                self.standstill.waits(entry["seconds"], entry["waiting"])
            case "gap":
                self._gaps.append((entry["at"] - entry["seconds"], entry["at"]))
            case "split":
                self.voices.split()
            case "answer":
                new, old = entry["shares"]
                self.voices.hear(entry["number"], _answer(entry), (new, old), current=entry["current"])
            case "close" if self.comparison is not None:
                self.comparison.close()
                if self._lines is not None:
                    self._lines.close()
            case "prove" if self.comparison is not None:
                self.proving, self.beside = entry["number"], 0
                self.comparison.step(Gate(entry["gate"]))

    def _tell_apart(self) -> None:
        if self.comparison is not None and self.paths:
            self.comparison.tell_apart(self.paths)

    def _look(self, entry: Entry) -> None:
        if self.comparison is not None:
            new, old = _sample(entry["new"]), entry["old"] and _sample(entry["old"])
            self.comparison.look(entry["seconds"], new, old, timed=self._timed(entry))
            self.outage.look(new, old)
            self.standstill.look(entry["seconds"], new)
            self.beside += old.attempts if old else 0
        for counts in entry["lines"]:
            if self._lines is not None:
                self.matched += Counts(*counts)
                self._lines.look(entry["seconds"], Counts(*counts))
                self.lines_alarm = self.lines_alarm or self._lines.alarm

    def _timed(self, entry: Entry) -> bool:
        """Whether latency counts: no instance of the new version is in its first seconds."""
        if "timed" in entry:  # written by a version that did not write ages down
            return bool(entry["timed"])
        return entry["age"] is None or entry["age"] >= self._settle

    # What can be said

    def unseen(self, began: float) -> float:
        """For how many seconds nobody has looked since `began`, in seconds since the rollout was asked for."""
        return sum(max(0.0, end - max(start, began)) for start, end in self._gaps)

    @property
    def alarm(self) -> bool:
        """Whether the new version is to be left, or was at some time."""
        compared = bool(self.comparison and self.comparison.alarm)
        plain = self.lines_alarm or self.outage.alarm or self.standstill.alarm
        return plain or compared or self.voices.alarm is not None

    def silence(self, new: str, old: str) -> Judgement:
        """Whether there is an alarm, and what can be said of the version called `new` now."""
        said = self.comparison.silence(new, old) if self.comparison else _nothing_yet(new)
        return self._plain(new, old) or self.voices.silence(said)

    def proof(self, new: str, old: str) -> Judgement:
        """Whether the version called `new` is shown to be within the margins of the step."""
        said = self.comparison.proof(new, old) if self.comparison else _nothing_yet(new)
        return self._plain(new, old) or self.voices.proof(said)

    def _plain(self, new: str, old: str) -> Judgement | None:
        """The alarm that needs no comparison of what came, if there is one."""
        if self.lines_alarm:
            lines, theirs = int(self.matched.new), int(self.matched.old)
            reason = f"{new} wrote {lines:,} lines that match, {old} {theirs:,} in the same time"
            return Judgement(Verdict.FAIL, Basis.EVIDENCE, reason, {"lines": lines, "old_lines": theirs})
        if self.outage.alarm:
            reason = f"{new} failed each of its last {self.outage.failed:,} requests"
            return Judgement(Verdict.FAIL, Basis.EVIDENCE, reason, {"failed": self.outage.failed})
        if self.standstill.alarm:
            seconds, waiting = self.standstill.seconds, self.standstill.waiting
            reason = f"{new} has answered nobody for {duration(seconds)}, and {count(waiting, 'request')} wait"
            return Judgement(Verdict.FAIL, Basis.EVIDENCE, reason, {"waiting": waiting})
        return self.voices.fail(new, old)


def _nothing_yet(new: str) -> Judgement:
    return Judgement(Verdict.PASS, Basis.HEALTH, f"No user request reached {new}")


def _parts(judging: Judging) -> tuple[Settings, Lines | None, Voices]:
    """The judge's settings, and the tests of log lines and of what else is asked: together they keep the level."""
    settings, whole = judging.settings, judging.settings.false_alarm
    of_lines = whole * LINES_PART if judging.logs else 0.0
    of_metrics = whole * METRICS_PART if any(metric.worse for metric in judging.metrics) else 0.0
    lines = Lines(of_lines, settings.alarm) if of_lines else None
    settings = replace(settings, false_alarm=whole - of_lines - of_metrics)
    return settings, lines, Voices(judging.asked, of_metrics)


def _answer(entry: Entry) -> Answer:
    """What `answer` wrote down."""
    if "why" in entry:
        return Nothing(entry["why"])
    if "verdict" in entry:
        return Word(Verdict(entry["verdict"]), tuple(entry["lines"]))
    return Values(entry["new"], entry["old"])


def _short(sample: Sample) -> list[Any]:
    short = [sample.attempts, sample.failures, {str(edge): n for edge, n in sample.latency_us.items() if n}]
    parts = {path: _short(part) for path, part in sample.parts.items() if part.attempts or part.latency_us}
    return [*short, parts] if parts else short


def _sample(short: list[Any]) -> Sample:
    attempts, failures, latency, *parts = short
    apart = {path: _sample(part) for path, part in (parts[0] if parts else {}).items()}
    return Sample(attempts, failures, {float(edge): n for edge, n in latency.items()}, apart)
