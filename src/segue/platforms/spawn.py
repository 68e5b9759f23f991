"""Starting the launcher, and what it has to say: the one place where processes are started.

A launcher runs in its own session, with nothing of ours in its environment, and writes straight to a file:
when the control plane ends, nothing that runs notices.
"""

from __future__ import annotations

import errno
import marshal
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from segue.accounts import Account, own_home
from segue.errors import StartFailed
from segue.platforms import launch
from segue.platforms.identity import boot_id, ended, identify, readable

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, unless the version's environment has a PATH of its own."""


class Lost(Exception):
    """The claim was there already: whatever it stands for was started, or given up, before."""


@dataclass(frozen=True, slots=True)
class Order:
    """One process to start. `name` is what it is called when it cannot be started."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    account: Account | None
    log: Path
    claim: Path | None = None
    status: Path | None = None


def environment(given: Mapping[str, str], account: Account | None) -> dict[str, str]:
    """`given` and no more, except for what hardly a program can do without."""
    home = str(account.home) if account else own_home()
    return {"PATH": PATH, "HOME": home, "LANG": "C.UTF-8", **given}


class Child:
    """A process that we have started, at first a launcher."""

    def __init__(self, order: Order, process: subprocess.Popen[bytes], report: int) -> None:
        self._order = order
        self._process = process
        self._report = report
        found = identify(process.pid)
        assert found is not None, "a child is there until it is reaped"
        self.identity = found
        """Who the launcher is; the command that it becomes is the same process."""

    async def begun(self) -> None:
        """Return when the command runs. Raises StartFailed, and Lost where the claim was taken. Call it once."""
        try:
            text = await _read_all(self._report)
        finally:
            os.close(self._report)
        if not text:
            return
        await self.ended()
        if text == launch.LOST:
            raise Lost
        number, _, doing = text.partition(" ")
        raise StartFailed(f"{self._order.name} cannot be started: {_explain(self._order, int(number), doing)}")

    async def ended(self) -> int | None:
        """Its exit status when it has ended (negative: a signal)."""
        await ended(self.identity)
        return self.reap()

    def reap(self) -> int | None:
        """Its exit status if it has ended. Until this is called it stays a zombie."""
        return self._process.poll()


def spawn(order: Order) -> Child:
    """Start a launcher with `order`; `Child.begun` tells what became of it. Raises StartFailed."""
    reading, writing = os.pipe()
    try:
        return Child(order, _popen(order, writing), reading)
    except OSError as error:
        os.close(reading)
        raise StartFailed(f"{order.name} cannot be started: {reason(error)}") from error
    finally:
        os.close(writing)


def _popen(order: Order, report: int) -> subprocess.Popen[bytes]:
    with tempfile.TemporaryFile(dir=order.log.parent) as orders, _open_log(order) as log:
        marshal.dump(_orders(order, report), orders)
        orders.seek(0)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", launch.__file__],
            stdin=orders,
            stdout=log,
            stderr=log,
            env={},
            cwd="/",
            pass_fds=(report,),
            start_new_session=True,
        )


def _open_log(order: Order) -> BinaryIO:
    """The log, for its owner alone. It belongs to who runs: a program may open its output a second time."""
    log = os.fdopen(os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600), "ab", 0)
    if order.account is not None:
        os.fchown(log.fileno(), order.account.uid, order.account.gid)
    return log


def _orders(order: Order, report: int) -> launch.Orders:
    account = order.account
    return {
        "argv": list(order.argv),
        "environment": dict(order.environment),
        "folder": str(order.folder),
        "account": (account.name, account.uid, account.gid) if account else None,
        "report": report,
        "boot": boot_id(),
        "claim": str(order.claim) if order.claim else None,
        "status": str(order.status) if order.status else None,
    }


def _explain(order: Order, number: int, doing: str) -> str:
    why = os.strerror(number).lower()
    if doing == launch.FOLDER:
        return f"its folder {order.folder} cannot be entered ({why})"
    if doing == launch.ACCOUNT:
        return f"it cannot become the user {order.account.name if order.account else ''} ({why})"
    if doing == launch.COMMAND:
        return _no_command(order, number)
    return why


def _no_command(order: Order, number: int) -> str:
    program = order.argv[0]
    if number == errno.ENOENT and not (order.folder / program).exists():
        return f"command not found: {program}"
    if number == errno.ENOENT:
        return f"the interpreter that the first line of {program} names does not exist"
    if number == errno.ENOEXEC:
        return f"{program} is not a program: its first line must name its interpreter (#!/bin/sh)"
    return f"{program} cannot be run ({os.strerror(number).lower()})"


def reason(error: OSError) -> str:
    """Why, as it is told to people: ``no space left on device``."""
    return (error.strerror or str(error)).lower()


async def _read_all(pipe: int) -> str:
    os.set_blocking(pipe, False)
    text = b""
    while True:
        await readable(pipe)
        chunk = os.read(pipe, 4096)
        if not chunk:
            return text.decode(errors="surrogateescape")
        text += chunk
