"""The rounds of a soak: an operation, what goes wrong meanwhile, and whether everything is as it must be then."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from soak_faults import NONE, Fault
from soak_world import Census, World

from segue.testing.moments import until
from segue.testing.tally import Loss, Tally

WITHIN = 90.0
"""Seconds that an operation may take, and again that everything may take to be at rest."""
TIDY, REPLACED = 15.0, 60.0
"""Seconds within which nothing may be left behind; an Envoy that is replaced lets its connections end in 35."""
BAD: Mapping[str, Mapping[str, str]] = {
    "answers 500": {"APP_BROKEN": "500"},
    "hangs": {"APP_BROKEN": "hang"},
    "resets": {"APP_BROKEN": "reset"},
    "resets in mid-header": {"APP_BROKEN": "head"},
    "refuses": {"APP_BROKEN": "refuse"},
    "ends at its start": {"APP_EXIT": "3"},
    "never healthy": {"APP_UNHEALTHY": "1"},
}
SPARE = 3
"""Instances that a service has at least which is changed in place: one changes, one fails, and one still serves."""
GOOD: Mapping[str, str] = {"APP_DELAY": "0.01"}


@dataclass(frozen=True)
class Operation:
    """`command`: of Segue's. `version`: the one that is to serve afterwards; `good`: whether it can.

    `keeps`: the old version is kept for a while.
    """

    name: str
    command: tuple[str, ...]
    version: str
    good: bool = True
    interrupted: bool = False
    second: bool = False
    keeps: bool = False

    @property
    def meanwhile(self) -> str:
        """The version that somebody else deploys."""
        return f"{self.version}-too"


@dataclass
class Round:
    """One operation and what came of it."""

    number: int
    operation: Operation
    fault: Fault
    delay: float
    exit: int | None = None
    said: str = ""
    seconds: float = 0.0
    losses: Counter[str] = field(default_factory=Counter)
    safe: int = 0
    census: Census | None = None
    flaws: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lost = f", lost {dict(self.losses)}" if self.losses else ""
        return (
            f"{self.number:4} {self.operation.name:28} {self.fault.name} at {self.delay:.1f} s: exit {self.exit}, "
            f"{self.seconds:.1f} s, {self.safe:,} requests{lost}{'  FLAWS: ' if self.flaws else ''}"
            f"{'; '.join(self.flaws)}"
        )


class Deployer:
    """Draws operations, and knows what should serve."""

    def __init__(self, world: World, random: Random) -> None:
        self.world, self.random = world, random
        self.stable = ""
        self.retained: list[str] = []
        self._number = 0

    def draw(self) -> Operation:
        """The next operation; its manifest is written."""
        random = self.random
        kind = random.choices(["good", "bad", "scale", "restart", "rollback"], [10, 6, 2, 2, 2])[0]
        if kind == "scale":
            return Operation("scale", ("scale", str(random.randint(2, 4))), self.stable)
        if kind == "restart":
            return Operation("restart", ("restart",), self.stable)
        if kind == "rollback" and self.retained:
            return Operation("rollback", ("rollback",), self.retained[-1])
        self._number += 1
        version = f"v{self._number}"
        size = self.world.size()
        how = strategy(random)
        while how["use"] == "in_place" and size < SPARE:
            how = strategy(random)
        replicas = size if how["use"] == "in_place" else random.choice([2, 3, 3, 4])
        name, env = random.choice(list(BAD.items())) if kind == "bad" else ("", {})
        judge = {"low_traffic": "continue", "undecided": "continue", "settle": "0s"}
        self.world.write(version, {**GOOD, **env}, replicas=replicas, strategy=how, judge=judge)
        command = ("deploy", "--version", version)
        whole = f"{how['use']}{': ' if name else ''}{name}"
        other = random.random()
        keeps = how[how["use"]].get("keep", "0s") != "0s"
        return Operation(whole, command, version, not name, other < 0.06, 0.06 <= other < 0.12, keeps)

    def served(self, version: str) -> None:
        """`version` serves now."""
        if version != self.stable:
            self.retained = [*(one for one in self.retained if one != version), self.stable][-2:]
            self.stable = version


def strategy(random: Random) -> dict[str, Any]:
    """One of them, quick."""
    use = random.choice(["rolling", "in_place", "blue_green", "canary"])
    keep = random.choice(["0s", "0s", "2s"])
    times = {"first_judge": "2s", "judge": random.choice(["1500ms", "2s"])}
    match use:
        case "rolling":
            settings = {"batch": random.choice([1, 2]), "surge": random.choice([1, 2]), **times, "keep": keep}
        case "in_place":
            settings = {"batch": 1, **times}
        case "blue_green":
            settings = {"judge": "2s", "keep": keep}
        case _:
            steps = random.choice([["10%", "30%", "100%"], ["25%", "100%"], ["50%", "100%"]])
            judge = {"least": "1500ms", "most": "3s"}
            settings = {"steps": steps, "judge": judge, "holdback": random.choice(["0%", "5%"]), "keep": keep}
    return {"use": use, use: settings}


def play(deployer: Deployer, number: int, fault: Fault) -> Round:
    """One round. What is wrong in the end is in its flaws."""
    world = deployer.world
    operation = deployer.draw()
    this = Round(number, operation, fault, 0.0 if fault.before else world.random.uniform(0, 5))
    assert world.users is not None
    before = world.users.now()
    envoy = world.envoy()
    began = time.monotonic()
    if fault.before:
        fault.act(world)
    _operate(this, world)
    try:
        world.until_rest(WITHIN)
    except TimeoutError:
        this.flaws.append(f"not at rest: {world.status()}")
    world.guard()
    this.seconds = time.monotonic() - began
    _judged(this, deployer, envoy)
    after = world.users.more(20)
    _counted(this, {name: tally.since(before[name]) for name, tally in after.items()})
    world.set_clock(0)
    return this


def _operate(this: Round, world: World) -> None:
    process = world.segue.start(*this.operation.command, cwd=world.shop.folder)
    try:
        helper = threading.Timer(this.delay, this.fault.act, [world])
        if this.fault is not NONE and not this.fault.before:
            helper.start()
        if this.operation.second:
            _second(this, process, world)
        if this.operation.interrupted:
            _interrupt(process, world)
        this.said = process.communicate(timeout=WITHIN)[0]
        this.exit = process.returncode
    except subprocess.TimeoutExpired:
        this.flaws.append(f"{' '.join(this.operation.command)} does not end")
    finally:
        process.kill()
        if helper.ident:
            helper.join(WITHIN)


def _interrupt(process: subprocess.Popen[str], world: World) -> None:
    """Ctrl-C, once the rollout runs."""
    until(lambda: ((status := world.status()) and status["rollout"]) or process.poll() is not None)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)


def _second(this: Round, process: subprocess.Popen[str], world: World) -> None:
    """Somebody else deploys while the rollout runs, and is refused; unless the rollout is forgotten."""
    until(lambda: ((status := world.status()) and status["rollout"]) or process.poll() is not None)
    if process.poll() is not None:  # it was refused itself
        return
    done = world.segue("deploy", "--version", this.operation.meanwhile, cwd=world.shop.folder, expect=None)
    if done.returncode not in (4, *this.fault.exits, *([0] if this.fault.forgets else [])):
        this.flaws.append(f"a second deploy ended with {done.returncode}: {done.stdout[-200:]}")


def _judged(this: Round, deployer: Deployer, envoy: int) -> None:
    """Whether the end is one that the operation may have, and the state is the one of that end."""
    operation, fault, world = this.operation, this.fault, deployer.world
    wanted = {130 if operation.interrupted else 0 if operation.good else 1}
    allowed = wanted | fault.exits | ({0, 1} if operation.interrupted else set())
    if this.exit not in allowed:
        this.flaws.append(f"exit {this.exit}: {this.said[-300:]!r}")
    status = world.status()
    stable = status["stable"] if status else None
    if operation.interrupted or fault.forgets or this.exit not in (0, 1):
        right = {deployer.stable, operation.version} if operation.good else {deployer.stable}
    else:
        right = {operation.version if this.exit == 0 else deployer.stable}
    if fault.returns and this.exit == 0 and operation.keeps:
        right.add(deployer.stable)
    if operation.second and fault.forgets:
        right.add(operation.meanwhile)
    if stable not in right:
        this.flaws.append(f"{stable} serves, and not {right}: {this.said[-300:]!r}")
    if stable:
        deployer.served(stable)
    if status and status["degraded"] and not fault.forgets:
        this.flaws.append(f"degraded: {status['degraded']}")
    try:
        until(lambda: not world.left_behind(), REPLACED if fault.replaces else TIDY)
    except TimeoutError:
        this.flaws += world.left_behind()
    if world.envoy() != envoy and not fault.replaces:
        this.flaws.append("Envoy is another one")
    this.census = world.counted()


def _counted(this: Round, seen: Mapping[str, Tally]) -> None:
    """What users lost. A POST may be lost by a version that is no good, or with a process that is killed."""
    for name, tally in seen.items():
        if name != "POST":
            this.safe += tally.total
            this.losses.update({f"{name} {loss.value}": number for loss, number in tally.losses.items()})
            for loss in tally.losses.keys() - this.fault.lost:
                this.flaws.append(f"{name} lost {tally.losses[loss]} × {loss.value}: {_examples(tally, loss)}")
        elif this.operation.good and this.fault is NONE and tally.losses:
            this.flaws.append(f"POST lost {dict(tally.losses)}: {_examples(tally, *tally.losses)}")


def _examples(tally: Tally, *losses: Loss) -> str:
    return ", ".join(f"{one.at:%H:%M:%S.%f} {one.detail}" for one in tally.lost if one.kind in losses)[:300]
