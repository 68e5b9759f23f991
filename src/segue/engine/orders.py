"""What can be asked of a service, and what the answer is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from segue.core.release import How, Rolling
from segue.core.traffic import Protocol, Route
from segue.core.version import Health, Smoke, Stop, WarmUp
from segue.engine.records import Hooks, Judging

Busy = Literal["refuse", "wait", "replace"]


@dataclass(frozen=True, slots=True)
class Order:
    """A deployment that is asked for: everything the manifest says of it, as the engine needs it.

    `source`: what is copied for the version; without it the command runs in `folder` itself.
    `environment` holds secrets: it never appears in the repr. `manifest`: the digest of its text.
    """

    service: str
    version: str
    folder: Path
    command: str
    replicas: int = 1
    route: Route = Route()
    strategy: How = Rolling()
    source: Path | None = None
    shared: tuple[str, ...] = ()
    build: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    user: str | None = None
    protocol: Protocol = Protocol.HTTP1
    health: Health = Health()
    smoke: tuple[Smoke, ...] = ()
    warm_up: WarmUp | None = None
    stop: Stop = Stop()
    hooks: Hooks = Hooks()
    judging: Judging = Judging()
    retain: int = 3
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, with what words, and how the same request can be told from a new one.

    `key` is the same where it is repeated, and `what` tells by its content that it is.
    `basis` and `log`: where Segue itself asks, what that rests on, and the lines that made it ask.
    """

    who: str = "somebody"
    reason: str | None = None
    key: str | None = None
    if_busy: Busy = "refuse"
    what: str | None = None
    basis: str | None = None
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The rollout that carries a request out, or None with a message: there was nothing to do."""

    rollout: str | None
    message: str | None = None
