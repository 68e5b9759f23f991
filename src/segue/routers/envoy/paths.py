"""Paths that are told apart: routes of their own, and what is written down to find them. Pure documents.

A path has the number of its place in the table, and routes whose names end with it: so its attempts and their times
are counted by themselves, by the listener's loggers as they are. Which paths those are is learned from some requests
of a rollout's first seconds, of which the file of visits has the paths, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from segue.core.traffic import ServiceTable
from segue.routers.envoy.documents import Document
from segue.routers.envoy.marks import marked, noted
from segue.routers.envoy.names import RouteName
from segue.routers.envoy.visits import VISIT

_OF_ALL = ("prefix", "path_separated_prefix")


def below(path: str) -> Document:
    """What is `path` or lies below it: a match of routes."""
    path = path.rstrip("/")
    return {"path_separated_prefix": path} if path else {"prefix": "/"}


def told_apart(route: Document, table: ServiceTable) -> Iterator[Document]:
    """`route` for each of the paths of its service that are told apart, then for all of its requests."""
    name = RouteName.parse(route["name"])
    assert name is not None
    for number, path in enumerate(table.paths):
        match = {**below(path), **{key: value for key, value in route["match"].items() if key not in _OF_ALL}}
        yield {**route, "name": str(name._replace(path=number)), "match": match}
    yield route


def learned(route: Document, table: ServiceTable) -> Document:
    """`route`, with the paths of its requests written down."""
    return marked(route, [noted(VISIT, header=":path")], trial=table.trial)


def read(lines: Iterable[str], service: str, trial: str | None) -> Iterator[str]:
    """The paths in the lines of the file that are for learning, of requests of `service` while `trial` was tried out.

    A line that was cut off is left out.
    """
    for line in lines:
        try:
            said = json.loads(line)
            if (said["service"], said["trial"], said["user"]) == (service, trial, None):
                yield str(said["path"])
        except (ValueError, KeyError, TypeError):
            continue
