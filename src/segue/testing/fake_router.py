"""What splits the traffic, in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from math import inf

from segue.core.release import Revision
from segue.core.traffic import Endpoint, Ends, InstanceId, Observed, RoutingTable, ServiceTable, Traffic
from segue.engine.clock import Clock
from segue.errors import Refused, RouterLost, RouterRefused
from segue.testing.calls import Apply, Confirmed, Observe, Probe, Record, Seen, Settle, Settled
from segue.testing.gate import Gate


class FakeRouter:
    """What splits the traffic, in memory.

    `in_flight`: how many requests an instance has, set by the test; `ends`: how others ended. `taken`: where somebody
    else listens.
    """

    def __init__(self, clock: Clock, record: Record) -> None:
        self.in_flight: dict[InstanceId, int] = {}
        self.ends: dict[InstanceId, Ends] = {}
        self.taken: set[str] = set()
        self.confirming, self.settling = Gate(), Gate()
        self.history: list[tuple[float, RoutingTable]] = [(clock.monotonic(), RoutingTable())]
        self._clock, self._record = clock, record
        self._refusals: dict[str, tuple[str, Callable[[ServiceTable], bool]]] = {}
        self._lost = 0.0

    # What a test orders

    def lose(self, calls: float = inf) -> None:
        """The next `calls` calls find no router; with 0 it is there again."""
        self._lost = calls

    def refuse(
        self, service: str, reason: str = "not accepted", when: Callable[[ServiceTable], bool] = lambda table: True
    ) -> None:
        """Refuse every change of `service`'s table for which `when` holds."""
        self._refusals[service] = reason, when

    def accept(self, service: str) -> None:
        """Refuse nothing of `service` any more."""
        self._refusals.pop(service, None)

    def end(self, instance: InstanceId, **how: int) -> None:
        """So many requests that `instance` has in flight end now, by the fields of `Ends`."""
        so_far = self.ends.get(instance, Ends())
        self.ends[instance] = replace(so_far, **{kind: getattr(so_far, kind) + n for kind, n in how.items()})
        self.in_flight[instance] -= sum(how.values())

    # What a test looks at

    @property
    def table(self) -> RoutingTable:
        """The last confirmed table."""
        return self.history[-1][1]

    def shares(self, service: str) -> Mapping[Revision, Fraction]:
        """How the confirmed table splits the traffic of `service`."""
        table = self.table.services.get(service)
        return {backend.revision: backend.share for backend in (table.backends if table else ()) if backend.share}

    # Router

    async def apply(self, table: RoutingTable) -> None:
        """Return when `table` is confirmed. Raises RouterRefused, RouterLost as it was ordered."""
        async with self._record.during(Apply(table)):
            self.check_there()
            await self.confirming.passed()
            for service, change in table.services.items():
                if change != self.table.services.get(service):
                    self._check(service, change)
            self._check_previews(table)
            self.history.append((self._clock.monotonic(), table))
            self._record.happened(Confirmed(table))

    async def settled(self) -> None:
        """Return when every worker is past the last confirmed table."""
        async with self._record.during(Settle()):
            self.check_there()
            await self.settling.passed()
            self._record.happened(Settled())

    async def observe(self, service: str) -> Mapping[InstanceId, Observed]:
        """What the confirmed table and the test say of the instances. Raises RouterLost as it was ordered."""
        async with self._record.during(Observe(service)):
            self.check_there()
            table = self.table.services.get(service)
            ends = [end for backend in (table.backends if table else ()) for end in backend.endpoints]
            for end in ends:
                self._record.happened(Seen(end.instance, self.in_flight.get(end.instance, 0)))
            return {end.instance: self._observed(end) for end in ends}

    def _observed(self, end: Endpoint) -> Observed:
        ended = self.ends.get(end.instance) if end.state is Traffic.DRAINING else None
        return Observed(end.state is Traffic.READY, self.in_flight.get(end.instance, 0), ended or Ends())

    async def refuse_taken(self, listen: str) -> None:
        """Raise Refused if `listen` is among `taken`."""
        async with self._record.during(Probe(listen)):
            if listen in self.taken:
                raise Refused(f"somebody else listens on {listen}")

    def check_there(self) -> None:
        """Raise RouterLost as it was ordered."""
        if self._lost:
            self._lost -= 1
            raise RouterLost("the router cannot be asked now: it is being restarted")

    def _check(self, service: str, table: ServiceTable) -> None:
        reason, when = self._refusals.get(service, ("", lambda table: False))
        if when(table):
            raise RouterRefused(f"the router refused the table of {service}: {reason}")
        total = sum(backend.share for backend in table.backends)
        if total not in (0, 1):
            raise RouterRefused(f"the shares of {service} sum to {total}")

    def _check_previews(self, table: RoutingTable) -> None:
        claimed = {service.route.listen for service in table.services.values()}
        for service, change in table.services.items():
            if change.preview is None:
                continue
            place = change.preview.listen
            if place in claimed:
                raise RouterRefused(
                    f"the preview of {service} is to be at {place}, where a service is reached already"
                )
            before = self.table.services.get(service)
            if place in self.taken and not (before and before.preview and before.preview.listen == place):
                raise RouterRefused(f"somebody else listens on {place}")
            claimed.add(place)
