"""A plan beforehand: the steps, what is demanded after each, what it costs and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segue.core import quantities, simulate, strategies
from segue.core.release import Experiment, Release, Side, revision, version_of
from segue.core.steps import Check, Judge, Run, Scale, Shift, decision
from segue.engine.beginning import resized
from segue.engine.orders import Order
from segue.engine.outlook import Outlook
from segue.engine.service import Service
from segue.engine.trial import AT_LEAST
from segue.engine.usual import Usual
from segue.errors import Refused, Usage

UNKNOWN = Usual()

START_SECONDS = 2.0
"""How long an instance is taken to need until it is ready, where nothing is known of it."""


def preview(service: Service | None, order: Order, usual: Usual = UNKNOWN) -> dict[str, Any]:
    """What `segue plan` shows, where `usual` is what the version that serves does now.

    Raises Usage and Refused as the deployment would.
    """
    number = service.catalog.next_number(order.version) if service else 1
    return outline(order, number, service.side() if service else None, usual)


def outline(order: Order, number: int, old: Side | None, usual: Usual = UNKNOWN) -> dict[str, Any]:
    """The plan for the `number`-th revision of what `order` names, where `old` serves. Raises as `preview`."""
    release = _release(order, number, old)
    start = simulate.begin(release)
    plan = strategies.forward(release, start)
    if found := simulate.flaws(release, start, plan):
        raise Refused(f"the plan is not safe: {found[0]}")
    played = [one for one in simulate.play(start, plan) if one.step]
    outlook = Outlook(order.judging, release.new.revision, usual)
    seconds = [_seconds(one, outlook) for one in played]
    peak = simulate.peak(start, plan)
    normal = old.size if old else release.new.size
    return {
        "strategy": order.strategy.name if old else "launch",
        "from": old and version_of(old.revision),
        "to": order.version,
        "steps": [_shown(one) for one in played],
        "decided_after": decision(plan),
        "peak": peak,
        "extra": max(0, peak - normal),
        "instance_minutes": round(_extra_minutes(played, seconds, normal), 2),
        "kept_minutes": round(_kept(release) / 60, 2) if old else 0.0,
        "seconds": round(sum(seconds[: decision(plan)]), 1),
        "traffic": outlook.traffic(old.revision) if old else None,
        "judgements": outlook.judgements(played),
        "notes": _notes(order, release),
    }


def _release(order: Order, number: int, old: Side | None) -> Release:
    try:
        return Release(
            Side(revision(order.version, number), order.replicas),
            old,
            order.strategy,
            before=order.hooks.before is not None,
            on_rollback=order.hooks.on_rollback is not None,
        )
    except ValueError as error:
        raise Usage(str(error), next="segue plan --strategy rolling") from error


def _shown(played: simulate.Played) -> dict[str, Any]:
    return {
        "step": str(played.step),
        "counts": dict(played.demand.counts),
        "shares": {version: float(share) for version, share in played.demand.shares.items()},
    }


def _seconds(one: simulate.Played, outlook: Outlook) -> float:
    """How long a step is expected to take."""
    match one.step:
        case Judge(until):
            return outlook.seconds(until, one.demand)
        case Scale():
            return START_SECONDS
        case Check() | Shift() | Run():
            return 0.1
    return 0.0


def _extra_minutes(played: Sequence[simulate.Played], seconds: Sequence[float], normal: int) -> float:
    """Minutes that instances run beyond the usual number, each counted for itself."""
    return sum(max(0, one.instances - normal) * took / 60 for one, took in zip(played, seconds, strict=True))


def _kept(release: Release) -> float:
    """Instance-seconds for which the old version is kept after the decision."""
    return release.strategy.keep.total_seconds() * release.old.size if release.old else 0.0


def _notes(order: Order, release: Release) -> list[str]:
    notes = []
    if order.source is None:
        notes.append("no run.process.source: all versions share the files in the manifest's folder")
    if release.old and order.route.shield and release.room < release.old.size + release.new.size:
        notes.append(
            "while both serve, the old version has fewer instances than usual: what the new one fails is answered "
            f"by it for at most {AT_LEAST} requests at a time and instance, or as many as it has of its own"
        )
    if release.old and isinstance(order.strategy, Experiment):
        most = quantities.clock(order.strategy.most.total_seconds())
        notes.append(f"a person ends it, within {most}: the time is without that")
    if sizes := resized(release):
        notes.append(sizes)
    keep = release.strategy.keep.total_seconds()
    if release.old and keep:
        notes.append(
            f"the old version is kept for {keep / 60:g} min afterwards ({_kept(release) / 60:.1f} instance-minutes "
            "more); "
            "going back is one switch until then"
        )
        if order.hooks.after:
            notes.append("then the after hook runs; from that moment on there is no going back")
    return notes
