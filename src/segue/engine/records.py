"""What the journal holds, as values. "Running", "healthy" and "confirmed" are not among it: those are read
from the world."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter

from segue.core.demand import Demand
from segue.core.release import Experiment, Release, Return, Revision, version_of
from segue.core.sources import Asked, Metric, Question
from segue.core.steps import Plan, Step
from segue.core.traffic import Ends, Route
from segue.core.version import Version
from segue.judge.settings import Settings
from segue.ports import Intent

RELEASE = TypeAdapter(Release)
ROUTE = TypeAdapter(Route)
VERSION = TypeAdapter(Version)


@dataclass(frozen=True, slots=True)
class Hooks:
    """The commands of a rollout's hooks and the seconds each may take."""

    before: str | None = None
    on_rollback: str | None = None
    after: str | None = None
    timeout: float = 600.0

    def command(self, hook: str) -> str:
        """The command of the hook called `hook`."""
        return {"before": self.before, "on_rollback": self.on_rollback, "after": self.after}[hook] or "true"


Course = Literal["continue", "hold", "rollback"]
"""What is done where the evidence does not say: go on, ask a person, or go back."""


@dataclass(frozen=True, slots=True)
class Judging:
    """How a rollout is judged: what the manifest's `judge`, `evidence` and `approve_within` say.

    `settle`: an instance's first seconds, in which its latency does not count. `low_traffic`: what is done where no
    verdict can come in time; `undecided`: where it did not come. `logs`: patterns of lines that speak against the
    version that writes more of them. `metrics` and `questions`: what else is asked. `approve_within`: how long a
    person is waited for. `require_evidence`: a person is asked where a judgement would pass without evidence.
    """

    settings: Settings = Settings()
    settle: timedelta = timedelta(seconds=10)
    low_traffic: Course = "continue"
    undecided: Course = "hold"
    logs: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    questions: tuple[Question, ...] = ()
    approve_within: timedelta = timedelta(hours=24)
    require_evidence: bool = False

    @property
    def asked(self) -> tuple[Asked, ...]:
        """The sources that are asked, in the order of their numbers."""
        return (*self.metrics, *self.questions)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a version's folder is made: `source` is copied, `shared` linked into it, `build` run in it.

    `files` is the revision under which the copy is kept: revisions of one version share it.
    """

    files: Revision
    folder: str
    source: str | None = None
    shared: tuple[str, ...] = ()
    build: str | None = None


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One revision of a version; `version` lacks its environment, which the version store holds."""

    name: str
    number: int
    version: Version
    recipe: Recipe
    hooks: Hooks
    created: datetime

    @property
    def revision(self) -> Revision:
        """The revision's name."""
        return self.version.revision


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """One service: its route, the revision that serves, what is demanded, and how it is deployed.

    `retain`: how many versions can be gone back to. `strategy` is the one that `restart` and a later
    rollback go by. `degraded` says why the service needs somebody's attention, if it does. `sealed`: the `hook`,
    when it ran (`at`), and the `version` before which nothing can be gone back to any more.
    """

    name: str
    route: Route
    demand: Demand
    stable: Revision | None = None
    strategy: dict[str, Any] = field(default_factory=dict)
    retain: int = 3
    degraded: str | None = None
    sealed: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """What persons said of a rollout, and what they are asked.

    `asked`: the question that stands since `since`, at the step numbered `step`. `passed`: the last step that
    a person let pass, and `who` it was. `paused`: no further step begins. `full`: no more is judged or asked.
    """

    asked: str | None = None
    since: datetime | None = None
    step: int = 0
    passed: int = 0
    who: str | None = None
    paused: bool = False
    full: bool = False


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """One rollout: what was asked for, its plan, and how it went.

    `start` is the demand that the plan begins from. `back` is the plan of the way back and `turned` the
    reason, once it was turned back. `route` takes effect with the decision. `judging`: how it is judged.
    """

    id: str
    service: str
    kind: str
    strategy: str
    old: Revision | None
    new: Revision | None
    who: str
    asked: str | None
    started: datetime
    release: Release | None = None
    plan: Plan = ()
    start: Demand = Demand()
    manifest: str | None = None
    route: Route | None = None
    back: Plan = ()
    turned: str | None = None
    turned_at: Demand | None = None
    replaced: bool = False
    decided: datetime | None = None
    ended: datetime | None = None
    outcome: str | None = None
    basis: str | None = None
    reason: str | None = None
    exit: int | None = None
    log: tuple[str, ...] = ()
    judging: Judging = Judging()
    person: Person = Person()

    @property
    def trial(self) -> Revision | None:
        """The version that is being tried out; one that has served before, and a first one, are not."""
        release = self.release
        tried = release is not None and release.old is not None and not isinstance(release.strategy, Return)
        return self.new if tried else None

    @property
    def experiment(self) -> Experiment | None:
        """The experiment that it is; None: it is none, or a first launch, which compares nothing."""
        strategy = self.release.strategy if self.release and self.release.old else None
        return strategy if isinstance(strategy, Experiment) else None

    @property
    def answered_within(self) -> timedelta:
        """How long a person is waited for. An experiment is nothing but waiting."""
        return self.experiment.most if self.experiment else self.judging.approve_within

    @property
    def versions(self) -> dict[str, str | None]:
        """The versions it goes between, as documents and events have them: ``from`` and ``to``."""
        return {"from": self.old and version_of(self.old), "to": self.new and version_of(self.new)}

    @property
    def way(self) -> str:
        """Which plan is being carried out: ``there`` or ``back``."""
        return "there" if self.turned is None else "back"

    @property
    def steps(self) -> Plan:
        """The plan that is being carried out."""
        return self.plan if self.turned is None else self.back

    @property
    def origin(self) -> Demand:
        """The demand that the plan being carried out begins from."""
        return self.turned_at if self.turned_at is not None else self.start


ITSELF = "segue"
"""Who asks for what is done by the clock, or because something failed."""


class Takeover(NamedTuple):
    """One version took over from another; `failed`: from one that Segue itself went back from."""

    new: Revision | None
    old: Revision | None
    failed: bool


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of a rollout that has begun. `number` counts from 1 within its way."""

    way: str
    number: int
    step: Step
    demand: Demand
    began: datetime
    ended: datetime | None = None
    outcome: str | None = None
    verdict: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Parting:
    """The removal of an instance: the `rollout` that it belongs to, and what was seen when it was told to end.

    `drained`: how many requests had ended by then since it left the traffic; `open`: how many had not. `ends`: the
    router's counts at that moment; None: it was not told to end yet, or the router could not be asked.
    """

    rollout: str | None = None
    drained: int = 0
    open: int = 0
    ends: Ends | None = None


@dataclass(frozen=True, slots=True)
class IntentRecord:
    """An intent that may have a running instance behind it. `stopping`: it was told to end, or is about to be."""

    intent: Intent
    restarts: int
    stopping: bool
    checked: bool
    parting: Parting | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as clients are told. `seq` ascends over all events of a home."""

    seq: int
    at: datetime
    event: str
    service: str | None
    rollout: str | None
    body: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The event as one JSON object."""
        return {
            "seq": self.seq,
            "at": self.at.isoformat(),
            "event": self.event,
            "service": self.service,
            "rollout": self.rollout,
            **self.body,
        }
