"""Where services are reached: which places a route takes, and which no two services can have.

Standard library only and little of it: commands that must start fast import this.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from segue.core.traffic import Route

_EVERYWHERE, _SAME = ("0.0.0.0", "[::]"), {"localhost": "127.0.0.1"}
ANY = "*"


class Place(NamedTuple):
    """An address ``host:port`` where a service is reached. `shows`: the files of its certificate; None: no TLS."""

    listen: str
    shows: tuple[str, str] | None


def places(route: Route) -> Iterator[Place]:
    """Every place that a route takes: where the service is, and where users are sent from."""
    if route.tls is None:
        yield Place(route.listen, None)
        return
    yield Place(route.listen, (route.tls.cert, route.tls.key))
    if route.tls.redirect is not None:
        yield Place(route.tls.redirect, None)


def overlap(one: str, other: str) -> bool:
    """Whether a connection could be meant for both of two addresses ``host:port``."""
    (host, _, port), (host_too, _, port_too) = one.lower().rpartition(":"), other.lower().rpartition(":")
    return port == port_too and (
        not {host, host_too}.isdisjoint(_EVERYWHERE) or _SAME.get(host, host) == _SAME.get(host_too, host_too)
    )


def asked_by_name(host: str) -> str:
    """How a user's TLS names `host` before there is any HTTP; ``*`` where it cannot, as with an IP address."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host
    return ANY


def conflict(mine: Route, theirs: Route, name: str) -> str | None:
    """Why a service cannot be at `mine` while the service `name` is at `theirs`; None: it can."""
    for here in places(mine):
        for there in places(theirs):
            if overlap(here.listen, there.listen):
                found = _at(here, mine, there, theirs, name)
                if found:
                    return found
    return None


def _at(here: Place, mine: Route, there: Place, theirs: Route, name: str) -> str | None:
    """The conflict where two places overlap."""
    if here.listen != there.listen:
        return f"{here.listen} and {there.listen}, where {name} is reached, are one address: write it the same way"
    if (here.shows is None) != (there.shows is None):
        return f"at {there.listen} {name} is reached {'without' if there.shows is None else 'with'} TLS"
    names = {asked_by_name(host) for host in mine.hosts} & {asked_by_name(host) for host in theirs.hosts}
    if here.shows != there.shows and names:
        return f"at {there.listen} {name} shows another certificate for the host {min(names)}"
    same = set(mine.hosts) & set(theirs.hosts)
    if same and mine.path.rstrip("/") == theirs.path.rstrip("/"):
        return f"{there.listen}{theirs.path} is {name}'s already, for the host {min(same)}"
    return None
