"""An experiment's users: what is written of their requests, pure documents, and what stands there.

Envoy writes a line for a user's first request and for each that may have reached the goal, into a file of its own: no
request waits for it, and it does not matter whether a control plane runs. Rules of this file:
* A user who is known by a cookie is new where the cookie is drawn. One who is known by a header sends it from the
  first request on, so all of his requests are written.
* Of a request nothing is written that might be a secret: no query, no body, no cookie but our own. Of headers that
  name users the line has the value; it is hashed as soon as it is read, and the file goes with the experiment.
* Rollouts learn their paths from the same file (`paths.py`); of those lines nobody is a user.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from segue.core.experiment import Visit
from segue.core.release import Revision
from segue.core.traffic import ServiceTable
from segue.following import rotated, size_of
from segue.routers.envoy.documents import Document
from segue.routers.envoy.loggers import VISITS, YES
from segue.routers.envoy.marks import copied, marked, noted

VISIT = "visit"
"""The mark of what is written into the file."""
_USER, _GOAL = "user", "goal"


def drawn(route: Document, table: ServiceTable) -> Document:
    """`route`, whose users draw their number with this request, with each of them written down."""
    return _marked(route, table, [copied(_USER, header="x-request-id"), noted(VISIT, header="x-request-id")])


def known(route: Document, table: ServiceTable, cookie: str) -> Document:
    """`route`, whose users have the cookie, with what may have reached the goal written down."""
    assert table.experiment is not None
    goal, requests, answers = table.experiment.goal, [copied(_USER, cookie=cookie)], []
    if goal.path is not None:
        path = re.escape(goal.path.rstrip("/"))
        requests.append(noted(VISIT, header=":path", fits=rf"^{path}/?(\?.*)?$"))
    elif goal.header is not None:
        answers.append(noted(VISIT, header=goal.header))
    elif goal.status is not None:
        statuses = "|".join(map(str, range(goal.status[0], goal.status[1] + 1)))
        answers.append(noted(VISIT, header=":status", fits=f"^({statuses})$"))
    return _marked(route, table, requests, answers)


def named(route: Document, table: ServiceTable, header: str) -> Document:
    """`route`, whose users name themselves in `header`, with all of their requests written down."""
    return _marked(route, table, [copied(_USER, header=header), noted(VISIT, header=header)])


def _marked(
    route: Document, table: ServiceTable, requests: Sequence[Document], answers: Sequence[Document] = ()
) -> Document:
    header = table.experiment and table.experiment.goal.header
    shown = [noted(_GOAL, header=header)] if header else []
    return marked(route, requests, [*answers, *shown], trial=table.trial)


def forget(folder: Path) -> None:
    """Empty the file of the Envoy in `folder`, which appends to it: no experiment needs it, nobody learns a path."""
    file = folder / VISITS
    rotated(file, 1).unlink(missing_ok=True)
    if size_of(file):
        os.truncate(file, 0)


def read(lines: Iterable[str], service: str, trial: Revision | None) -> Iterator[Visit]:
    """The visits that the lines of the file tell of, of users of `service` while `trial` was tried out.

    A line that was cut off is left out.
    """
    for line in lines:
        try:
            said = json.loads(line)
            if (said["service"], said["trial"]) == (service, trial) and said["user"]:
                yield Visit(
                    version=Revision(said["version"]),
                    user=str(said["user"]),
                    path=said["path"],
                    status=int(said["status"]),
                    shown=said["goal"] == YES,
                )
        except (ValueError, KeyError, TypeError):
            continue
