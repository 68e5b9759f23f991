"""A shop under load, operations on it, and what became of it: equal for operations that ended alike.

Rule: what is found is what a user or the system says, without what differs from one run to the next.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from random import Random
from typing import Any
from urllib.request import urlopen

from segue.cli.client import Absent, Broken
from segue.cli.follow import HELD
from segue.engine.records import RolloutRecord
from segue.errors import SegueError
from segue.testing.cast import Cast
from segue.testing.load import Probe, tiny_app
from segue.testing.moments import Witness, until
from segue.testing.site import Segue, Shop
from segue.testing.tally import Tally

RATE = 300
"""Requests a second, over 64 connections."""

QUICK: Mapping[str, Mapping[str, Any]] = {
    "rolling": {"first_judge": "600ms", "judge": "400ms"},
    "in_place": {"first_judge": "600ms", "judge": "400ms"},
    "blue_green": {"judge": "600ms", "keep": "0s"},
    "canary": {"steps": ["50%", "100%"], "judge": {"least": "400ms", "most": "1s"}, "keep": "0s"},
}
"""The strategies, so that they take no longer than they must."""

PATIENT: Mapping[str, Mapping[str, Any]] = {
    "rolling": {"first_judge": "3s", "judge": "3s"},
    "in_place": {"first_judge": "3s", "judge": "3s"},
    "blue_green": {"judge": "3s", "keep": "0s"},
    "canary": {"steps": ["50%", "100%"], "judge": {"least": "3s", "most": "3s"}, "keep": "0s"},
}
"""The strategies, so that a bad version is found out although there is no traffic for a while."""

Strike = Callable[["Stage", str], None]
"""Something that happens to the stage during the rollout of that id."""


@dataclass(frozen=True, slots=True)
class End:
    """How an operation ended.

    `status`: what `segue status` says, without ids, times, pids and addresses. `running`: whether exactly the
    instances of the status run. `starts`: how many processes were started, `hooks`: which hooks ran. `steps`:
    each step of the plans with its outcome. `told`: whether its end was told once. `lost`: requests lost meanwhile,
    of so many `requests`. `rollout`: its id.
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
    requests: int = field(compare=False)
    rollout: str = field(compare=False)


class Stage(Cast):
    """A shop under load, operations on it, and the means to kill what carries them out."""

    def __init__(self, segue: Segue, shop: Shop, random: Random, rate: int = RATE) -> None:
        super().__init__(segue, random)
        self.shop, self.witness, self._rate = shop, Witness(segue.home), rate
        self.probe: Probe | None = None
        self.served: list[str] = []
        self.said = ""
        self._number = 0
        self._starts, self._hooks = segue.home.parent / "starts", segue.home.parent / "hooks"

    # Load

    def launch(self) -> None:
        """Deploy a first version and put load on it."""
        self._write("rolling", {})
        self.served.append(self._next())
        self.shop.deploy(self.served[-1])
        self.load()

    def load(self) -> None:
        """Begin the load, 64 connections."""
        self.probe = Probe(self.shop.url, connections=64, rate=self._rate)
        self.probe.more(self._rate // 4)

    def rest(self) -> Tally:
        """End the load; all that it saw."""
        assert self.probe is not None
        tally, self.probe = self.probe.finish(), None
        return tally

    def close(self) -> None:
        """End the load, come what may."""
        if self.probe is not None:
            self.probe.kill()

    # Operations

    def update(self, *blows: Strike, use: str = "rolling", after: bool = False, **options: Any) -> End:
        """A good new version, by the strategy `use`; with `after` there is a hook after keep."""
        self._write(use, {**QUICK[use], **options}, after=after)
        return self._watched(blows, self._deploy(), serves=f"v{self._number}")

    def refused(self, *blows: Strike, use: str = "rolling") -> End:
        """A new version that answers every request with 500."""
        self._write(use, PATIENT[use], {"APP_BROKEN": "500"})
        return self._watched(blows, self._deploy())

    def approved(self, *blows: Strike) -> End:
        """A good new version by blue_green, held before the switch until a person lets it pass."""
        self._write("blue_green", {**QUICK["blue_green"], "approve": "manual"})
        return self._watched(blows, self._deploy(), ["promote"], ["wait"], serves=f"v{self._number}")

    def withdrawn(self, *blows: Strike) -> End:
        """A good new version by blue_green, held before the switch until a person takes it back."""
        self._write("blue_green", {**QUICK["blue_green"], "approve": "manual"})
        return self._watched(blows, self._deploy(), ["rollback"])

    def rollback(self, *blows: Strike) -> End:
        """Back to the version before."""
        left = self.served.pop()
        end = self._watched(blows, ["rollback"])
        if end.exit:
            self.served.append(left)
        return end

    def retire(self, *blows: Strike) -> End:
        """The version before is no longer kept."""
        return self._watched(blows, ["retire"])

    def scale(self, *blows: Strike, count: int) -> End:
        """So many instances."""
        return self._watched(blows, ["scale", str(count)])

    def down(self, *blows: Strike) -> End:
        """Nobody serves any more; the load ends before."""
        if self.probe:
            self.rest()
        return self._watched(blows, ["down"])

    def _deploy(self) -> list[str]:
        return ["deploy", "--version", self._next()]

    def _write(
        self, use: str, options: Mapping[str, Any], env: Mapping[str, str] | None = None, *, after: bool = False
    ) -> None:
        app = f"exec {tiny_app()} {{port}} {{version}}"
        hooks = ("before", "on_rollback", "after") if after else ("before", "on_rollback")
        self.shop.write(
            env={"APP_DELAY": "0.02", **(env or {})},
            process={
                "source": ".",
                "build": "sleep 0.1",
                "command": f"sh -c 'echo {{instance}} $$ >> {self._starts}; {app}'",
            },
            hooks={hook: f"echo {hook} $SEGUE_TO >> {self._hooks}; sleep 0.05" for hook in hooks},
            strategy={"use": use, **({use: options} if options else {})},
            judge={"low_traffic": "continue", "undecided": "continue"},
        )

    def _next(self) -> str:
        self._number += 1
        return f"v{self._number}"

    def _watched(self, blows: Sequence[Strike], *commands: Sequence[str], serves: str | None = None) -> End:
        """What came of `commands`, one after the other, while `blows` fall. `serves`: who does if all goes well."""
        before = self.witness.latest()
        seen = self.probe.tally() if self.probe else Tally()
        starts, hooks = len(_lines(self._starts)), len(_lines(self._hooks))
        with ThreadPoolExecutor(1) as typing:
            typed = typing.submit(self._type, commands)
            rollout = until(partial(self._newer, before))
            for blow in blows:
                blow(self, rollout.id)
            exit = typed.result()
        if serves and not exit:
            self.served.append(serves)
        self.settle(rollout.id)
        if self.probe:
            self.probe.more(self._rate // 8)
        balanced, steps = self._account(rollout.id)
        meanwhile = self.probe.tally().since(seen) if self.probe else Tally()
        return End(
            exit=exit,
            status=self.status(),
            running=self.running(),
            starts=len(_lines(self._starts)) - starts,
            hooks=tuple(self._named(line) for line in _lines(self._hooks)[hooks:]),
            steps=steps,
            balanced=balanced or not self.probe,  # without users there is nothing to account for
            told=self._told(rollout.id),
            lost=meanwhile.lost_count,
            requests=meanwhile.total,
            rollout=rollout.id,
        )

    def _type(self, commands: Sequence[Sequence[str]]) -> int:
        """Run `commands`, each after one that is done or asks a person; the last exit status."""
        self.said, status = "", 0
        for command in commands:
            done = self.segue(*command, cwd=self.shop.folder, expect=None)
            self.said += f"$ segue {' '.join(command)}\n{done.stdout}{done.stderr}"
            status = done.returncode
            if status not in (0, HELD):
                break
        return status

    def _newer(self, before: RolloutRecord | None) -> RolloutRecord | None:
        latest = self.witness.latest()
        return latest if latest and latest.id != (before and before.id) else None

    # What became of it

    def settle(self, rollout: str) -> None:
        """Return when the rollout has ended and every instance of the service is ready."""
        until(lambda: "ended" in self.witness.entries(rollout), every=0.01)
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
        status = self._ask("/v1/services/shop")
        kept = {key: status[key] for key in ("state", "stable", "candidate", "rollout", "degraded")}
        kept["previous"] = status["previous"] and status["previous"]["version"]
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

    def _account(self, rollout: str) -> tuple[bool, tuple[str, ...]]:
        report = self._ask(f"/v1/rollouts/{rollout}/report")
        steps = (_sorted(self._named(f"{step['step']}: {step['outcome']}")) for step in report["steps"])
        return report["requests"]["balanced"], tuple(steps)

    def _told(self, rollout: str) -> int:
        """How often clients are told the end of a rollout."""
        with self.client.open("GET", f"/v1/rollouts/{rollout}/events") as events:
            return sum(json.loads(line)["event"] == "finished" for line in events.lines() if line)

    def _ask(self, path: str) -> Any:
        return self.client.ask("GET", path)

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


def _sorted(text: str) -> str:
    """A step as text, its shares in the order of their versions here and not of their names there."""
    head, separator, rest = text.partition("traffic: ")
    shares, colon, outcome = rest.rpartition(": ")
    return f"{head}{separator}{', '.join(sorted(shares.split(', ')))}{colon}{outcome}" if separator else text


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
