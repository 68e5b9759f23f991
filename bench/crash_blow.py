"""The blow of a run of `crash.py`: who is killed, and what was seen at that moment."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from random import Random

from segue.core.release import version_of
from segue.testing.cast import Victim, gone
from segue.testing.kills import Gap, Stage, until
from segue.testing.tally import Loss, Tally

MORE = 40
"""Requests after which it is known whether users are served: none may be lost from then on."""


class Blow:
    """Kills `victim` somewhere in `gap`.

    `who`: of an instance whether it was of the old version or the new one; `alone`: whether no other one served, and
    answered: where the new version is `bad`, its instances do not.
    `plane`: the control plane's pid before. `aimed`: whether the journal still stood in the gap when it had fallen.
    Where nobody was left to serve, `without`: seconds until users were answered again; `lost`: requests lost until
    then, of which so many `failed`: they were given an answer that is none, or none in time.
    """

    def __init__(self, gap: Gap, victim: Victim, chance: Random, *, bad: bool) -> None:
        self._gap, self.victim, self._chance, self._bad = gap, victim, chance, bad
        self.who, self.alone, self.plane, self.aimed = "", False, 0, False
        self._drawn: list[int] = []
        self.without: float | None = None
        self.lost = self.failed = 0

    def __call__(self, stage: Stage, rollout: str) -> None:
        """Wait for the gap, and do it."""
        self.plane, before = stage.plane(), stage.probe.tally() if stage.probe else Tally()
        pids = None if self.victim is Victim.INSTANCE else stage.pids(self.victim)
        stage.witness.wait(rollout, self._gap.opens)
        time.sleep(self._gap.delay(self._chance))
        for pid in pids if pids is not None else self._instance(stage):
            with suppress(ProcessLookupError):  # an instance may have ended of itself
                os.kill(pid, signal.SIGKILL)
        self.aimed = self._gap.closes not in stage.witness.entries(rollout)
        if self.who and not self.alone:  # the other one may just have begun to leave
            self.alone = not set(self._serving(stage)[1]) - set(self._drawn)
        if self.victim is Victim.KEEPERS:
            self.end(self.plane)
            stage.bring_back()
        if (self.victim in (Victim.ENVOY, Victim.BOTH) or self.alone) and stage.probe:
            self.without = stage.until_served()
            seen = stage.probe.more(MORE).since(before)
            self.lost = seen.lost_count
            self.failed = seen.losses.get(Loss.STATUS, 0) + seen.losses.get(Loss.TIMEOUT, 0)

    def _instance(self, stage: Stage) -> list[int]:
        """An instance of the old version or of the new one, if any runs."""
        pids, serving = self._serving(stage)
        self.who = self._chance.choice(sorted(pids)) if pids else "none runs"
        self._drawn = [self._chance.choice(pids[self.who])] if pids else []
        self.alone = serving == self._drawn
        return self._drawn

    def _serving(self, stage: Stage) -> tuple[dict[str, list[int]], list[int]]:
        """The instances of the old version and of the new one, and those of both that serve, and answer."""
        record = until(stage.witness.latest)
        new = version_of(record.new) if record.new and record.release else None
        pids, serving = dict[str, list[int]](), list[int]()
        for name, version in stage.client.ask("GET", "/v1/services/shop")["versions"].items():
            for instance in version["instances"]:
                if instance["pid"]:
                    pids.setdefault("new" if name == new else "old", []).append(instance["pid"])
                answers = name != new or not self._bad
                if instance["state"] == "ready" and version["share"] and answers:
                    serving.append(instance["pid"])
        return pids, serving

    @staticmethod
    def end(pid: int) -> None:
        """Kill a process, and return when it has ended."""
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)
        until(lambda: gone(pid))
