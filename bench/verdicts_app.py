"""The tiny application with odds: whether a request fails and how long its answer takes is drawn for each.

``verdicts_app.py PORT VERSION INSTANCE``, with ODDS in the environment: JSON with the `Odds` ``usual``, and those
of ``then`` that hold instead while the file ``while`` exists. An answer names its version as others do; one that
fails names it ``v2 failed``, so that clients can count whose failures they meet.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import NormalDist
from typing import Any

from segue.testing.app import App, Knobs

COMMAND = f"{sys.executable} {Path(__file__).resolve()} {{port}} {{version}} {{instance}}"
MEDIAN, SIGMA, TAIL = 0.05, 0.7, 0.95
"""As in `judge_traffic`: answers' times are log-normal, in seconds; the tail is slow by itself."""
_NORMAL = NormalDist()
_TAIL_AT = _NORMAL.inv_cdf(TAIL)
_IN_TAIL = 1 - _NORMAL.cdf(_TAIL_AT - SIGMA)  # of the mean


@dataclass(frozen=True, slots=True)
class Odds:
    """The part of the requests that `fails`, and the `times`, a `judge_traffic.shape`: ``all`` or ``mean``."""

    fails: float = 0.0
    times: tuple[str, float] = ("all", 1.0)

    def delay(self, random: Random) -> float:
        """Seconds that an answer takes."""
        kind, factor = self.times
        at = random.gauss(0, 1)
        if kind == "mean" and at <= _TAIL_AT:
            factor = (1 - _IN_TAIL * factor) / (1 - _IN_TAIL)
        return MEDIAN * math.exp(SIGMA * at) * factor


def environment(usual: Odds, seed: str, then: Odds | None = None, file: Path | None = None) -> dict[str, str]:
    """What tells the application its odds."""
    told = {"usual": asdict(usual), "then": asdict(then or usual), "while": str(file or ""), "seed": seed}
    return {"ODDS": json.dumps(told)}


class Drawn(Knobs):
    """Draws what happens to each request."""

    def __init__(self, told: Mapping[str, Any], instance: str) -> None:
        super().__init__({})
        self._usual, self._then = Odds(**told["usual"]), Odds(**told["then"])
        self._file, self._random = told["while"], Random(f"{told['seed']}/{instance}")

    def fault(self, path: bytes) -> str:
        """What goes wrong with the next request; how long that takes is drawn as well."""
        odds = self._then if os.access(self._file, os.F_OK) else self._usual
        self.delay = odds.delay(self._random)
        return "500" if self._random.random() < odds.fails else ""


class Telling(App):
    """Says with each answer which version gave it, and whether it failed."""

    def _answer(self, status: bytes, body: bytes, bare: bool = False) -> bytes:
        answer = super()._answer(status, body, bare)
        return answer.replace(b"\r\nContent-Type", b" failed\r\nContent-Type", 1) if status[:1] == b"5" else answer


def main(argv: list[str]) -> int:
    """Run the application until SIGTERM."""
    port, version, instance = argv
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=1024)
    listener.setblocking(False)
    Telling(listener, version, Drawn(json.loads(os.environ["ODDS"]), instance)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
