"""The three ways to the world: the platform (where instances run), the router, the evidence.

Every adapter, and its fake in `segue.testing`, passes the contract suite of its port.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from segue.core.experiment import Visit
from segue.core.release import Revision
from segue.core.sources import About, Answer
from segue.core.traffic import Books, InstanceId, Observed, RoutingTable, Sample, VersionId
from segue.core.version import Version


@dataclass(frozen=True, slots=True)
class Intent:
    """The intention to start an instance, journalled before anything is started.

    `nonce` is new for every start, also of the same instance; `address` is where the instance will listen.
    """

    service: str
    instance: InstanceId
    revision: Revision
    nonce: str
    address: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One running copy of a version."""

    intent: Intent
    pid: int
    started: datetime

    @property
    def id(self) -> InstanceId:
        """The instance's name."""
        return self.intent.instance


class Platform(Protocol):
    """Where instances run."""

    async def place(self, version: Version, instance: InstanceId) -> Intent:
        """Choose where a new start of `instance` will listen. Starts nothing. Raises StartFailed."""
        ...

    async def start(self, version: Version, intent: Intent) -> Instance:
        """Start what `intent` says, once: an intent that was started or given up is refused.

        Returns when the process runs, not when it is ready. Raises StartFailed.
        """
        ...

    async def find(self, intents: Sequence[Intent]) -> Sequence[Instance]:
        """Those of `intents` that run now: the truth, also after a crash.

        An intent that is not among them will never run: a start that is under way is given up.
        """
        ...

    async def gone(self, instance: Instance) -> int | None:
        """Wait until the instance's main process has ended; its exit status (negative: a signal) if it is known."""
        ...

    async def listens(self, instance: Instance) -> bool:
        """Whether the socket at the instance's address is the instance's own, and not a stranger's."""
        ...

    async def stop(self, instance: Instance, signal: str, grace: timedelta) -> bool:
        """End the instance and everything it started. Returns whether it ended by itself within `grace`.

        With `grace` of nothing, or after it, everything that is left is killed. Stopping twice is stopping once.
        """
        ...

    async def end_others(self, known: Sequence[Intent], grace: timedelta) -> int:
        """End what was started from any intent but `known`; returns how many instances that were.

        For a journal that was restored from a copy: it does not know what was started since. They are asked to end
        (TERM), and killed after `grace`.
        """
        ...

    async def tend(self, known: Collection[VersionId]) -> None:
        """Do what is due from time to time: rotate long logs, remove those of versions that are not `known`.

        Raises SegueError.
        """
        ...

    def logs(self, instance: InstanceId, *, lines: int, follow: bool) -> AsyncIterator[str]:
        """The last `lines` lines that an instance wrote, over its restarts, and with `follow` all that come."""
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. `status` is negative after a signal, None after `timed_out` and when it is not known.

    It is not known when the command began, is no longer there, and left no status: the machine went down,
    or somebody killed it.
    """

    status: int | None
    timed_out: bool = False

    @property
    def unknown(self) -> bool:
        """Whether the command began and nobody knows how it ended."""
        return self.status is None and not self.timed_out

    @property
    def succeeded(self) -> bool:
        """Whether the command did what it was to do."""
        return self.status == 0


class Commands(Protocol):
    """How hooks, smoke tests and builds are run."""

    async def __call__(
        self,
        command: str,
        *,
        folder: Path,
        environment: Mapping[str, str],
        user: str | None,
        timeout: timedelta,
        log: Path,
        status: Path | None = None,
    ) -> Ended:
        """Run ``sh -c command`` in `folder` as `user`, its output appended to `log`; killed after `timeout`.

        With `status`, a file, the command is begun at most once, also over crashes: the second call with the
        same file waits for the first one's end and gives its result. Raises StartFailed.
        """
        ...


class Router(Protocol):
    """What splits the traffic."""

    async def apply(self, table: RoutingTable) -> None:
        """Return when every proxy has confirmed `table` and is warm. Raises RouterRefused, RouterLost."""
        ...

    async def settled(self) -> None:
        """The barrier: return when every worker of every proxy is past the last confirmed table."""
        ...

    async def observe(self, service: str) -> Mapping[InstanceId, Observed]:
        """What the router sees of a service's instances. Raises RouterLost."""
        ...

    async def refuse_taken(self, listen: str) -> None:
        """Raise Refused if somebody else listens on ``host:port``, so that a listener there would share it."""
        ...


class Evidence(Protocol):
    """What is observed of a service's requests."""

    async def sample(self, service: str) -> Mapping[Revision, Sample]:
        """Attempts on each version. Counts go back to zero when the router restarts. Raises RouterLost.

        While the router's table is at rest they may be some of the attempts only, chosen by chance: what part fails
        and how long they take is known then, and how many came is in the `books`.
        """
        ...

    async def instances(self, service: str) -> Mapping[InstanceId, Sample]:
        """Attempts on each instance, which name a bad one among good ones. Raises RouterLost.

        They may be without `latency_us`, and of instances that are not there any more as well.
        """
        ...

    async def books(self, service: str) -> Books:
        """The account of the service's requests. Raises RouterLost."""
        ...

    async def paths(self, service: str) -> Sequence[str]:
        """The paths of requests since the last call, of all or of some, while the table is `learning`; else none.

        After a restart of ours it may begin with what was told before. Raises RouterLost.
        """
        ...

    async def visits(self, service: str) -> Sequence[Visit]:
        """What was seen since the last call of those who take part in the service's experiment; none: there is none.

        It has each user's first visit, and those that may have reached the goal, in any order, and perhaps more.
        After a restart of ours it may begin with what was told before. Raises RouterLost.
        """
        ...


@dataclass(frozen=True, slots=True)
class Matches:
    """How many lines of one instance matched since it was attended to, and the last one that did."""

    count: int = 0
    last: str = ""


class Lines(Protocol):
    """Counts the lines that instances write and that speak against them."""

    def attend(self, instances: Iterable[InstanceId]) -> None:
        """Read what these write from now on, and nothing any more of others; what was counted stays."""
        ...

    def matches(self) -> Mapping[InstanceId, Matches]:
        """What was counted of each instance so far."""
        ...

    async def close(self) -> None:
        """Read nothing any more."""
        ...


class Source(Protocol):
    """Something that is asked about a version on trial from time to time, beside the router."""

    async def ask(self, about: About) -> Answer:
        """What it says now, within its own time. What goes wrong is an answer too: `Nothing`, with the reason."""
        ...
