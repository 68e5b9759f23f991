"""A routing table as the resources that the xDS server hands out, packed; what did not change is not built again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby, zip_longest
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
from envoy.extensions.matching.input_matchers.consistent_hashing.v3 import consistent_hashing_pb2 as _hashing
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2 as _hosts
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2 as _priorities
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as _options
from envoy.type.matcher.v3 import http_inputs_pb2 as _inputs
from google.protobuf import any_pb2, json_format

from segue.core.traffic import RoutingTable, ServiceTable
from segue.errors import RouterRefused
from segue.routers.envoy import config, http, preview
from segue.routers.envoy.config import ServiceDocuments
from segue.routers.envoy.hosts import Tenant, is_plain, virtual_host
from segue.routers.envoy.http import Document
from segue.routers.envoy.names import address
from segue.routers.envoy.routes import Routes

KNOWN = (_aggregate, _direct_response, _hashing, _hcm, _hosts, _inputs, _options, _priorities, _router, _stats)

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
    preview: Packed | None

    @property
    def tenant(self) -> Tenant:
        """The service as one of its hosts' services."""
        return Tenant(self.table.route, self.documents.routes)


def built(table: ServiceTable, before: Built | None) -> Built:
    """Everything about one service; what is as it was `before` is taken from there.

    Raises RouterRefused if its shares are not the whole.
    """
    total = sum(backend.share for backend in table.backends)
    if total not in (0, 1):
        raise RouterRefused(f"The shares of {table.service} sum to {total}.")
    made = config.documents(table)
    if before is None:
        before = Built(table, ServiceDocuments({}, {}, Routes([])), {}, {}, (), None)
    old = before.documents
    shown = before.preview
    if made.preview != old.preview:
        shown = None if made.preview is None else Kind.ROUTES.pack(made.preview)
    return Built(
        table,
        made,
        _packed(Kind.CLUSTER, made.clusters, old.clusters, before.clusters),
        _packed(Kind.ENDPOINTS, made.endpoints, old.endpoints, before.endpoints),
        before.routes
        if made.routes == old.routes
        else tuple(_parsed(made.routes.everybody, old.routes.everybody, before.routes)),
        shown,
    )


def _packed(
    kind: Kind, documents: Mapping[str, Document], old: Mapping[str, Document], packed: Mapping[str, Packed]
) -> Mapping[str, Packed]:
    return {
        name: packed[name] if document == old.get(name) else kind.pack(document)
        for name, document in documents.items()
    }


def _parsed(documents: Sequence[Document], old: Sequence[Document], messages: Sequence[Any]) -> Iterator[Any]:
    """Routes as messages. When shares change only matches do: the rest, which is more, is copied."""
    for document, before, message in zip_longest(documents, old, messages):
        if document is None:
            return
        if document == before:
            yield message
        elif before is not None and {**document, "match": None} == {**before, "match": None}:
            route = route_components_pb2.Route()
            route.CopyFrom(message)
            route.match.CopyFrom(json_format.ParseDict(document["match"], route_components_pb2.RouteMatch()))
            yield route
        else:
            yield json_format.ParseDict(document, route_components_pb2.Route())


@dataclass(frozen=True, slots=True)
class Configuration:
    """The routes of one listener: of which services, by host, and whole."""

    services: list[Built]
    hosts: Mapping[str, tuple[list[Built], bytes]]
    packed: Packed


class Builder:
    """Makes snapshots; keeps what it made of each service and each listener."""

    def __init__(self) -> None:
        self._services: dict[str, Built] = {}
        self._listeners: dict[str, Packed] = {}
        self._previews: dict[str, Packed] = {}
        self._routes: dict[str, Configuration] = {}

    def build(self, table: RoutingTable) -> Snapshot:
        """The snapshot for `table`. Raises RouterRefused if two services claim the same place."""
        self._services = {name: self._built(service) for name, service in table.services.items()}
        groups = self.by_listener()
        previews = by_preview(self._services.values(), groups)
        clusters: dict[str, Packed] = {}
        endpoints: dict[str, Packed] = {}
        for each in self._services.values():
            clusters.update(each.clusters)
            endpoints.update(each.endpoints)
        listeners = {listen: self._listener(listen) for listen in groups}
        routes = {listen: self._configuration(listen, group) for listen, group in groups.items()}
        for listen, shown in previews.items():
            listeners[listen] = self._preview(listen)
            routes[listen] = shown
        return Snapshot(
            {Kind.CLUSTER: clusters, Kind.ENDPOINTS: endpoints, Kind.LISTENER: listeners, Kind.ROUTES: routes}
        )

    def by_listener(self) -> dict[str, list[Built]]:
        """What was built last, by the address it is reached at."""
        groups: dict[str, list[Built]] = defaultdict(list)
        for each in self._services.values():
            groups[each.table.route.listen].append(each)
        return groups

    def _built(self, table: ServiceTable) -> Built:
        before = self._services.get(table.service)
        if before is not None and (before.table is table or before.table == table):
            return before
        return built(table, before)

    def _listener(self, listen: str) -> Packed:
        if listen not in self._listeners:
            self._listeners[listen] = Kind.LISTENER.pack(listener(listen, {"rds": _rds(listen)}))
        return self._listeners[listen]

    def _preview(self, listen: str) -> Packed:
        if listen not in self._previews:
            self._previews[listen] = Kind.LISTENER.pack(preview.listener(listen))
        return self._previews[listen]

    def _configuration(self, listen: str, group: list[Built]) -> Packed:
        before = self._routes.get(listen, Configuration([], {}, Packed()))
        if _same(before.services, group):
            return before.packed
        hosts = {}
        for host, services in by_host(group):
            known = before.hosts.get(host)
            hosts[host] = known if known and _same(known[0], services) else (services, _written(host, services))
        message = route_pb2.RouteConfiguration(name=listen, ignore_port_in_host_matching=True)
        value = message.SerializeToString() + b"".join(written for _, written in hosts.values())
        self._routes[listen] = Configuration(group, hosts, Packed(type_url=Kind.ROUTES.url, value=value))
        return self._routes[listen].packed


def _written(host: str, services: list[Built]) -> bytes:
    """A virtual host as bytes of a configuration: what is written one after the other is read as one message."""
    tenants = [each.tenant for each in services]
    message = route_pb2.RouteConfiguration()
    if is_plain(tenants):
        routes = [route for each in services for route in each.routes]
        message.virtual_hosts.add(name=host, domains=[host], routes=routes)
    else:
        json_format.ParseDict(virtual_host(host, tenants), message.virtual_hosts.add())
    written: bytes = message.SerializeToString(deterministic=True)
    return written


def listener(listen: str, routes: Document) -> Document:
    """The listener at `listen`."""
    return http.listener(listen, address(listen), routes)


def by_host(group: list[Built]) -> list[tuple[str, list[Built]]]:
    """The services of one listener by the host they answer to, the longest path first. Raises RouterRefused."""
    claims = sorted((host, -len(b.table.route.path), b.table.service) for b in group for host in b.table.route.hosts)
    services = {b.table.service: b for b in group}
    hosts = [(host, [services[name] for *_, name in claim]) for host, claim in groupby(claims, lambda c: c[0])]
    for host, claimants in hosts:
        _refuse_same_path(host, claimants)
    return hosts


def by_preview(services: Iterable[Built], listeners: Container[str]) -> dict[str, Packed]:
    """The routes of the previews by their address. Raises RouterRefused if another service is reached there."""
    found: dict[str, Packed] = {}
    for each in services:
        if each.table.preview is None or each.preview is None:
            continue
        place = each.table.preview.listen
        if place in found or place in listeners:
            raise RouterRefused(
                f"The preview of {each.table.service} is to be at {place}, where a service is reached already.",
                next="give the preview another address in the manifest",
            )
        found[place] = each.preview
    return found


def _refuse_same_path(host: str, services: list[Built]) -> None:
    claimed: dict[str, str] = {}
    for each in services:
        route, service = each.table.route, each.table.service
        first = claimed.setdefault(route.path.rstrip("/"), service)
        if first != service:
            raise RouterRefused(
                f"{first} and {service} are both to answer at {route.listen}, host {host}, path {route.path}",
                next="give one of them another route in its manifest",
            )


def _rds(listen: str) -> Document:
    return {"route_config_name": listen, "config_source": http.ADS}


def _same(some: list[Built], others: list[Built]) -> bool:
    """Whether these have the same routes at the same places."""
    return len(some) == len(others) and all(
        one is other or (one.routes is other.routes and one.table.route == other.table.route)
        for one, other in zip(some, others, strict=True)
    )
