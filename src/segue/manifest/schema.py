"""What a manifest may say, and the defaults. `reference.yaml` shows and explains every leaf.

Rule 1: a key that Segue's manifest has but this version does not support stands in LATER (`strategy.py`): it is
refused by name, never ignored.
Rule 2: whether a value is possible is decided here, so that the control plane, which is given a manifest
as JSON, refuses what the loader refuses. Only the place in the text is the loader's business.
Rule 3: `core()` of a section is what the rest of Segue is given.

`Manifest.model_validate(document, context={"as_root": True})` also demands what root must say.
"""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import model_validator

from segue.core import release, traffic, version
from segue.core.places import overlap
from segue.errors import Usage
from segue.manifest import values
from segue.manifest.judging import Evidence, Judge
from segue.manifest.kinds import (
    CheckCommand,
    Command,
    Count,
    Duration,
    File,
    Flag,
    Host,
    Listen,
    LogShare,
    Many,
    Number,
    OnCancel,
    RoutePath,
    Section,
    ServiceName,
    SignalName,
    Size,
    SomeTime,
    Spoken,
    Statuses,
    Text,
    UrlPath,
)
from segue.manifest.platform import Platform
from segue.manifest.strategy import HOW, STRATEGIES, Strategy
from segue.manifest.values import Wrong


class Tls(Section):
    """The certificate that users are shown."""

    cert: File
    key: File
    redirect: Listen | None = None

    def core(self, folder: Path) -> traffic.Tls:
        """The files as the router's side is given them: relative ones lie in `folder`."""
        return traffic.Tls(str(folder / self.cert), str(folder / self.key), self.redirect)


class Route(Section):
    """Where users reach the service."""

    listen: Listen = "127.0.0.1:8080"
    hosts: Annotated[tuple[Host, ...], Many("a list of hosts")] = ("*",)
    path: RoutePath = "/"
    tls: Tls | None = None
    protocol: Spoken = "http1"
    timeout: Duration = timedelta(0)
    idle: Duration = timedelta(0)
    shield: Flag = True
    max_body: Size = 0
    access_log: LogShare = Fraction(0)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.hosts:
            raise Wrong("no host is named", expected='a list of hosts such as ["*"]', at=("hosts",))
        if self.tls and self.tls.redirect and overlap(self.tls.redirect, self.listen):
            problem = f"`{self.tls.redirect}` is where users are sent to (`route.listen`)"
            raise Wrong(problem, expected="another port", at=("tls", "redirect"))
        if self.max_body and self.protocol == "grpc":
            raise Wrong("a gRPC stream has no end to be told beforehand", expected="0", at=("max_body",))
        return self

    def core(self, folder: Path) -> traffic.Route:
        """The route as the router is given it; relative paths lie in `folder`."""
        return traffic.Route(
            listen=self.listen,
            hosts=self.hosts,
            path=self.path,
            timeout=self.timeout,
            shield=self.shield,
            tls=self.tls.core(folder) if self.tls else None,
            idle=self.idle,
            max_body=self.max_body,
            access_log=self.access_log,
        )


class Health(Section):
    """How an instance shows that it can serve."""

    path: UrlPath | None = None
    command: CheckCommand | None = None
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
    command: CheckCommand | None = None

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


class WarmUp(Section):
    """Requests that every new instance answers before any user reaches it."""

    requests: Count = 50
    paths: Annotated[tuple[UrlPath, ...], Many("a list of paths")] = ("/",)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.paths:
            raise Wrong("no path is named", expected="a list of paths such as [/]", at=("paths",))
        return self

    def core(self) -> version.WarmUp:
        """The warm-up as the keeper is given it."""
        return version.WarmUp(self.requests, self.paths)


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
    after: Command | None = None
    timeout: SomeTime = timedelta(minutes=10)


KEPT_FOR_AFTER = timedelta(minutes=1)
"""How long a rollout with an `after` hook keeps the old version at least: from then on there is no going back."""


def _no_way_back(how: release.How) -> Wrong:
    """What is said where `how` would leave no time to go back before the `after` hook."""
    kept, least = values.duration_text(how.keep), values.duration_text(KEPT_FOR_AFTER)
    able = "a strategy that keeps the old version: rolling with `keep`, blue_green or canary"
    return Wrong(
        f"once `hooks.after` has run there is no going back, and {how.name} keeps the old version for {kept} only",
        expected=able if isinstance(how, release.InPlace) else f"`keep` of at least {least} in `strategy.{how.name}`",
        at=("hooks", "after"),
    )


class Manifest(Section):
    """Everything that `segue.yaml` says about one service."""

    service: ServiceName
    replicas: Count = 1
    route: Route = Route()
    run: Platform
    health: Health = Health()
    smoke: Annotated[tuple[Smoke, ...], Many("a list of smoke tests")] = ()
    warm_up: WarmUp | None = None
    stop: Stop = Stop()
    hooks: Hooks = Hooks()
    strategy: Annotated[Strategy, Many(HOW)] = Strategy(use="rolling")
    judge: Judge = Judge()
    evidence: Annotated[tuple[Evidence, ...], Many("a list of evidence such as [{logs: {match: ERROR}}]")] = ()
    approve_within: SomeTime = timedelta(hours=24)
    retain: Number = 3
    on_cancel: OnCancel = "continue"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        wrong = self._against(self.strategy.core()) or self._hidden_preview()
        if wrong is not None:
            raise wrong
        return self

    def _against(self, how: release.How) -> Wrong | None:
        """What speaks against deploying by `how`, if anything does."""
        if isinstance(how, release.InPlace) and how.batch >= self.replicas:
            return Wrong(
                f"in_place takes {how.batch} of {self.replicas} instances out at a time: none would serve",
                expected=f"`replicas` above {how.batch}",
                at=("strategy", "in_place", "batch"),
            )
        if self.hooks.after is not None and how.keep < KEPT_FOR_AFTER:
            return _no_way_back(how)
        return None

    def _hidden_preview(self) -> Wrong | None:
        """What is wrong where the preview's address is the users'."""
        preview = self.strategy.blue_green and self.strategy.blue_green.preview
        tls = self.route.tls
        for key, place in (("listen", self.route.listen), ("tls.redirect", tls and tls.redirect)):
            if preview and place and overlap(preview, place):
                return Wrong(
                    f"`{preview}` is where users connect (`route.{key}`)",
                    expected="another port",
                    at=("strategy", "blue_green", "preview"),
                )
        return None

    def rollout(self, strategy: str | None = None) -> release.How:
        """The strategy `strategy` (None: the manifest's) with the options given for it. Raises Usage."""
        try:
            how = self.strategy.core(strategy)
        except Wrong as exc:
            expected = exc.expected or f"one of {', '.join(STRATEGIES)}"
            raise Usage(f"{exc.problem}; expected {expected}", next="segue deploy --strategy rolling") from exc
        if wrong := self._against(how):
            raise Usage(f"{wrong.problem}; expected {wrong.expected}", next="segue deploy")
        return how

    def document(self) -> dict[str, Any]:
        """The manifest as JSON without a single value of `env`: each has become a reference to its own name."""
        document = self.model_dump(mode="json")
        env = document["run"]["process"]["env"]
        document["run"]["process"]["env"] = {name: {"from_env": name} for name in env}
        return document
