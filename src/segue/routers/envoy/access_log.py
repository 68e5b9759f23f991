"""The access log: which requests are written down, and what becomes of the file.

Rules of this file:
* A route says whether its requests are written: it marks them when they begin (`marks.py`).
* Chance is the end of a request's identity, which no user chooses. Its beginning tells which version a new user is
  given: were the log to look there as well, it would have the requests of one version and not of the other.
* Envoy holds the file open and only ever appends. It is rotated by giving it another name and having Envoy open the
  old one again, so no line is lost.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from segue.following import rotated, size_of
from segue.routers.envoy import sticky
from segue.routers.envoy.admin import Admin
from segue.routers.envoy.documents import Document
from segue.routers.envoy.loggers import ACCESS_LOG, VISITS
from segue.routers.envoy.marks import marked, noted

EVERY = 10.0
"""Seconds between two looks at the file."""
LONGEST = 64 * 1024 * 1024
"""Bytes that it may have before it is rotated, and the file of an experiment's visits."""
KEPT = 2
"""How many rotated ones stay. Of an experiment's visits, which are read at once, one does."""


def written(route: Document, share: Fraction) -> Document:
    """`route`, with `share` of its requests written down as those of its service and of its version."""
    if not share:
        return route
    fits = None if share >= 1 else f"^.*{sticky.below(share)}$"
    return marked(route, [noted("written", header="x-request-id", fits=fits)])


async def rotate(folder: Path, admin: Admin) -> None:
    """Rotate the files of the Envoy in `folder` that are long. Raises RouterLost, OSError."""
    files = {folder / ACCESS_LOG: KEPT, folder / VISITS: 1}
    for file, kept in files.items():
        if size_of(file) > LONGEST:
            for number in range(kept, 1, -1):
                newer = rotated(file, number - 1)
                if newer.exists():
                    newer.replace(rotated(file, number))
            file.replace(rotated(file, 1))
    if not all(file.exists() for file in files):  # also when we ended, or it did not answer, the last time
        await admin.post("/reopen_logs")
