"""One instance of a service, as the control plane knows it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from segue.core.release import Revision
from segue.core.traffic import Endpoint, InstanceId, Traffic
from segue.core.version import Version
from segue.engine.records import Parting
from segue.ports import Instance, Intent


class State(StrEnum):
    """An instance's state as `segue status` shows it."""

    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(eq=False, slots=True)
class Member:
    """One instance. `checked`: it has passed its smoke tests. `failures`: starts in a row that came to nothing.

    Of one that leaves: `parting` is what the journal holds of it, `in_flight` what was last seen open (None: not
    known), `until` when it is told to end at the latest, and once it was, when it is killed.
    """

    id: InstanceId
    version: Version
    ordinal: int
    since: datetime
    state: State = State.STARTING
    intent: Intent | None = None
    instance: Instance | None = None
    restarts: int = 0
    checked: bool = False
    failures: int = 0
    problem: str | None = None
    fatal: bool = False
    log: tuple[str, ...] = ()
    parting: Parting | None = None
    in_flight: int | None = None
    until: datetime | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def revision(self) -> Revision:
        """The revision it is an instance of."""
        return self.version.revision

    @property
    def leaving(self) -> bool:
        """Whether its removal has begun."""
        return self.state in (State.DRAINING, State.STOPPED)

    @property
    def leaves_for(self) -> str | None:
        """The rollout that it was last taken out of the traffic for."""
        return self.parting.rollout if self.parting else None

    @property
    def trouble(self) -> str:
        """What keeps it from being ready, with its name."""
        problem = self.problem or "no reason known"
        return problem if problem.startswith(self.id) else f"{self.id}: {problem}"

    def endpoint(self) -> Endpoint | None:
        """The instance as the router is told of it; None while there is nothing to tell."""
        if self.intent is None or self.instance is None:
            return None
        traffic = {State.READY: Traffic.READY, State.DRAINING: Traffic.DRAINING}.get(self.state, Traffic.UNREADY)
        return Endpoint(self.id, self.intent.address, traffic)
