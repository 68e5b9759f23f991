"""How things are called in Envoy: what is configured and what is counted must agree on it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from segue.core.traffic import InstanceId
from segue.routers.envoy.documents import Document

SAFE = ("safe", "read", "aside-read")
"""Routes for the methods that may be repeated."""

ASIDE = {"read": "aside-read", "all": "aside"}
"""Routes of those who take no part in an experiment, by those of the ones who do: they are no evidence."""


REDIRECT = "::redirect"
"""The name of the routes, no service's, that send users to where TLS is spoken."""


class RouteName(NamedTuple):
    """The name of a route as statistics show it. `kind`: whose requests it takes, and what becomes of one that fails.

    For the version on trial ``safe`` (methods: shielded) and ``other``, else ``read`` (safe methods: repeated if the
    instance died) and ``all``, which begin with ``aside`` for those who take no part in an experiment; ``none``:
    nobody serves; ``preview``: not for users. Where users stay on their version several routes have one name.
    `path`: the place in the table's `paths` of the one that it is for; None: it is for all, or for all others.
    """

    service: str
    revision: str
    kind: str
    path: int | None = None

    def __str__(self) -> str:
        return f"{self.service}:{self.revision}:{self.kind}" + ("" if self.path is None else f"+{self.path}")

    @property
    def aside(self) -> bool:
        """Whether it is for those who take no part in an experiment."""
        return self.kind in ASIDE.values()

    @classmethod
    def parse(cls, name: str) -> RouteName | None:
        """The route with this name, None if it is none of ours."""
        service, colon, rest = name.partition(":")
        revision, second, kind = rest.rpartition(":")
        kind, _, path = kind.partition("+")
        return cls(service, revision, kind, int(path) if path else None) if colon and second else None


def cluster_name(service: str, revision: str) -> str:
    """The cluster of one version; the same text tags its requests in the statistics."""
    return f"{service}@{revision}"


def target_name(service: str, revision: str) -> str:
    """The cluster that a version's routes lead to: the version first, then the others."""
    return f"{service}~{revision}"


def attempt_tag(cluster: str, instance: InstanceId) -> str:
    """What tags the attempts on one instance of a version in the statistics."""
    return f"{cluster}/{instance}"


def parse_tag(tag: str) -> tuple[str, InstanceId]:
    """The version, as its cluster's name, and the instance that are named in a tag; the instance may be empty."""
    version, _, instance = tag.partition("/")
    return version, InstanceId(instance)


ATTEMPT = r"attempt\.(?:n|last\.n\.rest\.(?P<rest>.*?)\.tries\.(?P<tries>\d+))"
"""A regular expression for how a count of attempts begins: of each, or of the last, whose `rest` is `YES` at rest."""

CODE = r"(?P<code>\d+)_(?P<called>[^.]*)"
"""A regular expression for the tag of an outcome: the HTTP status, and how a gRPC call ended (empty: it is none)."""


MANY = 50
"""More services than these are not named in a pattern: it finds those of all, and Envoy compares as quickly."""


def any_of(services: Collection[str]) -> str:
    """A part of a pattern that finds the names of `services`, and of others if these are many."""
    return ".*" if len(services) > MANY else "|".join(map(re.escape, sorted(services)))


def statistic(text: str) -> str:
    """How the address `text` appears in the names of statistics."""
    return text.removeprefix("unix:").replace(":", "_")


def address(text: str) -> Document:
    """`text`, which is ``host:port`` or ``unix:/path``, as an address. Raises ValueError."""
    if text.startswith("unix:"):
        return {"pipe": {"path": text.removeprefix("unix:")}}
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{text!r} is not an address: host:port or unix:/path is expected")
    host = {"localhost": "127.0.0.1", "": "0.0.0.0"}.get(host, host.strip("[]"))
    everybody = {"ipv4_compat": True} if host == "::" else {}
    return {"socket_address": {"address": host, "port_value": int(port), **everybody}}
