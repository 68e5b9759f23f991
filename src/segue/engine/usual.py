"""How much traffic a service has now, for who wants to plan: from the notes that are taken once a minute.

Every question leaves a note, too. Where there is none yet, the first one takes `SHORTLY`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from segue.core.release import Revision
from segue.core.samples import since, went_back
from segue.core.traffic import Sample
from segue.engine.control import ControlPlane
from segue.engine.recent import Note, noted
from segue.errors import RouterLost

SHORTLY = 2.0
"""Seconds that are measured where nothing is known."""
LONGEST = 600.0
"""Seconds after which a note is of another time."""
MOST = 20
"""Notes that are kept of a service; the first one is what counts, the others follow when its time is over."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What came to the version that serves in the last `seconds`, and how many requests are `open` on it now.

    `requests` were its own, of which it answered `failures` with an error; `sample` has some of them at least.
    `told`: requests a second that somebody says there are, in place of those that were counted.
    """

    sample: Sample = Sample()
    seconds: float = 0.0
    open: int | None = None
    told: float | None = None
    requests: int = 0
    failures: int = 0

    @property
    def rate(self) -> float | None:
        """Requests a second; None: not known."""
        if self.told is not None:
            return self.told
        return self.requests / self.seconds if self.seconds else None


class Meter:
    """Measures the traffic of the services of `control` that somebody asks about."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._notes: dict[str, tuple[Revision, deque[Note]]] = {}

    async def usual(self, service: str, revision: Revision) -> Usual:
        """What `revision` does now; nothing is known of it where the router cannot be asked."""
        try:
            measured = await self._measured(service, revision)
            return replace(measured, open=await self._open(service, revision))
        except RouterLost:
            return Usual()

    async def _measured(self, service: str, revision: Revision) -> Usual:
        first, now = await self._note(service, revision)
        before = self._control.services[service].recent.first(revision)
        if before and before.at < first.at and not went_back(now.of(revision), before.of(revision)):
            return _between(before, now, revision)
        if now.at - first.at < SHORTLY:
            await self._control.world.clock.sleep(SHORTLY - (now.at - first.at))
            first, now = await self._note(service, revision)
        return _between(first, now, revision)

    async def _note(self, service: str, revision: Revision) -> tuple[Note, Note]:
        """Take a note; returns the first one that says something of now, and this one."""
        note = await noted(service, self._control.world.evidence, self._control.world.clock)
        of, notes = self._notes.get(service, (revision, deque()))
        if of != revision or (notes and went_back(note.of(revision), notes[-1].of(revision))):
            notes = deque()
        while notes and notes[0].at < note.at - LONGEST:
            notes.popleft()
        notes.append(note)
        if len(notes) > MOST:
            del notes[1]
        self._notes[service] = revision, notes
        return notes[0], note

    async def _open(self, service: str, revision: Revision) -> int:
        """Requests under way on the revision's instances, WebSockets and streams among them."""
        seen = await self._control.world.router.observe(service)
        return sum(one.in_flight for id, one in seen.items() if id.startswith(f"{service}-{revision}-"))


def _between(first: Note, now: Note, revision: Revision) -> Usual:
    """What `revision` did between two notes. Of the requests it had the part that it had of the attempts."""
    sample = since(now.of(revision), first.of(revision))
    attempts = sum(since(now.of(each), first.of(each)).attempts for each in now.samples)
    came = now.books.total - now.books.unserved - first.books.total + first.books.unserved
    failures = now.books.failed.get(revision, 0) - first.books.failed.get(revision, 0)
    requests = round(max(came, 0) * sample.attempts / attempts) if attempts else 0
    return Usual(sample, now.at - first.at, requests=requests, failures=max(failures, 0))
