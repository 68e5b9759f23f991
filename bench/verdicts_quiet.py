"""Canaries with hardly any traffic: what Segue does, and its very words, held against those of the contract."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import common
from loss_runs import events
from verdicts_app import COMMAND, Odds, environment

from segue.testing.load import Probe
from segue.testing.site import Shop

SMOKE, WARM_UP = 3, 50
"""Smoke tests and warm-up requests of every instance."""
GOING_ON = (
    r"\d+ ?%: [\d,]+ requests?, a verdict needs (about [\d,]+|some hundreds); "
    r"going on by health alone, `judge\.low_traffic`"
)
"""What the contract has the live line say."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """A canary at `rate` requests a second. `judge`: of the manifest, `waits`: of the strategy.

    It must end with `exit`, on the `basis`, and `says` what matches these patterns, each somewhere in what is
    printed. `left` after so many seconds it is taken back by hand; None: it is left to its end.
    """

    rate: float
    exit: int
    basis: str | None
    says: Sequence[str]
    judge: Mapping[str, Any] = field(default_factory=dict)
    waits: Mapping[str, str] = field(default_factory=dict)
    left: float | None = None

    def __str__(self) -> str:
        told = [f"`judge.{name}: {value}`" for name, value in self.judge.items()]
        told += [f"`{name}: {value}`" for name, value in self.waits.items()]
        return ", ".join([f"{self.rate:g} requests a second", *told])


BY_CHECKS = f"promoted on {SMOKE} smoke tests and {WARM_UP} warm-up requests"
QUIET = (
    Quiet(0, 0, "health", [GOING_ON, f"No user request reached v2: {BY_CHECKS}"]),
    Quiet(0.1, 0, "health", [GOING_ON, BY_CHECKS]),
    Quiet(0.1, 6, None, [r"\d+ ?%: [\d,]+ requests?, a verdict needs ", "Held: "], judge={"low_traffic": "hold"}),
    Quiet(0.1, 1, "health", [r"going back, `judge\.low_traffic`"], judge={"low_traffic": "rollback"}),
    Quiet(5, 0, "health", [GOING_ON, BY_CHECKS], waits={"least": "30s", "most": "2m"}),
    Quiet(5, 7, "person", [r"not enough evidence yet, a verdict needs about [\d,]+ more, [\d,]+ min"], left=45),
)
"""The last one would take an hour: a verdict comes within `most`, so it is waited for."""


@dataclass(frozen=True)
class Said:
    """What came of one. `judging`: by step, the last that the live line said; `printed` by `segue deploy`."""

    quiet: Quiet
    exit: int
    finished: Any
    judging: Mapping[str, str]
    printed: str
    plan: str
    report: Any
    because: str

    @property
    def flaws(self) -> list[str]:
        """Where it is not as it must be; empty: nowhere."""
        found = []
        if self.exit != self.quiet.exit:
            found.append(f"exit {self.exit}, not {self.quiet.exit}")
        if self.finished["basis"] != self.quiet.basis:
            found.append(f"basis {self.finished['basis']}, not {self.quiet.basis}")
        said = "\n".join([self.printed, *self.judging.values()])
        found += [f"nothing says `{pattern}`" for pattern in self.quiet.says if not re.search(pattern, said)]
        if self.finished["basis"] != self.report["basis"]:
            found.append(f"the report's basis is {self.report['basis']}")
        return found

    @property
    def of_plan(self) -> list[str]:
        """What `segue plan` says of judgements that cannot come to a verdict."""
        return [line for line in self.plan.splitlines() if line.startswith("Step ")]

    def verdicts(self) -> Iterator[tuple[str, str, str]]:
        """Of the report: each judged step, its basis, its words."""
        for step in self.report["steps"]:
            if step["verdict"]:
                yield step["step"], step["verdict"]["basis"], step["verdict"]["reason"]


def quiet() -> list[Said]:
    """All of them at the same time, for they do next to nothing."""
    with ThreadPoolExecutor(len(QUIET)) as pool:
        return list(pool.map(_one, QUIET))


def _one(quiet: Quiet) -> Said:
    with common.shop() as shop:
        _write(shop, quiet)
        shop.deploy("v1")
        probe = Probe(shop.url, connections=1, rate=quiet.rate) if quiet.rate else None
        try:
            if probe:
                probe.until(lambda tally: tally.seconds > 20, 60)
            return _deployed(shop, quiet)
        finally:
            if probe:
                probe.kill()


def _write(shop: Shop, quiet: Quiet) -> None:
    shop.write(
        env=environment(Odds(), "quiet"),
        process={"command": COMMAND},
        smoke=[{"http": {"path": f"/{number}"}} for number in range(SMOKE)],
        warm_up={"requests": WARM_UP, "paths": ["/"]},
        judge=dict(quiet.judge),
        strategy={"canary": {"judge": dict(quiet.waits)} if quiet.waits else {}},
    )


def _deployed(shop: Shop, quiet: Quiet) -> Said:
    plan = shop.segue("plan", "--version", "v2", cwd=shop.folder).stdout
    process = shop.segue.start("deploy", "--version", "v2", "--json", cwd=shop.folder)
    judging, shifted, last, over = {}, None, None, False
    for last in events(process):
        if last["event"] == "traffic":
            shifted = shifted or time.monotonic()
        elif last["event"] == "judging":
            judging[f"step {last['step']}"] = last["text"]
        if quiet.left and shifted and not over and time.monotonic() > shifted + quiet.left:
            shop.segue("rollback", cwd=shop.folder)
            over = True
    exit = process.wait()
    printed = shop.segue("wait", "--timeout", "2s", cwd=shop.folder, expect=None).stdout
    because = shop.segue.json("explain", cwd=shop.folder)["because"]
    return Said(quiet, exit, last, judging, printed, plan, shop.report(), because)
