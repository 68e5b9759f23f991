"""What requests carry, and how a manifest becomes an order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from segue.core.traffic import Protocol
from segue.engine.orders import Busy, Order
from segue.engine.records import Hooks, Judging
from segue.errors import Usage
from segue.manifest.load import receive
from segue.manifest.schema import Manifest


class Body(BaseModel):
    """A request's body: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Asked(Body):
    """What is asked of a service, and why."""

    reason: str | None = None


class Deploy(Asked):
    """A deployment. `environment` holds what the client resolved; `folder` is the manifest's."""

    manifest: dict[str, Any]
    text: str = ""
    folder: str
    environment: Mapping[str, str] = Field(default_factory=dict, repr=False)
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,79}$")
    strategy: str | None = None
    if_busy: Busy = "refuse"
    require_evidence: bool = False


class Rollback(Asked):
    """Where to go back to; None: to the version before."""

    to: str | None = None


class Promote(Asked):
    """Whether nothing more is judged or asked from now on."""

    full: bool = False


class Scale(Asked):
    """How many instances there are to be."""

    count: int


class Shutdown(Body):
    """Whether the services and the router end too."""

    all: bool = False


def order(service: str, body: Deploy) -> Order:
    """The order that a request is. Raises Usage where the manifest is not one."""
    manifest = receive(body.manifest, as_root=os.geteuid() == 0)
    if manifest.service != service:
        raise Usage(f"the manifest is {manifest.service}'s, not {service}'s")
    folder, process = Path(body.folder), manifest.run.process
    if not folder.is_absolute():
        raise Usage(f"folder must be absolute, not {body.folder}")
    return Order(
        service=service,
        version=body.version,
        folder=folder,
        command=process.command,
        replicas=manifest.replicas,
        route=manifest.route.core(folder),
        protocol=Protocol(manifest.route.protocol),
        strategy=manifest.rollout(body.strategy),
        source=(folder / process.source).resolve() if process.source is not None else None,
        shared=process.shared,
        build=process.build,
        environment=body.environment,
        user=process.user,
        health=manifest.health.core(),
        smoke=tuple(test.core() for test in manifest.smoke),
        warm_up=manifest.warm_up.core() if manifest.warm_up else None,
        stop=manifest.stop.core(),
        hooks=_hooks(manifest),
        judging=_judging(manifest, require_evidence=body.require_evidence),
        retain=manifest.retain,
        manifest=hashlib.sha256(body.text.encode()).hexdigest(),
    )


def _hooks(manifest: Manifest) -> Hooks:
    told = manifest.hooks
    return Hooks(told.before, told.on_rollback, told.after, told.timeout.total_seconds())


def _judging(manifest: Manifest, *, require_evidence: bool) -> Judging:
    judge = manifest.judge
    return Judging(
        settings=judge.core(),
        settle=judge.settle,
        low_traffic=judge.low_traffic,
        undecided=judge.undecided,
        logs=tuple(source.logs.match for source in manifest.evidence if source.logs),
        metrics=tuple(source.prometheus.core() for source in manifest.evidence if source.prometheus),
        questions=tuple(asked.core() for source in manifest.evidence if (asked := source.command or source.url)),
        approve_within=manifest.approve_within,
        require_evidence=require_evidence,
    )
