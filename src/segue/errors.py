"""What can go wrong, as the user sees it: one sentence, the reason, and the next command to type."""

from __future__ import annotations

from typing import Any


class SegueError(Exception):
    """An error that is told to the user. `code` is stable; `exit` is the status the command ends with."""

    code = "error"
    exit = 1

    def __init__(self, message: str, *, next: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next = next

    def document(self) -> dict[str, Any]:
        """The error as ``--json`` and the API show it."""
        return {"code": self.code, "exit": self.exit, "message": self.message, "next": self.next}


class Usage(SegueError):
    """Wrong usage or manifest: nothing was touched."""

    code = "usage"
    exit = 2


class Unreachable(SegueError):
    """The control plane cannot be reached or started."""

    code = "unreachable"
    exit = 3


class Refused(SegueError):
    """The request cannot be done now; nothing was changed."""

    code = "refused"
    exit = 4


class NeedsPerson(SegueError):
    """The way back could not be completed: traffic was left on what works."""

    code = "needs_person"
    exit = 5


class StartFailed(SegueError):
    """An instance could not be started or did not become ready; `log` holds its last lines."""

    code = "start_failed"

    def __init__(self, message: str, *, log: tuple[str, ...] = (), next: str | None = None) -> None:
        super().__init__(message, next=next)
        self.log = log


class RouterRefused(SegueError):
    """The router did not accept a table; the one before it stays in force."""

    code = "router_refused"


class RouterLost(SegueError):
    """The router cannot be asked now: it is being restarted. Asking again may help."""

    code = "router_lost"


class DiskFull(OSError):
    """Nothing can be written down, not even with the room that is kept aside. What was written together is undone."""
