"""A version: one immutable release of a service, with the settings that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from segue.core.release import Revision
from segue.core.traffic import Protocol


@dataclass(frozen=True, slots=True)
class Health:
    """How an instance shows that it can serve.

    With `path` an HTTP GET answered with a status in `expect` (inclusive), with `command` an exit status
    of 0, with neither a TCP connection. After `healthy` successes in a row an unready instance is ready,
    after `unhealthy` failures in a row a ready one is not. `min_ready`: how long an instance must have been
    healthy to count. `deadline`: how long a new instance may take to become ready.
    """

    path: str | None = None
    command: str | None = None
    expect: tuple[int, int] = (200, 399)
    every: timedelta = timedelta(milliseconds=500)
    timeout: timedelta = timedelta(seconds=2)
    healthy: int = 2
    unhealthy: int = 3
    min_ready: timedelta = timedelta(0)
    deadline: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class SmokeHttp:
    """A GET of `path` is answered with `expect` (inclusive range) and a body that has `contains` in it."""

    path: str
    expect: tuple[int, int] = (200, 399)
    contains: str | None = None


@dataclass(frozen=True, slots=True)
class SmokeCommand:
    """`command` exits with status 0; ``{url}`` in it is the instance's address."""

    command: str


Smoke = SmokeHttp | SmokeCommand


@dataclass(frozen=True, slots=True)
class WarmUp:
    """So many GET requests, to `paths` in turn, that a new instance answers before any user reaches it.

    They go to the instance itself, past the router: they are never evidence, and an answer of any status will do.
    """

    requests: int = 50
    paths: tuple[str, ...] = ("/",)


@dataclass(frozen=True, slots=True)
class Stop:
    """How an instance is stopped: `drain` at most for its requests, `signal`, `grace`, then it is killed.

    `spread`: the signals to a version's instances are sent over this time instead of all at once.
    """

    signal: str = "TERM"
    drain: timedelta = timedelta(seconds=30)
    spread: timedelta = timedelta(0)
    grace: timedelta = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Version:
    """One revision of a version as the platform and the keeper need it. `protocol`: what its instances speak.

    `folder` is where its command runs. `environment` holds secrets: it never appears in the repr.
    """

    service: str
    revision: Revision
    digest: str
    folder: Path
    command: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    user: str | None = None
    health: Health = Health()
    smoke: tuple[Smoke, ...] = ()
    warm_up: WarmUp | None = None
    stop: Stop = Stop()
    protocol: Protocol = Protocol.HTTP1
