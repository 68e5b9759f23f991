"""A deploy that is told to end while nobody looks on: with `on_cancel: rollback` its rollout is taken back.

On a terminal, and with `on_cancel: continue`, the rollout goes on; nothing of this is used then.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Self

from segue.cli.client import Absent, Broken
from segue.cli.context import Context, quote
from segue.cli.follow import Left
from segue.cli.trouble import INTERRUPTED, sentence, translated
from segue.errors import SegueError

REASON = "the job that deployed it was cancelled"
PATIENCE = 10.0
"""Seconds that the control plane is given to answer a client which was told to end."""


class Cancel:
    """While this lasts SIGINT and SIGTERM are heard here.

    Until the rollout is known they are noted: it may have begun. Its answer is waited for, but not for long.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._rollout: str | None = None
        self._told = False

    def __enter__(self) -> Self:
        heard = {signal.SIGINT: self._hear, signal.SIGTERM: self._hear, signal.SIGALRM: _interrupt}
        self._before: dict[signal.Signals, Any] = {n: signal.signal(n, handler) for n, handler in heard.items()}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, before in self._before.items():
            signal.signal(number, before)
        if kind is KeyboardInterrupt:
            print(
                "Cancelled before the control plane answered: the rollout may begin all the same. Next: segue status",
                file=sys.stderr,
            )

    def _hear(self, *_: object) -> None:
        if self._told:
            return
        self._told = True
        if self._rollout is not None:
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def follows(self, rollout: str) -> None:
        """From now on `rollout` is what there is to take back. Raises KeyboardInterrupt if it is to be already."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._rollout = rollout
        if self._told:
            raise KeyboardInterrupt

    def take_back(self) -> Left:
        """Ask for the rollback; how the client is to leave. Further signals change nothing."""
        rollout = self._rollout
        assert rollout is not None, "there is something to take back"
        path, key = f"/v1/rollouts/{quote(rollout)}/rollback", os.urandom(16).hex()
        try:
            self._context.ask("POST", path, {"reason": REASON}, key=key, timeout=PATIENCE)
        except (SegueError, Absent, Broken) as error:
            why = getattr(translated(error), "message", str(error))
            told = f"Cancelled, but {rollout} is not taken back: {sentence(why)} Next: segue status"
            return Left(f"{REASON}; it is not taken back: {why}", INTERRUPTED, told)
        told = f"Cancelled: {rollout} is being taken back. Next: segue wait {rollout}"
        return Left(f"{REASON}; it is being taken back", INTERRUPTED, told)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
