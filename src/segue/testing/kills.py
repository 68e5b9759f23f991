"""Kill parts of Segue at chosen moments of a rollout, from outside, and see what becomes of it.

Rule 1: the product knows nothing of this. The journal's file is read while the control plane writes it, and the
signal is sent when the entry that is waited for has appeared, after a few random milliseconds.
Rule 2: what is found is compared with what is found after the same operation that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from http.client import HTTPException
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar
from urllib.request import urlopen

import psutil

from segue.cli.client import Absent, Broken, Client
from segue.core.demand import Demand
from segue.core.steps import Plan, Scale, Step, decision
from segue.engine import rows
from segue.engine.records import RolloutRecord
from segue.errors import SegueError
from segue.guardian import PID_FILE
from segue.home import socket_path
from segue.testing.load import Probe, tiny_app
from segue.testing.site import Segue, Shop
from segue.testing.tally import Tally

T = TypeVar("T")

RATE = 800
"""Requests a second, over 64 connections."""


class Moment(StrEnum):
    """When, by the two journal entries of a step."""

    BEFORE = "before"
    BETWEEN = "between"
    AFTER = "after"


class Victim(StrEnum):
    """Who is killed."""

    PLANE = "control plane"
    ENVOY = "Envoy"
    BOTH = "both"
    INSTANCE = "an instance"


PREPARE, TURN, TIDY = "prepare", "turn back", "tidy up"
"""What is no step but can be cut short as well."""

DELAY = {PREPARE: 0.25, TIDY: 0.15, "run": 0.05, "scale up": 0.3, "scale down": 0.1, "judge": 0.3}
"""The longest time in seconds between a beginning and the signal; 10 ms for what is not named."""


class Point(NamedTuple):
    """A moment of a rollout. `what`: a kind of step, or `PREPARE`, `TURN`, `TIDY`; `way`: in which plan."""

    what: str
    moment: Moment
    way: str = "there"

    def __str__(self) -> str:
        return f"{self.moment} {self.what}{' on the way back' if self.way == 'back' else ''}"

    def delay(self, random: Random) -> float:
        """Seconds from the entry to the signal."""
        return random.uniform(0, DELAY.get(self.what, 0.01) if self.moment is Moment.BETWEEN else 0.002)

    def entry(self, rollout: RolloutRecord, random: Random) -> str:
        """The journal entry of `rollout` to wait for. Of several steps of that kind one is drawn."""
        match self.what, self.moment:
            case "prepare", moment:
                return "there 1 began" if moment is Moment.AFTER else "accepted"
            case "turn back", Moment.BEFORE:
                return f"there {kinds(rollout, 'there').index('judge') + 1} began"
            case "turn back", moment:
                return "turned" if moment is Moment.BETWEEN else "back 1 began"
            case "tidy up", moment:
                return "ended" if moment is Moment.AFTER else "decided"
        numbers = [n for n, kind in enumerate(kinds(rollout, self.way), 1) if kind == self.what]
        if not numbers:  # it was turned back where the way back has no such step
            return "turned"
        number = random.choice(numbers)
        if self.moment is Moment.BEFORE:
            return (
                f"{self.way} {number - 1} ended" if number > 1 else {"there": "accepted", "back": "turned"}[self.way]
            )
        return f"{self.way} {number} {'began' if self.moment is Moment.BETWEEN else 'ended'}"


def kinds(rollout: RolloutRecord, way: str) -> list[str]:
    """What the steps of one of the rollout's plans are: ``run``, ``scale up``, ``shift`` …"""
    if way == "there":  # what follows the decision is demanded with it, and begins as no step
        return list(_kinds(rollout.plan[: decision(rollout.plan)], rollout.start))
    assert rollout.turned_at is not None
    return list(_kinds(rollout.back, rollout.turned_at))


def _kinds(plan: Plan, demand: Demand) -> Iterator[str]:
    for step in plan:
        yield _kind(step, demand)
        demand = demand.after(step)


def _kind(step: Step, before: Demand) -> str:
    if isinstance(step, Scale):
        return "scale up" if step.count > before.count(step.version) else "scale down"
    return type(step).__name__.lower()


class Witness:
    """Reads the journal of `home` while a control plane writes it."""

    def __init__(self, home: Path) -> None:
        self._path = home / "journal" / "journal.db"

    def latest(self) -> RolloutRecord | None:
        """The newest rollout."""
        found = self._ask("SELECT * FROM rollout ORDER BY rowid DESC LIMIT 1")
        return rows.read_rollout(found[0]) if found else None

    def entries(self, rollout: str) -> set[str]:
        """What has been written of a rollout: ``accepted``, ``there 1 began``, ``there 1 ended``, ``turned`` …"""
        entries: set[str] = set()
        for row in self._ask("SELECT turned, decided, ended FROM rollout WHERE id = ?", rollout):
            entries |= {"accepted", *(name for name in ("turned", "decided", "ended") if row[name] is not None)}
        for row in self._ask("SELECT way, number, ended FROM step WHERE rollout = ?", rollout):
            name = f"{row['way']} {row['number']}"
            entries |= {f"{name} began"} | ({f"{name} ended"} if row["ended"] else set())
        return entries

    def _ask(self, sql: str, *values: str) -> list[sqlite3.Row]:
        """No connection is kept: the journal is the control plane's. It may be about to be mended."""
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return db.execute(sql, values).fetchall()
        return []


def until(what: Callable[[], T | None], within: float = 60.0, every: float = 0.002) -> T:
    """The first true value of `what`; TimeoutError after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := what()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s; the last value was {value!r}")
        time.sleep(every)
    return value


@dataclass(frozen=True, slots=True)
class End:
    """How an operation ended.

    `status`: what `segue status` says, without ids, times, pids and addresses. `running`: whether exactly the
    instances of the status run. `starts`: how many processes were started, `hooks`: which hooks ran. `steps`:
    each step of the plans with its outcome. `lost`: requests lost meanwhile. `told`: whether its end was told once.
    """

    exit: int
    status: Any
    running: bool
    starts: int
    hooks: tuple[str, ...]
    steps: tuple[str, ...]
    balanced: bool
    told: int
    lost: int


class Stage:
    """A shop under load, operations on it, and the means to kill what carries them out."""

    def __init__(self, segue: Segue, shop: Shop, random: Random) -> None:
        self.segue, self.shop, self.random = segue, shop, random
        self.witness = Witness(segue.home)
        self._client = Client(socket_path(segue.home))
        self.probe: Probe | None = None
        self.served: list[str] = []
        self.said = ""
        self._number = 0
        self._starts, self._hooks = segue.home.parent / "starts", segue.home.parent / "hooks"

    # Operations

    def launch(self) -> None:
        """Deploy a first version and put load on it."""
        self._write({})
        self.served.append(self._next())
        self.shop.deploy(self.served[-1])
        self.load()

    def load(self) -> None:
        """Begin the load, 64 connections."""
        self.probe = Probe(self.shop.url, connections=64, rate=RATE)
        self.probe.more(200)

    def rest(self) -> Tally:
        """End the load; all that it saw."""
        assert self.probe is not None
        tally, self.probe = self.probe.finish(), None
        return tally

    def close(self) -> None:
        """End the load, come what may."""
        if self.probe is not None:
            self.probe.kill()

    def update(self, *blows: Blow, **strategy: str) -> End:
        """A good new version."""
        self._write({}, strategy)
        self.served.append(self._next())
        return self._watched(["deploy", "--version", self.served[-1]], blows)

    def refused(self, *blows: Blow) -> End:
        """A new version that answers every request with 500."""
        self._write({"APP_BROKEN": "500"})
        return self._watched(["deploy", "--version", self._next()], blows)

    def scale(self, *blows: Blow, count: int) -> End:
        """So many instances."""
        return self._watched(["scale", str(count)], blows)

    def down(self, *blows: Blow) -> End:
        """Nobody serves any more; the load ends before."""
        self.rest()
        return self._watched(["down"], blows)

    def _write(self, env: Mapping[str, str], strategy: Mapping[str, str] | None = None) -> None:
        app = f"exec {tiny_app()} {{port}} {{version}}"
        self.shop.write(
            env={"APP_DELAY": "0.02", **env},
            process={
                "source": ".",
                "build": "sleep 0.1",
                "command": f"sh -c 'echo {{instance}} $$ >> {self._starts}; {app}'",
            },
            hooks={
                "before": f"echo before $SEGUE_TO >> {self._hooks}; sleep 0.05",
                "on_rollback": f"echo on_rollback $SEGUE_TO >> {self._hooks}; sleep 0.05",
            },
            strategy={"rolling": {"first_judge": "600ms", "judge": "400ms", **(strategy or {})}},
        )

    def _next(self) -> str:
        self._number += 1
        return f"v{self._number}"

    def _watched(self, command: Sequence[str], blows: Sequence[Blow]) -> End:
        before = self.witness.latest()
        lost = self.probe.tally().lost_count if self.probe else 0
        starts, hooks = len(_lines(self._starts)), len(_lines(self._hooks))
        client = self.segue.start(*command, cwd=self.shop.folder)
        try:
            rollout = until(partial(self._newer, before))
            for blow in blows:
                blow(self, rollout.id)
            said = client.communicate(timeout=60)[0]
        finally:
            client.kill()
        self.said = said
        self.settle(rollout.id)
        if self.probe:
            self.probe.more(100)
        balanced, steps = self._account(rollout.id)
        return End(
            exit=client.returncode,
            status=self.status(),
            running=self.running(),
            starts=len(_lines(self._starts)) - starts,
            hooks=tuple(self._named(line) for line in _lines(self._hooks)[hooks:]),
            steps=steps,
            balanced=balanced,
            told=self._told(rollout.id),
            lost=(self.probe.tally().lost_count - lost) if self.probe else 0,
        )

    def _newer(self, before: RolloutRecord | None) -> RolloutRecord | None:
        latest = self.witness.latest()
        return latest if latest and latest.id != (before and before.id) else None

    # What became of it

    def settle(self, rollout: str) -> None:
        """Return when the rollout has ended and every instance of the service is ready."""
        until(lambda: "ended" in self.witness.entries(rollout))
        until(self.at_rest, every=0.1)

    def at_rest(self) -> bool:
        """Whether no rollout runs and every instance is ready."""
        try:
            status = self._ask("/v1/services/shop")
        except (Absent, Broken, SegueError):
            return False
        instances = [instance for version in status["versions"].values() for instance in version["instances"]]
        return status["rollout"] is None and all(instance["state"] == "ready" for instance in instances)

    def status(self) -> Any:
        """What `segue status` says, but for ids, times, pids, addresses and the names of versions."""
        status = self.shop.status()
        kept = {key: status[key] for key in ("state", "stable", "candidate", "previous", "rollout", "degraded")}
        versions = {
            name: {
                "share": version["share"],
                "size": version["size"],
                "instances": sorted((i["state"], i["restarts"], i["problem"]) for i in version["instances"]),
            }
            for name, version in status["versions"].items()
        }
        return json.loads(self._named(json.dumps(kept | {"versions": versions})))

    def _named(self, text: str) -> str:
        """`text` with versions named by their place among those that served; another one was only tried."""
        places = {name: f"served-{place}" for place, name in enumerate(reversed(self.served))}
        return re.sub(r"\bv\d+", lambda name: places.get(name[0], "tried"), text)

    def running(self) -> bool:
        """Whether exactly the instances that the status shows run, each once."""
        shown = [i["pid"] for v in self._ask("/v1/services/shop")["versions"].values() for i in v["instances"]]
        return sorted(shown) == sorted(self.instances())

    def instances(self) -> list[int]:
        """The processes of the application, the newest last."""
        found = [process for process in psutil.process_iter() if _runs_app(process, self.segue.home)]
        return [process.pid for process in sorted(found, key=psutil.Process.create_time)]

    def _account(self, rollout: str) -> tuple[bool, tuple[str, ...]]:
        report = self._ask(f"/v1/rollouts/{rollout}/report")
        steps = (_sorted(self._named(f"{step['step']}: {step['outcome']}")) for step in report["steps"])
        return report["requests"]["balanced"], tuple(steps)

    def _told(self, rollout: str) -> int:
        """How often clients are told the end of a rollout."""
        with self._client.open("GET", f"/v1/rollouts/{rollout}/events") as events:
            return sum(json.loads(line)["event"] == "finished" for line in events.lines() if line)

    def _ask(self, path: str) -> Any:
        return self._client.ask("GET", path)

    # Who is who

    def guardian(self) -> int:
        """The guardian's pid."""
        return int((self.segue.home / PID_FILE).read_text())

    def plane(self) -> int:
        """The pid of the control plane that the guardian has started, once there is one."""
        return until(self._plane)

    def _plane(self) -> int | None:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.guardian()).children():
                if "serve" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    return child.pid
        return None

    def answering(self) -> int:
        """The pid of the control plane, when it answers."""

        def asked() -> int | None:
            with suppress(Absent, Broken, SegueError):
                return int(self._ask("/healthz")["pid"])
            return None

        return until(asked, every=0.02)

    def envoy(self) -> int:
        """Envoy's pid."""
        return int(json.loads((self.segue.home / "envoy" / "envoy.json").read_text())["pid"])

    def kill(self, victim: Victim) -> None:
        """Kill it, now."""
        match victim:
            case Victim.PLANE:
                os.kill(self.plane(), signal.SIGKILL)
            case Victim.ENVOY:
                os.kill(self.envoy(), signal.SIGKILL)
            case Victim.BOTH:
                plane, envoy = self.plane(), self.envoy()
                os.kill(plane, signal.SIGKILL)
                os.kill(envoy, signal.SIGKILL)
            case Victim.INSTANCE:
                os.kill(self.instances()[-1], signal.SIGKILL)

    def kill_again(self, times: int) -> None:
        """Kill the control plane, and each of those that come after it, somewhere in their first second."""
        for _ in range(times):
            plane = self.plane()
            os.kill(plane, signal.SIGKILL)
            until(lambda killed=plane: self.plane() != killed)  # type: ignore[misc]
            time.sleep(self.random.uniform(0, 1))

    def until_served(self) -> float:
        """The seconds until somebody answers users."""
        began = time.monotonic()
        until(lambda: self._served() == 200, every=0.01)
        return time.monotonic() - began

    def _served(self) -> int | None:
        try:
            with urlopen(self.shop.url, timeout=2) as answer:
                return int(answer.status)
        except (OSError, HTTPException):
            return None

    def freeze(self, seconds: float) -> None:
        """Stop the control plane for so long, as a machine that swaps would."""
        plane = self.plane()
        os.kill(plane, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(plane, signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class Blow:
    """Something that is done to the stage at a point of a rollout, once it has come."""

    point: Point
    act: Callable[[Stage], None]

    def __call__(self, stage: Stage, rollout: str) -> None:
        """Wait for the point, and do it."""
        entries = partial(stage.witness.entries, rollout)
        if self.point.way == "back" or (self.point.what == TURN and self.point.moment is Moment.AFTER):
            until(lambda: "turned" in entries())
        record = until(stage.witness.latest)
        entry = self.point.entry(record, stage.random)
        until(lambda: entry in entries())
        time.sleep(self.point.delay(stage.random))
        self.act(stage)


def kill(point: Point, victim: Victim = Victim.PLANE) -> Blow:
    """The blow that kills `victim` at `point`."""
    return Blow(point, lambda stage: stage.kill(victim))


def _sorted(text: str) -> str:
    """A step as text, its shares in the order of their versions here and not of their names there."""
    head, separator, rest = text.partition("traffic: ")
    shares, colon, outcome = rest.rpartition(": ")
    return f"{head}{separator}{', '.join(sorted(shares.split(', ')))}{colon}{outcome}" if separator else text


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _runs_app(process: psutil.Process, home: Path) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE or not any(w.endswith("app.py") for w in process.cmdline()):
            return False
        return process.cwd().startswith(str(home))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
