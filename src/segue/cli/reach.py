"""Whether users can be where a manifest says: its addresses, its certificate, and who else is reached there."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from segue.certificate import BadCertificate, read
from segue.cli.client import Absent, Broken
from segue.cli.context import Context
from segue.cli.findings import Finding
from segue.cli.unit import Unit, keeper
from segue.core.places import conflict, places
from segue.core.traffic import Route, Tls
from segue.errors import SegueError
from segue.manifest.load import Loaded


def reach(context: Context, loaded: Loaded) -> Iterator[Finding]:
    """What was looked at of how users get to the service."""
    manifest, services = loaded.manifest, _services(context)
    route = manifest.route.core(loaded.folder.absolute())
    unit = keeper(context.home)
    ours = {place.listen for service in services for place in places(_route(service))}
    for place in places(route):
        yield _address(place.listen, ours, unit)
    if route.tls is not None:
        yield _certificate(route.tls, route.hosts)
    yield from _neighbours(route, manifest.service, services)
    yield from _preview(loaded, services)


def _address(listen: str, ours: set[str], unit: Unit | None) -> Finding:
    what = f"the address {listen}"
    error = refusal(listen)
    if error is None:
        return Finding(what, detail="it is free")
    if listen in ours:
        return Finding(what, detail="it is served by this Segue")
    if error.errno == errno.EADDRINUSE:
        return Finding(what, False, "another program listens there", "stop it, or choose another route.listen")
    if error.errno in (errno.EACCES, errno.EPERM):
        if unit is not None:
            return Finding(what, None, f"this user may not listen there; whether {unit.path} may, the deploy tells")
        return Finding(what, False, "this user may not listen there", "choose a port from 1024 on, or run as root")
    return Finding(what, False, str(error.strerror or error), "correct route.listen")


def _certificate(tls: Tls, hosts: tuple[str, ...]) -> Finding:
    what = f"the certificate {tls.cert}"
    try:
        found = read(tls.cert, tls.key)
    except BadCertificate as bad:
        return Finding(what, False, str(bad), "correct route.tls")
    trouble = found.trouble(hosts, datetime.now(UTC))
    if trouble is not None:
        return Finding(
            what, None, f"users will not trust it: {trouble}", "renew it; Segue takes the new one by itself"
        )
    return Finding(what, detail=f"for {', '.join(found.hosts)} until {found.ends:%Y-%m-%d}")


def _neighbours(route: Route, name: str, services: list[dict[str, Any]]) -> Iterator[Finding]:
    """The other services of this home that are in the way."""
    for other in services:
        if other["service"] == name or other["state"] == "stopped":
            continue
        found = conflict(route, _route(other), other["service"])
        if found is not None:
            do = "choose another route.listen, route.hosts or route.path"
            yield Finding(f"beside {other['service']}", False, found, do)


def _preview(loaded: Loaded, services: list[dict[str, Any]]) -> Iterator[Finding]:
    """The preview's address. During a rollout it is in use: by the preview."""
    listen = getattr(loaded.manifest.rollout(), "preview", None)
    if listen is None:
        return
    what, error = f"the preview's address {listen}", refusal(listen)
    rolls_out = any(other["service"] == loaded.manifest.service and other["rollout"] for other in services)
    if error is None:
        yield Finding(what, detail="it is free")
    elif error.errno == errno.EADDRINUSE and rolls_out:
        yield Finding(what, None, "something listens there, perhaps the preview of the rollout that runs")
    else:
        yield Finding(what, False, str(error.strerror or error).lower(), "choose another strategy.blue_green.preview")


def refusal(listen: str) -> OSError | None:
    """Why nothing can be bound to `listen`; None: it is free."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        return exc
    return None


def _route(service: dict[str, Any]) -> Route:
    """Where a service of this home is reached, from its status."""
    told = service["route"]
    files = told.get("tls")
    tls = Tls(files["cert"], files["key"], files["redirect"]) if files else None
    return Route(told["listen"], tuple(told.get("hosts", ["*"])), told.get("path", "/"), tls=tls)


def _services(context: Context) -> list[dict[str, Any]]:
    """The services of this home; none if no control plane runs."""
    try:
        return list(context.client.ask("GET", "/v1/services", timeout=5)["services"])
    except (Absent, Broken, SegueError):
        return []
