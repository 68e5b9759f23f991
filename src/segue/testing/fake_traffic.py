"""What is observed of the traffic that the router in memory splits."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from math import erf, log

from segue.core.experiment import Visit
from segue.core.paths import OTHERS
from segue.core.release import Revision
from segue.core.traffic import Backend, Books, InstanceId, Sample, ServiceTable, Traffic
from segue.engine.clock import Clock
from segue.testing.calls import BooksOf, Record, SampleOf
from segue.testing.fake_router import FakeRouter

__all__ = ["FakeEvidence", "FakeRouter"]


@dataclass(frozen=True, slots=True)
class _Flow:
    """From `began` on: so many requests a second, of which a part fails, by revision or by instance."""

    began: float
    rate: float = 0.0
    failing: Mapping[str, float] = field(default_factory=dict)
    paths: Mapping[str, Fraction] = field(default_factory=dict)


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


@dataclass(frozen=True, slots=True)
class _Part:
    """What came to a version, or to one instance of it, for a path: so many attempts, of which a part fails."""

    revision: Revision
    instance: InstanceId | None
    attempts: Fraction
    failing: Fraction
    on_trial: bool
    path: str


class FakeEvidence:
    """What is observed: the traffic that a test lets flow, split as the router's confirmed tables say.

    `slower`: how many times as long a revision's answers take as usual. `reaching`: the part of a revision's users
    who reach an experiment's goal. `few`: the part of the attempts that is counted while the table is at rest.
    """

    def __init__(self, clock: Clock, router: FakeRouter, record: Record) -> None:
        self.slower: dict[str, float] = {}
        self.reaching: dict[str, float] = {}
        self.few = Fraction(1)
        self._visited: Counter[Revision] = Counter()
        self._learned: Counter[str] = Counter()
        self._clock, self._router, self._record = clock, router, record
        self._flows: defaultdict[str, list[_Flow]] = defaultdict(list)
        self._since = clock.monotonic()

    # What a test orders

    def flow(
        self,
        service: str,
        *,
        rate: float,
        failing: Mapping[str, float] | None = None,
        paths: Mapping[str, Fraction] | None = None,
    ) -> None:
        """From now on: `rate` requests a second to `service`, of which a part fails, by revision or by instance.

        `paths`: the part of the requests that each path has; what fails may be that of a revision: ``v2.1/checkout``.
        """
        self._flows[service].append(
            _Flow(self._clock.monotonic(), rate, dict(failing or {}), dict(paths or {"/": Fraction(1)}))
        )

    def restart(self) -> None:
        """The router has restarted: all counts go back to zero."""
        self._since = self._clock.monotonic()

    # Evidence

    async def sample(self, service: str) -> Mapping[Revision, Sample]:
        """Attempts on each version since the router's start. Raises RouterLost as it was ordered."""
        async with self._record.during(SampleOf(service)):
            self._router.check_there()
            apart = self._counted_by_path(service)
            return {
                revision: replace(self._of(revision, count), parts=apart.get(revision, {}))
                for revision, count in self._counted(service, some=True).items()
            }

    def _of(self, revision: Revision, count: _Count) -> Sample:
        return _sample(int(count.attempts), int(count.failures), self.slower.get(revision, 1.0))

    def _counted_by_path(self, service: str) -> Mapping[Revision, Mapping[str, Sample]]:
        """What came to each version for each path that the router tells apart now."""
        table = self._router.table.services.get(service)
        if table is None or not table.paths:
            return {}
        counts: defaultdict[Revision, dict[str, _Count]] = defaultdict(
            lambda: {path: _Count() for path in (*table.paths, OTHERS)}
        )
        for part in self._parts(service, some=True):
            path = next((path for path in table.paths if f"{part.path}/".startswith(f"{path}/")), OTHERS)
            counts[part.revision][path].add(part.attempts, part.failing, part.on_trial)
        return {
            revision: {path: self._of(revision, count) for path, count in by_path.items()}
            for revision, by_path in counts.items()
        }

    async def paths(self, service: str) -> Sequence[str]:
        """All requests while the table was learning, that were not told of before."""
        table = self._router.table.services.get(service)
        if table is None or not table.learning:
            return ()
        counts: defaultdict[str, Fraction] = defaultdict(Fraction)
        for seconds, flow, then in self._stretches(service):
            for path, part in flow.paths.items() if then.learning else ():
                counts[path] += seconds * Fraction(flow.rate) * part
        news = Counter({path: int(count) for path, count in counts.items()}) - self._learned
        self._learned += news
        return list(news.elements())

    async def instances(self, service: str) -> Mapping[InstanceId, Sample]:
        """Attempts on each instance, the ready ones of a version alike. Raises RouterLost as it was ordered."""
        async with self._record.during(SampleOf(service)):
            self._router.check_there()
            table = self._router.table.services.get(service)
            ends = [end.instance for backend in (table.backends if table else ()) for end in backend.endpoints]
            counts = {instance: _Count() for instance in ends} | self._counted_each(service)
            return {name: Sample(int(count.attempts), int(count.failures)) for name, count in counts.items()}

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

    async def visits(self, service: str) -> Sequence[Visit]:
        """Every request is the first of its user; of each version's users a part reaches the goal with it."""
        table = self._router.table.services.get(service)
        if table is None or table.experiment is None:
            return ()
        counts: defaultdict[Revision, Fraction] = defaultdict(Fraction)
        for seconds, flow, then in self._stretches(service):
            for backend in then.backends if then.experiment else ():
                counts[backend.revision] += seconds * Fraction(flow.rate) * backend.share
        return [visit for version, count in counts.items() for visit in self._came(version, int(count), table)]

    def _came(self, version: Revision, count: int, table: ServiceTable) -> Iterator[Visit]:
        """The visits of the users of `version` up to the `count`-th who was not told of before."""
        assert table.experiment is not None
        goal, part = table.experiment.goal, Fraction(self.reaching.get(version, 0))
        for number in range(self._visited[version], count):
            reaches = int((number + 1) * part) > int(number * part)
            path, status = (goal.path or "/", (goal.status or (200, 200))[0]) if reaches else ("/", 200)
            yield Visit(version, f"{version}-{number}", path, status, reaches)
        self._visited[version] = max(self._visited[version], count)

    def _counted(self, service: str, *, some: bool = False) -> Mapping[Revision, _Count]:
        counts: defaultdict[Revision, _Count] = defaultdict(_Count)
        for part in self._parts(service, some=some):
            counts[part.revision].add(part.attempts, part.failing, part.on_trial)
        return counts

    def _counted_each(self, service: str) -> dict[InstanceId, _Count]:
        counts: defaultdict[InstanceId, _Count] = defaultdict(_Count)
        for part in self._parts(service, each=True):
            if part.instance is not None:
                counts[part.instance].add(part.attempts, part.failing, part.on_trial)
        return dict(counts)

    def _parts(self, service: str, *, each: bool = False, some: bool = False) -> Iterator[_Part]:
        """What came to each version in each stretch of time; to each ready instance, where that matters.

        `some`: what is counted of it.
        """
        for seconds, flow, table in self._stretches(service):
            for backend in table.backends:
                names = _instances(flow, backend, each=each)
                on_trial = table.route.shield and table.trial == backend.revision
                counted = self.few if some and table.at_rest else 1
                attempts = seconds * Fraction(flow.rate) * backend.share / len(names) * counted
                for name in names:
                    usual = flow.failing.get(name or "", flow.failing.get(backend.revision, 0))
                    for path, part in flow.paths.items():
                        failing = Fraction(flow.failing.get(f"{backend.revision}{path}", usual))
                        yield _Part(backend.revision, name, attempts * part, failing, on_trial, path)

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


class Times:
    """How long the attempts took, one by one: the n-th always the same, spread as a usual application's are.

    Lognormal about a median of 20 ms. Edges of buckets in microseconds are 10 % apart.
    """

    def __init__(self) -> None:
        self._edges = [20_000 * 1.1**step for step in range(-24, 32)]
        self._below = [(1 + erf(log(edge / 20_000) / 0.9)) / 2 for edge in self._edges]
        self._numbers: list[list[int]] = [[] for _ in self._edges]
        self._known = 0

    def histogram(self, attempts: int) -> Mapping[float, int]:
        """The times of the first `attempts`."""
        for number in range(self._known, attempts):
            place = bisect_left(self._below, number * _GOLDEN % 1)  # every stretch of them is spread alike
            self._numbers[min(place, len(self._edges) - 1)].append(number)
        self._known = max(self._known, attempts)
        counts = (
            (edge, bisect_left(numbers, attempts)) for edge, numbers in zip(self._edges, self._numbers, strict=True)
        )
        return {edge: count for edge, count in counts if count}


_GOLDEN = (5**0.5 - 1) / 2
_TIMES = Times()


def _instances(flow: _Flow, backend: Backend, *, each: bool) -> Sequence[InstanceId | None]:
    """The ready instances if `each` is asked for or one fails by itself; else nobody for all of them."""
    if not each and not flow.failing:
        return [None]
    ready = [end.instance for end in backend.endpoints if end.state is Traffic.READY]
    return ready if ready and (each or not flow.failing.keys().isdisjoint(ready)) else [None]


def _sample(attempts: int, failures: int, slower: float) -> Sample:
    return Sample(attempts, failures, {edge * slower: n for edge, n in _TIMES.histogram(attempts).items()})
