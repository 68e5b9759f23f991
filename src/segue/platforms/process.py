"""The process platform: instances are processes of this machine, each in a session of its own.

Rule 1: an intent names a claim; the launcher makes that file first of all, or else nothing is started. After a
crash the control plane makes each missing claim itself: whoever is first wins.
Rule 2: whether an instance runs is read from its claim and the kernel, never remembered.
Rule 3: nothing that runs depends on the control plane: no pipe, no parent's death, no terminal.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shlex
import signal as signals
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path

from segue.accounts import Account, other
from segue.core.release import version_of
from segue.core.traffic import InstanceId, VersionId
from segue.core.version import Version
from segue.errors import StartFailed
from segue.platforms import claims, listeners
from segue.platforms.addresses import Ports, Sockets, is_unix, path_of
from segue.platforms.claims import Claim
from segue.platforms.identity import alive, ended, members
from segue.platforms.logs import Logs
from segue.platforms.sessions import Session
from segue.platforms.spawn import Child, Lost, Order, environment, reason, spawn
from segue.ports import Instance, Intent

_PLACEHOLDER = re.compile(r"\{(port|socket|version|service|instance)\}")
_FORGOTTEN = timedelta(days=1)
"""How long the claim of what has ended stays: far longer than any launcher may be late."""


class ProcessPlatform:
    """Instances as processes of this machine. Its files lie in `folder`; `port_range` is inclusive.

    `clock` gives seconds, monotonic: with it addresses rest. `logs` says how logs are kept (default: in `folder`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        port_range: tuple[int, int] = (20000, 29999),
        clock: Callable[[], float] = time.monotonic,
        logs: Logs | None = None,
    ) -> None:
        self._claims = folder / "intents"
        self._logs = logs or Logs(folder / "logs")
        self._ports = Ports(port_range, clock)
        self._sockets = Sockets(folder)
        self._rested: set[str] = set()
        self._children: dict[str, Child] = {}

    async def place(self, version: Version, instance: InstanceId) -> Intent:
        """Choose a free port, or with ``{socket}`` in the command a path. Raises StartFailed where there is none."""
        nonce = secrets.token_hex(16)
        wants_socket = "{socket}" in version.command
        try:
            address = self._sockets.address(nonce) if wants_socket else self._ports.choose()
        except OSError as error:
            raise StartFailed(f"{instance} cannot be started: {reason(error)}") from error
        return Intent(version.service, instance, version.revision, nonce, address)

    def rest(self, address: str) -> None:
        """Do not hand `address` out, whatever happens to its instance, before `release` and 60 s after it.

        Without this an address rests from the moment it is handed out or found until 60 s after `stop`.
        """
        self._rested.add(address)
        self._ports.hold(address)

    def release(self, address: str) -> None:
        """No router knows `address` any more: it may be handed out again after 60 s."""
        self._rested.discard(address)
        self._ports.release(address)

    async def start(self, version: Version, intent: Intent) -> Instance:
        """Start the command, once: an intent that was started or given up is refused. Raises StartFailed."""
        try:
            child = spawn(self._order(version, intent))
            self._children[intent.nonce] = child
            await child.begun()
        except Lost:
            raise StartFailed(f"{intent.instance} was started or given up before: it is not started again") from None
        except OSError as error:
            self._leave(intent)
            raise StartFailed(f"{intent.instance} cannot be started: {reason(error)}") from error
        except StartFailed:
            self._leave(intent)
            raise
        claim = claims.read(self._claim(intent))
        if claim is None or claim.identity is None or claim.started is None:
            raise StartFailed(f"{intent.instance} ended before it began", log=self._logs.tail(intent.instance, 20))
        return Instance(intent, claim.identity.pid, claim.started)

    async def find(self, intents: Sequence[Intent]) -> Sequence[Instance]:
        """Those of `intents` that run. Of one that has ended, what it left behind is killed."""
        self._claims.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._prune({intent.nonce for intent in intents})
        found = []
        for intent in intents:
            if not is_unix(intent.address):
                self._ports.hold(intent.address)
            claim = claims.give_up(self._claim(intent))
            if claim.identity is not None and claim.started is not None and alive(claim.identity):
                found.append(Instance(intent, claim.identity.pid, claim.started))
            else:
                await self._bury(claim, intent)
        return found

    async def gone(self, instance: Instance) -> int | None:
        """Wait until the main process has ended; its status only where it is a child of this control plane.

        What it left behind in its session still runs: `stop` ends it.
        """
        child = self._children.get(instance.intent.nonce)
        if child is not None:
            return await child.ended()
        claim = claims.read(self._claim(instance.intent))
        if claim is not None and claim.identity is not None:
            await ended(claim.identity)
        return None

    async def listens(self, instance: Instance) -> bool:
        """Whether what listens at the address is held by a process of the instance's session, and by nobody else."""
        claim = claims.read(self._claim(instance.intent))
        if claim is None or claim.identity is None:
            return False
        address = instance.intent.address
        own = listeners.belongs(address, members(claim.identity.pid))
        if own and is_unix(address):
            listeners.open_to_all(path_of(address))
        return own

    async def stop(self, instance: Instance, signal: str, grace: timedelta) -> bool:
        """Signal the main process and then what it leaves behind; kill what is left after `grace`.

        Returns whether nothing had to be killed. `signal` is a name: ``TERM``, ``QUIT``.
        """
        claim = claims.read(self._claim(instance.intent))
        by_itself = True
        if claim is not None and claim.identity is not None:
            by_itself = await self._session(claim, instance.intent).end(_number(signal), grace)
            await self._bury(claim, instance.intent)
        child = self._children.pop(instance.intent.nonce, None)
        if child is not None:
            await child.ended()
        return by_itself

    async def end_others(self, known: Sequence[Intent], grace: timedelta) -> int:
        """End what was started from any intent but `known`, after `grace` by a kill; how many instances that were."""
        self._claims.mkdir(parents=True, exist_ok=True, mode=0o700)
        names = {intent.nonce for intent in known}
        others = [claim for file in self._claims.iterdir() if file.name not in names and (claim := claims.read(file))]
        running = [claim.identity for claim in others if claim.identity is not None and alive(claim.identity)]
        nothing = self._logs.folder / "-"  # whose log they write to is forgotten
        await asyncio.gather(*(Session(one, nothing).end(signals.SIGTERM, grace) for one in running))
        return len(running)

    async def logs(self, instance: InstanceId, *, lines: int, follow: bool) -> AsyncIterator[str]:
        """The last `lines` lines that an instance wrote, over its restarts, and with `follow` all that come."""
        async for line in self._logs.read(instance, lines, follow):
            yield line

    async def tend(self, known: Collection[VersionId]) -> None:
        """Rotate and remove logs, forget what ended long ago. Raises SegueError."""
        self._prune(set())
        self._logs.keep_only(known)
        await self._logs.rotate()

    def _order(self, version: Version, intent: Intent) -> Order:
        account = other(version.user)
        self._make_folders(intent, account)
        port = {} if is_unix(intent.address) else {"PORT": intent.address.rpartition(":")[2]}
        return Order(
            name=intent.instance,
            argv=_argv(version, intent),
            environment=environment({**version.environment, **port}, account),
            folder=version.folder,
            account=account,
            log=self._logs.file(intent.instance),
            claim=self._claim(intent),
        )

    def _make_folders(self, intent: Intent, account: Account | None) -> None:
        for folder in (self._claims, self._logs.folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if is_unix(intent.address):
            self._sockets.make(intent.address, account)

    def _claim(self, intent: Intent) -> Path:
        return self._claims / intent.nonce

    def _session(self, claim: Claim, intent: Intent) -> Session:
        assert claim.identity is not None
        return Session(claim.identity, self._logs.file(intent.instance))

    async def _bury(self, claim: Claim, intent: Intent) -> None:
        if claim.identity is not None:
            await self._session(claim, intent).kill()
            claims.close(self._claim(intent))
        self._leave(intent)

    def _leave(self, intent: Intent) -> None:
        if is_unix(intent.address):
            self._sockets.remove(intent.address)
        elif intent.address not in self._rested:
            self._ports.release(intent.address)

    def _prune(self, wanted: set[str]) -> None:
        before = time.time() - _FORGOTTEN.total_seconds()
        for file in self._claims.iterdir() if self._claims.exists() else ():
            if file.name not in wanted and file.stat().st_mtime < before and file.read_text() in claims.ENDED:
                file.unlink()


def _number(signal: str) -> signals.Signals:
    return signals.Signals[f"SIG{signal.upper().removeprefix('SIG')}"]


def _argv(version: Version, intent: Intent) -> list[str]:
    """The command as words, what stands in braces filled in; braces that are not ours stay as they are."""
    values = {
        "port": intent.address.rpartition(":")[2],
        "socket": str(path_of(intent.address)),
        "version": version_of(version.revision),
        "service": version.service,
        "instance": intent.instance,
    }
    try:
        words = shlex.split(version.command)
    except ValueError as error:
        raise StartFailed(f"the command of {version.revision} cannot be read: {str(error).lower()}") from None
    if not words:
        raise StartFailed(f"the command of {version.revision} is empty")
    return [_PLACEHOLDER.sub(lambda match: values[match[1]], word) for word in words]
