"""What the router counted of a service in the last minutes: what is usual, before anything changes.

It lies in memory only: after a restart what is usual is what the router has counted since its own start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from segue.core.release import Revision
from segue.core.samples import since
from segue.core.traffic import Sample
from segue.engine.clock import Clock
from segue.errors import RouterLost
from segue.ports import Evidence

MINUTES = 10
NOTE_EVERY = 60.0
"""Seconds between two notes."""


class Recent:
    """Notes of `service` once a minute, for the last ten."""

    def __init__(self, service: str, evidence: Evidence, clock: Clock) -> None:
        self._service, self._evidence, self._clock = service, evidence, clock
        self._notes: deque[tuple[float, Mapping[Revision, Sample]]] = deque(maxlen=MINUTES)

    async def run(self) -> None:
        """Take notes, for ever."""
        while True:
            await self._clock.sleep(NOTE_EVERY)
            try:
                sample = await self._evidence.sample(self._service)
                self._notes.append((self._clock.monotonic(), sample))
            except RouterLost:
                self._notes.clear()

    def last(self, revision: Revision, now: Sample) -> Sample:
        """What `revision` did in the last ten minutes, if the router has counted `now` of it since its start."""
        before = self._notes[0][1].get(revision, Sample()) if self._notes else Sample()
        return since(now, before)

    def first(self, revision: Revision) -> tuple[float, Sample] | None:
        """The oldest note with `revision` in it: when it was taken, by the clock's steady time, and its counts."""
        return next(((at, counts[revision]) for at, counts in self._notes if revision in counts), None)
