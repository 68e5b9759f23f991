"""A service's routing table as Envoy's documents: pure, dictionaries in the JSON form of Envoy's messages.

Rules of this file:
* A version's own cluster never changes, so nothing is warmed twice. Its routes lead to another one, which falls
  through to the other versions and is changed in place when they change: a request that is repeated looks its
  cluster up again by name, and is answered 503 where that has gone meanwhile.
* The split is decided in the routes' match. All routes of a request are compared with one random number, so
  the limits are cumulative, and safe and other methods share one split.
* A retry policy belongs to a route and a route to one version: the others' failures are never replayed.
* No part of a request becomes the name of a statistic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from segue.core.release import NOTHING
from segue.core.traffic import Backend, Endpoint, Route, ServiceTable, Traffic
from segue.routers.envoy.http import TYPE, stream_limits

Document = dict[str, Any]

MILLION = 1_000_000
BODY_BUFFER = 64 * 1024 * 1024
"""Bytes of a request's body that are kept for a replay."""

HEALTH = {Traffic.READY: "HEALTHY", Traffic.UNREADY: "UNHEALTHY", Traffic.DRAINING: "DRAINING"}
ADS: Document = {"ads": {}, "resource_api_version": "V3"}

SHIELD_AFTER = "1s"
"""How long a safe request waits for the version on trial before it is sent to the other one as well."""

NEVER_REACHED = "connect-failure,refused-stream,reset-before-request"
DIED = f"{NEVER_REACHED},reset"
FAILED = "5xx,reset,connect-failure,refused-stream"


SAFE = ("safe", "read")
"""Routes for the methods that may be repeated."""


@dataclass(frozen=True, slots=True)
class ServiceDocuments:
    """One service: its clusters and their endpoints by cluster name, and its routes in the order of matching."""

    clusters: dict[str, Document]
    endpoints: dict[str, Document]
    routes: list[Document]


class RouteName(NamedTuple):
    """The name of a route as statistics show it. `kind`: whose requests it takes, and what becomes of one that fails.

    For the version on trial ``safe`` (methods: shielded) and ``other``, else ``read`` (safe methods: repeated if the
    instance died) and ``all``; ``none``: nobody serves.
    """

    service: str
    revision: str
    kind: str

    def __str__(self) -> str:
        return f"{self.service}:{self.revision}:{self.kind}"

    @classmethod
    def parse(cls, name: str) -> RouteName | None:
        """The route with this name, None if it is none of ours."""
        service, colon, rest = name.partition(":")
        revision, second, kind = rest.rpartition(":")
        return cls(service, revision, kind) if colon and second else None


def cluster_name(service: str, revision: str) -> str:
    """The cluster of one version; the same text tags its attempts in the statistics."""
    return f"{service}@{revision}"


def documents(table: ServiceTable) -> ServiceDocuments:
    """Everything that Envoy needs to know of one service, its listener excepted."""
    clusters: dict[str, Document] = {}
    endpoints: dict[str, Document] = {}
    for backend in table.backends:
        name = cluster_name(table.service, backend.revision)
        clusters[name] = _cluster(name)
        endpoints[name] = _endpoints(name, backend.endpoints)
        clusters[_target(table, backend)] = _fall_through(table, backend)
    return ServiceDocuments(clusters, endpoints, list(_routes(table)))


def address(text: str) -> Document:
    """`text`, which is ``host:port`` or ``unix:/path``, as an address. Raises ValueError."""
    if text.startswith("unix:"):
        return {"pipe": {"path": text.removeprefix("unix:")}}
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{text!r} is not an address: host:port or unix:/path is expected")
    host = {"localhost": "127.0.0.1", "": "0.0.0.0"}.get(host, host.strip("[]"))
    return {"socket_address": {"address": host, "port_value": int(port)}}


def statistic(text: str) -> str:
    """How the address `text` appears in the names of statistics."""
    return text.removeprefix("unix:").replace(":", "_")


def _cluster(name: str) -> Document:
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ADS},
        "connect_timeout": "1s",
        "circuit_breakers": _BREAKERS,
        "common_lb_config": _NEVER_PANIC,
        "track_cluster_stats": {"per_endpoint_stats": True},
        "typed_extension_protocol_options": stream_limits(),
    }


def _fall_through(table: ServiceTable, backend: Backend) -> Document:
    """A version first, then the others: without a ready instance it is given nothing, also without us."""
    order = [backend, *(other for other in table.backends if other is not backend)]
    members = [cluster_name(table.service, version.revision) for version in order]
    return {
        "name": _target(table, backend),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": _BREAKERS,
        "common_lb_config": _NEVER_PANIC,
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": members,
            },
        },
    }


def _target(table: ServiceTable, backend: Backend) -> str:
    """The cluster that a version's routes lead to."""
    return f"{table.service}~{backend.revision}"


def _endpoints(name: str, endpoints: Sequence[Endpoint]) -> Document:
    return {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [_endpoint(name, endpoint) for endpoint in endpoints]}],
        "policy": {"overprovisioning_factor": _ONE_READY_IS_ENOUGH},
    }


def _endpoint(name: str, endpoint: Endpoint) -> Document:
    return {
        "endpoint": {"address": address(endpoint.address)},
        "health_status": HEALTH[endpoint.state],
        "metadata": {"filter_metadata": {"segue": {"version": name}}},
    }


def _routes(table: ServiceTable) -> Iterator[Document]:
    serving = sorted((b for b in table.backends if b.share > NOTHING), key=lambda b: b.revision != table.trial)
    if not serving:
        yield _nobody(table)
    given = NOTHING
    for backend in serving:
        given += backend.share
        limit = None if backend is serving[-1] else given
        yield from _routes_of(table, backend, limit)


def _routes_of(table: ServiceTable, backend: Backend, limit: Fraction | None) -> Iterator[Document]:
    """The routes of one version, which take what lies below `limit` and was not taken before; None: all of it."""
    others = len(table.backends) > 1
    if others and table.route.shield and backend.revision == table.trial:
        yield _route(table, backend, "safe", limit, _shield())
        yield _route(table, backend, "other", limit, {"retry_policy": _retry(NEVER_REACHED, 1, elsewhere_after=1)})
        return
    elsewhere = 2 if others else None
    if table.route.shield:
        yield _route(table, backend, "read", limit, {"retry_policy": _retry(DIED, 2, elsewhere)})
    yield _route(table, backend, "all", limit, {"retry_policy": _retry(NEVER_REACHED, 2, elsewhere)})


def _route(table: ServiceTable, backend: Backend, kind: str, limit: Fraction | None, policy: Document) -> Document:
    match = _path(table.route)
    if kind in SAFE:
        safe = {"safe_regex": {"regex": "GET|HEAD|OPTIONS"}}
        match["headers"] = [{"name": ":method", "string_match": safe}]
    if limit is not None:
        numerator = round(limit * MILLION)
        match["runtime_fraction"] = {"default_value": {"numerator": numerator, "denominator": "MILLION"}}
    return {
        "name": str(RouteName(table.service, backend.revision, kind)),
        "match": match,
        "request_body_buffer_limit": str(BODY_BUFFER),
        "route": {
            "cluster": _target(table, backend),
            "timeout": f"{table.route.timeout.total_seconds():g}s",
            **policy,
        },
    }


def _nobody(table: ServiceTable) -> Document:
    return {
        "name": str(RouteName(table.service, "", "none")),
        "match": _path(table.route),
        "direct_response": {"status": 503, "body": {"inline_string": f"{table.service} is not being served.\n"}},
    }


def _path(route: Route) -> Document:
    path = route.path.rstrip("/")
    return {"path_separated_prefix": path} if path else {"prefix": "/"}


def _shield() -> Document:
    """A safe request that fails is answered by the other version; a slow one is sent there too, and not cut."""
    policy = _retry(FAILED, 1, elsewhere_after=1)
    return {
        "hedge_policy": {"hedge_on_per_try_timeout": True},
        "retry_policy": {**policy, "per_try_timeout": SHIELD_AFTER},
    }


def _retry(on: str, retries: int, elsewhere_after: int | None = None) -> Document:
    """At most `retries` more attempts, on other instances; after so many attempts on another version."""
    policy: Document = {
        "retry_on": on,
        "num_retries": retries,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
        "retry_host_predicate": [_extension("retry_host_predicates.previous_hosts", _PREVIOUS_HOSTS)],
        "host_selection_retry_max_attempts": "5",
    }
    if elsewhere_after is not None:
        priorities = {**_PREVIOUS_PRIORITIES, "update_frequency": elsewhere_after}
        policy["retry_priority"] = _extension("retry_priorities.previous_priorities", priorities)
    return policy


def _extension(name: str, config: Document) -> Document:
    return {"name": f"envoy.{name}", "typed_config": config}


_PREVIOUS_HOSTS: Document = {"@type": TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}
_PREVIOUS_PRIORITIES: Document = {
    "@type": TYPE + "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
}

# The default of 3 retries at a time failed a quarter of all requests under a broken version.
_BREAKERS: Document = {
    "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), MILLION)]
}
# By default, when half of the instances are out, requests go to those that are out as well.
_NEVER_PANIC: Document = {"healthy_panic_threshold": {"value": 0}}
# By default a version loses a part of its share to the next one when fewer than 72 % of its instances are ready.
_ONE_READY_IS_ENOUGH = MILLION
