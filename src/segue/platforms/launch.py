"""The launcher: a small process that becomes an instance, or stands over a command until it has ended.

Run as ``python -I -S launch.py``. Rules of this file:
Rule 1: the standard library only, and of it only what costs no time to import.
Rule 2: the orders come over standard input, never as arguments or environment: they hold secrets.
Rule 3: the claim comes first. Whoever makes that file first may go on; it is linked into its place when it is
whole, so that nobody ever reads half of one.
What goes wrong before the command runs is reported through a pipe that the command's start closes.
"""

# pathlib would cost more than all the rest
# ruff: noqa: PTH104, PTH108, PTH120, PTH123
from __future__ import annotations

import marshal
import os
import signal
import sys
import time
from typing import Any

Orders = dict[str, Any]
"""`argv`, `environment`, `folder`, `account` (name, uid, gid) or None, `report` (the pipe), `boot`,
`claim` (the file to be made first) or None, `status` (the file to write the command's end to) or None."""

_CAP_AMBIENT, _CLEAR_ALL = 47, 4
"""Of prctl(2)."""

LOST = "lost"
"""The report of a launcher that found its claim taken."""

CLAIM, ACCOUNT, FOLDER, COMMAND = "claim", "account", "folder", "command"
"""What a launcher was doing when it failed: it reports the error's number and one of these."""


def main() -> None:
    orders: Orders = marshal.load(sys.stdin.buffer)
    os.set_inheritable(orders["report"], False)
    try:
        _begin(orders)
    except OSError as error:
        _report(orders, f"{error.errno} {orders['doing']}")
        os.write(2, f"segue: {orders['doing']}: {error.strerror}\n".encode())
        os._exit(127)


def _begin(orders: Orders) -> None:
    orders["doing"] = CLAIM
    if orders["claim"] and not _claim(orders["claim"], orders["boot"]):
        _report(orders, LOST)
        return
    if orders["status"] is None:
        _become(orders)
    child = os.fork()
    if child == 0:
        _become(orders)
    os.close(orders["report"])
    _, ended = os.waitpid(child, 0)
    put(orders["status"], str(os.waitstatus_to_exitcode(ended)))


def _report(orders: Orders, text: str) -> None:
    try:
        os.write(orders["report"], text.encode(errors="surrogateescape"))
    except OSError:  # the control plane is gone, or has what it needs: the log has to do
        return


def _claim(path: str, boot: str) -> bool:
    """Whether we are the first. The file says who we are; the command that we become is the same process."""
    return put(path, f"{boot} {os.getpid()} {_started()} {time.time()}", first=True)


def put(path: str, text: str, *, first: bool = False) -> bool:
    """Put a whole file into its place and onto the disk; with `first` only where there is none yet: False."""
    draft = f"{path}.{os.getpid()}"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(file, text.encode())
        os.fsync(file)
        if first:
            os.link(draft, path)
        else:
            os.rename(draft, path)
    except FileExistsError:
        return False
    finally:
        os.close(file)
        if first:
            os.unlink(draft)
    _sync(os.path.dirname(path))
    return True


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _started() -> str:
    """Our start time as `identity.identify` reads it."""
    try:
        with open("/proc/self/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        with os.popen(f"LC_ALL=C ps -o lstart= -p {os.getpid()}") as output:
            return str(int(time.mktime(time.strptime(output.read().strip()))))


def _become(orders: Orders) -> None:
    """Become the command. Raises OSError; does not return."""
    orders["doing"] = ACCOUNT
    if orders["account"]:
        name, uid, gid = orders["account"]
        os.initgroups(name, gid)
        os.setgid(gid)
        os.setuid(uid)
    os.umask(0o022)
    _give_up_capabilities()
    orders["doing"] = FOLDER
    os.chdir(orders["folder"])
    orders["doing"] = COMMAND
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    _forget_signals()
    os.execvpe(orders["argv"][0], orders["argv"], orders["environment"])


def _give_up_capabilities() -> None:
    """What the control plane was given to open low ports would go on to all that it starts."""
    try:
        with open("/proc/self/status", "rb") as file:
            given = file.read().partition(b"CapAmb:")[2].split()[0]
    except (FileNotFoundError, IndexError):
        return
    if given.strip(b"0"):
        from ctypes import CDLL  # it takes longer to import than all the rest

        CDLL(None).prctl(_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)


def _forget_signals() -> None:
    """Python ignores SIGPIPE, and so may those who started us; what is ignored would stay ignored."""
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


if __name__ == "__main__":
    main()
