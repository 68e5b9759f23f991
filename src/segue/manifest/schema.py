"""What a manifest may say, and the defaults. `reference.yaml` shows and explains every leaf.

Rule 1: a key that Segue's manifest has but this version does not support stands in LATER (`strategy.py`): it is
refused by name, never ignored.
Rule 2: whether a value is possible is decided here, so that the control plane, which is given a manifest
as JSON, refuses what the loader refuses. Only the place in the text is the loader's business.
Rule 3: `core()` of a section is what the rest of Segue is given.

`Manifest.model_validate(document, context={"as_root": True})` also demands what root must say.
"""

from __future__ import annotations

import pwd
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import Field, ValidationInfo, model_validator

from segue.core import release, traffic, version
from segue.errors import Usage
from segue.manifest import values
from segue.manifest.kinds import (
    Command,
    Count,
    Duration,
    File,
    Flag,
    Host,
    InnerFolder,
    Kind,
    Listen,
    Many,
    Number,
    Program,
    RoutePath,
    Section,
    ServiceName,
    SignalName,
    SomeTime,
    Statuses,
    Text,
    UrlPath,
    User,
    Variable,
)
from segue.manifest.strategy import HOW, STRATEGIES, Chosen, Strategy
from segue.manifest.values import Wrong


class Route(Section):
    """Where users reach the service."""

    listen: Listen = "127.0.0.1:8080"
    hosts: Annotated[tuple[Host, ...], Many("a list of hosts")] = ("*",)
    path: RoutePath = "/"
    timeout: Duration = timedelta(0)
    shield: Flag = True

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.hosts:
            raise Wrong("no host is named", expected='a list of hosts such as ["*"]', at=("hosts",))
        return self

    def core(self) -> traffic.Route:
        """The route as the router is given it."""
        return traffic.Route(self.listen, self.hosts, self.path, self.timeout, self.shield)


class FromEnv(Section):
    """``!env NAME``: the value stays where it is until the service is deployed."""

    from_env: Text


def _env_value(value: object) -> str | FromEnv:
    match value:
        case str() if "\0" in value:
            raise Wrong("the text has a NUL character in it")
        case str() | FromEnv():
            return value
        case {"from_env": str(name), **rest} if not rest:
            return FromEnv(from_env=values.text(name))
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
    raise Wrong(f"{values.shown(value)} cannot stand in an environment")


EnvValue = Annotated[str | FromEnv, Kind(_env_value, "text, a number, true, false or !env NAME")]


class Process(Section):
    """Instances are processes on this machine."""

    command: Program
    source: File | None = None
    shared: Annotated[tuple[InnerFolder, ...], Many("a list of folders")] = ()
    build: Command | None = None
    env: Annotated[Mapping[Variable, EnvValue], Many("a mapping of names to values")] = Field({}, repr=False)
    env_file: File | None = None
    user: User | None = None

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo) -> Self:
        for key in ("shared", "build"):
            if getattr(self, key) and self.source is None:
                problem = f"`{key}` needs `source`: without it no version has a folder of its own"
                raise Wrong(problem, expected="`source: .` beside it", at=(key,))
        if info.context and info.context.get("as_root"):
            _demand_user(self.user)
        return self


def _demand_user(name: str | None) -> None:
    """Raise Wrong unless a user of this machine is named."""
    if name is None:
        raise Wrong(
            "as root each service names `user:`",
            expected="the name of a user (`user: root` is allowed, but say so)",
            at=("user",),
        )
    try:
        pwd.getpwnam(name)
    except KeyError:
        alike = values.nearest(name, [user.pw_name for user in pwd.getpwall()])
        raise Wrong(f"the user `{name}` is unknown on this machine", nearest=alike, at=("user",)) from None


class Platform(Section):
    """Where the service runs: exactly one platform."""

    process: Process


class Health(Section):
    """How an instance shows that it can serve."""

    path: UrlPath | None = None
    command: Command | None = None
    expect: Statuses = (200, 399)
    every: SomeTime = timedelta(milliseconds=500)
    timeout: SomeTime = timedelta(seconds=2)
    healthy: Count = 2
    unhealthy: Count = 3
    min_ready: Duration = timedelta(0)
    deadline: SomeTime = timedelta(seconds=60)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.path is not None and self.command is not None:
            raise Wrong("`path` and `command` exclude each other", expected="one of them", at=("command",))
        fastest = self.every * (self.healthy - 1) + self.min_ready
        if fastest >= self.deadline:
            least = values.duration_text(fastest)
            raise Wrong(
                "no instance can be ready by then: `every` × (`healthy` - 1) + `min_ready` is not shorter",
                expected=f"a duration longer than {least}",
                at=("deadline",),
            )
        return self

    def core(self) -> version.Health:
        """The health check as the platform and the keeper are given it."""
        return version.Health(**dict(self))


class SmokeHttp(Section):
    """A GET that every new instance must answer."""

    path: UrlPath
    expect: Statuses = (200, 399)
    contains: Text | None = None


class Smoke(Section):
    """One smoke test: a request or a command."""

    http: SmokeHttp | None = None
    command: Command | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.http is None) == (self.command is None):
            problem = "a smoke test is `http` or `command`, not " + ("both" if self.http else "nothing")
            raise Wrong(problem, expected="one of them")
        return self

    def core(self) -> version.Smoke:
        """The smoke test as the keeper is given it."""
        if self.http is not None:
            return version.SmokeHttp(**dict(self.http))
        assert self.command is not None
        return version.SmokeCommand(self.command)


class Stop(Section):
    """How an instance is stopped."""

    signal: SignalName = "TERM"
    drain: Duration = timedelta(seconds=30)
    spread: Duration = timedelta(0)
    grace: Duration = timedelta(seconds=10)

    def core(self) -> version.Stop:
        """The way to stop as the platform is given it."""
        return version.Stop(self.signal, self.drain, self.spread, self.grace)


class Hooks(Section):
    """Commands around a rollout."""

    before: Command | None = None
    on_rollback: Command | None = None
    timeout: SomeTime = timedelta(minutes=10)


class Manifest(Section):
    """Everything that `segue.yaml` says about one service."""

    service: ServiceName
    replicas: Count = 1
    route: Route = Route()
    run: Platform
    health: Health = Health()
    smoke: Annotated[tuple[Smoke, ...], Many("a list of smoke tests")] = ()
    stop: Stop = Stop()
    hooks: Hooks = Hooks()
    strategy: Annotated[Strategy, Many(HOW)] = Strategy(use="rolling")
    retain: Number = 3

    @model_validator(mode="after")
    def _possible(self) -> Self:
        how = self.strategy.core()
        if isinstance(how, release.InPlace) and how.batch >= self.replicas:
            raise Wrong(
                f"in_place takes {how.batch} of {self.replicas} instances out at a time: none would serve",
                expected=f"`replicas` above {how.batch}",
                at=("strategy", "in_place", "batch"),
            )
        return self

    def rollout(self, strategy: str | None = None) -> Chosen:
        """The strategy `strategy` (None: the manifest's) with the options given for it. Raises Usage."""
        try:
            how = self.strategy.core(strategy)
        except Wrong as exc:
            known = f"expected one of {', '.join(STRATEGIES)}"
            raise Usage(f"{exc.problem}; {known}", next="segue deploy --strategy rolling") from exc
        if isinstance(how, release.InPlace) and how.batch >= self.replicas:
            raise Usage(
                f"in_place takes {how.batch} of {self.replicas} instances out at a time, so that none would serve",
                next="segue deploy --strategy rolling",
            )
        return how

    def document(self) -> dict[str, Any]:
        """The manifest as JSON without a single value of `env`: each has become a reference to its own name."""
        document = self.model_dump(mode="json")
        env = document["run"]["process"]["env"]
        document["run"]["process"]["env"] = {name: {"from_env": name} for name in env}
        return document
