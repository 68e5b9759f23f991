"""A routing table as the resources that the xDS server hands out, packed; what did not change is not built again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import zip_longest
from typing import Any

# Messages that only appear packed in others must be imported to be known.
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2 as _file
from envoy.extensions.access_loggers.stats.v3 import stats_pb2 as _stats
from envoy.extensions.clusters.aggregate.v3 import cluster_pb2 as _aggregate
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2 as _buffer
from envoy.extensions.filters.http.header_to_metadata.v3 import header_to_metadata_pb2 as _metadata
from envoy.extensions.filters.http.lua.v3 import lua_pb2 as _lua
from envoy.extensions.filters.http.router.v3 import router_pb2 as _router
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2 as _inspector
from envoy.extensions.filters.network.direct_response.v3 import config_pb2 as _direct_response
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as _hcm
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2 as _mutation
from envoy.extensions.matching.input_matchers.consistent_hashing.v3 import consistent_hashing_pb2 as _hashing
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2 as _hosts
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2 as _priorities
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2 as _tls
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as _options
from envoy.type.matcher.v3 import http_inputs_pb2 as _inputs
from google.protobuf import any_pb2, json_format

from segue.core.traffic import Certificate, RoutingTable, ServiceTable
from segue.errors import RouterRefused
from segue.routers.envoy import config, http, preview
from segue.routers.envoy.config import ServiceDocuments
from segue.routers.envoy.documents import TYPE, Document
from segue.routers.envoy.hosts import is_plain, virtual_host
from segue.routers.envoy.listeners import listener, secret, secret_name
from segue.routers.envoy.newer import FilterChainConfig
from segue.routers.envoy.routes import Routes
from segue.routers.envoy.sites import Site, by_host, shown, sites

KNOWN = (
    *(_aggregate, _buffer, _direct_response, _hashing, _hcm, _hosts, _inputs, _inspector, _options, _priorities),
    *(_file, _lua, _metadata, _mutation, _router, _stats, _tls, FilterChainConfig),
)

Packed = any_pb2.Any


class Kind(Enum):
    """The kinds of resources, in the order in which new ones are told: what is referred to comes first."""

    CLUSTER = cluster_pb2.Cluster
    ENDPOINTS = endpoint_pb2.ClusterLoadAssignment
    SECRET = secret_pb2.Secret
    LISTENER = listener_pb2.Listener
    ROUTES = route_pb2.RouteConfiguration

    @property
    def url(self) -> str:
        """The type as Envoy names it."""
        return TYPE + str(self.value.DESCRIPTOR.full_name)

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
    sites: tuple[Site, ...]
    preview: Packed | None


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
    seen = before.preview
    if made.preview != old.preview:
        seen = None if made.preview is None else Kind.ROUTES.pack(made.preview)
    return Built(
        table,
        made,
        _packed(Kind.CLUSTER, made.clusters, old.clusters, before.clusters),
        _packed(Kind.ENDPOINTS, made.endpoints, old.endpoints, before.endpoints),
        tuple(_site(site, before.sites[n : n + 1]) for n, site in enumerate(sites(table, made.routes))),
        seen,
    )


def _site(site: Site, before: Sequence[Site]) -> Site:
    """`site` with its messages; those that are as they were `before` are taken from there."""
    old = before[0] if before else Site(site.service, site.route, Routes([]))
    if site.routes == old.routes:
        return replace(site, messages=old.messages)
    return replace(site, messages=tuple(_parsed(site.routes.everybody, old.routes.everybody, old.messages)))


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
    """The routes of one listener: of which sites, whether at rest, by host, and whole."""

    sites: list[Site]
    at_rest: bool
    hosts: Mapping[str, tuple[list[Site], bytes]]
    packed: Packed


class Builder:
    """Makes snapshots; keeps what it made of each service and each listener."""

    def __init__(self) -> None:
        self._services: dict[str, Built] = {}
        self._listeners: dict[tuple[str, tuple[str, ...]], Packed] = {}
        self._shown: dict[tuple[str, str], tuple[Certificate, Packed]] = {}
        self._previews: dict[str, Packed] = {}
        self._routes: dict[str, Configuration] = {}

    def build(self, table: RoutingTable) -> Snapshot:
        """The snapshot for `table`. Raises RouterRefused if two services claim the same place."""
        self._services = {name: self._built(service) for name, service in table.services.items()}
        groups = by_listener(self._services.values())
        previews = by_preview(self._services.values(), groups)
        clusters: dict[str, Packed] = {}
        endpoints: dict[str, Packed] = {}
        for each in self._services.values():
            clusters.update(each.clusters)
            endpoints.update(each.endpoints)
        certificates = {listen: shown(group) for listen, group in groups.items()}
        listeners = {listen: self._listener(listen, tuple(names)) for listen, names in certificates.items()}
        routes = {listen: self._configuration(listen, group, table.at_rest) for listen, group in groups.items()}
        for listen, packed in previews.items():
            listeners[listen] = self._preview(listen)
            routes[listen] = packed
        return Snapshot(
            {
                Kind.CLUSTER: clusters,
                Kind.ENDPOINTS: endpoints,
                Kind.SECRET: dict(self._secrets(certificates)),
                Kind.LISTENER: listeners,
                Kind.ROUTES: routes,
            }
        )

    @property
    def services(self) -> list[Built]:
        """What was built last."""
        return list(self._services.values())

    def _built(self, table: ServiceTable) -> Built:
        before = self._services.get(table.service)
        if before is not None and (before.table is table or before.table == table):
            return before
        return built(table, before)

    def _listener(self, listen: str, names: tuple[str, ...]) -> Packed:
        if (listen, names) not in self._listeners:
            self._listeners[listen, names] = Kind.LISTENER.pack(listener(listen, names))
        return self._listeners[listen, names]

    def _secrets(self, certificates: Mapping[str, Mapping[str, Certificate]]) -> Iterator[tuple[str, Packed]]:
        """The certificates that users are shown, by their names."""
        for listen, names in certificates.items():
            for name, certificate in names.items():
                known = self._shown.get((listen, name))
                if known is None or known[0] != certificate:
                    known = certificate, Kind.SECRET.pack(secret(listen, name, certificate))
                    self._shown[listen, name] = known
                yield secret_name(listen, name), known[1]

    def _preview(self, listen: str) -> Packed:
        if listen not in self._previews:
            self._previews[listen] = Kind.LISTENER.pack(preview.listener(listen))
        return self._previews[listen]

    def _configuration(self, listen: str, group: list[Site], at_rest: bool) -> Packed:
        before = self._routes.get(listen)
        if before is None or before.at_rest != at_rest:
            before = Configuration([], at_rest, {}, Packed())
        elif _same(before.sites, group):
            return before.packed
        hosts = {}
        for host, there in by_host(group):
            known = before.hosts.get(host)
            hosts[host] = known if known and _same(known[0], there) else (there, _written(host, there, at_rest))
        message = json_format.ParseDict(http.configuration(listen), route_pb2.RouteConfiguration())
        value = message.SerializeToString() + b"".join(written for _, written in hosts.values())
        self._routes[listen] = Configuration(group, at_rest, hosts, Packed(type_url=Kind.ROUTES.url, value=value))
        return self._routes[listen].packed


def _written(host: str, there: list[Site], at_rest: bool) -> bytes:
    """A virtual host as bytes of a configuration: what is written one after the other is read as one message."""
    tenants = [site.tenant for site in there]
    message = route_pb2.RouteConfiguration()
    if is_plain(tenants):
        routes = [route for site in there for route in site.messages]
        message.virtual_hosts.add(name=host, domains=[host], routes=routes)
    else:
        json_format.ParseDict(virtual_host(host, tenants), message.virtual_hosts.add())
    if at_rest:
        json_format.ParseDict(http.RESTS, message.virtual_hosts[0])
    written: bytes = message.SerializeToString(deterministic=True)
    return written


def by_listener(services: Iterable[Built]) -> dict[str, list[Site]]:
    """The sites of these services by their address."""
    groups: dict[str, list[Site]] = defaultdict(list)
    for each in services:
        for site in each.sites:
            groups[site.route.listen].append(site)
    return groups


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


def _same(some: list[Site], others: list[Site]) -> bool:
    """Whether these have the same routes at the same places."""
    return len(some) == len(others) and all(
        one is other or (one.messages is other.messages and one.route == other.route)
        for one, other in zip(some, others, strict=True)
    )
