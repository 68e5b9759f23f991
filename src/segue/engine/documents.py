"""What people and programs are shown: the status, a rollout, and its account."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from segue.core.release import Revision, version_of
from segue.core.samples import percentile
from segue.core.traffic import Books, Route, Sample
from segue.engine import ledger as ledgers
from segue.engine import people
from segue.engine.journal import Journal
from segue.engine.ledger import Ledger
from segue.engine.member import Member, State
from segue.engine.records import Event, RolloutRecord, StepRecord
from segue.engine.service import Service

Document = dict[str, Any]


def status(services: Iterable[Service]) -> Document:
    """Everything that `segue status --json` shows."""
    return {"schema": 1, "services": [service_status(service) for service in services]}


def service_status(service: Service) -> Document:
    """One service as `segue status --json` shows it."""
    record, demand, rollout = service.record, service.keeper.demand, service.rollout
    trial = rollout.new if rollout and rollout.release and rollout.new != record.stable else None
    previous = service.previous()
    kept_until = demand.kept_until.isoformat() if demand.kept_until else None
    return {
        "service": record.name,
        "state": _state(service),
        "stable": record.stable and version_of(record.stable),
        "candidate": trial and version_of(trial),
        "previous": {"version": previous, "kept_until": kept_until} if previous else None,
        "route": _route(record.route, service.certificate_problem),
        "versions": _versions(service),
        "rollout": rollout and _running(service, rollout),
        "degraded": record.degraded,
    }


def _route(route: Route, problem: str | None) -> Document:
    """Where users reach a service. `problem`: what is wrong with the files of its certificate."""
    tls = route.tls and {"cert": route.tls.cert, "key": route.tls.key, "redirect": route.tls.redirect}
    shown = {**tls, "problem": problem} if tls else None
    return {"listen": route.listen, "hosts": list(route.hosts), "path": route.path, "tls": shown}


def _state(service: Service) -> str:
    rollout, record = service.rollout, service.record
    if rollout is not None:
        return _going_on(rollout)
    if record.stable is None:
        return "stopped"
    whole = service.keeper.fleet.ready(record.stable) >= service.keeper.demand.count(record.stable)
    return "steady" if whole and not record.degraded else "degraded"


def _going_on(rollout: RolloutRecord) -> str:
    """The state of a rollout that is not decided."""
    if rollout.turned is not None or rollout.kind == "rollback":
        return "rolling_back"
    if rollout.person.asked is not None:
        return "holding"
    return "paused" if rollout.person.paused else "rolling_out"


def _versions(service: Service) -> Document:
    keeper = service.keeper
    revisions = sorted({member.revision for member in keeper.fleet.members} | set(keeper.demand.counts))
    names = [version_of(revision) for revision in revisions]
    shown: Document = {}
    for revision in revisions:
        twice = names.count(version_of(revision)) > 1 and revision != service.record.stable
        shown[revision if twice else version_of(revision)] = {
            "revision": revision,
            "share": float(keeper.demand.share(revision)),
            "size": keeper.demand.count(revision),
            "instances": [_instance(member) for member in keeper.fleet.members if member.revision == revision],
        }
    return shown


def _instance(member: Member) -> Document:
    return {
        "id": member.id,
        "address": member.intent.address if member.intent else None,
        "state": member.state.value,
        "pid": member.instance.pid if member.instance else None,
        "restarts": member.restarts,
        "since": member.since.isoformat(),
        "problem": member.problem if member.state is not State.READY else None,
        "in_flight": member.in_flight,
        "until": member.until.isoformat() if member.until else None,
    }


def _running(service: Service, rollout: RolloutRecord) -> Document:
    begun = [step for step in service.steps(rollout.id) if step.way == rollout.way]
    return {
        "id": rollout.id,
        "strategy": rollout.strategy,
        **rollout.versions,
        "state": _going_on(rollout),
        "step": begun[-1].number if begun else 0,
        "of": len(rollout.steps),
        "hold": rollout.person.asked,
        "basis": rollout.basis,
    }


def rollout(record: RolloutRecord) -> Document:
    """One line of `segue history`."""
    until = record.decided or record.ended
    return {
        "rollout": record.id,
        "service": record.service,
        "kind": record.kind,
        "strategy": record.strategy,
        **record.versions,
        "state": "decided" if record.decided else _going_on(record),
        "outcome": record.outcome,
        "basis": record.basis,
        "reason": record.reason or record.turned,
        "exit": record.exit,
        "started": record.started.isoformat(),
        "decided": until.isoformat() if until else None,
        "seconds": _seconds(record.started, until),
        "who": record.who,
        "asked": record.asked,
    }


def step(record: StepRecord) -> Document:
    """One step of a rollout, as far as it went."""
    return {
        "number": record.number,
        "way": record.way,
        "step": str(record.step),
        "began": record.began.isoformat(),
        "ended": record.ended.isoformat() if record.ended else None,
        "outcome": record.outcome,
        "verdict": record.verdict,
    }


def report(journal: Journal, record: RolloutRecord, now: datetime) -> Document:
    """The account of a rollout until `now`: what was done, why, and what became of every request."""
    ledger = ledgers.decode(journal.ledger(record.id))
    events = list(journal.all_events(record.id))
    steps = [step(found) for found in journal.steps(record.id)]
    there, back = _switches(events)
    return {
        **rollout(record),
        "requests": requests(ledger),
        "farewells": farewells(events),
        "latency_ms": {
            version_of(v): latency(sample) for v, sample in ledger.total.samples.items() if sample.attempts
        },
        "switch_ms": there,
        "rollback_ms": there if record.kind == "rollback" else back,
        "steps": steps,
        "judgements": [found["verdict"] for found in steps if found["verdict"]],
        "experiment": people.shown(journal, record, now) if record.experiment else None,
        "notes": [event.body["text"] for event in events if event.event == "note"],
        "log": list(record.log),
    }


def _switches(events: Iterable[Event]) -> tuple[float | None, float | None]:
    """Milliseconds that the last shift on the way there and the last on the way back took."""
    there, back, turned = None, None, False
    for event in events:
        turned = turned or event.event == "turned_back"
        if event.event == "traffic":
            there, back = (there, event.body["confirmed_ms"]) if turned else (event.body["confirmed_ms"], back)
    return there, back


def farewells(events: Iterable[Event]) -> Document:
    """What became of what instances had when they left the traffic: in all, and of each that still had something.

    Of one that was told to end, and whose end nobody saw, what was open is unclear.
    """
    ended: list[Document] = []
    told: dict[str, Document] = {}
    for event in events:
        if said := event.body.get("farewell"):
            instance = event.body["instance"]
            told[instance] = {"instance": instance, **said}
            if event.body["state"] == State.STOPPED:
                ended.append(told.pop(instance))
    ended += told.values()
    kinds = ("drained", "open", "goodbye", "cut", "repeated", "unclear", "killed")
    return {
        **{kind: sum(one[kind] for one in ended) for kind in kinds},
        "instances": [one for one in ended if one["open"] or one["killed"]],
    }


def requests(ledger: Ledger) -> Document:
    """What became of every request: the parts sum to the total, or the books do not balance."""
    books = ledger.total.books
    uncounted = books.total - _sum(books)
    return {
        "total": books.total,
        "answered_by": _by_name(books.answered),
        "failed_by": _by_name(books.failed),
        "shielded": books.shielded,
        "hedged": books.hedged,
        "cut": books.cut,
        "unserved": books.unserved,
        "uncounted": uncounted,
        "balanced": uncounted == 0 and ledger.gaps == 0,
    }


def _sum(books: Books) -> int:
    return sum(books.answered.values()) + sum(books.failed.values()) + books.shielded + books.cut + books.unserved


def _by_name(counts: Mapping[Revision, int]) -> dict[str, int]:
    names: dict[str, int] = {}
    for revision, count in counts.items():
        if count:
            names[version_of(revision)] = names.get(version_of(revision), 0) + count
    return names


def latency(sample: Sample) -> dict[str, float]:
    """Percentiles of a sample's answers in milliseconds, each the upper edge of its bucket."""
    parts = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    found = {name: percentile(sample, part) for name, part in parts.items()}
    return {name: round(edge / 1000, 3) for name, edge in found.items() if edge is not None}


def _seconds(began: datetime, ended: datetime | None) -> float | None:
    return round((ended - began).total_seconds(), 3) if ended else None
