"""Kill parts of Segue at chosen moments of a rollout, from outside, and see what becomes of it.

Rule: what is found is compared with what is found after the same operation that nobody disturbed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from segue.testing.cast import Victim
from segue.testing.moments import Gap, Moment, Occasion, Point, until
from segue.testing.stage import End, Stage

__all__ = ["Blow", "End", "Gap", "Moment", "Point", "Stage", "Victim", "kill", "until"]


@dataclass(frozen=True, slots=True)
class Blow:
    """Something that is done to the stage when a moment of a rollout has come."""

    when: Occasion
    act: Callable[[Stage], None]

    def __call__(self, stage: Stage, rollout: str) -> None:
        """Wait for the moment, and do it."""
        record = until(stage.witness.latest)
        stage.witness.wait(rollout, self.when.entry(record, stage.random))
        time.sleep(self.when.delay(stage.random))
        self.act(stage)


def kill(when: Occasion, victim: Victim = Victim.PLANE) -> Blow:
    """The blow that kills `victim` at that moment."""
    return Blow(when, lambda stage: stage.kill(victim))
