"""Errors as the user sees them: one sentence, the reason, the next command; or a JSON document."""

from __future__ import annotations

import json
import os
import sys

from segue.cli.client import Absent, Broken
from segue.errors import Refused, SegueError, Unreachable, Usage

OUTPUT_CLOSED = 141  # what a shell shows for a process that SIGPIPE ended
INTERRUPTED = 130


class NothingYet(Refused):
    """Nothing was ever deployed here: there is nothing to look at, and no control plane is started for it."""


def tell(error: BaseException, *, as_json: bool) -> int:
    """Tell the user about `error`; returns the exit status. What nobody foresaw is raised again."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return OUTPUT_CLOSED
    if isinstance(error, KeyboardInterrupt):
        print(file=sys.stderr)
        return INTERRUPTED
    known = translated(error)
    if known is None:
        raise error
    if as_json:
        print(json.dumps({"error": known.document()}, ensure_ascii=False))
    else:
        print(f"Error: {sentence(known.message)}", file=sys.stderr)
        for other in getattr(known, "others", ()):
            print(f"       {other.message}", file=sys.stderr)
        if known.next:
            print(f"Next:  {known.next}", file=sys.stderr)
    return known.exit


def sentence(message: str) -> str:
    """`message` with a full stop. It may begin with a name, so its first letter stays as it is."""
    return message if message.endswith((".", "?", "!", "…")) else f"{message}."


def translated(error: BaseException) -> SegueError | None:
    """`error` as one of ours, if it is one that can be foreseen."""
    match error:
        case SegueError():
            return error
        case Absent() | Broken():
            return Unreachable(f"The control plane went away: {error}.", next="segue doctor")
        case OSError(filename=str() as path, strerror=reason):
            return Usage(f"{path}: {reason}.")
        case _:
            return None
