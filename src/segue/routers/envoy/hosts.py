"""The services that answer to one host: a virtual host as a pure document.

Where a service tells its users by a header, Envoy's route match cannot: it does not hash. Then a matcher comes first,
which finds the service by its path and the version by the user, and hands the request to their routes. A host has
either routes or a matcher, so the matcher leads to the routes of all its services.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from segue.core.traffic import Route
from segue.routers.envoy.documents import TYPE, Document
from segue.routers.envoy.routes import Routes
from segue.routers.envoy.sticky import header_input, regex


class Tenant(NamedTuple):
    """One service of a host: where it is reached, and its routes."""

    route: Route
    routes: Routes


def virtual_host(host: str, tenants: Sequence[Tenant]) -> Document:
    """The services that answer to `host`, the longest path first."""
    if is_plain(tenants):
        return {"name": host, "domains": [host], "routes": [route for t in tenants for route in t.routes.everybody]}
    return {"name": host, "domains": [host], "matcher": {"matcher_list": {"matchers": list(_matchers(tenants))}}}


def is_plain(tenants: Sequence[Tenant]) -> bool:
    """Whether no service on the host has choices: routes are enough."""
    return not any(tenant.routes.choices for tenant in tenants)


def _matchers(tenants: Sequence[Tenant]) -> Iterator[Document]:
    for tenant in tenants:
        path = _path(tenant.route)
        for choice in tenant.routes.choices:
            yield _lead({"and_matcher": {"predicate": [path, choice.predicate]}}, choice.routes)
        yield _lead(path, tenant.routes.everybody)


def _path(route: Route) -> Document:
    """The same requests as `routes.path_match`; here the query is a part of the path."""
    path = route.path.rstrip("/")
    below = regex(f"{re.escape(path)}([/?].*)?" if path else "/.*")
    return {"single_predicate": {"input": header_input(":path"), "value_match": below}}


def _lead(predicate: Document, routes: list[Document]) -> Document:
    config = {"@type": TYPE + "envoy.config.route.v3.RouteList", "routes": routes}
    return {"predicate": predicate, "on_match": {"action": {"name": "routes", "typed_config": config}}}
