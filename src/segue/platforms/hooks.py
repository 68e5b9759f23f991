"""Hooks, smoke tests and builds: commands that run once and end.

Rule 1: a command with a status file is begun at most once, whatever crashes. The launcher that stands over it
makes the claim ``<status>.began`` first, and writes how it ended to the status file last.
Rule 2: a command with a status file outlives the control plane, and a wait for it that is given up; one without
does not.
Rule 3: what a command leaves behind in its session is killed when it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from segue.accounts import other
from segue.errors import StartFailed
from segue.platforms import claims
from segue.platforms.claims import Claim
from segue.platforms.identity import ended
from segue.platforms.launch import put
from segue.platforms.sessions import Session
from segue.platforms.spawn import Lost, Order, reason, spawn
from segue.platforms.spawn import environment as complete
from segue.ports import Ended

_TIMED_OUT = "timed-out"
"""What the status file says of a command that was killed."""


async def run_command(
    command: str,
    *,
    folder: Path,
    environment: Mapping[str, str],
    user: str | None,
    timeout: timedelta,
    log: Path,
    status: Path | None = None,
) -> Ended:
    """`segue.ports.Commands` with processes of this machine; `timeout` counts from each call."""
    account = other(user)
    order = Order(
        name=f"`{command}`",
        argv=("sh", "-c", command),
        environment=complete(environment, account),
        folder=folder,
        account=account,
        log=log,
        claim=_claim_of(status) if status else None,
        status=status,
    )
    _make_folders(order)
    if status is None:
        return await _run(order, timeout)
    known = _recorded(status)  # an end that was not good is false, but it is an end
    return known if known is not None else await _run_once(order, status, timeout)


async def _run(order: Order, timeout: timedelta) -> Ended:
    child = spawn(order)
    timed_out = False
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await child.begun()
            await ended(child.identity)
    except TimeoutError:
        timed_out = True
    finally:
        await Session(child.identity, order.log).kill()
        status = child.reap()
    return Ended(None if timed_out else status, timed_out)


async def _run_once(order: Order, status: Path, timeout: timedelta) -> Ended:
    claim = claims.read(_claim_of(status)) or await _begin(order, status)
    assert claim.identity is not None
    session = Session(claim.identity, order.log)
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await ended(claim.identity)
            if not status.exists():  # the launcher was killed; what it stood over may still be at work
                await session.empty()
    except TimeoutError:
        await session.kill()
        if not status.exists():
            put(str(status), _TIMED_OUT)
    await session.kill()
    known = _recorded(status)
    return known if known is not None else Ended(None)


async def _begin(order: Order, status: Path) -> Claim:
    child = spawn(order)
    with suppress(Lost):  # a launcher that was late: it has begun
        await child.begun()
    claim = claims.read(_claim_of(status))
    if claim is None:
        raise StartFailed(f"{order.name} ended before it began")
    return claim


def _recorded(status: Path) -> Ended | None:
    """How the command ended, if that was written down."""
    try:
        text = status.read_text()
    except FileNotFoundError:
        return None
    return Ended(None, timed_out=True) if text == _TIMED_OUT else Ended(int(text))


def _claim_of(status: Path) -> Path:
    return status.with_name(f"{status.name}.began")


def _make_folders(order: Order) -> None:
    try:
        for file in (order.log, order.status):
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartFailed(f"{order.name} cannot be started: {reason(error)}") from error
