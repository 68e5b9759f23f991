"""Where a control plane keeps its state, and the socket it answers on: one answer for client and server.

Rule: `os` and `sys` only. `segue status` imports this, and pathlib would cost a sixth of what it may take.
"""

from __future__ import annotations

import os
import sys

_OF_MACHINE = "/var/lib/segue"
_SOCKET = "segue.sock"
_LONGEST = 107 if sys.platform == "linux" else 103  # what the kernel takes for the path of a Unix socket, in bytes


def home() -> str:
    """The folder of the control plane's state: ``$SEGUE_HOME``, else ``/var/lib/segue`` or the user's own.

    The first of these is root's, and that of the user to whom it belongs: see `segue install`.
    """
    configured = os.environ.get("SEGUE_HOME")
    if configured:
        return os.path.abspath(os.path.expanduser(configured))
    return _OF_MACHINE if os.geteuid() == 0 or _is_own(_OF_MACHINE) else _of_user()


def _of_user() -> str:
    if sys.platform != "linux":
        import platformdirs

        return platformdirs.user_data_dir("segue", appauthor=False)
    data = os.environ.get("XDG_DATA_HOME", "").strip()  # as platformdirs has it, without its import
    return os.path.join(data if os.path.isabs(data) else os.path.expanduser("~/.local/share"), "segue")


def socket_path(home: str | os.PathLike[str]) -> str:
    """Where the control plane of `home` answers.

    The kernel limits the length of such a path. For a longer home it lies in a private folder of the home's
    owner, which `own_socket_folder` makes and `trusted` looks at.
    """
    path = os.path.join(os.fspath(home), _SOCKET)
    if len(os.fsencode(path)) <= _LONGEST:
        return path
    import hashlib

    whose = owner(home)
    base = "/run" if whose == 0 and sys.platform == "linux" else "/tmp"  # not $TMPDIR: it differs between shells
    name = hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:16]
    return os.path.join(base, f"segue-{whose}", f"{name}.sock")


def own_socket_folder(home: str | os.PathLike[str]) -> str:
    """Make the folder of the socket, for its owner alone; returns `socket_path`. For the server.

    Raises PermissionError where another user has made that folder before.
    """
    path = socket_path(home)
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if not trusted(home):
        raise PermissionError(f"{folder} belongs to another user: remove it, or choose a shorter SEGUE_HOME")
    return path


def trusted(home: str | os.PathLike[str]) -> bool:
    """Whether the socket's folder belongs to the home's owner: nobody else can answer in the server's place."""
    folder = os.path.dirname(socket_path(home))
    if folder == os.fspath(home):
        return True
    try:
        return os.lstat(folder).st_uid == owner(home)
    except FileNotFoundError:
        return True


def owner(home: str | os.PathLike[str]) -> int:
    """Whose `home` is, or would be."""
    try:
        return os.stat(home).st_uid
    except OSError:
        return os.geteuid()


def has_state(home: str | os.PathLike[str]) -> bool:
    """Whether a control plane has ever kept services in `home`."""
    try:
        return any(name.startswith("journal") for name in os.listdir(home))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_own(folder: str) -> bool:
    try:
        return os.stat(folder).st_uid == os.geteuid()
    except OSError:
        return False
