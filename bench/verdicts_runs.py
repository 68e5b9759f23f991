"""The runs of `verdicts.py`: a real canary through Envoy, users who count for themselves, and what came of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Any

import common
from judge_traffic import World
from loss_runs import events
from verdicts_app import COMMAND, Odds, environment
from verdicts_expected import LEAST, WARM, Expected, each_second

from segue.testing.load import Probe
from segue.testing.site import Shop
from segue.testing.tally import Loss, Tally

POSTS = 0.5
"""The part of the requests that are POSTs, which nobody answers in place of the new version."""
CONNECTIONS = 200
"""Of each client: so many that it keeps its rate while answers take five times as long."""
MOST = 30 * 60
BURST = Odds(0.2, ("all", 5.0))
"""What befalls both versions for some seconds, as in `judge_traffic`."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A canary in a `world` as the simulation has it, and how it must end. `least`: seconds of a judgement."""

    name: str
    world: World
    promoted: bool = False
    least: int = LEAST

    @property
    def usual(self) -> Odds:
        """Of the old version."""
        return Odds(self.world.old)

    @property
    def worse(self) -> Odds:
        """Of the new one, in the end."""
        return Odds(self.world.new, self.world.times or ("all", 1.0))

    @property
    def strategy(self) -> dict[str, Any]:
        """As the manifest has it: the default, but for `least` where the scenario takes longer."""
        return {"canary": {} if self.least == LEAST else {"judge": {"least": f"{self.least}s", "most": f"{MOST}s"}}}


def scenarios(rate: float) -> Sequence[Scenario]:
    """All of them at `rate` requests a second."""

    def world(old: float, new: float, times: tuple[str, float] = ("all", 1.0), onset: int = 0) -> World:
        return World(rate, 0.1, old, new, times, MOST, onset)

    return [
        Scenario("healthy, 1 % errors", world(0.01, 0.01), promoted=True),
        Scenario("errors 0.1 → 1 %", world(0.001, 0.01)),
        Scenario("errors 1 → 5 %", world(0.01, 0.05)),
        Scenario("errors 0.1 → 50 %", world(0.001, 0.5)),
        Scenario("p99 × 2, mean unchanged", world(0.001, 0.001, ("mean", 2.0))),
        Scenario("healthy for 2 min, then 1 → 5 %", world(0.01, 0.05, onset=120), least=300),
        Scenario("bursts on both versions", replace(world(0.002, 0.002), kind="bursts"), promoted=True),
    ]


def troubled(world: World, number: int) -> Iterator[bool]:
    """Second by second, whether there is trouble in the run of that number: as in the simulation's."""
    if world.kind != "bursts":
        return (second >= world.onset for second in count())
    return (second.old > world.old for second in next(islice(each_second(world), number, None)))


class Weather:
    """Trouble that comes and goes: a file that the applications look at. `began`: when it came for the first time."""

    def __init__(self, file: Path, seconds: Iterator[bool]) -> None:
        self.began: datetime | None = None
        self._file, self._seconds, self._over = file, seconds, threading.Event()
        self._thread = threading.Thread(target=self._play)

    def start(self) -> None:
        """Begin the first second."""
        self._thread.start()

    def _play(self) -> None:
        for second in self._seconds:
            if second and not self._file.exists():
                self.began = self.began or datetime.now(UTC)
                self._file.touch()
            elif not second:
                self._file.unlink(missing_ok=True)
            if self._over.wait(1.0):
                return

    def end(self) -> None:
        """There is no trouble any more."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._file.unlink(missing_ok=True)


class Users:
    """Those who read and those who write, each as a process of its own, at a rate together."""

    def __init__(self, shop: Shop, rate: float) -> None:
        post = ("--method", "POST", "--body", "a pound of tea")
        self.probes = {
            "GET": Probe(shop.url, connections=CONNECTIONS, rate=rate * (1 - POSTS)),
            "POST": Probe(shop.url, *post, connections=CONNECTIONS, rate=rate * POSTS),
        }

    def now(self) -> dict[str, Tally]:
        """What each had counted a moment ago."""
        return {name: probe.tally() for name, probe in self.probes.items()}

    def after(self, seconds: float) -> dict[str, Tally]:
        """What each has counted so many seconds from now at the earliest."""
        known = self.now()
        return {
            name: probe.until(lambda tally, name=name: tally.seconds > known[name].seconds + seconds, seconds + 60)  # type: ignore[misc]
            for name, probe in self.probes.items()
        }

    def kill(self) -> None:
        """Send them home."""
        for probe in self.probes.values():
            probe.kill()


def allowed(expected: Expected) -> float:
    """Seconds that a run may take: looks come once a second and are pooled, and one rollout is not another."""
    return 2 * expected.late + 5


@dataclass(frozen=True)
class Run:
    """What came of one rollout. `seconds` as in `Expected`; `attempts` on the new version as the judge counted them;
    `seen` by the users meanwhile. `ended`: ``promoted`` or ``rolled_back``."""

    scenario: Scenario
    ended: str
    basis: str
    reason: str
    seconds: float
    attempts: int
    seen: dict[str, Tally]
    balanced: bool

    def failed(self, method: str) -> int:
        """Failures of the new version that users had."""
        return self.seen[method].by_version.get("v2 failed", 0)

    @property
    def failing(self) -> float:
        """The part of all answers that were failures, of either version."""
        counts = [one for tally in self.seen.values() for one in tally.by_version.items()]
        return sum(n for name, n in counts if name.endswith("failed")) / max(sum(n for _, n in counts), 1)

    @property
    def sent(self) -> float:
        """Requests a second."""
        return sum(tally.total / tally.seconds for tally in self.seen.values())

    def flaws(self, expected: Expected) -> list[str]:
        """Why this is not as it must be; empty: it is."""
        found, most = [], allowed(expected)
        wanted = "promoted" if self.scenario.promoted else "rolled_back"
        if (self.ended, self.basis) != (wanted, "evidence"):
            found.append(f"{self.ended} on {self.basis}: {self.reason}")
        if self.seconds > most:
            found.append(f"after {self.seconds:.0f} s, not within {most:.0f} s")
        if self.failed("GET"):
            found.append(f"{self.failed('GET')} failures of v2 reached those who GET")
        if lost := sum(n for tally in self.seen.values() for kind, n in tally.losses.items() if kind != Loss.STATUS):
            found.append(f"{lost} requests were lost otherwise")
        if self.scenario.world.kind == "bursts" and self.failing < 3 * self.scenario.world.old:
            found.append("there was hardly a burst")
        if self.sent < 0.9 * self.scenario.world.rps:
            found.append(f"only {self.sent:.0f} requests a second were sent")
        if not self.balanced:
            found.append("Segue's books do not balance")
        return found


def measure(scenario: Scenario, number: int) -> Run:
    """One rollout of the scenario, in a home of its own. `number`: of the run, for what is drawn."""
    with common.shop() as shop:
        file = shop.folder.parent / "trouble"
        weather = Weather(file, troubled(scenario.world, number))
        _write(shop, scenario, "v1", number, file)
        shop.deploy("v1")
        users = Users(shop, scenario.world.rps)
        try:
            users.after(WARM)
            _write(shop, scenario, "v2", number, file)
            return _carried_out(shop, scenario, users, weather)
        finally:
            weather.end()
            users.kill()


def _write(shop: Shop, scenario: Scenario, version: str, number: int, file: Path) -> None:
    """The manifest of a version. Trouble that sets in later does so while `file` exists."""
    usual, then = _odds(scenario, version)
    env = environment(usual, f"{scenario.name}/{number}", then, file)
    shop.write(env=env, process={"command": COMMAND}, strategy=scenario.strategy)


def _odds(scenario: Scenario, version: str) -> tuple[Odds, Odds]:
    if scenario.world.kind == "bursts":
        return scenario.usual, BURST
    if version == "v1":
        return scenario.usual, scenario.usual
    return scenario.usual if scenario.world.onset else scenario.worse, scenario.worse


def _carried_out(shop: Shop, scenario: Scenario, users: Users, weather: Weather) -> Run:
    """Deploy v2 to the end."""
    process = shop.segue.start("deploy", "--version", "v2", "--json", cwd=shop.folder)
    shifted = turned = last = None
    first: dict[str, Tally] = {}
    seen: dict[str, Tally] = {}
    for last in events(process):
        if last["event"] == "traffic" and shifted is None:
            weather.start()
            shifted, first = last, users.after(0)
        elif last["event"] == "turned_back":
            turned = last
        elif last["event"] == "began" and last["text"].startswith("traffic"):
            seen = users.now()  # on trial, until the last shift gives it everything
    process.wait()
    if shifted is None or last is None:
        raise RuntimeError(f"v2 never had a share: {last}")
    seen = users.after(0.5) if turned else seen
    report, since = shop.report(), weather.began if scenario.world.onset else _moment(shifted)
    numbers = report["judgements"][-1]["numbers"]
    return Run(
        scenario,
        ended=last["outcome"],
        basis=last["basis"],
        reason=last["reason"],
        seconds=(_moment(turned or last) - (since or _moment(last))).total_seconds(),
        attempts=numbers.get("new_attempts", 0),
        seen={name: tally.since(first[name]) for name, tally in seen.items()},
        balanced=bool(report["requests"]["balanced"]),
    )


def _moment(event: Any) -> datetime:
    return datetime.fromisoformat(event["at"])
