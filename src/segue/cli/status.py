"""`segue status`: what runs, for people as a table, with ``--json`` as the control plane says it."""

from __future__ import annotations

import sys

from segue.cli import text
from segue.cli.context import Context, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_PATIENCE = 5.0


def status(context: Context) -> int:
    """Print the state of all services, or of the one that was named."""
    document = _ask(context)
    if context.json:
        context.print(document)
    elif not document["services"]:
        print(f"No service yet. Next: {context.first}")
    else:
        print(overview(document, on=text.colourful(sys.stdout)))
    return 0


def _ask(context: Context) -> Any:
    if context.wanted is None:
        return context.services()
    return {"schema": 1, "services": [context.ask("GET", f"/v1/services/{quote(context.wanted)}")]}


def overview(document: Mapping[str, Any], *, on: bool) -> str:
    """The status document as text."""
    return "\n\n".join(_service(entry, on) for entry in document["services"])


def _service(entry: Mapping[str, Any], on: bool) -> str:
    route = entry.get("route") or {}
    state = entry["state"]
    head = text.paint(text.plain(entry["service"]), "bold", on)
    lines = [f"{head}  {text.paint(state, text.STATE_COLOURS.get(state), on)}{_where(route)}"]
    if entry.get("rollout"):
        lines.append("  " + _rollout(entry["rollout"], state, on))
    if entry.get("versions"):
        lines += ("  " + line for line in _versions(entry, on).splitlines())
    lines += (text.paint(f"  {told}", "dim", on) for told in _draining(entry))
    lines += (text.paint(f"  {problem}", "red", on) for problem in _problems(entry))
    return "\n".join(lines)


def _draining(entry: Mapping[str, Any]) -> list[str]:
    """What is still open on the instances that leave, and for how long they are waited for."""
    leaving = (i for i in _instances_of(entry) if i["state"] == "draining" and i.get("in_flight"))
    return [f"{i['id']} is draining: {i['in_flight']} open{_left(i.get('until'))}" for i in leaving]


def _left(until: str | None) -> str:
    left = -age(until) if until else 0.0
    return f", {text.seconds(left)} left" if left > 0 else ""


def _problems(entry: Mapping[str, Any]) -> list[str]:
    """Why the service needs somebody's attention, and what is wrong with its instances."""
    degraded = [f"degraded: {text.plain(entry['degraded'])}"] if entry.get("degraded") else []
    tls = (entry.get("route") or {}).get("tls") or {}
    if tls.get("problem"):
        degraded.append(f"the certificate in use is not the one in its files: {text.plain(tls['problem'])}")
    return degraded + [f"{i['id']}: {text.plain(i['problem'])}" for i in _instances_of(entry) if _ails(i)]


def _instances_of(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (instance for version in entry["versions"].values() for instance in version["instances"])


def _ails(instance: Mapping[str, Any]) -> bool:
    """Whether something is wrong: that one who is starting cannot be reached yet is not."""
    begins = instance["state"] == "starting" and age(instance["since"]) < _PATIENCE
    return bool(instance.get("problem")) and not begins


def age(moment: str) -> float:
    """Seconds since an ISO time."""
    from datetime import UTC, datetime

    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def _where(route: Mapping[str, Any]) -> str:
    if not route.get("listen"):
        return ""
    hosts = [host for host in route.get("hosts") or [] if host != "*"]
    path = route.get("path") or "/"
    more = (f"  {', '.join(hosts)}" if hosts else "") + (f"  {path}" if path != "/" else "")
    return f"  {'https://' if route.get('tls') else ''}{route['listen']}{more}"


def _rollout(rollout: Mapping[str, Any], state: str, on: bool) -> str:
    parts = [f"{way(rollout)}  {text.words(rollout.get('strategy') or '')}".rstrip()]
    if rollout.get("step") is not None and rollout.get("of"):
        parts.append(f"step {rollout['step']} of {rollout['of']}")
    if rollout.get("hold"):
        parts.append(text.paint(f"held: {text.plain(str(rollout['hold']))}", "yellow", on))
    if state == "paused":
        parts.append(text.paint("paused", "yellow", on))
    return "  ".join([*parts, f"({rollout['id']})"])


def way(rollout: Mapping[str, Any]) -> str:
    """From which version to which: ``v1 → v2``."""
    return f"{rollout.get('from') or 'nothing'} → {rollout.get('to') or 'nothing'}"


def _versions(entry: Mapping[str, Any], on: bool) -> str:
    rows = [("VERSION", "SHARE", "INSTANCES", "")]
    styles: list[tuple[str | None, ...]] = []
    roles = _roles(entry)
    for name, version in entry["versions"].items():
        serves = bool(version.get("share"))
        share = text.share(version.get("share") or 0)
        rows.append((text.plain(name), share, _instances(version), roles.get(name, "")))
        styles.append(("bold" if serves else None, "green" if serves else "dim", None, "dim"))
    return text.table(rows, styles, on)


def _instances(version: Mapping[str, Any]) -> str:
    counts: dict[str, int] = {}
    for instance in version.get("instances") or []:
        counts[instance["state"]] = counts.get(instance["state"], 0) + 1
    counts.setdefault("ready", 0)
    ready = counts.pop("ready")
    size = version.get("size")
    others = "".join(f", {number} {state}" for state, number in counts.items())
    return (f"{ready} of {size} ready" if size and ready != size else f"{ready} ready") + others


def _roles(entry: Mapping[str, Any]) -> dict[str | None, str]:
    """What is to be said of rows. After a restart a version's name stands for two revisions: old and new."""
    previous, roles = entry.get("previous") or {}, {}
    if entry.get("candidate"):
        roles[_newest(entry, entry["candidate"])] = "new"
    if previous.get("kept_until"):
        roles[_newest(entry, previous["version"], idle=True)] = f"kept until {local(previous['kept_until'])}"
    return roles


def _newest(entry: Mapping[str, Any], version: str, *, idle: bool = False) -> str | None:
    """The row of the newest revision of `version`; of those without a share if `idle`."""
    found: dict[int, str] = {}
    for name, row in entry["versions"].items():
        label, _, number = (row.get("revision") or f"{name}.0").rpartition(".")
        if label == version and not (idle and row.get("share")):
            found[int(number)] = name
    return found[max(found)] if found else None


def local(moment: str, *, seconds: bool = True) -> str:
    """An ISO time as the clock here shows it, with the date only if it is another day."""
    from datetime import datetime

    try:
        there = datetime.fromisoformat(moment).astimezone()
    except ValueError:
        return text.plain(moment)
    today = there.date() == datetime.now(there.tzinfo).date()
    return there.strftime(("%H:%M:%S" if seconds else "%H:%M") if today else "%Y-%m-%d %H:%M")
