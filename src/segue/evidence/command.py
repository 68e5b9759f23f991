"""A command that says whether the new version is well: 0 it is, 1 it is not, 2 that cannot be said yet.

It runs in the new version's folder and environment, as hooks do, and may run many times. Any other exit status, and
a command that takes too long, say nothing about the version.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

from segue.core.sources import About, Nothing, Question, Word, shortened
from segue.core.verdict import Verdict
from segue.errors import StartFailed
from segue.ports import Commands, Ended

VERDICTS: Mapping[int, Verdict] = {0: Verdict.PASS, 1: Verdict.FAIL, 2: Verdict.UNDECIDED}
LAST, LONGEST = 20, 300
"""Lines of its output that are kept, and characters of each."""
_TAIL = 65536


class AskCommand:
    """Asks the command of `question`, which is run by `commands`."""

    def __init__(self, question: Question, commands: Commands) -> None:
        assert question.command is not None
        self._question, self._command, self._commands = question, question.command, commands

    async def ask(self, about: About) -> Word | Nothing:
        """What it says now; its output of this time replaces that of the last."""
        log = about.outputs / f"{about.rollout}-{zlib.crc32(self._command.encode()):08x}.log"
        log.unlink(missing_ok=True)
        try:
            ended = await self._commands(
                self._command,
                folder=about.folder,
                environment={**about.environment, **about.told},
                user=about.user,
                timeout=self._question.timeout,
                log=log,
            )
        except StartFailed as exc:
            return Nothing(exc.message)
        lines = _last_lines(log)
        verdict = VERDICTS.get(ended.status) if ended.status is not None else None
        if verdict is None:
            return Nothing(self._why(ended, lines))
        return Word(verdict, lines if verdict is Verdict.FAIL else lines[-1:])

    def _why(self, ended: Ended, lines: tuple[str, ...]) -> str:
        if ended.timed_out:
            return f"not done within {self._question.timeout.total_seconds():g} s"
        status = "nobody knows how it ended" if ended.status is None else f"it exited with {ended.status}"
        return f"{status}{f': {lines[-1]}' if lines else ''}"


def _last_lines(log: Path) -> tuple[str, ...]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(shortened(line, LONGEST) for line in text.splitlines() if line.strip())[-LAST:]
