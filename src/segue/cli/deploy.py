"""`segue deploy` and `segue plan`: read the manifest here, ask the control plane, show what comes of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from math import nan
from pathlib import Path
from typing import Any

from segue.cli import text
from segue.cli.cancel import Cancel
from segue.cli.client import Broken
from segue.cli.context import Context, quote
from segue.cli.follow import show
from segue.cli.label import default_version
from segue.cli.overview import overview
from segue.cli.trouble import NothingYet, sentence
from segue.errors import Usage
from segue.manifest.load import Loaded, load

_BUSY = 86400.0
"""Seconds that a deploy may stand in line with ``--if-busy wait``."""
_MOST_TRAFFIC = 1e9


def deploy(
    context: Context,
    version: str | None = None,
    strategy: str | None = None,
    reason: str | None = None,
    detach: bool = False,
    wait: float | None = None,
    no_wait: bool = False,
    if_busy: str | None = None,
    require_evidence: bool = False,
) -> int:
    """Carry out the plan for a new version; returns when it is decided."""
    said = {"reason": reason, "if_busy": if_busy or "refuse", "require_evidence": require_evidence}
    request = request_for(context, version, strategy) | said
    with nullcontext() if detach else _cancel(context, request) as cancel:
        service = request["manifest"]["service"]
        if if_busy == "wait" and not context.json:
            _say_for_what(context, service)
        answer = _post(context, f"/v1/services/{quote(service)}/rollouts", request)
        if answer["rollout"] is None or detach:
            return _begun(context, answer)
        stay = False if no_wait else None
        return int(show(context, answer["rollout"], timeout=wait, stay=stay, cancel=cancel)["exit"])


def _say_for_what(context: Context, service: str) -> None:
    """Say which rollout of `service` is waited for, if one runs."""
    try:
        services = context.ask("GET", "/v1/services")["services"]
    except NothingYet:
        return
    running = next((each["rollout"] for each in services if each["service"] == service), None)
    if running:
        way = f"{running['from'] or 'nothing'} → {running['to'] or 'nothing'}"
        print(f"Waiting for the end of rollout {running['id']} ({way}).", file=sys.stderr, flush=True)


def _cancel(context: Context, request: Mapping[str, Any]) -> AbstractContextManager[Cancel | None]:
    """What takes the rollout back if this process is told to end, where the manifest says so and nobody looks on."""
    takes_back = request["manifest"]["on_cancel"] == "rollback" and not sys.stdout.isatty()
    return Cancel(context) if takes_back else nullcontext()


def _begun(context: Context, answer: Mapping[str, Any]) -> int:
    """Say what was answered to who does not stay."""
    rollout = answer["rollout"]
    if rollout is None:
        return _nothing_to_do(context, answer["message"])
    if context.json:
        context.print(answer)
    else:
        print(f"Under way: segue wait {rollout}")
    return 0


def plan(
    context: Context, version: str | None = None, strategy: str | None = None, traffic: str | None = None
) -> int:
    """Show what a deploy would do, and what its judgements could say."""
    path = plan_path(request := request_for(context, version, strategy), requests_a_second(traffic))
    document = context.ask("POST", path, request)
    if context.json:
        context.print(document)
    else:
        print(overview(request["manifest"]["service"], document, on=text.colourful(sys.stdout)))
    return 0


def plan_path(request: Mapping[str, Any], traffic: float | None) -> str:
    """Where the plan of a request is asked for; `traffic`: requests a second, in place of those that are counted."""
    told = "" if traffic is None else f"?traffic={traffic!r}"
    return f"/v1/services/{quote(request['manifest']['service'])}/plan{told}"


def requests_a_second(said: str | None) -> float | None:
    """What `--traffic` says. Raises Usage."""
    try:
        rate = None if said is None else float(said.removesuffix("/s"))
    except ValueError:
        rate = nan
    if rate is not None and not 0 <= rate <= _MOST_TRAFFIC:
        raise Usage(
            f"--traffic is a number of requests a second such as 20 or 0.5, not {said}.", next="segue plan --help"
        )
    return rate


def read_manifest(context: Context) -> Loaded:
    """The manifest that is meant. Raises Usage, also where another service was named than it is about."""
    loaded = load(Path(context.manifest), as_root=os.geteuid() == 0)
    if context.wanted not in (None, loaded.manifest.service):
        raise Usage(
            f"{context.manifest} is about {loaded.manifest.service}, not about {context.wanted}.",
            next=f"segue deploy -s {loaded.manifest.service}",
        )
    return loaded


def request_for(
    context: Context, version: str | None, strategy: str | None, *, values: bool = True
) -> dict[str, Any]:
    """What the control plane is told: all that only this shell knows is found out here. `values`: of `env`, too."""
    loaded = read_manifest(context)
    folder = loaded.folder.resolve()
    return {
        "manifest": loaded.manifest.document(),
        "text": loaded.redacted(),
        "folder": str(folder),
        "environment": loaded.environment(os.environ) if values else {},
        "version": version or default_version(folder, datetime.now()),
        "strategy": strategy,
    }


def _post(context: Context, path: str, request: Mapping[str, Any]) -> Any:
    """Ask for the rollout. The key makes it one rollout, however often it is asked for."""
    key = os.urandom(16).hex()
    timeout = _BUSY if request["if_busy"] != "refuse" else 60.0
    try:
        return context.ask("POST", path, request, timeout=timeout, key=key)
    except Broken:
        return context.ask("POST", path, request, timeout=timeout, key=key)


def _nothing_to_do(context: Context, message: str) -> int:
    if context.json:
        done = {
            "event": "finished",
            "rollout": None,
            "outcome": "promoted",
            "basis": None,
            "reason": message,
            "exit": 0,
        }
        context.print(done)
    else:
        print(sentence(message))
    return 0
