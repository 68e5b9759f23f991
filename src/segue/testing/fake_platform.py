"""Where instances run, in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf

from segue.core.traffic import InstanceId, VersionId, copied
from segue.core.version import Version
from segue.engine.clock import Clock, wait_for
from segue.errors import StartFailed
from segue.ports import Instance, Intent
from segue.testing.calls import Exited, Find, Gone, Listens, Logs, Place, Record, Start, Stop
from segue.testing.gate import Gate


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What an instance does once it is started; all times in seconds after its start.

    `fails`: it cannot be started, and why. `ready`: when it listens and is healthy (infinite: never).
    `exits`: when it ends by itself, with `status`. `smoke`: why its smoke tests fail. `ends`: how long it
    takes to end when it is asked to (infinite: it must be killed). `stranger`: the socket at its address is
    another process's. `log`: what it writes.
    """

    fails: str | None = None
    ready: float = 0.0
    exits: float = inf
    status: int = 1
    smoke: str | None = None
    ends: float = 0.0
    stranger: bool = False
    log: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class _Process:
    instance: Instance
    behaviour: Behaviour
    began: float
    ends_at: float
    status: int
    changed: Gate = field(default_factory=lambda: Gate(closed=True))
    by_itself: bool = True
    noted: bool = False


class FakePlatform:
    """Where instances run, in memory. `sick` instances run but are not healthy."""

    def __init__(self, clock: Clock, record: Record) -> None:
        self.sick: set[InstanceId] = set()
        self.starting, self.stopping = Gate(), Gate()
        self._clock, self._record = clock, record
        self._orders: dict[str, list[Behaviour]] = {}
        self._processes: dict[str, _Process] = {}
        self._spent: set[str] = set()
        self._placed = 0
        self._lines: defaultdict[InstanceId, list[str]] = defaultdict(list)
        self._written = Gate(closed=True)

    # What a test orders

    def order(self, key: str, *behaviours: Behaviour) -> None:
        """What the next starts of an instance or of a whole revision do, in turn; the last one stays in force."""
        self._orders[key] = list(behaviours)

    def exit(self, instance: InstanceId, status: int = 1) -> None:
        """Let `instance` end now."""
        for process in self._of(instance):
            self._end(process, status, by_itself=True)

    def write(self, instance: InstanceId, line: str) -> None:
        """Let `instance` write a line."""
        self._lines[instance].append(line)
        self._written.let_through()

    # What a test looks at

    @property
    def running(self) -> list[Instance]:
        """The instances that run now, in the order of their starts."""
        return [process.instance for process in self._processes.values() if self._runs(process)]

    def healthy(self, address: str) -> bool:
        """Whether the instance at `address` would pass its health check now."""
        found = (process for process in self._processes.values() if process.instance.intent.address == address)
        return any(self._ready(process) and process.instance.id not in self.sick for process in found)

    def smoke(self, address: str) -> str | None:
        """Why the smoke tests of the instance at `address` fail; None: they do not."""
        found = [process for process in self._processes.values() if process.instance.intent.address == address]
        return found[-1].behaviour.smoke if found else "nothing is there"

    # Platform

    async def place(self, version: Version, instance: InstanceId) -> Intent:
        """Choose where a new start of `instance` will listen: every time another port."""
        async with self._record.during(Place(instance)):
            self._placed += 1
            number = self._placed
            address = f"127.0.0.1:{20_000 + number % 40_000}"
            return Intent(version.service, instance, version.revision, f"nonce-{number}", address)

    async def start(self, version: Version, intent: Intent) -> Instance:
        """Start what `intent` says, once; what it then does was ordered."""
        async with self._record.during(Start(intent)):
            await self.starting.passed()
            if intent.nonce in self._spent:
                raise StartFailed(f"{intent.instance} was started or given up before: {intent.nonce}")
            self._spent.add(intent.nonce)
            behaviour = self._next_behaviour(intent)
            self._lines[intent.instance] += behaviour.log
            if behaviour.fails is not None:
                raise StartFailed(behaviour.fails, log=behaviour.log)
            now = self._clock.monotonic()
            instance = Instance(intent, 1000 + len(self._processes), self._clock.now())
            process = _Process(instance, behaviour, now, now + behaviour.exits, behaviour.status)
            self._processes[intent.nonce] = process
            self._written.let_through()
            return instance

    async def find(self, intents: Sequence[Intent]) -> Sequence[Instance]:
        """Those of `intents` that run now; the others are given up."""
        async with self._record.during(Find(tuple(intents))):
            self._spent |= {intent.nonce for intent in intents}
            found = (self._processes.get(intent.nonce) for intent in intents)
            return [process.instance for process in found if process and self._runs(process)]

    async def gone(self, instance: Instance) -> int | None:
        """Wait until the instance has ended; its exit status."""
        async with self._record.during(Gone(instance)):
            process = self._processes.get(instance.intent.nonce)
            if process is None:
                return None
            while self._runs(process):
                await self._change(process)
            return process.status

    async def listens(self, instance: Instance) -> bool:
        """Whether the socket at the instance's address is its own."""
        async with self._record.during(Listens(instance)):
            process = self._processes.get(instance.intent.nonce)
            return process is not None and self._ready(process) and not process.behaviour.stranger

    async def stop(self, instance: Instance, signal: str, grace: timedelta) -> bool:
        """End the instance; whether it ended by itself within `grace`."""
        async with self._record.during(Stop(instance, signal, grace)):
            await self.stopping.passed()
            process = self._processes.get(instance.intent.nonce)
            if process is None:
                return True
            if self._runs(process) and grace:
                await self._clock.sleep(min(process.behaviour.ends, grace.total_seconds()))
            by_itself = bool(grace) and process.behaviour.ends <= grace.total_seconds()
            self._end(process, 0 if by_itself else -9, by_itself=by_itself)
            return process.by_itself

    async def end_others(self, known: Sequence[Intent], grace: timedelta) -> int:
        """End what runs but for `known`; how many instances that were."""
        others = [process.instance for process in self._processes.values() if self._runs(process)]
        strays = [instance for instance in others if instance.intent not in known]
        for instance in strays:
            await self.stop(instance, "TERM", grace)
        return len(strays)

    async def tend(self, known: Collection[VersionId]) -> None:
        """Remove what instances of other versions than those `known` have written."""
        for instance in [name for name in self._lines if copied(name) not in known]:
            del self._lines[instance]

    async def logs(self, instance: InstanceId, *, lines: int, follow: bool) -> AsyncIterator[str]:
        """The last lines that the instance wrote, and with `follow` all that come."""
        async with self._record.during(Logs(instance)):
            written = self._lines[instance]
        told = max(0, len(written) - lines)
        while True:
            for line in written[told:]:
                yield line
                told += 1
            if not follow:
                return
            if told == len(written):
                await self._written.passed()

    def _next_behaviour(self, intent: Intent) -> Behaviour:
        orders = self._orders.get(intent.instance) or self._orders.get(intent.revision) or [Behaviour()]
        return orders.pop(0) if len(orders) > 1 else orders[0]

    def _of(self, instance: InstanceId) -> Iterator[_Process]:
        return (p for p in self._processes.values() if p.instance.id == instance and self._runs(p))

    def _ready(self, process: _Process) -> bool:
        return self._runs(process) and self._clock.monotonic() >= process.began + process.behaviour.ready

    def _runs(self, process: _Process) -> bool:
        if self._clock.monotonic() < process.ends_at:
            return True
        if not process.noted:
            process.noted = True
            self._record.happened(Exited(process.instance, process.status))
        return False

    def _end(self, process: _Process, status: int, *, by_itself: bool) -> None:
        if self._runs(process):
            process.ends_at, process.status, process.by_itself = self._clock.monotonic(), status, by_itself
            self._runs(process)
            process.changed.open()

    async def _change(self, process: _Process) -> None:
        """Return when the process was ended, or ends as it was ordered to."""
        if process.ends_at == inf:
            await process.changed.passed()
            return
        try:
            await wait_for(self._clock, process.changed.passed(), process.ends_at - self._clock.monotonic())
        except TimeoutError:
            return
