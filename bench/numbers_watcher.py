"""A load client that writes down when each request was sent and which version answered it.

``python numbers_watcher.py URL RATE``; on SIGTERM it prints one JSON line: [[sent, version], …], seconds since
the epoch. It shares nothing with Segue's engine.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time

from segue.testing.prober import Load, Prober
from segue.testing.tally import Counting

LONGEST = 60


class Log(Counting):
    """Counts, and keeps every answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[float, float, str]] = []

    def answered(self, status: int, version: str, seconds: float) -> None:
        """A whole answer has come, `seconds` after its request was written."""
        super().answered(status, version, seconds)
        now = time.time()
        self.answers.append((now - seconds, now, version))


async def watch(url: str, rate: float) -> Log:
    """Send until SIGTERM."""
    log, told, loop = Log(), asyncio.Event(), asyncio.get_running_loop()
    prober = Prober(Load(url, connections=32, rate=rate))
    prober.counts = log
    loop.add_signal_handler(signal.SIGTERM, told.set)
    loop.call_later(LONGEST, told.set)
    await prober.start()
    await told.wait()
    await prober.stop()
    return log


if __name__ == "__main__":
    print(json.dumps(asyncio.run(watch(sys.argv[1], float(sys.argv[2]))).answers))
