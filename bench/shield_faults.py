"""The runs of `shield.py` with versions that are no good, their twins, and right answers that take long."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import common

from segue.testing import trial
from segue.testing.load import Probe
from segue.testing.site import Shop
from segue.testing.tally import Tally
from segue.testing.trial import FAULTS, POSTERS, SAFE, Fault, Trial, Users

REQUESTS = 20_000
"""Safe requests by each protocol in every run."""
TRIALS = 8
"""So many trials of every fault."""
LONGEST = 90.0
"""Seconds after which no further trial of the same fault begins."""
PROTOCOLS = ("HTTP/1.1", "HTTP/2")
SLOW = 256
"""Requests that take three seconds."""


@dataclass(frozen=True)
class Run:
    """What came of a fault's trials, one after the other under the same load.

    `seen`: by each client, in all trials and between them. `executed` and `answered`: POSTs.
    """

    fault: Fault
    trials: Sequence[Trial]
    seen: dict[str, Tally]
    executed: Counter[str]
    answered: set[str]

    @property
    def shielded(self) -> int:
        """Requests that the other version answered."""
        return sum(one.requests["shielded"] for one in self.trials)

    @property
    def on_trial(self) -> int:
        """Requests that both began and ended while a version was on trial."""
        return sum(one.least for one in self.trials)

    @property
    def posts(self) -> str:
        """What became of the POSTs."""
        tally = self.seen["POST"]
        twice = len(trial.more_than_once(self.executed))
        return f"{tally.total:,}; {len(self.executed):,} executed, {twice} twice; {tally.lost_count} failed"

    @property
    def flaws(self) -> list[str]:
        """Why the run does not show what it must; empty: it does."""
        found = trial.safe_losses(self.seen)
        found += [f"only {self.seen[p].total:,} over {p}" for p in PROTOCOLS if self.seen[p].total < REQUESTS]
        found += [f"{one.version}: {flaw}" for one in self.trials for flaw in one.flaws]
        found += [f"{one.version} was not taken back: {one.report['reason']}" for one in self.trials if one.exit != 1]
        if twice := trial.more_than_once(self.executed):
            found.append(f"executed more than once: {twice[:5]}")
        if missing := self.answered - set(self.executed):
            found.append(f"answered and not executed: {sorted(missing)[:5]}")
        if self.fault.name == "refuses" and self.seen["POST"].lost_count > POSTERS * len(self.trials):
            found.append("POSTs were lost that no application had")
        if self.fault.sets_in is None and not self.shielded:
            found.append("nobody met the version")
        return found


def faults(only: str) -> Iterator[Run]:
    """Every fault, until enough requests were sent."""
    for fault in FAULTS:
        if only in fault.name:
            common.progress(f"{fault.name} …")
            yield _run(fault)


def _run(fault: Fault) -> Run:
    trials: list[Trial] = []
    with common.shop() as shop:
        launch(shop)
        users = Users(shop, posts=200)
        try:
            until = time.monotonic() + LONGEST
            while (len(trials) < TRIALS or _least(users.more(100)) < REQUESTS) and time.monotonic() < until:
                version = f"v{len(trials) + 2}"
                trial.write(shop, version, fault)
                trials.append(trial.run(shop, version, fault, users))
            seen = users.finish()
        finally:
            users.kill()
        executed, answered = users.executions()
    run = Run(fault, trials, seen, executed, answered)
    common.progress(f"    {len(trials)} trials, {run.shielded:,} shielded; {'; '.join(run.flaws) or 'ok'}")
    return run


def launch(shop: Shop, *, shield: bool = True) -> None:
    """A good version serves."""
    trial.write(shop, "v1", None, shield=shield)
    shop.deploy("v1")


def _least(seen: dict[str, Tally]) -> int:
    return min(seen[protocol].total for protocol in PROTOCOLS)


@dataclass(frozen=True)
class Twin:
    """What the clients counted of the same without the shield."""

    fault: Fault
    seen: dict[str, Tally]

    @property
    def lost(self) -> int:
        """Safe requests that were lost."""
        return sum(self.seen[protocol].lost_count for protocol in PROTOCOLS)

    @property
    def total(self) -> int:
        """Safe requests."""
        return sum(self.seen[protocol].total for protocol in PROTOCOLS)


def twins(only: str) -> Iterator[Twin]:
    """One trial of every fault that does harm, without the shield."""
    for fault in FAULTS:
        if only in fault.name and not fault.harmless:
            common.progress(f"{fault.name}, without the shield …")
            yield _twin(fault)


def _twin(fault: Fault) -> Twin:
    with common.shop() as shop:
        launch(shop, shield=False)
        trial.write(shop, "v2", fault, shield=False)
        users = Users(shop, posts=0, timeout=2)
        try:
            users.more(100)
            found = Twin(fault, trial.lossy(shop, "v2", fault, users))
        finally:
            users.kill()
    common.progress(f"    {found.lost} lost of {found.total:,}")
    return found


@dataclass(frozen=True)
class Slow:
    """Right answers that take three seconds, while a version is on trial. `asked`: how often applications were."""

    seen: Tally
    asked: Counter[str]

    @property
    def flaws(self) -> list[str]:
        """Why this does not show what it must; empty: it does."""
        found = [f"{count} × {kind}" for kind, count in self.seen.losses.items()]
        if len(self.seen.by_version) < 2:
            found.append("only one version was asked")
        if max(self.asked.values()) > 2:
            found.append("a request was sent three times")
        if self.seen.percentile(0.0001) < 2900:
            found.append("an answer came too early")
        return found


def slow() -> Slow:
    """Ask for answers that take three seconds, by all safe methods."""
    common.progress("answers that take three seconds …")
    with common.shop() as shop:
        launch(shop)
        trial.write(shop, "v2", None)
        deploy = shop.segue.start("deploy", "--version", "v2", cwd=shop.folder)
        trial.until(lambda: trial.has_share(shop, "v2"))
        probe = Probe(shop.url + "slow?3", "--name", "slow-", "--method", SAFE, connections=64)
        try:
            probe.until(lambda tally: tally.total >= SLOW, 60)
            tally = probe.finish()
        finally:
            probe.kill()
        shop.segue("rollback", cwd=shop.folder)
        deploy.communicate()
        return Slow(tally, trial.seen(shop, "slow-"))
