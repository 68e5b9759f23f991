"""What splits the traffic and what is observed of it, in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import inf

from segue.core.release import Revision
from segue.core.traffic import Books, InstanceId, Observed, RoutingTable, Sample, ServiceTable, Traffic
from segue.engine.clock import Clock
from segue.errors import Refused, RouterLost, RouterRefused
from segue.testing.calls import Apply, BooksOf, Confirmed, Observe, Probe, Record, SampleOf, Seen, Settle, Settled
from segue.testing.gate import Gate


class FakeRouter:
    """What splits the traffic, in memory.

    `in_flight`: how many requests an instance has, set by the test. `taken`: where somebody else listens.
    """

    def __init__(self, clock: Clock, record: Record) -> None:
        self.in_flight: dict[InstanceId, int] = {}
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
            return {
                end.instance: Observed(end.state is Traffic.READY, self.in_flight.get(end.instance, 0))
                for end in ends
            }

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


@dataclass(frozen=True, slots=True)
class _Flow:
    """From `began` on: so many requests a second, of which a part fails, by revision."""

    began: float
    rate: float = 0.0
    failing: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Count:
    """What came to one version, exactly; `shielded` are the failures that its users did not see."""

    attempts: Fraction = Fraction(0)
    failures: Fraction = Fraction(0)
    shielded: Fraction = Fraction(0)

    def add(self, attempts: Fraction, failing: Fraction, on_trial: bool) -> None:
        """So many more, of which the part `failing` failed."""
        self.attempts += attempts
        self.failures += attempts * failing
        self.shielded += attempts * failing * on_trial


class FakeEvidence:
    """What is observed: the traffic that a test lets flow, split as the router's confirmed tables say."""

    def __init__(self, clock: Clock, router: FakeRouter, record: Record) -> None:
        self._clock, self._router, self._record = clock, router, record
        self._flows: defaultdict[str, list[_Flow]] = defaultdict(list)
        self._since = clock.monotonic()

    # What a test orders

    def flow(self, service: str, *, rate: float, failing: Mapping[str, float] | None = None) -> None:
        """From now on: `rate` requests a second to `service`, of which a part fails, by revision."""
        self._flows[service].append(_Flow(self._clock.monotonic(), rate, dict(failing or {})))

    def restart(self) -> None:
        """The router has restarted: all counts go back to zero."""
        self._since = self._clock.monotonic()

    # Evidence

    async def sample(self, service: str) -> Mapping[Revision, Sample]:
        """Attempts on each version since the router's start. Raises RouterLost as it was ordered."""
        async with self._record.during(SampleOf(service)):
            self._router.check_there()
            counts = self._counted(service).items()
            return {revision: _sample(int(count.attempts), int(count.failures)) for revision, count in counts}

    async def books(self, service: str) -> Books:
        """The account of the requests. Raises RouterLost as it was ordered."""
        async with self._record.during(BooksOf(service)):
            self._router.check_there()
            counts = self._counted(service)
            answered = {revision: int(count.attempts - count.failures) for revision, count in counts.items()}
            failed = {revision: int(count.failures - count.shielded) for revision, count in counts.items()}
            shielded = sum(int(count.shielded) for count in counts.values())
            unserved = int(sum(seconds * Fraction(flow.rate) for seconds, flow, table in self._closed(service)))
            total = sum(answered.values()) + sum(failed.values()) + shielded + unserved
            return Books(total=total, answered=answered, failed=failed, shielded=shielded, unserved=unserved)

    def _counted(self, service: str) -> Mapping[Revision, _Count]:
        counts: defaultdict[Revision, _Count] = defaultdict(_Count)
        for seconds, flow, table in self._stretches(service):
            for backend in table.backends:
                on_trial = table.route.shield and table.trial == backend.revision
                failing = Fraction(flow.failing.get(backend.revision, 0))
                counts[backend.revision].add(seconds * Fraction(flow.rate) * backend.share, failing, on_trial)
        return counts

    def _closed(self, service: str) -> Iterator[tuple[Fraction, _Flow, ServiceTable]]:
        """The stretches in which nobody was served."""
        return (stretch for stretch in self._stretches(service) if not any(b.share for b in stretch[2].backends))

    def _stretches(self, service: str) -> Iterator[tuple[Fraction, _Flow, ServiceTable]]:
        """The stretches of time in which neither the flow nor the table changed, with their seconds."""
        flows, tables, now = self._flows[service], self._router.history, self._clock.monotonic()
        times = sorted({self._since, now, *(flow.began for flow in flows), *(at for at, _ in tables)})
        for began, ended in pairwise(times):
            flow = next((flow for flow in reversed(flows) if flow.began <= began), None)
            table = next(table for at, table in reversed(tables) if at <= began).services.get(service)
            if began >= self._since and flow and table:
                yield Fraction(ended) - Fraction(began), flow, table


def _sample(attempts: int, failures: int) -> Sample:
    return Sample(attempts, failures, {10_000.0: attempts} if attempts else {})
