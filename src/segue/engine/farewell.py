"""The end of an instance: out of the traffic, drained, told to end, gone; and what became of those it still served.

Rule 1: an instance is removed in this order, always: marked draining and confirmed by the router, the barrier,
nothing in flight (or the drain's end), the signal, its end, and only then gone from the router.
Rule 2: what is open is written down before the signal, so that another control plane counts on from there.
Rule 3: a goodbye is what was seen to be one; what nobody saw is called unclear (decision 0026).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

from segue.core.traffic import Ends, InstanceId, Observed
from segue.engine.bell import Bell
from segue.engine.clock import Clock, wait_for
from segue.engine.journal import Journal
from segue.engine.member import Member
from segue.engine.records import Parting
from segue.errors import RouterLost
from segue.ports import Instance, Intent, Platform, Router

LOOK_EVERY, SELDOM, SLOWER = 0.025, 1.0, 100
"""Seconds between two looks at what is in flight: at first, at most; in between a hundredth of what has passed."""

AT_LEAST = 0.001
"""Seconds between two looks, however near the end of a wait is."""

TELL_AFTER = 1.0
"""Seconds after which clients are told what is open; then again after half as long as it took so far, or longer."""

HEARD_WITHIN = 0.5
"""Seconds that the router is given to hear of one more end once the instance is gone."""


@dataclass(frozen=True, slots=True)
class Farewell:
    """What became of the requests that an instance had when it left the traffic.

    `drained` had ended when it was told to end. `open` had not, and is the sum of the next four. `goodbye`: ended by
    the instance, or by their users, while it ran. `cut`: broken off. `repeated`: given to another instance.
    `unclear`: nobody saw which. `killed`: it did not end within its grace.
    """

    drained: int = 0
    open: int = 0
    goodbye: int = 0
    cut: int = 0
    repeated: int = 0
    unclear: int = 0
    killed: bool = False

    @property
    def detail(self) -> str | None:
        """The sentence about it, if it is worth one."""
        parts = []
        if self.open:
            some = f"{self.open} request{'' if self.open == 1 else 's'}"
            parts.append(f"{some} in flight at the drain's end{self._known}")
        if self.killed:
            parts.append("killed after the grace")
        return ", ".join(parts) or None

    @property
    def _known(self) -> str:
        kinds = (
            (self.goodbye, "said goodbye to"),
            (self.cut, "cut"),
            (self.repeated, "repeated elsewhere"),
            (self.unclear, "not known"),
        )
        known = ", ".join(f"{number} {kind}" for number, kind in kinds if number)
        return f" ({known})" if self.unclear < self.open else ""


class Tell(Protocol):
    """Tells clients how a member is."""

    def __call__(self, member: Member, detail: str | None, **more: Any) -> None: ...


class Farewells:
    """Ends the instances of `service` that are marked as draining."""

    def __init__(
        self,
        service: str,
        *,
        platform: Platform,
        router: Router,
        journal: Journal,
        clock: Clock,
        bell: Bell,
        routed: Callable[[Member], bool],
        tell: Tell,
    ) -> None:
        self._service, self._platform, self._router, self._journal = service, platform, router, journal
        self._clock, self._bell, self._routed, self._tell = clock, bell, routed, tell
        self._turn, self._looks = asyncio.Lock(), 0
        self._seen: Mapping[InstanceId, Observed] | None = None

    async def bid(self, member: Member, intent: Intent, instance: Instance, delay: timedelta) -> Farewell:
        """Drain `member`, then end `instance`, not before `delay`; what became of those it served."""
        stop, parting = member.version.stop, member.parting
        if parting is not None and parting.ends is not None:  # an earlier control plane has told it to end
            member.until = self._clock.now() + stop.drain + stop.grace
            await self._idle(member, stop.drain)
            return await self._end(member, instance, parting)
        parting = await self._drain(member, stop.drain + delay, not_before=delay)
        member.until = self._clock.now() + stop.grace
        with self._journal.transaction():
            self._journal.mark_intent(intent.nonce, stopping=True, parting=parting)
            if parting.open:
                so_far = Farewell(parting.drained, parting.open, unclear=parting.open)
                self._say(member, f"told to end with {parting.open} open", farewell=asdict(so_far))
        member.parting = parting
        return await self._end(member, instance, parting)

    # Draining

    async def _drain(self, member: Member, limit: timedelta, not_before: timedelta) -> Parting:
        """Wait until the router is past the instance and nothing is in flight, or until `limit` is over."""
        began, most, least = self._clock.monotonic(), limit.total_seconds(), not_before.total_seconds()
        member.until, told = self._clock.now() + limit, 0.0
        with suppress(TimeoutError):
            await wait_for(self._clock, self._out_of_traffic(member), 5 + most)
        first = last = await self._look(member)
        while True:
            waited = self._clock.monotonic() - began
            if waited >= most or (member.in_flight == 0 and waited >= least):
                return _parting(member, first, last)
            if member.in_flight and waited >= told + max(TELL_AFTER, told / 2):
                told = waited
                self._say(member, f"{member.in_flight} open, at most {most - waited:.0f} s more")
            edge = least if waited < least else most
            await self._clock.sleep(min(_pace(waited), max(edge - waited, AT_LEAST)))
            if seen := await self._look(member):
                first, last = first or seen, seen

    async def _out_of_traffic(self, member: Member) -> None:
        await self._bell.until(lambda: self._routed(member))
        while True:
            try:
                return await self._router.settled()
            except RouterLost:
                await self._clock.sleep(LOOK_EVERY)

    # Ending

    async def _end(self, member: Member, instance: Instance, parting: Parting) -> Farewell:
        """Tell `instance` to end, and see what it did with what was open."""
        stop = member.version.stop
        looking = asyncio.create_task(self._idle(member, stop.grace if parting.open else timedelta(0)))
        try:
            by_itself = await self._platform.stop(instance, stop.signal, stop.grace)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        heard = await self._heard(member, parting.ends) if parting.open and parting.ends else None
        return replace(_farewell(parting, heard), killed=not by_itself)

    async def _idle(self, member: Member, within: timedelta) -> None:
        """Look until nothing is open, or for so long."""
        began = self._clock.monotonic()
        while (waited := self._clock.monotonic() - began) < within.total_seconds():
            await self._look(member)
            if member.in_flight == 0:
                return
            await self._clock.sleep(_pace(waited))

    async def _heard(self, member: Member, at: Ends) -> Ends | None:
        """What has ended once the router has heard that the instance is gone; None: it cannot be asked.

        `at`: what had ended before. What is only known to be closed by now may be known better in a moment.
        """
        before: tuple[int, int] | None = None
        since = self._clock.monotonic()
        while self._clock.monotonic() - since < HEARD_WITHIN:
            seen = await self._look(member)
            now = (seen.in_flight, seen.ends.closed) if seen else None
            if now == (0, at.closed):
                break
            if now != before:
                before, since = now, self._clock.monotonic()
            await self._clock.sleep(LOOK_EVERY)
        last = await self._look(member)  # what has ended is counted before what is open
        return last.ends if last else None

    # Telling and looking

    def _say(self, member: Member, detail: str, **more: Any) -> None:
        until = member.until.isoformat() if member.until else None
        self._tell(member, detail, in_flight=member.in_flight, until=until, **more)

    async def _look(self, member: Member) -> Observed | None:
        """What the router sees of `member`, not before this call; None: it cannot be asked.

        Members that look at the same time share one look.
        """
        before = self._looks
        async with self._turn:
            if self._looks == before:
                self._looks, self._seen = self._looks + 1, None
                with suppress(RouterLost):
                    self._seen = await self._router.observe(self._service)
            seen = None if self._seen is None else self._seen.get(member.id, Observed(False, 0))
        member.in_flight = None if seen is None else seen.in_flight
        return seen


def _pace(waited: float) -> float:
    return min(max(LOOK_EVERY, waited / SLOWER), SELDOM)


def _parting(member: Member, first: Observed | None, last: Observed | None) -> Parting:
    """What is known when the drain is over: `first` and `last` were seen in it."""
    if first is None or last is None:
        return Parting(member.leaves_for)
    return Parting(member.leaves_for, max(0, _kept(last.ends) - _kept(first.ends)), last.in_flight, last.ends)


def _kept(ends: Ends) -> int:
    """How many have ended that were not cut."""
    return ends.whole + ends.repeated + ends.closed


def _farewell(parting: Parting, end: Ends | None) -> Farewell:
    """What became of what was open, by the router's counts when the signal was sent and at the `end`."""
    at = parting.ends
    if at is None or end is None or any(b < a for a, b in zip(astuple(at), astuple(end), strict=True)):
        return Farewell(parting.drained, parting.open, unclear=parting.open)  # the router was lost, or began anew
    goodbye, cut, repeated = end.whole - at.whole, end.cut - at.cut, end.repeated - at.repeated
    unclear = max(end.closed - at.closed, parting.open - goodbye - cut - repeated)
    return Farewell(parting.drained, goodbye + cut + repeated + unclear, goodbye, cut, repeated, unclear)
