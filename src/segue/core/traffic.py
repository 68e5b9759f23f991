"""Where the traffic goes: routes, the routing table, and what was seen of the requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NewType

from segue.core.release import NOTHING, Experiment, Revision, Share

VersionId = NewType("VersionId", str)
"""The name of one revision among those of all services, such as ``shop-v1.2``: service, revision."""

InstanceId = NewType("InstanceId", str)
"""The name of one instance, such as ``shop-v1.2-3``: service, revision, ordinal. A restart keeps it."""


def version_id(service: str, revision: Revision) -> VersionId:
    """The name of a service's `revision`."""
    return VersionId(f"{service}-{revision}")


def instance_id(service: str, revision: Revision, ordinal: int) -> InstanceId:
    """The name of the `ordinal`-th instance of a service's `revision`."""
    return InstanceId(f"{version_id(service, revision)}-{ordinal}")


def copied(instance: InstanceId) -> VersionId:
    """What `instance` is a copy of."""
    return VersionId(instance.rpartition("-")[0])


class Protocol(StrEnum):
    """What an instance speaks: HTTP/1.1, HTTP/2 without TLS, or gRPC on top of that."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a certificate, with those that vouch for it, and of its key: absolute paths, PEM.

    `redirect`: an address ``host:port`` where users who come without TLS are told where to go.
    """

    cert: str
    key: str
    redirect: str | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the files of a `Tls` hold: text in PEM. Both are kept out of the repr."""

    chain: str = field(repr=False)
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Route:
    """Where users reach a service, and what they may ask of it there.

    `listen` is ``host:port``. `timeout` of nothing: an answer may take for ever; `idle` of nothing: a stream may be
    silent for ever. `max_body`: bytes of a request's body, 0: any number. `access_log`: the share of the requests
    that is written down.
    """

    listen: str = "127.0.0.1:8080"
    hosts: tuple[str, ...] = ("*",)
    path: str = "/"
    timeout: timedelta = timedelta(0)
    shield: bool = True
    tls: Tls | None = None
    idle: timedelta = timedelta(0)
    max_body: int = 0
    access_log: Share = NOTHING


class Traffic(StrEnum):
    """What an instance is given by the router."""

    READY = "ready"
    UNREADY = "unready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One instance as the router sees it. `address`: ``127.0.0.1:20001`` or ``unix:/path``."""

    instance: InstanceId
    address: str
    state: Traffic


@dataclass(frozen=True, slots=True)
class Backend:
    """One version of a service as the router sees it."""

    revision: Revision
    share: Share = NOTHING
    endpoints: tuple[Endpoint, ...] = ()
    protocol: Protocol = Protocol.HTTP1


@dataclass(frozen=True, slots=True)
class Preview:
    """Where one version can be looked at before users reach it, at ``host:port``.

    With a `token` only those are answered who send it in the header ``X-Segue-Preview``.
    """

    listen: str
    revision: Revision
    token: str | None = field(default=None, repr=False)


def is_loopback(listen: str) -> bool:
    """Whether only this machine reaches the address ``host:port``."""
    host = listen.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Sticky:
    """By what a user is known who is to stay on one version: a `header`, or else a cookie that the router sets."""

    header: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceTable:
    """How one service's traffic is routed. Without a positive share nobody is served: 503.

    `trial` is the version that is being tried out, if one is: the shield stands before it. A safe request that it
    has not answered within `patience` is sent to the others as well. With `sticky` a user stays on one version
    while the shares grow one way. `replays`: how many requests at a time may be sent to the others because the
    version on trial failed them; what it failed beyond that its users see. None: no bound. `certificate`: what users
    are shown, where the route has TLS. `experiment`: those who take part are divided, and their visits written down;
    who does not is given the other version, and is no evidence. `paths`: what is counted by itself as well, the
    first that a request's path begins with. `learning`: the paths of requests are written down, to find such.
    """

    service: str
    route: Route
    backends: tuple[Backend, ...]
    trial: Revision | None = None
    patience: timedelta = timedelta(seconds=1)
    sticky: Sticky | None = None
    preview: Preview | None = None
    replays: int | None = None
    certificate: Certificate | None = None
    experiment: Experiment | None = None
    paths: tuple[str, ...] = ()
    learning: bool = False

    @property
    def at_rest(self) -> bool:
        """Whether there is one version at most and all its instances serve: nothing is tried, and nothing ends."""
        states = {endpoint.state for backend in self.backends for endpoint in backend.endpoints}
        return len(self.backends) <= 1 and states <= {Traffic.READY} and self.trial is None and not self.experiment


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """How the traffic of all services is routed, by service name."""

    services: Mapping[str, ServiceTable] = field(default_factory=dict)

    @property
    def at_rest(self) -> bool:
        """Whether all services are."""
        return all(service.at_rest for service in self.services.values())


@dataclass(frozen=True, slots=True)
class Ends:
    """How requests that one instance was given have ended since its router started: cumulative counts.

    `whole`: the answer is complete, or its user left. `cut`: the answer broke off, or there was none. `repeated`:
    there was none, and the request is one that another instance is given then. `closed`: upgraded connections
    (WebSocket) that ended from the instance's side, and it is not known, or not yet, whether with a goodbye.
    """

    whole: int = 0
    cut: int = 0
    repeated: int = 0
    closed: int = 0


@dataclass(frozen=True, slots=True)
class Observed:
    """What the router sees of one instance: whether it gives it requests, and how many are in flight.

    `ends` is counted for an instance that drains; what `in_flight` lacks is in it by the next look at the latest.
    """

    healthy: bool
    in_flight: int
    ends: Ends = Ends()


@dataclass(frozen=True, slots=True)
class Sample:
    """Attempts on one version since its router started: cumulative counts.

    `failures` are answers of 5xx, resets, refused connections and timeouts; `latency_us` is a histogram,
    upper edge of the bucket in microseconds → attempts whose first byte came within that bucket. `parts`: the same of
    each of the table's `paths`, and of all others (`core.paths.OTHERS`), where there are any.
    """

    attempts: int = 0
    failures: int = 0
    latency_us: Mapping[float, int] = field(default_factory=dict)
    parts: Mapping[str, Sample] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Books:
    """A service's requests since its router started, each counted once when it ended: cumulative counts.

    `answered`: by the version the request was routed to. `failed`: an answer of 5xx that the application
    gave. `shielded`: answered by another version than the one it was routed to. `cut`: the answer did not
    arrive whole, or the user left. `unserved`: the router answered because no instance could.
    `total` is counted independently, by the listener; it equals the sum of the others, or the books do not balance.
    """

    total: int = 0
    answered: Mapping[Revision, int] = field(default_factory=dict)
    failed: Mapping[Revision, int] = field(default_factory=dict)
    shielded: int = 0
    hedged: int = 0
    cut: int = 0
    unserved: int = 0
