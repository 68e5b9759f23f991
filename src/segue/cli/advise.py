"""`segue advise`: which strategy fits this change and this traffic. Changes nothing, starts no control plane."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from segue.api.bodies import Deploy, order
from segue.cli import capacity, text
from segue.cli.advice import Advised, document, lines
from segue.cli.change import NotKnown, changed
from segue.cli.client import Absent, Broken
from segue.cli.context import Context
from segue.cli.deploy import plan_path, read_manifest, request_for, requests_a_second
from segue.core import advise as core
from segue.core.release import Side, revision
from segue.core.situation import Change, Situation, Way
from segue.engine.plans import outline
from segue.engine.usual import Usual
from segue.errors import SegueError
from segue.manifest.load import Loaded
from segue.manifest.strategy import STRATEGIES

Document = dict[str, Any]


def advise(
    context: Context,
    since: str | None = None,
    traffic: str | None = None,
    most_instances: int | None = None,
    long_lived: bool = False,
    validate: bool = False,
    experiment: bool = False,
) -> int:
    """Print the advice, its reasons, and what each strategy takes."""
    rate, loaded = requests_a_second(traffic), read_manifest(context)
    service = _service(context, loaded.manifest.service)
    own = loaded.manifest.strategy
    able = [name for name in STRATEGIES if name != "experiment" or own.experiment is not None]  # it needs a goal
    plans = {name: _plan(context, loaded, service, name, rate) for name in able}
    label: str | None = service["stable"] if service else None
    change, unknown = _change(loaded, label, since)
    told: Document = {
        "most": most_instances,
        "long_lived": long_lived,
        "validate": validate,
        "experiment": experiment or own.use == "experiment",
    }
    situation = Situation(**_seen(loaded, service), **_traffic(plans, rate), **told)
    ways = {name: _way(name, plan) for name, plan in plans.items()}
    advice = core.advise(change, unknown, situation, ways)
    command = "segue plan" if own.use == advice.strategy else f"segue plan --strategy {advice.strategy}"
    it = Advised(loaded.manifest.service, label, service is None, change, situation, ways, advice, command)
    if context.json:
        context.print(document(it))
    else:
        print("\n".join(lines(it, on=text.colourful(sys.stdout))))
    return 0


def _service(context: Context, name: str) -> Document | None:
    """The service's status; None: no control plane runs. Of one that knows no such service: that nothing serves."""
    try:
        services: list[Document] = context.client.ask("GET", "/v1/services", timeout=10)["services"]
    except (Absent, Broken):
        return None
    return next((one for one in services if one["service"] == name), {"stable": None, "versions": {}})


def _plan(context: Context, loaded: Loaded, service: Document | None, name: str, rate: float | None) -> Document:
    """The plan of a deploy by the strategy `name`; ``{"problem": why}`` where there is none.

    Without a control plane as many instances are taken to serve as the manifest names.
    """
    request = request_for(context, None, name, values=False)
    try:
        if service is not None:
            return dict(context.client.ask("POST", plan_path(request, rate), request, timeout=30))
        wanted = order(loaded.manifest.service, Deploy(**request))
        return outline(wanted, 1, Side(revision("what serves", 1), wanted.replicas), Usual(told=rate))
    except SegueError as error:
        return {"problem": error.message}


def _change(loaded: Loaded, label: str | None, since: str | None) -> tuple[Change | None, str]:
    """What changed, or why that is not known."""
    folder = loaded.folder / (loaded.manifest.run.process.source or ".")
    try:
        return changed(folder, label, since, loaded.manifest.hooks.before), ""
    except NotKnown as why:
        return None, str(why)


def _seen(loaded: Loaded, service: Document | None) -> Document:
    """What the manifest and the machine say of the situation."""
    manifest, versions = loaded.manifest, service["versions"] if service else {}
    running = [one["pid"] for version in versions.values() for one in version["instances"] if one["pid"]]
    serving = None
    if service is not None:
        serving = int(versions[service["stable"]]["size"]) if service["stable"] else 0
    return {
        "serving": serving,
        "replicas": manifest.replicas,
        "room": capacity.room(running),
        "busy": capacity.busy(),
        "expands": manifest.hooks.before is not None,
        "contracts": manifest.hooks.after is not None,
    }


def _traffic(plans: Mapping[str, Document], rate: float | None) -> Document:
    """What was measured of the traffic, or is said to be."""
    found = [plan["traffic"] for plan in plans.values() if plan.get("traffic")]
    measured: Document = found[0] if found else {"per_second": None, "open": None}
    return {"rate": measured["per_second"] if rate is None else rate, "open": measured["open"]}


def _way(name: str, plan: Document) -> Way:
    """What a plan costs, and whether its judgements can say something."""
    if "problem" in plan:
        return Way(name, problem=plan["problem"])
    judgements = plan["judgements"]
    proofs = [one for one in judgements if one["waits_for"] == "proof"] or judgements
    possible = [one["possible"] for one in proofs]
    return Way(
        strategy=name,
        peak=plan["peak"],
        extra=plan["extra"],
        minutes=plan["instance_minutes"],
        kept=plan["kept_minutes"],
        seconds=plan["seconds"],
        verdict=None if None in possible else all(possible),
        from_rate=max((one["needs_rate"] for one in proofs if one["needs_rate"]), default=None),
    )
