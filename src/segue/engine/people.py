"""The people of an experiment: who is seen is written down, and what that shows is said.

Rule: who a person is goes no further than this. A digest is kept as long as the experiment runs, keyed by it, so that
it cannot be compared with that of another one; afterwards the numbers alone.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import blake2b
from math import exp, isfinite
from typing import Any

from segue.core.experiment import Visit
from segue.core.release import Experiment, version_of
from segue.core.steps import Shift
from segue.engine.journal import Journal
from segue.engine.records import RolloutRecord
from segue.engine.told import Visitor
from segue.errors import DiskFull, Refused, RouterLost
from segue.judge.experiment import Finding, Say, find, words
from segue.ports import Evidence


class People:
    """Writes down who is seen in the experiment that `rollout` is."""

    def __init__(self, rollout: RolloutRecord, evidence: Evidence, journal: Journal) -> None:
        self._rollout, self._evidence, self._journal = rollout, evidence, journal
        self._experiment = rollout.experiment
        self._unwritten: list[Visitor] = []

    async def look(self) -> None:
        """Write down who has been seen since the last look."""
        if self._experiment is None:
            return
        try:
            visits = await self._evidence.visits(self._rollout.service)
        except RouterLost:  # they are written down there, and told the next time
            return
        sides = (self._rollout.new, self._rollout.old)
        self._unwritten += [self._visitor(self._experiment, visit) for visit in visits if visit.version in sides]
        if self._unwritten:
            with suppress(DiskFull):  # they are written down when there is room again
                self._journal.put_visitors(self._rollout.id, self._unwritten)
                self._unwritten = []

    def _visitor(self, experiment: Experiment, visit: Visit) -> Visitor:
        who = blake2b(visit.user.encode(), key=self._rollout.id.encode()[:64], digest_size=12).digest()
        reached = experiment.goal.reached(visit.path, visit.status, shown=visit.shown)
        return Visitor(who, visit.version == self._rollout.new, reached)


def shown(journal: Journal, record: RolloutRecord, now: datetime) -> dict[str, Any]:
    """What the experiment that `record` is has shown until `now`. Raises Refused where it is none."""
    experiment = record.experiment
    if experiment is None or record.new is None or record.old is None:
        raise Refused(f"rollout {record.id} is no experiment", next="segue report")
    steps = (step for step in journal.steps(record.id) if step.way == "there" and isinstance(step.step, Shift))
    began = next((step.began for step in steps), None)
    lasted = max((record.decided or now) - began, timedelta(0)) if began else timedelta(0)
    seen, share = journal.visitors(record.id), float(experiment.share)
    left = max(experiment.most - lasted, timedelta(0)) if record.decided is None else timedelta(0)
    to_come = (seen.new + seen.old) * (left / lasted) if lasted else 0.0
    found = find(seen, share, users_to_come=to_come)
    new, old = version_of(record.new), version_of(record.old)
    return {
        "rollout": record.id,
        "service": record.service,
        "from": old,
        "to": new,
        "outcome": record.outcome,
        "goal": str(experiment.goal),
        "share": share,
        "sticky": experiment.sticky,
        "who": experiment.who and {"header": experiment.who.header, "in": list(experiment.who.among)},
        "began": began and began.isoformat(),
        "seconds": round(lasted.total_seconds(), 1),
        "until": (began + experiment.most).isoformat() if began and record.decided is None else None,
        **_numbers(found, new, old),
        "words": words(found, share, new, old, str(experiment.goal), over=record.decided is not None),
    }


def _numbers(found: Finding, new: str, old: str) -> dict[str, Any]:
    return {
        "users": {new: found.users[0], old: found.users[1]},
        "reached": {new: found.reached[0], old: found.reached[1]},
        "rates": {new: found.rates[0], old: found.rates[1]},
        "ratio": {
            "low": found.low,
            "high": found.high if isfinite(found.high) else None,
            "estimate": found.estimate,
        },
        "split": {"odds": round(exp(min(found.split_log_e, 100.0)), 3), "trusted": found.say is not Say.DISTRUST},
        "say": found.say.value,
        "needed": found.needed,
        "detectable": found.detectable,
    }
