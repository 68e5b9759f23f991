"""Where instances listen: ports of this machine's loopback, or Unix sockets.

Rule: an address that was handed out rests: it is not handed out again before it was released, and a while after
that. A router that still sends requests there must not find somebody else.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from segue.accounts import Account
from segue.errors import StartFailed

REST = 60.0
"""Seconds for which an address rests after its release."""

_LONGEST = 100
"""What every system takes for the path of a Unix socket, in bytes."""

UNIX = "unix:"


class Ports:
    """The ports on 127.0.0.1 from the first to the last of `between`. `clock` gives seconds, monotonic."""

    def __init__(self, between: tuple[int, int], clock: Callable[[], float]) -> None:
        self._first, self._last = between
        self._clock = clock
        self._held: set[str] = set()
        self._resting: dict[str, float] = {}

    def choose(self) -> str:
        """Hand out an address that nobody listens at, proved by listening. Raises StartFailed if there is none."""
        count = self._last - self._first + 1
        start = secrets.randbelow(count)  # so that two control planes seldom want the same
        for number in range(count):
            address = f"127.0.0.1:{self._first + (start + number) % count}"
            if self._rested(address) and _is_free(address):
                self._held.add(address)
                return address
        raise StartFailed(f"no port between {self._first} and {self._last} is free on 127.0.0.1")

    def hold(self, address: str) -> None:
        """The address rests until it is released, and a while after that."""
        self._resting.pop(address, None)
        self._held.add(address)

    def release(self, address: str) -> None:
        """The address may be handed out again, after a while. Releasing twice is releasing once."""
        if address in self._held:
            self._held.remove(address)
            self._resting[address] = self._clock() + REST

    def _rested(self, address: str) -> bool:
        if address in self._held:
            return False
        until = self._resting.get(address)
        if until is not None and self._clock() < until:
            return False
        self._resting.pop(address, None)
        return True


def _is_free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


class Sockets:
    """The folder of the Unix sockets of the platform that keeps its files in `folder`.

    Each has a folder of its own, which belongs to the user that listens. Where the platform's own folder is
    closed to other users, or its path too long, they lie where the machine keeps what lasts until it goes down.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = _socket_folder(folder)

    def address(self, nonce: str) -> str:
        """Where the instance with `nonce` is to listen. Makes nothing."""
        return f"{UNIX}{self._folder / nonce[:16] / 's'}"

    def make(self, address: str, account: Account | None) -> None:
        """Make the folder that the socket is to lie in. Raises OSError, StartFailed."""
        self._folder.mkdir(mode=0o711, exist_ok=True, parents=True)
        if self._folder.lstat().st_uid != os.geteuid() or self._folder.is_symlink():
            raise StartFailed(f"{self._folder} belongs to another user: remove it")
        self._folder.chmod(0o711)
        own = path_of(address).parent
        own.mkdir(exist_ok=True)
        own.chmod(0o711)
        if account is not None:
            os.chown(own, account.uid, account.gid)

    def remove(self, address: str) -> None:
        """Remove the socket and its folder, if they are there."""
        own = path_of(address).parent
        if own.parent == self._folder:
            with suppress(FileNotFoundError):
                shutil.rmtree(own)


def _socket_folder(folder: Path) -> Path:
    near = folder / "sockets"
    if os.geteuid() != 0 and len(os.fsencode(near)) + 1 + 16 + 2 < _LONGEST:
        return near
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]
    base = Path("/run") if os.geteuid() == 0 and Path("/run").is_dir() else Path(tempfile.gettempdir())
    return base / f"segue-{os.geteuid()}-{name}"


def path_of(address: str) -> Path:
    """The path of the Unix socket at `address`."""
    return Path(address.removeprefix(UNIX))


def is_unix(address: str) -> bool:
    """Whether `address` is a Unix socket's."""
    return address.startswith(UNIX)
