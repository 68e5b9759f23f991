"""A service's routing table as Envoy's documents: pure, dictionaries in the JSON form of Envoy's messages.

Rules of this file:
* A version's own cluster never changes, so nothing is warmed twice. Its routes lead to another one, which falls
  through to the other versions and is changed in place when they change: a request that is repeated looks its
  cluster up again by name, and is answered 503 where that has gone meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segue.core.traffic import Backend, Endpoint, Protocol, ServiceTable, Traffic
from segue.routers.envoy import preview
from segue.routers.envoy.documents import ADS, TYPE, Document
from segue.routers.envoy.http import upstream
from segue.routers.envoy.names import address, attempt_tag, cluster_name, target_name
from segue.routers.envoy.routes import MILLION, Routes, routes

BUFFERED = 256 * 1024
"""Bytes of an answer that are read from an instance before its user has read them; Envoy's own 1 MiB is memory."""

HEALTH = {Traffic.READY: "HEALTHY", Traffic.UNREADY: "UNHEALTHY", Traffic.DRAINING: "DRAINING"}


@dataclass(frozen=True, slots=True)
class ServiceDocuments:
    """One service: its clusters and their endpoints by cluster name, its routes, and those of its preview."""

    clusters: dict[str, Document]
    endpoints: dict[str, Document]
    routes: Routes
    preview: Document | None = None


def documents(table: ServiceTable) -> ServiceDocuments:
    """Everything that Envoy needs to know of one service, its listeners excepted."""
    clusters: dict[str, Document] = {}
    endpoints: dict[str, Document] = {}
    for backend in table.backends:
        name = cluster_name(table.service, backend.revision)
        clusters[name] = _cluster(name, backend.protocol)
        endpoints[name] = _endpoints(name, backend.endpoints)
        clusters[target_name(table.service, backend.revision)] = _fall_through(table, backend)
    return ServiceDocuments(clusters, endpoints, routes(table), preview.routes(table))


def _cluster(name: str, protocol: Protocol) -> Document:
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ADS},
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": BUFFERED,
        "circuit_breakers": _breakers(),
        "common_lb_config": _NEVER_PANIC,
        "track_cluster_stats": {"per_endpoint_stats": True},
        "typed_extension_protocol_options": upstream(protocol),
    }


def _fall_through(table: ServiceTable, backend: Backend) -> Document:
    """A version first, then the others: without a ready instance it is given nothing, also without us."""
    order = [backend, *(other for other in table.backends if other is not backend)]
    members = [cluster_name(table.service, version.revision) for version in order]
    return {
        "name": target_name(table.service, backend.revision),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": _breakers(table.replays if backend.revision == table.trial else None),
        "common_lb_config": _NEVER_PANIC,
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": members,
            },
        },
    }


def _endpoints(name: str, endpoints: Sequence[Endpoint]) -> Document:
    return {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [_endpoint(name, endpoint) for endpoint in endpoints]}],
        "policy": {"overprovisioning_factor": _ONE_READY_IS_ENOUGH},
    }


def _endpoint(name: str, endpoint: Endpoint) -> Document:
    tags = {
        "attempt": attempt_tag(name, endpoint.instance),
        "revision": name.partition("@")[2],
        "instance": endpoint.instance,
    }
    return {
        # As its host name the version is read faster than from among the tags, at each request.
        "endpoint": {"address": address(endpoint.address), "hostname": name},
        "health_status": HEALTH[endpoint.state],
        "metadata": {"filter_metadata": {"segue": tags}},
    }


def _breakers(replays: int | None = None) -> Document:
    """No bound but the one for repeated requests: the default of 3 failed a quarter of all under a broken version."""
    bounds = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), MILLION)
    return {"thresholds": [bounds if replays is None else {**bounds, "max_retries": replays}]}


# By default, when half of the instances are out, requests go to those that are out as well.
_NEVER_PANIC: Document = {"healthy_panic_threshold": {"value": 0}}
# By default a version loses a part of its share to the next one when fewer than 72 % of its instances are ready.
_ONE_READY_IS_ENOUGH = MILLION
