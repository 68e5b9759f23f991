"""Another user of the machine answers in a control plane's place, or takes its place beforehand."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from strangers import STRANGER, as_root, as_user, open_folder, python

from segue import home as homes
from segue.cli.client import Client
from segue.errors import SegueError, StartFailed, Unreachable
from segue.platforms.addresses import Sockets
from segue.routers.envoy import process

pytestmark = as_root

_ANSWER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
os.umask(0)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
listener.settimeout(20)
connection, _ = listener.accept()
connection.settimeout(20)
heard = connection.recv(65536)
connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}') if heard else None
print(heard, flush=True)
"""


@contextmanager
def answering(path: Path, user: str) -> Iterator[subprocess.Popen[str]]:
    """Somebody who answers one request at the socket `path`, and prints it."""
    command = [python(), "-I", "-S", "-c", _ANSWER, str(path)]
    there = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **as_user(user))
    try:
        assert there.stdout is not None and there.stdout.readline() == "ready\n"
        yield there
    finally:
        there.kill()
        there.wait()


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as found:
        found.chmod(0o1777)
        yield found


def test_nothing_is_sent_to_another_user_who_answers(folder: Path) -> None:
    home = folder / "home"
    home.mkdir(mode=0o700)
    path = folder / "planted.sock"
    with answering(path, STRANGER.pw_name) as there:
        with pytest.raises(Unreachable, match="Another user answers"):
            Client(str(path), str(home)).ask("POST", "/v1/services/shop/rollouts", {"environment": {"A": "secret"}})
        assert there.communicate(timeout=30)[0] == "b''\n"


def test_the_owner_of_the_home_is_answered_to_and_so_is_root(folder: Path) -> None:
    home = folder / "home"
    home.mkdir(mode=0o755)
    os.chown(home, STRANGER.pw_uid, STRANGER.pw_gid)
    for user in (STRANGER.pw_name, "root"):
        path = folder / f"{user}.sock"
        with answering(path, user) as there:
            assert Client(str(path), str(home)).ask("GET", "/healthz") == {}
            assert "GET /healthz" in there.communicate(timeout=30)[0]


def test_a_folder_that_another_user_has_made_for_our_socket_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / ("x" * 100)
    home.mkdir()
    squat = folder / "squat"
    squat.mkdir()
    os.chown(squat, STRANGER.pw_uid, -1)
    link = folder / "link"
    link.symlink_to(folder / "home-of-root", target_is_directory=True)
    (folder / "home-of-root").mkdir()
    os.chown(link, STRANGER.pw_uid, -1, follow_symlinks=False)
    for planted in (squat, link):
        monkeypatch.setattr(homes, "socket_path", lambda _, place=planted: str(place / "x.sock"))
        assert not homes.trusted(home)
        with pytest.raises(PermissionError):
            homes.own_socket_folder(home)


@pytest.mark.parametrize("kind", ["a folder of another user", "a link", "a folder for all"])
def test_a_folder_that_is_not_ours_alone_is_not_used_for_envoys_sockets(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    deep = folder / ("x" * 100)
    deep.mkdir()
    short = process.sockets(deep)
    assert short.parent == folder and short.stat().st_mode & 0o777 == 0o700
    short.rmdir()
    if kind == "a link":
        short.symlink_to(deep)
    else:
        short.mkdir()
        short.chmod(0o777 if kind == "a folder for all" else 0o700)
        if kind == "a folder of another user":
            os.chown(short, STRANGER.pw_uid, -1)
    with pytest.raises(SegueError, match="is not this user's alone"):
        process.sockets(deep)


@pytest.mark.parametrize("is_link", [False, True])
def test_a_folder_of_another_user_is_not_used_for_the_sockets_of_instances(is_link: bool, folder: Path) -> None:
    sockets = Sockets(folder / "platform")
    planted = sockets._folder
    try:
        if is_link:
            planted.symlink_to(folder)
        else:
            planted.mkdir()
        os.chown(planted, STRANGER.pw_uid, -1, follow_symlinks=False)
        with pytest.raises(StartFailed, match="belongs to another user: remove it"):
            sockets.make(sockets.address("0" * 32), None)
    finally:
        planted.unlink() if is_link else planted.rmdir()


def test_a_file_that_another_user_has_put_where_an_instance_writes_is_not_followed(folder: Path) -> None:
    from segue.platforms.spawn import Order, _open_log

    (folder / "target").write_text("x")
    (folder / "log").symlink_to(folder / "target")
    order = Order("x", ["true"], {}, folder, None, folder / "log")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        _open_log(order)
