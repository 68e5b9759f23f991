"""Which attempts are counted: all of them; one in ten while nothing changes and very many come.

To count an attempt, and to take its time, is a twentieth of what Envoy does for a request (decision 0035).

Rules of this file:
* Where a version may be judged, or an instance is to end, all are counted before Envoy is told of it: where its table
  is not `at_rest`.
* Chance alone chooses, good and bad alike: what part of them failed, and how long they took, stays true. How many
  requests came is in the books, which have them all.
* Envoy looks when an attempt ends. What began while few were counted and ends while all are is counted.
* Envoy is told by its runtime, which changes nobody's connection; one that starts counts all.
"""

from __future__ import annotations

import json

from segue.routers.envoy.admin import Admin
from segue.routers.envoy.http import ATTEMPTS

ALL, FEW = 100, 10
"""Per cent of the attempts that are counted."""
BUSY, QUIET = 1000.0, 500.0
"""Requests a second from which on few are counted, and below which all are again."""
EVERY = 2.0
"""Seconds between two looks at how many come."""
_CAME = r"^http\..*\.downstream_rq_total$"
_OWN = "http.admin.downstream_rq_total"


async def counted(admin: Admin) -> int:
    """The part of the attempts that an Envoy counts, in per cent, as it says itself. Raises RouterLost."""
    entry = json.loads(await admin.get("/runtime"))["entries"].get(ATTEMPTS)
    return int(entry["final_value"]) if entry else ALL


class Sampling:
    """What one Envoy counts, and how much comes to it."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._part: int | None = None
        self._looked: tuple[float, int] | None = None

    async def count_all(self) -> None:
        """Return when every attempt that ends from now on is counted. Raises RouterLost."""
        await self._count(ALL)

    async def adjust(self, now: float) -> None:
        """While nothing changes: count what is due at the rate since the last call. `now`: seconds, as they pass.

        Raises RouterLost.
        """
        last, came = self._looked, await self._came()
        self._looked = now, came
        if last is None or now <= last[0]:
            return
        rate = (came - last[1]) / (now - last[0])
        if rate >= BUSY:
            await self._count(FEW)
        elif rate < QUIET:
            await self._count(ALL)

    async def _came(self) -> int:
        """Requests since Envoy's start, without our own."""
        found = (await self._admin.stats(_CAME, only="Counters", used=True)).values
        return sum(number for name, number in found.items() if name != _OWN)

    async def _count(self, part: int) -> None:
        if self._part is None:
            self._part = await counted(self._admin)
        if self._part != part:
            self._part = None  # unknown, should we not hear the answer
            await self._admin.post(f"/runtime_modify?{ATTEMPTS}={part}")
            self._part = part
