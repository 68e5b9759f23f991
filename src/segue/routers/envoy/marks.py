"""What a route has written of its requests: the marks that make the listener's loggers write them. Pure documents.

Rules of this file:
* Which logger writes what is a part of every listener for good. A route switches a filter on that notes in the
  metadata of a request what the loggers look for; so what is written changes, and nobody's connection ends.
* A rule whose expression does not fit leaves the whole of what it looked at as the mark, which no logger looks for.
"""

from __future__ import annotations

from collections.abc import Sequence

from segue.routers.envoy.documents import Document
from segue.routers.envoy.http import MARK, MARKING
from segue.routers.envoy.loggers import YES
from segue.routers.envoy.names import RouteName


def noted(key: str, *, header: str | None = None, cookie: str | None = None, fits: str | None = None) -> Document:
    """A rule: where the header or the cookie is there, note `YES` under `key`, if the whole of it `fits`."""
    how = (
        {"value": YES} if fits is None else {"regex_value_rewrite": {"pattern": {"regex": fits}, "substitution": YES}}
    )
    return _rule(key, header, cookie, how)


def copied(key: str, *, header: str | None = None, cookie: str | None = None) -> Document:
    """A rule: note what the header or the cookie says under `key`."""
    return _rule(key, header, cookie, {})


def _rule(key: str, header: str | None, cookie: str | None, how: Document) -> Document:
    source = {"header": header} if header else {"cookie": cookie}
    return {**source, "on_header_present": {"metadata_namespace": "segue", "key": key, **how}}


def marked(
    route: Document, requests: Sequence[Document], answers: Sequence[Document] = (), **more: str | None
) -> Document:
    """`route` with these rules for its requests and their answers, beside those that it has.

    What is written may name the route's service and version, and `more`.
    """
    name = RouteName.parse(route["name"])
    if name is None or not (requests or answers):
        return route
    filters = route.get("typed_per_filter_config", {})
    before = filters.get(MARK, {})
    rules = {
        "request_rules": [*before.get("request_rules", ()), *requests],
        "response_rules": [*before.get("response_rules", ()), *answers],
    }
    known = route.get("metadata", {}).get("filter_metadata", {}).get("segue", {})
    told = {**known, "service": name.service, "version": name.revision, **more}
    return {
        **route,
        "metadata": {"filter_metadata": {"segue": {key: value for key, value in told.items() if value}}},
        "typed_per_filter_config": {**filters, MARK: {"@type": MARKING, **{k: v for k, v in rules.items() if v}}},
    }
