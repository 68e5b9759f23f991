"""Does the new version answer anything at all? No statistics: a version that fails everything is not healthy.

The tests of this package let no single second decide, for a healthy version has bad seconds, too; so they take three
or four seconds to see even a version that answers nothing but 500, and a short judgement may be over by then. Such
a version need not be compared in detail: `ENOUGH` attempts in a row have failed, over all its instances, none was
answered between them, and the old version answered most of its own at the same time (or before, while it has none).
A version that fails one request of two by chance has such a run once in 2^`ENOUGH` attempts; this rule has no part
in `false_alarm`, as an instance's health check has none.
"""

from __future__ import annotations

from segue.core.traffic import Sample

ENOUGH = 20


class Outage:
    """Counts the attempts in a row that the new version failed. `history`: what the old one did before."""

    def __init__(self, history: Sample | None = None) -> None:
        self.failed = 0
        self.alarm = False
        self._history = history or Sample()
        self._old = Sample()

    def look(self, new: Sample, old: Sample | None) -> None:
        """What came since the last look; None: the old version has no share."""
        if new.failures < new.attempts:
            self.failed, self._old = 0, Sample()
            return
        self.failed += new.failures
        if old is not None:
            self._old = Sample(self._old.attempts + old.attempts, self._old.failures + old.failures)
        beside = self._old if self._old.attempts else self._history
        answers = beside.failures * 2 < beside.attempts or not beside.attempts
        self.alarm = self.alarm or (self.failed >= ENOUGH and answers)
