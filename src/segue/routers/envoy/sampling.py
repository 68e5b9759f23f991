"""Which attempts are counted, and by what: all of them; some while nothing changes and very many come.

To count an attempt, and to take its time, is a tenth of what Envoy does for a request. Rules of this file:
* Where a version may be judged, or an instance is to end, all are counted before Envoy is told of it: where its table
  is not `at_rest`.
* Chance alone chooses, good and bad alike: what part of them failed, and how long they took, stays true. How many
  requests came is in the books, which have them all.
* Envoy looks when an attempt ends. What began while few were counted and ends while all are is counted.
* A request that came at rest is told with its last attempt, whenever it ends, by a log of its own, all others by the
  log of attempts. When there is no rest the former need not look at what took less time than has passed since then.
* Envoy is told by its runtime, which changes nobody's connection; one that starts counts all.
"""

from __future__ import annotations

import json

from segue.routers.envoy.admin import Admin
from segue.routers.envoy.loggers import ATTEMPTS, RESTED

ALL = 100
PARTS = 1, 2, 5, 10
"""Per cent of the attempts that are counted where that is enough; else all."""
ENOUGH, SCARCE = 100.0, 50.0
"""Attempts counted a second that are enough to choose a part, and below which it is chosen anew."""
EVERY = 2.0
"""Seconds between two looks of a router at what is due."""
BEHIND = 1.0
"""Seconds that a worker may be behind what Envoy has confirmed."""
_UNSAID = {ATTEMPTS: ALL, RESTED: 0}
_CAME = r"^http\..*\.downstream_rq_total$"
_OWN = "http.admin.downstream_rq_total"


def due(rate: float, part: int) -> int:
    """The per cent to count while so many requests come a second, where `part` per cent are counted so far."""
    least = next((some for some in PARTS if rate * some >= 100 * ENOUGH), ALL)
    return least if least < part or rate * part < 100 * SCARCE else part


async def said(admin: Admin) -> dict[str, int]:
    """What an Envoy says of `ATTEMPTS`, in per cent, and of `RESTED`, in ms. Raises RouterLost."""
    entries = json.loads(await admin.get("/runtime"))["entries"]
    return {key: int(entries[key]["final_value"]) if key in entries else value for key, value in _UNSAID.items()}


class Sampling:
    """What one Envoy counts, and how much comes to it."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._said: dict[str, int] | None = None
        self._looked: tuple[float, int] | None = None
        self._moving_since: float | None = None

    async def moves(self) -> None:
        """Before there is no rest: return when every attempt that ends from now on is counted. Raises RouterLost."""
        self._looked = None
        await self._say(ATTEMPTS, ALL)

    async def rests(self) -> None:
        """Before there is rest: return when every request that will have come at rest is looked at.

        Raises RouterLost.
        """
        self._moving_since = None
        await self._say(RESTED, 0)

    async def moving(self, now: float) -> None:
        """While there is no rest: look no longer at what has begun since. `now`: seconds, as they pass.

        Envoy is told again when twice the time has passed. Raises RouterLost.
        """
        if self._moving_since is None:
            self._moving_since = now
        passed = round((now - self._moving_since - BEHIND) * 1000)
        if passed >= 2 * (await self._now())[RESTED] and passed > 0:
            await self._say(RESTED, passed)

    async def resting(self, now: float) -> None:
        """While there is rest: count what is due at the rate since the last call. `now`: seconds, as they pass.

        Raises RouterLost.
        """
        last, came = self._looked, await self._came()
        self._looked = now, came
        if last is None or now <= last[0]:
            return
        rate = (came - last[1]) / (now - last[0])
        await self._say(ATTEMPTS, due(rate, (await self._now())[ATTEMPTS]))

    async def _came(self) -> int:
        """Requests since Envoy's start, without our own."""
        found = (await self._admin.stats(_CAME, only="Counters", used=True)).values
        return sum(number for name, number in found.items() if name != _OWN)

    async def _now(self) -> dict[str, int]:
        if self._said is None:
            self._said = await said(self._admin)
        return self._said

    async def _say(self, key: str, value: int) -> None:
        now = await self._now()
        if now[key] != value:
            self._said = None  # unknown, should we not hear the answer
            await self._admin.post(f"/runtime_modify?{key}={value}")
            self._said = {**now, key: value}
