"""What has been seen of a version on trial, entry by entry, and what the judge makes of it.

Rule: the judge is given nothing that is not an entry. So the same entries give the same verdict, after a crash too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from segue.core.steps import Gate
from segue.core.traffic import Sample
from segue.engine.records import Judging
from segue.judge.comparison import Comparison
from segue.judge.errors import Counts
from segue.judge.lines import Lines
from segue.judge.outage import Outage
from segue.judge.settings import Settings

LINES_PART = 0.1
"""The part of the allowed false alarms that log lines have, where they are evidence."""

Entry = Mapping[str, Any]


def before(sample: Sample) -> Entry:
    """What the old version did in the ten minutes before the new one got its first share."""
    return {"what": "before", "old": _short(sample)}


def look(seconds: float, new: Sample, old: Sample | None, *, timed: bool, lines: tuple[Counts, ...] = ()) -> Entry:
    """What came in the last `seconds`; `old` of None: it has no share. `timed`: whether latency counts.

    `lines`: what was logged meanwhile.
    """
    beside = old and _short(old)
    entry = {"what": "look", "seconds": round(seconds, 3), "new": _short(new), "old": beside, "timed": timed}
    return {**entry, "lines": [[c.new, c.of_new, c.old, c.of_old] for c in lines]}


def closed() -> Entry:
    """Something changed, or was not seen: what came before is not pooled with what comes."""
    return {"what": "close"}


def prove(number: int, gate: Gate) -> Entry:
    """The step `number` waits for a proof: what counts for it begins anew."""
    return {"what": "prove", "number": number, "gate": gate.value}


class Hearing:
    """The entries of one rollout, heard by the judge in their order."""

    def __init__(self, judging: Judging) -> None:
        self.comparison: Comparison | None = None
        self.proving = 0
        self.outage = Outage()
        self.lines_alarm = False
        self._settings, self._lines = _parts(judging)

    def take(self, entry: Entry) -> None:
        """Hear one entry."""
        match entry["what"]:
            case "before":
                self.comparison = Comparison(self._settings, _sample(entry["old"]))
                self.outage = Outage(_sample(entry["old"]))
            case "look":
                self._look(entry)
            case "close" if self.comparison is not None:
                self.comparison.close()
                if self._lines is not None:
                    self._lines.close()
            case "prove" if self.comparison is not None:
                self.proving = entry["number"]
                self.comparison.step(Gate(entry["gate"]))

    def _look(self, entry: Entry) -> None:
        if self.comparison is not None:
            new, old = _sample(entry["new"]), entry["old"] and _sample(entry["old"])
            self.comparison.look(entry["seconds"], new, old, timed=entry["timed"])
            self.outage.look(new, old)
        for counts in entry["lines"]:
            if self._lines is not None:
                self._lines.look(entry["seconds"], Counts(*counts))
                self.lines_alarm = self.lines_alarm or self._lines.alarm


def _parts(judging: Judging) -> tuple[Settings, Lines | None]:
    """The judge's settings, and the test of log lines if there is one: together they keep the level."""
    settings = judging.settings
    if not judging.logs:
        return settings, None
    part = settings.false_alarm * LINES_PART
    return replace(settings, false_alarm=settings.false_alarm - part), Lines(part, settings.alarm)


def _short(sample: Sample) -> list[Any]:
    return [sample.attempts, sample.failures, {str(edge): n for edge, n in sample.latency_us.items() if n}]


def _sample(short: list[Any]) -> Sample:
    attempts, failures, latency = short
    return Sample(attempts, failures, {float(edge): n for edge, n in latency.items()})
