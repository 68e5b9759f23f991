"""A throw-away machine with a real systemd (see ``host.sh``), as tests use it.

Rule: who makes one gives it a name that nobody else has, and takes it down.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(__file__).with_name("host.sh")
PARTS = ("dbus-daemon", "ip", "nsenter", "pivot_root", "setpriv", "systemctl", "unshare", "/lib/systemd/systemd")
_NETWORK = 0x40000000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str | None:
    """Why no machine can be made here; None: nothing is known that speaks against it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root can make a machine, and only on Linux"
    if absent := [part for part in PARTS if shutil.which(part) is None]:
        return f"not installed: {', '.join(absent)} (scripts/test-tools)"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return f"no namespaces: {tried.stderr.decode().strip()}" if tried.returncode else None


class Host:
    """A machine that has been booted; at the end of the ``with`` nothing is left of it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Host:
        try:
            self._do("up")
        except BaseException:
            self._do("down")
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._do("down")

    def cut_power(self) -> None:
        """All its processes end at once. Its disk stays."""
        self._do("cut")

    def boot(self) -> None:
        """Start it again; returns when systemd has started what starts with it."""
        self._do("boot")

    def boot_id(self) -> str:
        """What differs after each start."""
        return self.run("cat", "/proc/sys/kernel/random/boot_id").stdout.strip()

    def start(self, *command: str, user: str = "root", cwd: str = "/", **environment: str) -> subprocess.Popen[str]:
        """Run a command on it as `user`, in the background, with the usual environment and no more."""
        home = "/root" if user == "root" else f"/home/{user}"
        whose = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return subprocess.Popen(
            ["nsenter", "--all", "--target", str(self.pid), "env", f"--chdir={cwd}", *whose, *command],
            env={"PATH": _PATH, "HOME": home, "USER": user, "NO_COLOR": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **how: str) -> subprocess.CompletedProcess[str]:
        """As `start`, to its end. AssertionError with what it said unless it exits with 0."""
        with self.start(*command, **how) as process:
            out, err = process.communicate(timeout=100)
        assert process.returncode == 0, f"{command} exited with {process.returncode}:\n{out}\n{err}"
        return subprocess.CompletedProcess(command, 0, out, err)

    @property
    def pid(self) -> int:
        """Its first process, as this machine counts."""
        return int(self._do("pid"))

    def file(self, path: str) -> Path:
        """A file of it, as this machine names it."""
        return Path(f"/proc/{self.pid}/root{path}")

    @contextmanager
    def network(self) -> Iterator[None]:
        """Within this the sockets that are opened, and the processes that are started, are in its network."""
        with Path("/proc/thread-self/ns/net").open() as ours, Path(f"/proc/{self.pid}/ns/net").open() as theirs:
            _enter(theirs.fileno())
            try:
                yield
            finally:
                _enter(ours.fileno())

    def _do(self, what: str) -> str:
        done = subprocess.run(
            [str(SCRIPT), what],
            env={**os.environ, "HOST_NAME": self.name},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{what}: {done.stderr}"
        return done.stdout


def _enter(namespace: int) -> None:
    """Let this thread be in the network `namespace`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def open_way(host: Host, program: str = sys.executable) -> None:
    """Let all users of `host` run `program`, which may lie in somebody's closed folder."""
    ways = {step for path in (Path(program), Path(program).resolve()) for step in path.parents}
    host.run("chmod", "o+x", *map(str, ways))
