"""What the router counted of a service in the last minutes: what is usual, before anything changes.

It lies in memory only: after a restart what is usual is what the router has counted since its own start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from segue.core.release import Revision
from segue.core.samples import since
from segue.core.traffic import Books, Sample
from segue.engine.clock import Clock
from segue.errors import RouterLost
from segue.ports import Evidence

MINUTES = 10
NOTE_EVERY = 60.0
"""Seconds between two notes."""


@dataclass(frozen=True, slots=True)
class Note:
    """What the router had counted since its start `at` a moment of the clock's steady time."""

    at: float
    samples: Mapping[Revision, Sample]
    books: Books

    def of(self, revision: Revision) -> Sample:
        """What it had counted of `revision`."""
        return self.samples.get(revision, Sample())


async def noted(service: str, evidence: Evidence, clock: Clock) -> Note:
    """A note of now. Raises RouterLost."""
    samples, books = await evidence.sample(service), await evidence.books(service)
    return Note(clock.monotonic(), samples, books)


class Recent:
    """Notes of `service` once a minute, for the last ten."""

    def __init__(self, service: str, evidence: Evidence, clock: Clock) -> None:
        self._service, self._evidence, self._clock = service, evidence, clock
        self._notes: deque[Note] = deque(maxlen=MINUTES)

    async def run(self) -> None:
        """Take notes, for ever."""
        while True:
            await self._clock.sleep(NOTE_EVERY)
            try:
                self._notes.append(await noted(self._service, self._evidence, self._clock))
            except RouterLost:
                self._notes.clear()

    def last(self, revision: Revision, now: Sample) -> Sample:
        """What `revision` did in the last ten minutes, if the router has counted `now` of it since its start."""
        return since(now, self._notes[0].of(revision) if self._notes else Sample())

    def first(self, revision: Revision) -> Note | None:
        """The oldest note with `revision` in it."""
        return next((note for note in self._notes if revision in note.samples), None)
