"""The journal's tables, and its records as rows: JSON in text columns, moments in ISO format, UTC."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from segue.core import demand as demands
from segue.core import steps
from segue.core.release import Revision
from segue.core.steps import Plan
from segue.core.traffic import InstanceId
from segue.engine.records import (
    RELEASE,
    ROUTE,
    VERSION,
    Event,
    Hooks,
    IntentRecord,
    Judging,
    Parting,
    Person,
    Recipe,
    RolloutRecord,
    ServiceRecord,
    StepRecord,
    VersionRecord,
)
from segue.ports import Intent

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS service (
    name TEXT PRIMARY KEY, route TEXT, demand TEXT, stable TEXT, strategy TEXT, retain INTEGER, degraded TEXT,
    sealed TEXT);
CREATE TABLE IF NOT EXISTS version (
    service TEXT, revision TEXT, name TEXT, number INTEGER, version TEXT, recipe TEXT, hooks TEXT, created TEXT,
    PRIMARY KEY (service, revision));
CREATE TABLE IF NOT EXISTS request (key TEXT PRIMARY KEY, rollout TEXT, at TEXT, what TEXT);
CREATE TABLE IF NOT EXISTS rollout (
    id TEXT PRIMARY KEY, service TEXT, kind TEXT, strategy TEXT, old TEXT, new TEXT, release TEXT, plan TEXT,
    start TEXT, who TEXT, asked TEXT, manifest TEXT, route TEXT, started TEXT, back TEXT, turned TEXT,
    turned_at TEXT, replaced INTEGER, decided TEXT, ended TEXT, outcome TEXT, basis TEXT, reason TEXT,
    exit INTEGER, log TEXT, judging TEXT, person TEXT);
CREATE INDEX IF NOT EXISTS rollout_of ON rollout (service);
CREATE INDEX IF NOT EXISTS rollout_running ON rollout (service) WHERE ended IS NULL;
CREATE TABLE IF NOT EXISTS step (
    rollout TEXT, way TEXT, number INTEGER, step TEXT, demand TEXT, began TEXT, ended TEXT, outcome TEXT,
    verdict TEXT, PRIMARY KEY (rollout, way, number));
CREATE TABLE IF NOT EXISTS intent (
    nonce TEXT PRIMARY KEY, service TEXT, instance TEXT, revision TEXT, address TEXT, restarts INTEGER,
    stopping INTEGER, checked INTEGER, parting TEXT);
CREATE INDEX IF NOT EXISTS intent_service ON intent (service);
CREATE TABLE IF NOT EXISTS told.event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT, event TEXT, service TEXT, rollout TEXT, body TEXT);
CREATE INDEX IF NOT EXISTS told.event_rollout ON event (rollout, seq);
CREATE TABLE IF NOT EXISTS told.ledger (rollout TEXT PRIMARY KEY, body TEXT);
CREATE TABLE IF NOT EXISTS told.poll (seq INTEGER PRIMARY KEY AUTOINCREMENT, rollout TEXT, body TEXT);
CREATE INDEX IF NOT EXISTS told.poll_rollout ON poll (rollout, seq);
CREATE TABLE IF NOT EXISTS told.visitor (
    rollout TEXT, who BLOB, new INTEGER, reached INTEGER, PRIMARY KEY (rollout, who)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told.experiment (
    rollout TEXT PRIMARY KEY, new INTEGER, old INTEGER, reached_new INTEGER, reached_old INTEGER);
"""

ADDED = (
    ("service", "sealed"),
    ("rollout", "judging"),
    ("rollout", "person"),
    ("intent", "parting"),
    ("request", "what"),
)
"""Columns that a journal of an earlier version may lack."""

RECIPE = TypeAdapter(Recipe)
HOOKS = TypeAdapter(Hooks)
JUDGING = TypeAdapter(Judging)
PERSON = TypeAdapter(Person)
PARTING = TypeAdapter(Parting)


def service(record: ServiceRecord) -> dict[str, Any]:
    """A service as a row."""
    return {
        "name": record.name,
        "route": ROUTE.dump_json(record.route).decode(),
        "demand": json.dumps(demands.encode(record.demand)),
        "stable": record.stable,
        "strategy": json.dumps(record.strategy),
        "retain": record.retain,
        "degraded": record.degraded,
        "sealed": record.sealed and json.dumps(record.sealed),
    }


def read_service(row: sqlite3.Row) -> ServiceRecord:
    """The service of a row."""
    return ServiceRecord(
        name=row["name"],
        route=ROUTE.validate_json(row["route"]),
        demand=demands.decode(json.loads(row["demand"])),
        stable=row["stable"] and Revision(row["stable"]),
        strategy=json.loads(row["strategy"]),
        retain=row["retain"],
        degraded=row["degraded"],
        sealed=row["sealed"] and json.loads(row["sealed"]),
    )


def version(record: VersionRecord) -> dict[str, Any]:
    """A revision as a row, without its environment."""
    return {
        "service": record.version.service,
        "revision": record.revision,
        "name": record.name,
        "number": record.number,
        "version": VERSION.dump_json(record.version, exclude={"environment"}).decode(),
        "recipe": RECIPE.dump_json(record.recipe).decode(),
        "hooks": HOOKS.dump_json(record.hooks).decode(),
        "created": record.created.isoformat(),
    }


def read_version(row: sqlite3.Row) -> VersionRecord:
    """The revision of a row."""
    return VersionRecord(
        name=row["name"],
        number=row["number"],
        version=VERSION.validate_json(row["version"]),
        recipe=RECIPE.validate_json(row["recipe"]),
        hooks=HOOKS.validate_json(row["hooks"]),
        created=datetime.fromisoformat(row["created"]),
    )


def rollout(record: RolloutRecord) -> dict[str, Any]:
    """A rollout as a row."""
    return {
        "id": record.id,
        "service": record.service,
        "kind": record.kind,
        "strategy": record.strategy,
        "old": record.old,
        "new": record.new,
        "release": record.release and RELEASE.dump_json(record.release).decode(),
        "plan": encode_plan(record.plan),
        "start": json.dumps(demands.encode(record.start)),
        "who": record.who,
        "asked": record.asked,
        "manifest": record.manifest,
        "route": record.route and ROUTE.dump_json(record.route).decode(),
        "started": record.started.isoformat(),
        "back": encode_plan(record.back),
        "turned": record.turned,
        "turned_at": record.turned_at and json.dumps(demands.encode(record.turned_at)),
        "replaced": record.replaced,
        "decided": record.decided and record.decided.isoformat(),
        "ended": record.ended and record.ended.isoformat(),
        "outcome": record.outcome,
        "basis": record.basis,
        "reason": record.reason,
        "exit": record.exit,
        "log": json.dumps(record.log),
        "judging": JUDGING.dump_json(record.judging).decode(),
        "person": PERSON.dump_json(record.person).decode(),
    }


def read_rollout(row: sqlite3.Row) -> RolloutRecord:
    """The rollout of a row."""
    return RolloutRecord(
        id=row["id"],
        service=row["service"],
        kind=row["kind"],
        strategy=row["strategy"],
        old=row["old"] and Revision(row["old"]),
        new=row["new"] and Revision(row["new"]),
        release=row["release"] and RELEASE.validate_json(row["release"]),
        plan=decode_plan(row["plan"]),
        start=demands.decode(json.loads(row["start"])),
        who=row["who"],
        asked=row["asked"],
        manifest=row["manifest"],
        route=row["route"] and ROUTE.validate_json(row["route"]),
        started=datetime.fromisoformat(row["started"]),
        back=decode_plan(row["back"]),
        turned=row["turned"],
        turned_at=row["turned_at"] and demands.decode(json.loads(row["turned_at"])),
        replaced=bool(row["replaced"]),
        decided=read_time(row["decided"]),
        ended=read_time(row["ended"]),
        outcome=row["outcome"],
        basis=row["basis"],
        reason=row["reason"],
        exit=row["exit"],
        log=tuple(json.loads(row["log"])),
        judging=JUDGING.validate_json(row["judging"]) if row["judging"] else Judging(),
        person=PERSON.validate_json(row["person"]) if row["person"] else Person(),
    )


def step(rollout_id: str, record: StepRecord) -> dict[str, Any]:
    """A step that has begun as a row."""
    return {
        "rollout": rollout_id,
        "way": record.way,
        "number": record.number,
        "step": json.dumps(steps.encode(record.step)),
        "demand": json.dumps(demands.encode(record.demand)),
        "began": record.began.isoformat(),
        "ended": record.ended and record.ended.isoformat(),
        "outcome": record.outcome,
        "verdict": record.verdict and json.dumps(record.verdict),
    }


def read_step(row: sqlite3.Row) -> StepRecord:
    """The step of a row."""
    return StepRecord(
        way=row["way"],
        number=row["number"],
        step=steps.decode(json.loads(row["step"])),
        demand=demands.decode(json.loads(row["demand"])),
        began=datetime.fromisoformat(row["began"]),
        ended=read_time(row["ended"]),
        outcome=row["outcome"],
        verdict=row["verdict"] and json.loads(row["verdict"]),
    )


def intent(record: IntentRecord) -> dict[str, Any]:
    """An intent as a row."""
    return {
        "nonce": record.intent.nonce,
        "service": record.intent.service,
        "instance": record.intent.instance,
        "revision": record.intent.revision,
        "address": record.intent.address,
        "restarts": record.restarts,
        "stopping": record.stopping,
        "checked": record.checked,
        "parting": record.parting and parting(record.parting),
    }


def read_intent(row: sqlite3.Row) -> IntentRecord:
    """The intent of a row."""
    return IntentRecord(
        intent=Intent(
            service=row["service"],
            instance=InstanceId(row["instance"]),
            revision=Revision(row["revision"]),
            nonce=row["nonce"],
            address=row["address"],
        ),
        restarts=row["restarts"],
        stopping=bool(row["stopping"]),
        checked=bool(row["checked"]),
        parting=PARTING.validate_json(row["parting"]) if row["parting"] else None,
    )


def parting(record: Parting) -> str:
    """A removal as JSON text."""
    return PARTING.dump_json(record).decode()


def read_event(row: sqlite3.Row) -> Event:
    """The event of a row."""
    return Event(
        seq=row["seq"],
        at=datetime.fromisoformat(row["at"]),
        event=row["event"],
        service=row["service"],
        rollout=row["rollout"],
        body=json.loads(row["body"]),
    )


def encode_plan(plan: Plan) -> str:
    """A plan as JSON text."""
    return json.dumps([steps.encode(step) for step in plan])


@lru_cache(maxsize=256)
def decode_plan(text: str) -> Plan:
    """The plan that `encode_plan` wrote as `text`."""
    decoded: Sequence[dict[str, Any]] = json.loads(text)
    return tuple(steps.decode(document) for document in decoded)


def read_time(text: str | None) -> datetime | None:
    """A moment as the journal writes it."""
    return datetime.fromisoformat(text) if text else None
