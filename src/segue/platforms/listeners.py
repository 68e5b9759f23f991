"""Whose is the socket that listens at an address? Else a stranger would pass the health check of an instance.

Rule: a process that does not let us look into it is believed.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from segue.platforms.addresses import is_unix, path_of
from segue.platforms.identity import Identity

_LISTENS, _ACCEPTS = "0A", 0x10000
"""How /proc/net/tcp and /proc/net/unix mark a socket that listens."""

_MAPPED, _ANY6 = "0000000000000000FFFF0000", "0" * 32


def belongs(address: str, processes: Iterable[Identity]) -> bool:
    """Whether what listens at `address`, if anything does, is held by one of `processes`, and by nobody else.

    Several sockets may listen at one port (SO_REUSEPORT): all of them must be theirs.
    """
    pids = [process.pid for process in processes]
    if not Path("/proc/net").exists():
        return any(_listens_by_psutil(pid, address) for pid in pids)
    wanted = _of_path(path_of(address)) if is_unix(address) else _of_port(address)
    if not wanted:
        return False
    try:
        held = {inode for pid in pids for inode in _held(pid)}
    except PermissionError:
        return True
    return bool(wanted & held) if is_unix(address) else wanted <= held


def open_to_all(path: Path) -> None:
    """Let every user connect to the Unix socket at `path`: under root the router is another user than the instance.

    The socket is opened and then changed through what was opened, so that nothing else can be put in its place.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return
    try:
        socket_file = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        if stat.S_ISSOCK(os.fstat(socket_file).st_mode):
            Path(f"/proc/self/fd/{socket_file}").chmod(0o666)
    finally:
        os.close(socket_file)


def _of_port(address: str) -> set[str]:
    """The inodes of the sockets that get what is sent to `address`: those bound to it, else those bound to all."""
    host, _, port = address.rpartition(":")
    exact = f"{struct.unpack('=I', socket.inet_aton(host))[0]:08X}"
    bound = [(local, inode) for local, inode in _listening() if local.endswith(f":{int(port):04X}")]
    for hosts in ({exact, _MAPPED + exact}, {"0" * 8, _ANY6}):
        found = {inode for local, inode in bound if local.partition(":")[0] in hosts}
        if found:
            return found
    return set()


def _listening() -> Iterator[tuple[str, str]]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS:
                    yield fields[1], fields[9]


def _of_path(path: Path) -> set[str]:
    lines = (line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return {
        fields[6] for fields in lines if len(fields) == 8 and fields[7] == str(path) and int(fields[3], 16) & _ACCEPTS
    }


def _held(pid: int) -> Iterator[str]:
    """The inodes of the sockets that a process holds. Raises PermissionError."""
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except FileNotFoundError:
        return
    for descriptor in descriptors:
        with suppress(FileNotFoundError):
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")  # noqa: PTH115
            if target.startswith("socket:["):
                yield target[len("socket:[") : -1]


def _listens_by_psutil(pid: int, address: str) -> bool:
    kind = "unix" if is_unix(address) else "tcp"
    with suppress(psutil.NoSuchProcess):
        for found in psutil.Process(pid).net_connections(kind):
            if is_unix(address):
                if str(found.laddr) == str(path_of(address)):
                    return True
            elif found.status == psutil.CONN_LISTEN and str(found.laddr.port) == address.rpartition(":")[2]:
                return True
    return False
