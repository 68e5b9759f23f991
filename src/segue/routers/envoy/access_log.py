"""The access log: which requests are written down, and what becomes of the file.

Rules of this file:
* The logger is a part of every listener for good. A route says whether its requests are written: it switches a
  filter on that marks them when they begin, and the logger writes those that are marked.
* Chance is the end of a request's identity, which no user chooses. Its beginning tells which version a new user is
  given: were the log to look there as well, it would have the requests of one version and not of the other.
* Envoy holds the file open and only ever appends. It is rotated by giving it another name and having Envoy open the
  old one again, so no line is lost.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from segue.routers.envoy import sticky
from segue.routers.envoy.admin import Admin
from segue.routers.envoy.http import ACCESS_LOG, MARK, MARKING, Document
from segue.routers.envoy.names import RouteName

EVERY = 10.0
"""Seconds between two looks at the file."""
LONGEST = 64 * 1024 * 1024
"""Bytes that it may have before it is rotated."""
KEPT = 2
"""How many rotated ones stay."""


def written(route: Document, share: Fraction) -> Document:
    """`route`, with `share` of its requests written down as those of its service and of its version."""
    name = RouteName.parse(route["name"])
    if name is None or not share:
        return route
    of = {"service": name.service, **({"version": name.revision} if name.revision else {})}
    marked = {"metadata_namespace": "segue", "key": "written", **_mark(share)}
    rules = [{"header": "x-request-id", "on_header_present": marked}]
    return {
        **route,
        "metadata": {"filter_metadata": {"segue": of}},
        "typed_per_filter_config": {
            **route.get("typed_per_filter_config", {}),
            MARK: {"@type": MARKING, "request_rules": rules},
        },
    }


def _mark(share: Fraction) -> Document:
    """``1`` for `share` of the requests, something else for the others."""
    if share >= 1:
        return {"value": "1"}
    return {"regex_value_rewrite": {"pattern": {"regex": f"^.*{sticky.below(share)}$"}, "substitution": "1"}}


async def rotate(folder: Path, admin: Admin) -> None:
    """Rotate the file of the Envoy in `folder` if it is long. Raises RouterLost, OSError."""
    file = folder / ACCESS_LOG
    if _size(file) > LONGEST:
        for number in range(KEPT, 1, -1):
            newer = _rotated(file, number - 1)
            if newer.exists():
                newer.replace(_rotated(file, number))
        file.replace(_rotated(file, 1))
    if not file.exists():  # also when we ended, or it did not answer, the last time
        await admin.post("/reopen_logs")


def _rotated(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
