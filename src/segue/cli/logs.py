"""`segue logs`: what the instances wrote."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

from segue.cli.client import Absent
from segue.cli.context import Context
from segue.cli.text import plain


def logs(
    context: Context,
    follow: bool = False,
    version: str | None = None,
    instance: str | None = None,
    lines: int | None = None,
) -> int:
    """Print the last lines of the service's instances, and with `follow` those that come."""
    for line in _lines(context, follow, {"version": version, "instance": instance, "lines": lines}):
        who, _, said = line.partition(" | ")
        if context.json:
            context.print({"instance": who, "line": said})
        else:
            print(f"{who} | {plain(said)}", flush=follow)
    return 0


def _lines(context: Context, follow: bool, wanted: dict[str, object]) -> Iterator[str]:
    asked = {name: value for name, value in wanted.items() if value is not None}
    path = context.path(f"/logs?{urlencode({**asked, 'follow': str(follow).lower()})}")
    try:
        body = context.client.open("GET", path)
    except Absent:
        context.start()
        body = context.client.open("GET", path)
    with body:
        for line in body.lines():
            if line:
                yield line.decode(errors="replace")
