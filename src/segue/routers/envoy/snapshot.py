"""A routing table as the resources that the xDS server hands out, packed; what did not change is not built again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from typing import Any

# Messages that only appear packed in others must be imported to be known.
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.access_loggers.stats.v3 import stats_pb2 as _stats
from envoy.extensions.clusters.aggregate.v3 import cluster_pb2 as _aggregate
from envoy.extensions.filters.http.router.v3 import router_pb2 as _router
from envoy.extensions.filters.network.direct_response.v3 import config_pb2 as _direct_response
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as _hcm
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2 as _hosts
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2 as _priorities
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as _options
from google.protobuf import any_pb2, json_format

from segue.core.traffic import RoutingTable, ServiceTable
from segue.errors import RouterRefused
from segue.routers.envoy import config, http
from segue.routers.envoy.config import Document, ServiceDocuments

KNOWN = (_aggregate, _direct_response, _hcm, _hosts, _options, _priorities, _router, _stats)

Packed = any_pb2.Any


class Kind(Enum):
    """The kinds of resources, in the order in which new ones are told: what is referred to comes first."""

    CLUSTER = cluster_pb2.Cluster
    ENDPOINTS = endpoint_pb2.ClusterLoadAssignment
    LISTENER = listener_pb2.Listener
    ROUTES = route_pb2.RouteConfiguration

    @property
    def url(self) -> str:
        """The type as Envoy names it."""
        return http.TYPE + str(self.value.DESCRIPTOR.full_name)

    def pack(self, document: Document) -> Packed:
        """`document` as a resource of this kind."""
        return pack(json_format.ParseDict(document, self.value()))


def pack(message: Any) -> Packed:
    """`message` in an envelope that says its type; equal messages are equal bytes."""
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that Envoy is to have, by kind and name."""

    resources: Mapping[Kind, Mapping[str, Packed]] = field(default_factory=lambda: {kind: {} for kind in Kind})

    @property
    def listeners(self) -> frozenset[str]:
        """The addresses that are listened on."""
        return frozenset(self.resources[Kind.LISTENER])


@dataclass(frozen=True, slots=True)
class Built:
    """One service's table, its documents, and what was made of them."""

    table: ServiceTable
    documents: ServiceDocuments
    clusters: Mapping[str, Packed]
    endpoints: Mapping[str, Packed]
    routes: tuple[Any, ...]

    @classmethod
    def of(cls, table: ServiceTable) -> Built:
        """Everything about one service. Raises RouterRefused if its shares are not the whole."""
        total = sum(backend.share for backend in table.backends)
        if total not in (0, 1):
            raise RouterRefused(f"The shares of {table.service} sum to {total}.")
        documents = config.documents(table)
        return cls(
            table,
            documents,
            {name: Kind.CLUSTER.pack(document) for name, document in documents.clusters.items()},
            {name: Kind.ENDPOINTS.pack(document) for name, document in documents.endpoints.items()},
            tuple(json_format.ParseDict(document, route_components_pb2.Route()) for document in documents.routes),
        )


class Builder:
    """Makes snapshots; keeps what it made of each service and each listener."""

    def __init__(self) -> None:
        self._services: dict[str, Built] = {}
        self._listeners: dict[str, Packed] = {}
        self._routes: dict[str, tuple[list[Built], Packed]] = {}

    def build(self, table: RoutingTable) -> Snapshot:
        """The snapshot for `table`. Raises RouterRefused if two services claim the same place."""
        self._services = {name: self._built(service) for name, service in table.services.items()}
        groups = self.by_listener()
        clusters: dict[str, Packed] = {}
        endpoints: dict[str, Packed] = {}
        for built in self._services.values():
            clusters.update(built.clusters)
            endpoints.update(built.endpoints)
        listeners = {listen: self._listener(listen) for listen in groups}
        routes = {listen: self._configuration(listen, group) for listen, group in groups.items()}
        return Snapshot(
            {Kind.CLUSTER: clusters, Kind.ENDPOINTS: endpoints, Kind.LISTENER: listeners, Kind.ROUTES: routes}
        )

    def by_listener(self) -> dict[str, list[Built]]:
        """What was built last, by the address it is reached at."""
        groups: dict[str, list[Built]] = defaultdict(list)
        for built in self._services.values():
            groups[built.table.route.listen].append(built)
        return groups

    def _built(self, table: ServiceTable) -> Built:
        before = self._services.get(table.service)
        if before is not None and (before.table is table or before.table == table):
            return before
        return Built.of(table)

    def _listener(self, listen: str) -> Packed:
        if listen not in self._listeners:
            self._listeners[listen] = Kind.LISTENER.pack(listener(listen, {"rds": _rds(listen)}))
        return self._listeners[listen]

    def _configuration(self, listen: str, group: list[Built]) -> Packed:
        before = self._routes.get(listen)
        if before is not None and len(before[0]) == len(group) and all(map(_same, before[0], group)):
            return before[1]
        message = route_pb2.RouteConfiguration(name=listen, ignore_port_in_host_matching=True)
        for host, services in by_host(group):
            routes = [route for built in services for route in built.routes]
            message.virtual_hosts.add(name=host, domains=[host], routes=routes)
        packed = pack(message)
        self._routes[listen] = (group, packed)
        return packed


def listener(listen: str, routes: Document) -> Document:
    """The listener at `listen`."""
    return http.listener(listen, config.address(listen), routes)


def by_host(group: list[Built]) -> list[tuple[str, list[Built]]]:
    """The services of one listener by the host they answer to, the longest path first. Raises RouterRefused."""
    claims = sorted((host, -len(b.table.route.path), b.table.service) for b in group for host in b.table.route.hosts)
    built = {b.table.service: b for b in group}
    hosts = [(host, [built[service] for *_, service in claim]) for host, claim in groupby(claims, lambda c: c[0])]
    for host, services in hosts:
        _refuse_same_path(host, services)
    return hosts


def _refuse_same_path(host: str, services: list[Built]) -> None:
    claimed: dict[str, str] = {}
    for built in services:
        route, service = built.table.route, built.table.service
        first = claimed.setdefault(route.path.rstrip("/"), service)
        if first != service:
            raise RouterRefused(
                f"{first} and {service} are both to answer at {route.listen}, host {host}, path {route.path}",
                next="give one of them another route in its manifest",
            )


def _rds(listen: str) -> Document:
    return {"route_config_name": listen, "config_source": config.ADS}


def _same(one: object, other: object) -> bool:
    return one is other
