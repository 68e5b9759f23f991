"""`segue logs`: what the instances wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from segue.cli.context import Context
from segue.cli.text import plain
from segue.core.release import version_of
from segue.errors import Refused


def logs(
    context: Context,
    follow: bool = False,
    version: str | None = None,
    instance: str | None = None,
    lines: int | None = None,
) -> int:
    """Print the last lines of the service's instances, and with `follow` those that come."""
    service = context.ask("GET", context.path())
    if version is not None or instance is not None:
        _refuse_unknown(service, version, instance)
    for line in _lines(context, follow, {"version": version, "instance": instance, "lines": lines}):
        who, _, said = line.partition(" | ")
        if context.json:
            context.print({"instance": who, "line": said})
        else:
            print(f"{who} | {plain(said)}", flush=follow)
    return 0


def _refuse_unknown(service: Mapping[str, Any], version: str | None, instance: str | None) -> None:
    """Raises Refused if the service has no such instance: what it wrote is not looked for."""
    there = [(one["id"], told["revision"]) for told in service["versions"].values() for one in told["instances"]]
    wanted = [id for id, revision in there if version in (None, revision, version_of(revision))]
    if not wanted:
        known = ", ".join(sorted({version_of(revision) for _, revision in there})) or "none"
        raise Refused(f"no instance of {version} is there; versions with instances: {known}", next="segue status")
    if instance is not None and instance not in wanted:
        known = ", ".join(sorted(wanted))
        raise Refused(f"there is no instance {instance}; instances: {known}", next="segue status")


def _lines(context: Context, follow: bool, wanted: dict[str, object]) -> Iterator[str]:
    asked = {name: value for name, value in wanted.items() if value is not None}
    path = context.path(f"/logs?{urlencode({**asked, 'follow': str(follow).lower()})}")
    with context.client.open("GET", path) as body:
        for line in body.lines():
            if line:
                yield line.decode(errors="replace")
