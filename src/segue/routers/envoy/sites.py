"""The places where services are reached, as documents: who answers where, and what is shown there.

A service has one site where its users are, and, with TLS, perhaps a second one that sends them there. Rules:
* The sites of one address are told apart by host and path; two services never have the same.
* A host that is reached with TLS has a chain of its own in its listener, and its certificate a name of its own: a
  host that comes or goes, or a certificate that is renewed, drains nobody's connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from segue.core.places import ANY, asked_by_name
from segue.core.traffic import Certificate, Route, ServiceTable
from segue.errors import RouterRefused
from segue.routers.envoy.documents import Document
from segue.routers.envoy.hosts import Tenant
from segue.routers.envoy.names import REDIRECT
from segue.routers.envoy.routes import Routes, path_match


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One place where `service` is reached, and its routes there, also as Envoy's `messages`.

    `certificate`: what users are shown; None: no TLS.
    """

    service: str
    route: Route
    routes: Routes
    certificate: Certificate | None = None
    messages: tuple[Any, ...] = ()

    @property
    def tenant(self) -> Tenant:
        """The site as one of its hosts' sites."""
        return Tenant(self.route, self.routes)


def sites(table: ServiceTable, routes: Routes) -> list[Site]:
    """Where a service whose routes are `routes` is reached. Raises RouterRefused where a certificate is lacking."""
    route = table.route
    if route.tls is None:
        return [Site(table.service, route, routes)]
    if table.certificate is None:
        raise RouterRefused(f"The certificate of {table.service} is not there.", next="segue check")
    found = [Site(table.service, route, routes, table.certificate)]
    if route.tls.redirect is not None:
        away = Route(route.tls.redirect, route.hosts, route.path)
        found.append(Site(table.service, away, Routes([_redirect(route)])))
    return found


def _redirect(route: Route) -> Document:
    """Tell users who come without TLS to come with it; the method and the body stay as they are."""
    port = int(route.listen.rpartition(":")[2])
    there = {"https_redirect": True, "port_redirect": port, "response_code": "PERMANENT_REDIRECT"}
    return {"name": REDIRECT, "match": path_match(route), "redirect": there}


def by_host(group: Iterable[Site]) -> list[tuple[str, list[Site]]]:
    """The sites of one address by the host they answer to, the longest path first. Raises RouterRefused."""
    claims = [(host, site) for site in group for host in site.route.hosts]
    claims.sort(key=lambda claim: (claim[0], -len(claim[1].route.path), claim[1].service))
    hosts = [(host, [site for _, site in claimed]) for host, claimed in groupby(claims, lambda claim: claim[0])]
    for host, claimants in hosts:
        _refuse_same_path(host, claimants)
    return hosts


def _refuse_same_path(host: str, claimants: Sequence[Site]) -> None:
    claimed: dict[str, str] = {}
    for site in claimants:
        first = claimed.setdefault(site.route.path.rstrip("/"), site.service)
        if first != site.service:
            raise RouterRefused(
                f"{first} and {site.service} are both to answer at {site.route.listen}, host {host}, "
                f"path {site.route.path}",
                next="give one of them another route in its manifest",
            )


def shown(group: Sequence[Site]) -> dict[str, Certificate]:
    """The certificates of one address by the name that users ask for; none at all: it has no TLS.

    Raises RouterRefused where its sites do not agree.
    """
    found: dict[str, Certificate] = {}
    for site in group:
        if (site.certificate is None) != (group[0].certificate is None):
            raise RouterRefused(
                f"{site.service} and {group[0].service} are both to be at {site.route.listen}, only one with TLS",
                next="give one of them another route.listen",
            )
        if site.certificate is None:
            continue
        for name in map(asked_by_name, site.route.hosts):
            if found.setdefault(name, site.certificate) != site.certificate:
                raise RouterRefused(
                    f"{site.service} and another service show different certificates at {site.route.listen}, "
                    f"host {name}",
                    next="give both the same files in route.tls",
                )
    return dict(sorted(found.items(), key=lambda item: (item[0] == ANY, item[0])))
