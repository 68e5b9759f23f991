"""A plan beforehand: the steps, what is demanded after each, what it costs and how long it takes."""

from __future__ import annotations

from typing import Any

from segue.core import simulate, strategies
from segue.core.demand import Demand
from segue.core.release import Release, Side, revision, version_of
from segue.core.steps import Check, Judge, Plan, Run, Scale, Shift, Silence, Step, decision
from segue.engine.orders import Order
from segue.engine.service import Service
from segue.engine.trial import AT_LEAST
from segue.errors import Refused, Usage

START_SECONDS = 2.0
"""How long an instance is taken to need until it is ready, where nothing is known of it."""


def preview(service: Service | None, order: Order) -> dict[str, Any]:
    """What `segue plan` shows. Raises Usage and Refused as the deployment would."""
    old = service.side() if service else None
    number = service.catalog.next_number(order.version) if service else 1
    try:
        release = Release(
            Side(revision(order.version, number), order.replicas),
            old,
            order.strategy,
            before=order.hooks.before is not None,
            on_rollback=order.hooks.on_rollback is not None,
        )
    except ValueError as error:
        raise Usage(str(error), next="segue plan --strategy rolling") from error
    start = simulate.begin(release)
    plan = strategies.forward(release, start)
    if found := simulate.flaws(release, start, plan):
        raise Refused(f"the plan is not safe: {found[0]}")
    peak = simulate.peak(start, plan)
    usual = old.size if old else release.new.size
    return {
        "strategy": order.strategy.name if old else "launch",
        "from": old and version_of(old.revision),
        "to": order.version,
        "steps": [_shown(played) for played in simulate.play(start, plan) if played.step],
        "decided_after": decision(plan),
        "peak": peak,
        "extra": max(0, peak - usual),
        "instance_minutes": round(_extra_minutes(start, plan, usual), 2),
        "seconds": round(sum(_seconds(step) for step in plan[: decision(plan)]), 1),
        "notes": _notes(order, release),
    }


def _shown(played: simulate.Played) -> dict[str, Any]:
    return {
        "step": str(played.step),
        "counts": dict(played.demand.counts),
        "shares": {version: float(share) for version, share in played.demand.shares.items()},
    }


def _seconds(step: Step) -> float:
    match step:
        case Judge(until):
            return (until.length if isinstance(until, Silence) else until.least).total_seconds()
        case Scale():
            return START_SECONDS
        case Check() | Shift() | Run():
            return 0.1
    return 0.0


def _extra_minutes(start: Demand, plan: Plan, usual: int) -> float:
    """Minutes that instances run beyond the usual number, each counted for itself."""
    total = 0.0
    for played in simulate.play(start, plan):
        if played.step:
            total += max(0, played.instances - usual) * _seconds(played.step) / 60
    return total


def _notes(order: Order, release: Release) -> list[str]:
    notes = []
    if order.source is None:
        notes.append("no run.process.source: all versions share the files in the manifest's folder")
    if release.old and order.route.shield and release.room < release.old.size + release.new.size:
        notes.append(
            "while both serve, the old version has fewer instances than usual: what the new one fails is answered "
            f"by it for at most {AT_LEAST} requests at a time and instance, or as many as it has of its own"
        )
    keep = release.strategy.keep.total_seconds()
    if release.old and keep:
        minutes = keep * release.old.size / 60
        notes.append(
            f"the old version is kept for {keep / 60:g} min afterwards ({minutes:.1f} instance-minutes more); "
            "going back is one switch until then"
        )
        if order.hooks.after:
            notes.append("then the after hook runs; from that moment on there is no going back")
    return notes
