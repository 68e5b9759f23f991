"""What Envoy's own statistics say of a service's requests.

Three logs are counted. `attempt`: one entry per attempt on an instance, by route, version, status and flags; the
route says to which version the request was given, so first attempts and replays are told apart. `attempt.last`: the
last attempt of a request when it ends, where it came at rest, so that no other entry tells of its attempts (those
before have failed on the version that was alone), or where it was cancelled. `request`: one entry per user's request
when it ends; the account. Rules of this file:

* Only attempts of a version on its own routes are evidence: a replay's version was not chosen at random, and neither
  was that of who takes no part in an experiment.
* An attempt that was cancelled because the other one won is evidence of nothing. One whose user left before there
  was an answer has failed: of a version that hangs users see nothing else, and those of the old one leave as well.
  The log of attempts does not tell the two apart, that of last attempts does: it was at home.
* The account's total is not taken from the log: it is the number of requests that the listener has seen ended,
  less those that the log gives to other services on the same listener, or to none. One count that is missing or
  twice in any service's log thus shows in the books of all services of that listener.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from segue.core.experiment import Visit
from segue.core.paths import OTHERS
from segue.core.release import Revision
from segue.core.samples import plus
from segue.core.traffic import Backend, Books, InstanceId, Sample
from segue.errors import RouterLost
from segue.following import Follower
from segue.routers.envoy import paths, visits
from segue.routers.envoy.loggers import VISITS, YES
from segue.routers.envoy.names import ATTEMPT, CODE, RouteName, any_of, cluster_name, parse_tag, statistic
from segue.routers.envoy.router import EnvoyRouter
from segue.together import Together

T = TypeVar("T")

_Part = tuple[Revision, int | None]
"""A version, and the place of a path in the table's."""

TRIES = 5
"""How often counts that were read while requests ended, and do not agree, are read again."""

_COUNTED = re.compile(
    rf"^(?:{ATTEMPT}|request\.n\.listen\.(?P<listen>.*?))"
    rf"\.route\.(?P<route>.*)\.version\.(?P<version>.*)\.code\.{CODE}\.flags\.(?P<flags>.*)$"
)
_TIMES = rf"attempt\.(us|last\.us\.rest\.{YES}\.tries\.\d+)"
_TIMED = re.compile(rf"^{_TIMES}\.route\.(?P<route>.*)\.version\.(?P<version>.*)$")
_NEVER_SERVED = {"UH", "UF", "NC", "NR", "OM"}
"""Envoy's flags of a request that no instance was given: none healthy, none reached, none known."""
_CALL_FAILED = {"2", "4", "12", "13", "14", "15"}
"""What a gRPC call ends with that its server could not answer: unknown, deadline exceeded, unimplemented, internal,
unavailable, data loss. The others are answers, as 404 is one."""
_LEFT = {"DC", "DR"}
"""The user has closed the connection, or, over HTTP/2, given the request up."""
_SWITCHED = 101
"""The status of a WebSocket, which ends with the same flags, be it after a close frame or not: it was answered."""
_NO_FAULT = {"-", "URX", "UO"}
"""No flag, or: it failed as often as it may, or others were repeated already, and this is the last answer."""


@dataclass(frozen=True, slots=True)
class Count:
    """One counter: so many attempts or requests on a route, on a version (empty: none), with one outcome.

    `listen`: where requests came; empty where attempts are counted. `instance`: of the version; empty where requests
    are counted. `tries`: how many attempts each request took of which only the last is counted; 0: each is.
    `at_rest`: whether those requests came at rest.
    """

    listen: str
    tries: int
    at_rest: bool
    route: RouteName | None
    version: str
    instance: InstanceId
    code: int
    flags: frozenset[str]
    number: int

    @property
    def at_home(self) -> bool:
        """Whether the version is the one that the route leads to."""
        return self.route is not None and self.version == cluster_name(self.route.service, self.route.revision)

    @property
    def revision(self) -> Revision:
        """The version's revision."""
        return Revision(self.version.partition("@")[2])


@dataclass(frozen=True, slots=True)
class Log:
    """What the log of requests holds: each service's counts, and how many attempts of it were hedged.

    By listener: how many requests were `logged`, and how many it has seen `ended` by then, from and to.
    """

    counts: Mapping[str, Sequence[Count]]
    hedged: Mapping[str, int]
    logged: Mapping[str, int]
    ended: Mapping[str, tuple[int, int]]


class EnvoyEvidence:
    """The evidence of the requests that pass `router`."""

    def __init__(self, router: EnvoyRouter) -> None:
        self._router = router
        self._sampled, self._logged = Together(self._sample), Together(self._read)
        self._following: dict[str, Follower] = {}
        self._learning: dict[str, tuple[Revision | None, Follower]] = {}

    async def sample(self, service: str) -> Mapping[Revision, Sample]:
        """First attempts on each version since Envoy's start, and on each path of the table's. Raises RouterLost.

        The histogram has every first attempt whose answer began, good or bad; it may lag the counts by a second.
        """
        found = (await self._sampled(service)).get(service, {})
        paths = self._paths(service)
        nothing = Sample(parts=dict.fromkeys((*paths, OTHERS), Sample()) if paths else {})
        revisions = [*(backend.revision for backend in self._backends(service)), *(revision for revision, _ in found)]
        samples = dict.fromkeys(revisions, nothing)
        for (revision, number), part in found.items():
            path = OTHERS if number is None or number >= len(paths) else paths[number]
            told = replace(part, parts={**nothing.parts, path: part}) if paths else part
            before = samples[revision]
            samples[revision] = told if before is nothing else plus(before, told)
        return samples

    def _paths(self, service: str) -> tuple[str, ...]:
        table = self._router.table.services.get(service)
        return table.paths if table else ()

    async def _sample(self, services: Collection[str]) -> Mapping[str, Mapping[_Part, Sample]]:
        name = any_of(services)
        found = await self._router.stats(rf"^({ATTEMPT}|{_TIMES})\.route\.({name}):", used=True)
        samples: defaultdict[str, dict[_Part, Sample]] = defaultdict(dict)
        for count in _counts(found.values):
            if count.route is not None and count.at_home and not count.route.aside:
                of, part = samples[count.route.service], (count.revision, count.route.path)
                of[part] = _with(of.get(part, Sample()), *_weight(count))
        for stat, buckets in found.histograms.items():
            timed = _TIMED.match(stat)
            route = timed and RouteName.parse(timed["route"])
            if timed and route and not route.aside and timed["version"] == cluster_name(*route[:2]):
                of, part = samples[route.service], (Revision(route.revision), route.path)
                of[part] = _timed(of.get(part, Sample()), buckets)
        return samples

    async def instances(self, service: str) -> Mapping[InstanceId, Sample]:
        """First attempts on each instance that is in the table, and on those that were, without times.

        Raises RouterLost.
        """
        pattern = rf"^{ATTEMPT}\.route\.{re.escape(service)}:"
        found = await self._router.stats(pattern, only="Counters", used=True)
        samples = {end.instance: Sample() for backend in self._backends(service) for end in backend.endpoints}
        for count in _counts(found.values):
            if count.at_home:
                before = samples.get(count.instance, Sample())
                samples[count.instance] = _with(before, *_weight(count))
        return samples

    async def visits(self, service: str) -> Sequence[Visit]:
        """What came since the last call of the visits of who takes part in the service's experiment.

        Raises RouterLost where the file cannot be read; nothing of it is skipped.
        """
        table = self._router.table.services.get(service)
        if table is None or table.experiment is None:
            self._following.pop(service, None)
            return ()
        follower = self._following.setdefault(service, Follower.from_the_start(self._router.folder / VISITS))
        return await self._news(follower, lambda lines: visits.read(lines, service, table.trial))

    async def paths(self, service: str) -> Sequence[str]:
        """The paths that were written down to be learned since the last call. Raises RouterLost, as `visits`."""
        table = self._router.table.services.get(service)
        if table is None or not table.learning:
            return ()
        trial, follower = self._learning.get(service, (None, None))
        if follower is None or trial != table.trial:  # the file was emptied since the last one
            follower = Follower.from_the_start(self._router.folder / VISITS)
            self._learning[service] = table.trial, follower
        return await self._news(follower, lambda lines: paths.read(lines, service, table.trial))

    async def _news(self, follower: Follower, read: Callable[[Iterable[str]], Iterator[T]]) -> Sequence[T]:
        try:
            return await asyncio.to_thread(lambda: list(read(follower.news())))
        except OSError as error:
            raise RouterLost(f"{VISITS} cannot be read: {error.strerror}") from error

    async def books(self, service: str) -> Books:
        """The account of the service's requests since Envoy's start. Raises RouterLost."""
        for _ in range(TRIES):
            log = await self._logged(service)
            counts = log.counts.get(service, ())
            missing = sum(_missing(listen, log) for listen in self._listeners(service, counts))
            if not missing:
                break
        books, entries = _account(counts), sum(count.number for count in counts)
        hedged = log.hedged.get(service, 0)
        return Books(
            entries + missing, books.answered, books.failed, books.shielded, hedged, books.cut, books.unserved
        )

    async def _read(self, services: Collection[str]) -> Log:
        """The log, and what each listener has seen end by then.

        Requests begin and end while this reads: what began is read outside of what is under way, so that the
        bounds hold, and the log in the middle.
        """
        began, active = await self._began(), await self._active()
        hedges = rf"attempt\.n\.route\.({any_of(services)}):.*:safe(\+\d+)?\..*\.flags\..*UT"
        found = (await self._router.stats(rf"^(request\.n\.|{hedges})", only="Counters", used=True)).values
        active_after, began_after = await self._active(), await self._began()
        counts: defaultdict[str, list[Count]] = defaultdict(list)
        hedged, logged = Counter[str](), Counter[str]()
        for count in _counts(found):
            service = count.route.service if count.route else ""
            if count.listen:
                counts[service].append(count)
                logged[count.listen] += count.number
            else:
                hedged[service] += count.number
        bounds = {
            listen: (began.get(listen, 0) - active.get(listen, 0), most - active_after.get(listen, 0))
            for listen, most in began_after.items()
        }
        return Log(counts, hedged, logged, bounds)

    async def _began(self) -> Mapping[str, int]:
        return await self._of_listeners("downstream_rq_total", "Counters")

    async def _active(self) -> Mapping[str, int]:
        return await self._of_listeners("downstream_rq_active", "Gauges")

    async def _of_listeners(self, stat: str, kind: str) -> Mapping[str, int]:
        found = (await self._router.stats(rf"^http\..*\.{stat}$", only=kind)).values
        return {name.removeprefix("http.").removesuffix(f".{stat}"): n for name, n in found.items()}

    def _listeners(self, service: str, counts: Iterable[Count]) -> set[str]:
        """Where the service is reached, or was."""
        table = self._router.table.services.get(service)
        return {count.listen for count in counts} | ({table.route.listen} if table else set())

    def _backends(self, service: str) -> tuple[Backend, ...]:
        table = self._router.table.services.get(service)
        return table.backends if table else ()


def _counts(values: Mapping[str, int]) -> Iterator[Count]:
    for name, number in values.items():
        found = _COUNTED.search(name)
        if found:
            flags = frozenset(found["flags"].split(","))
            route = RouteName.parse(found["route"])
            tag = parse_tag(found["version"])
            of = found["listen"] or "", int(found["tries"] or 0), found["rest"] == YES, route
            yield Count(*of, *tag, _code(found["code"], found["called"]), flags, number)


def _code(status: str, called: str) -> int:
    """The HTTP status of an outcome; 500 where a gRPC call failed, whose status is 200 all the same."""
    return 500 if called in _CALL_FAILED else int(status)


def _weight(count: Count) -> tuple[int, int]:
    """How many attempts, and how many failures among them, a counter of attempts stands for."""
    one, failed = _outcome(count)
    before = count.tries - 1 if count.tries and count.at_rest else 0
    return count.number * (one + before), count.number * (failed + before)


def _outcome(count: Count) -> tuple[int, int]:
    """The same for one entry, without the attempts before it: whether it tells of an attempt, and of a failure."""
    if count.tries:  # it was cancelled if it took longer than its route allows, or than its user waited
        late = "UT" in count.flags and count.route is not None and count.route.kind != "safe"
        left = count.code == 0 and bool(count.flags & _LEFT)
        if late or left or not count.at_rest:
            return (1, 1) if late or left else (0, 0)
    if count.code == _SWITCHED:
        return 1, 0
    if count.code == 0 and count.flags <= {"-", "DC"}:
        return 0, 0
    cut = bool(count.flags & {"UPE", "UC", "UR"})
    return 1, int(cut or count.code == 0 or count.code >= 500)


def _with(sample: Sample, attempts: int, failures: int) -> Sample:
    return replace(sample, attempts=sample.attempts + attempts, failures=sample.failures + failures)


def _timed(sample: Sample, buckets: Mapping[float, int]) -> Sample:
    edges = sorted({*sample.latency_us, *buckets})
    merged = {edge: sample.latency_us.get(edge, 0) + buckets.get(edge, 0) for edge in edges}
    return replace(sample, latency_us=merged)


def _account(counts: Iterable[Count]) -> Books:
    answered: dict[Revision, int] = {}
    failed: dict[Revision, int] = {}
    others = {"shielded": 0, "cut": 0, "unserved": 0}
    for count in counts:
        column = _column(count)
        if column in others:
            others[column] += count.number
        else:
            by = answered if column == "answered" else failed
            by[count.revision] = by.get(count.revision, 0) + count.number
    return Books(answered=answered, failed=failed, **others)


def _column(count: Count) -> str:
    """Where in the books a request is entered."""
    if count.code == _SWITCHED:
        return "answered" if count.at_home else "shielded"
    if count.flags & _NEVER_SERVED or (not count.version and count.code):
        return "unserved"
    if not count.flags <= _NO_FAULT or not count.code:
        return "cut"
    if count.code >= 500:
        return "failed"
    return "answered" if count.at_home else "shielded"


def _missing(listen: str, log: Log) -> int:
    """How many requests ended at a listener that are not in its log; negative: so many are in it twice."""
    logged = log.logged.get(listen, 0)
    least, most = log.ended.get(statistic(listen), (0, 0))
    return max(least - logged, 0) + min(most - logged, 0)
