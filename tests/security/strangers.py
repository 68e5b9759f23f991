"""Another user of the machine, who tries what a user without rights can."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")

STRANGER = pwd.getpwnam("daemon")
"""A user that every Debian has, and who owns nothing."""

_TRY = """
import fcntl, json, os, socket, sys
done = []
for path in json.load(sys.stdin):
    name = path.encode()
    try:
        os.listdir(name)
        done.append("list " + path)
    except OSError:
        pass
    for mode in (os.O_RDONLY, os.O_WRONLY):
        try:
            file = os.open(name, mode | os.O_NONBLOCK)
            done.append("open " + path)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            socket.socket(socket.AF_UNIX, kind).connect(name)
            done.append("connect " + path)
        except OSError:
            pass
print(json.dumps(done))
"""


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="sg-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def python() -> str:
    """A Python that every user can run; the test is skipped where there is none."""
    found = shutil.which("python3", path="/usr/bin:/bin")
    if found is None:
        pytest.skip("no Python that every user can run")
    return found


def as_user(name: str) -> dict[str, Any]:
    """For `subprocess`: as that user, with its own group alone."""
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "umask": 0o022, "cwd": "/"}


def tried(paths: Iterable[Path]) -> list[str]:
    """What the stranger can list, read, write or speak to."""
    command = [python(), "-I", "-S", "-c", _TRY]
    asked = json.dumps([str(path) for path in paths])
    done = subprocess.run(
        command, input=asked, capture_output=True, text=True, check=True, timeout=30, **as_user(STRANGER.pw_name)
    )
    found: list[str] = json.loads(done.stdout)
    return found
