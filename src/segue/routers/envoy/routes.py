"""The routes of a service: which version a request is given, and what becomes of one that fails. Pure documents.

Rules of this file:
* The split is decided in the routes' match, by one number of the request or of the user: the limits are cumulative,
  and safe and other methods share one split.
* A retry policy belongs to a route and a route to one version: the others' failures are never replayed.
* No part of a request becomes the name of a statistic: a path that is told apart is known by its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from itertools import accumulate

from segue.core.release import NOTHING
from segue.core.traffic import Backend, Route, ServiceTable, Traffic
from segue.routers.envoy import paths, sticky, visits
from segue.routers.envoy.access_log import written
from segue.routers.envoy.documents import TYPE, Document, duration
from segue.routers.envoy.http import BUFFER
from segue.routers.envoy.names import ASIDE, RouteName, cluster_name, target_name

MILLION = 1_000_000
BODY_BUFFER = 4 * 1024 * 1024
"""Bytes of a request's body that are kept for a replay."""

NEVER_REACHED = "connect-failure,refused-stream,reset-before-request"
DIED = f"{NEVER_REACHED},reset"
FAILED = "5xx,reset,connect-failure,refused-stream"


@dataclass(frozen=True, slots=True)
class Choice:
    """Routes for those only of whom `predicate`, a matcher's, is true."""

    predicate: Document
    routes: list[Document]


@dataclass(frozen=True, slots=True)
class Routes:
    """A service's routes: the first `choice` that a user fits, else those that are for `everybody`."""

    everybody: list[Document]
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """What one version is given: what lies below `limit` and was not taken before; None: all of it."""

    backend: Backend
    limit: Fraction | None


def routes(table: ServiceTable) -> Routes:
    """The routes that divide the requests among the versions."""
    found = _divided(table)
    choices = tuple(Choice(choice.predicate, _told(table, choice.routes)) for choice in found.choices)
    return Routes(_told(table, found.everybody), choices)


def _told(table: ServiceTable, found: list[Document]) -> list[Document]:
    """`found` with what the service's route says of all of them."""
    bounded = _bounded(table, found) if table.route.max_body else found
    return [written(route, table.route.access_log) for route in bounded]


def _bounded(table: ServiceTable, found: Sequence[Document]) -> list[Document]:
    """`found` for bodies up to the bound: a longer one is refused by its length, or, untold, when it is reached."""
    bound = table.route.max_body
    too_long = {"name": "content-length", "range_match": {"start": str(bound + 1), "end": str(2**63 - 1)}}
    refused = {
        "name": str(RouteName(table.service, "", "none")),
        "match": {**path_match(table.route), "headers": [too_long]},
        "direct_response": {"status": 413, "body": {"inline_string": f"A body has at most {bound} bytes here.\n"}},
    }
    told = [_also_with(route, {"name": "content-length", "present_match": True}) for route in found]
    calls = [{**route, "match": {**route["match"], "grpc": {}}} for route in found]  # they are streams
    bounded = {BUFFER: {"@type": _PER_ROUTE, "buffer": {"max_request_bytes": min(bound, 2**32 - 1)}}}
    return [refused, *told, *calls, *(_also_by(route, bounded) for route in found)]


def _also_by(route: Document, filters: Document) -> Document:
    """`route` with these filters' settings beside those that it has."""
    return {**route, "typed_per_filter_config": {**route.get("typed_per_filter_config", {}), **filters}}


def _also_with(route: Document, header: Document) -> Document:
    """`route` for those of its requests that have `header`."""
    match = route["match"]
    return {**route, "match": {**match, "headers": [*match.get("headers", ()), header]}}


def _divided(table: ServiceTable) -> Routes:
    parts = _parts(table)
    if not parts:
        return Routes([_nobody(table)])
    if table.sticky is None or len(parts) == 1 or parts[0].backend.revision != table.trial:
        return Routes([route for part in parts for route in _of(table, part.backend, _by_chance(part.limit))])
    if table.sticky.header is not None:
        return _chosen(table, parts, table.sticky.header)
    found, who = list(_by_cookie(table, parts)), table.experiment.who if table.experiment else None
    if who is None:
        return Routes(found)
    takes_part = sticky.takes_part(who)
    return Routes([*(_also_with(route, takes_part) for route in found), *_aside(table, parts[-1].backend)])


def _chosen(table: ServiceTable, parts: Sequence[_Part], header: str) -> Routes:
    """The routes where a matcher chooses the version by what users send in `header`; the others are everybody.

    In an experiment everybody is who takes no part: who is not among those it is for, or sends no header.
    """
    experiment, choices = table.experiment, []
    for part in parts:
        routes = _of(table, part.backend, {})
        whose = [] if part.limit is None else [sticky.hashed(header, part.limit, sticky.seed(table))]
        if experiment:
            routes = [visits.named(route, table, header) for route in routes]
            whose += [sticky.sends(header), *([sticky.is_among(experiment.who)] if experiment.who else [])]
        choices.append((whose, routes))
    everybody = _aside(table, parts[-1].backend) if experiment else choices.pop()[1]
    return Routes(everybody, tuple(Choice(sticky.all_of(whose), routes) for whose, routes in choices))


def _parts(table: ServiceTable) -> list[_Part]:
    serving = sorted((b for b in table.backends if b.share > NOTHING), key=lambda b: b.revision != table.trial)
    limits = accumulate(backend.share for backend in serving)
    return [_Part(b, None if b is serving[-1] else limit) for b, limit in zip(serving, limits, strict=True)]


def _by_chance(limit: Fraction | None) -> Document:
    if limit is None:
        return {}
    return {"runtime_fraction": {"default_value": {"numerator": round(limit * MILLION), "denominator": "MILLION"}}}


def _by_cookie(table: ServiceTable, parts: Sequence[_Part]) -> Iterator[Document]:
    """First those who are known, then those who draw a number with this request and are told to keep it."""
    cookie = sticky.Cookie.of(table)
    for part in parts:
        for route in _of(table, part.backend, {"headers": [sticky.known(cookie, part.limit)]}):
            yield visits.known(route, table, cookie.name) if table.experiment else route
    for part in parts:
        match = {} if part.limit is None else {"headers": [sticky.drawn(part.limit)]}
        for route in _of(table, part.backend, match):
            found = route | sticky.remember(cookie, table.route)
            yield visits.drawn(found, table) if table.experiment else found


def _aside(table: ServiceTable, backend: Backend) -> list[Document]:
    """The routes of those who take no part in the experiment."""
    return [{**route, "name": _set_aside(route["name"])} for route in _of(table, backend, {})]


def _set_aside(name: str) -> str:
    told = RouteName.parse(name)
    assert told is not None
    return str(told._replace(kind=ASIDE[told.kind]))


def _of(table: ServiceTable, backend: Backend, match: Document) -> list[Document]:
    """The routes of one version for the requests that `match`, those of the paths that are told apart first."""
    found = _kinds(table, backend, match)
    if table.learning:
        return [paths.learned(route, table) for route in found]
    return [apart for route in found for apart in paths.told_apart(route, table)]


def _kinds(table: ServiceTable, backend: Backend, match: Document) -> list[Document]:
    """The routes of one version for the requests that `match`, one for each kind of them.

    Another version without a ready instance answers nothing: what this one fails is repeated by its own instances.
    """
    ends = (end for other in table.backends if other is not backend for end in other.endpoints)
    others = any(end.state is Traffic.READY for end in ends)
    safe = _by(_SAFE_METHODS, match)
    if others and table.route.shield and backend.revision == table.trial:
        other = {"retry_policy": _retry(NEVER_REACHED, 1, elsewhere_after=1)}
        return [
            _route(table, backend, "safe", safe, _shield(table.patience)),
            _route(table, backend, "other", match, other),
        ]
    elsewhere = 2 if others else None
    every = _route(table, backend, "all", match, {"retry_policy": _retry(NEVER_REACHED, 2, elsewhere)})
    if not table.route.shield:
        return [every]
    died = {"retry_policy": _retry(DIED, 2, elsewhere)}
    # Most requests are a GET, and a word costs less than an expression.
    reads = [safe] if others else [_by(_GET, match), safe]
    return [*(_route(table, backend, "read", each, died) for each in reads), every]


def _by(method: Document, match: Document) -> Document:
    """`match` for those of its requests that have this method."""
    return {**match, "headers": [method, *match.get("headers", ())]}


def _route(table: ServiceTable, backend: Backend, kind: str, match: Document, policy: Document) -> Document:
    return {
        "name": str(RouteName(table.service, backend.revision, kind)),
        "match": {**path_match(table.route), **match},
        "request_body_buffer_limit": str(BODY_BUFFER),
        "route": {
            "cluster": _destination(table, backend),
            "timeout": duration(table.route.timeout),
            "idle_timeout": duration(table.route.idle),
            **policy,
        },
    }


def _destination(table: ServiceTable, backend: Backend) -> str:
    """Where a version's requests go: to it first and then to the others. Where there are none that costs too much."""
    alone = len(table.backends) == 1
    return (cluster_name if alone else target_name)(table.service, backend.revision)


def _nobody(table: ServiceTable) -> Document:
    return {
        "name": str(RouteName(table.service, "", "none")),
        "match": path_match(table.route),
        "direct_response": {"status": 503, "body": {"inline_string": f"{table.service} is not being served.\n"}},
    }


def path_match(route: Route) -> Document:
    """What requests a service's path takes."""
    return paths.below(route.path)


def _shield(patience: timedelta) -> Document:
    """A safe request that fails is answered by the other version; a slow one is sent there too, and not cut."""
    policy = _retry(FAILED, 1, elsewhere_after=1)
    return {
        "hedge_policy": {"hedge_on_per_try_timeout": True},
        "retry_policy": {**policy, "per_try_timeout": duration(patience)},
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


_PER_ROUTE = TYPE + "envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
_PREVIOUS_HOSTS: Document = {"@type": TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}
_PREVIOUS_PRIORITIES: Document = {
    "@type": TYPE + "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
}
_GET: Document = {"name": ":method", "string_match": {"exact": "GET"}}
_SAFE_METHODS: Document = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS"}}}
