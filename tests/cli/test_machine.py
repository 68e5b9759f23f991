"""The commands about this machine: init, check, doctor, the home, a version's default name."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from segue import home as homes
from segue.cli.doctor import file_system
from segue.cli.label import default_version
from segue.testing.site import free_port

from .canned import Plane
from .conftest import Segue, is_root

NOON = datetime(2025, 3, 1, 12, 0, 0)


def manifest(folder: Path, process: str, rest: str = "") -> None:
    """Write a manifest with this process section."""
    (folder / "segue.yaml").write_text(
        f"service: shop\nroute: {{listen: 127.0.0.1:{free_port()}}}\n"
        f"run:\n  process: {{user: root, {process}}}\n{rest}"
    )


def test_init_writes_a_manifest_that_check_accepts(segue: Segue, folder: Path) -> None:
    (folder / "app.py").write_text("")
    assert segue("init").status == 0
    assert "run:" in (folder / "segue.yaml").read_text()
    text = (folder / "segue.yaml").read_text().replace(":8080", f":{free_port()}")
    (folder / "segue.yaml").write_text(text)
    assert segue("check").status == 0


def test_init_leaves_a_manifest_alone_unless_forced(segue: Segue, folder: Path) -> None:
    (folder / "segue.yaml").write_text("mine")
    said = segue("init")
    assert said.status == 4
    assert (folder / "segue.yaml").read_text() == "mine"
    assert segue("init", "--force").status == 0
    assert (folder / "segue.yaml").read_text() != "mine"


def test_check_accepts_what_can_be_deployed_and_changes_nothing(segue: Segue, folder: Path, home: Path) -> None:
    manifest(folder, "source: ., command: 'python3 -m http.server {port}'")
    said = segue("check")
    assert (said.status, said.err) == (0, "")
    assert all(line.startswith("✓") for line in said.out.splitlines()[:-1])
    assert list(home.iterdir()) == []
    assert json.loads(segue("check", "--json").out)["good"] is True


@pytest.mark.parametrize(
    ("process", "rest", "finding"),
    [
        ("command: nowhere-to-be-found", "", "✗ the command: nowhere-to-be-found is not in /usr/local/sbin"),
        ("command: ./run.sh", "", "✗ the command: ./run.sh is not in"),
        ("command: ./plain.txt", "", "is not executable\n    chmod +x"),
        ("command: 'python3 \"-c'", "", "✗ the manifest:"),
        (
            "source: nowhere, command: python3",
            "",
            "✗ the source: segue.yaml:4:33: run.process.source: `nowhere` is not",
        ),
        ("source: plain.txt, command: python3", "", "run.process.source: `plain.txt` is not a folder\n"),
        ("command: python3, env_file: nowhere.env", "", "✗ the environment:"),
        ("command: python3, env: {A: !env NOT_SET_ANYWHERE}", "", "`NOT_SET_ANYWHERE` is not set"),
        ("command: python3", "hooks: {before: ./expand.sh}", "✗ the before hook: ./expand.sh is not in"),
        (
            "command: python3",
            "hooks: {after: ./contract.sh}\nstrategy: blue_green",
            "✗ the after hook: ./contract.sh is not in",
        ),
        ("command: python3", "smoke: [{command: './smoke.sh {url}'}]", "✗ the smoke test: ./smoke.sh is not in"),
        ("command: python3", "evidence: [{command: ./ask.sh}]", "✗ the evidence: ./ask.sh is not in"),
        (
            "command: python3",
            "evidence: [{url: {get: http://ci/ask, authorization: CI_AUTH}}]",
            "✗ the evidence: the variable CI_AUTH is not in the service's environment",
        ),
        ("command: python3", "health: {path: nope}", "✗ the manifest:"),
        ("command: python3", "route: {listen: '192.0.2.1:80'}", "✗ the manifest:"),
    ],
)
def test_check_finds(process: str, rest: str, finding: str, segue: Segue, folder: Path) -> None:
    (folder / "plain.txt").write_text("")
    manifest(folder, process, rest)
    said = segue("check")
    assert said.status == 2
    assert finding in said.out
    document = json.loads(segue("check", "--json").out)
    assert document["good"] is False
    assert [one for one in document["checks"] if not one["good"]]


def test_check_without_a_manifest_says_how_to_get_one(segue: Segue, folder: Path) -> None:
    said = segue("check")
    assert said.status == 2
    assert said.out.splitlines()[:2] == [
        "✗ the manifest: segue.yaml: there is no such file",
        "    Next: segue init",
    ]
    (found,) = json.loads(segue("check", "--json").out)["checks"]
    assert found["do"] == "segue init"
    (folder / "segue.yaml").write_text("service: shop\n")
    assert "Next" not in segue("check").out


def test_check_finds_a_port_that_another_program_has(segue: Segue, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        manifest(folder, "command: python3")
        text = (folder / "segue.yaml").read_text()
        port = taken.getsockname()[1]
        (folder / "segue.yaml").write_text(text.replace(text.split("127.0.0.1:")[1].split("}")[0], str(port)))
        said = segue("check")
        assert said.status == 2
        assert f"✗ the address 127.0.0.1:{port}: another program listens there" in said.out


def test_check_knows_a_port_that_this_segue_serves(segue: Segue, folder: Path, plane: Plane) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        (folder / "segue.yaml").write_text(
            f"service: shop\nroute: {{listen: '{listen}'}}\nrun: {{process: {{user: root, command: python3}}}}\n"
        )
        plane.on("GET", "/v1/services", {"schema": 1, "services": [{"service": "shop", "route": {"listen": listen}}]})
        assert segue("check").status == 0


def test_check_looks_at_the_address_of_a_preview(segue: Segue, folder: Path, plane: Plane) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        preview = f"strategy: {{blue_green: {{preview: '{listen}'}}}}"
        manifest(folder, "command: python3", preview)
        said = segue("check")
        assert said.status == 2
        assert f"✗ the preview's address {listen}: address already in use" in said.out
        busy = {"service": "shop", "route": {"listen": "127.0.0.1:1"}, "rollout": {"id": "r1"}}
        plane.on("GET", "/v1/services", {"schema": 1, "services": [busy]})
        assert segue("check").status == 0
    assert f"✓ the preview's address {listen}: it is free" in segue("check").out


def test_a_build_may_make_what_is_not_there_yet(segue: Segue, folder: Path) -> None:
    manifest(folder, "source: ., build: python3 make.py, command: ./made/app")
    said = segue("check")
    assert said.status == 0
    assert "! the command: ./made/app is not in" in said.out


def test_doctor_finds_a_working_machine_and_the_control_plane(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/services", {"schema": 1, "services": []})
    said = segue("doctor")
    assert said.status == 0, said.out
    assert "✓ Envoy: 1." in said.out
    assert "✓ the control plane: pid 4242, 0 services" in said.out


def test_doctor_says_what_to_do_without_an_envoy(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_ENVOY", "/bin/false")
    said = segue("doctor")
    assert said.status == 3
    assert "✗ Envoy: it does not run here: status 1" in said.out
    assert json.loads(segue("doctor", "--json").out)["good"] is False


def test_doctor_finds_a_home_that_is_no_folder(segue: Segue, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("SEGUE_HOME", str(home / "file"))
    said = segue("doctor")
    assert said.status == 3
    assert "is not a folder" in said.out


def test_a_network_file_system_is_known_by_the_longest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("a / ext4 rw 0 0\nb /home nfs4 rw 0 0\nc /home/ann\\040b ext4 rw 0 0\n")
    assert file_system(Path("/home/bob/segue"), mounts) == "nfs4"
    assert file_system(Path("/home/ann b/segue"), mounts) == "ext4"
    assert file_system(Path("/homestead"), mounts) == "ext4"
    assert file_system(Path("/"), tmp_path / "none") is None


def test_the_home_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGUE_HOME", str(tmp_path / "a" / ".." / "b"))
    assert homes.home() == str(tmp_path / "b")
    assert homes.socket_path(homes.home()) == str(tmp_path / "b" / "segue.sock")


def test_the_home_of_a_user_is_what_platformdirs_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("SEGUE_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    for data in ("", "/srv/data", "not/absolute"):
        monkeypatch.setenv("XDG_DATA_HOME", data)
        assert homes.home() == platformdirs.user_data_dir("segue", appauthor=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert homes.home() == "/var/lib/segue"


@pytest.mark.skipif(not is_root(), reason="only root can give a folder away")
def test_the_home_of_the_machine_is_that_of_the_user_to_whom_it_belongs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SEGUE_HOME", raising=False)
    monkeypatch.setattr(homes, "_OF_MACHINE", str(tmp_path))
    os.chown(tmp_path, 4711, -1)
    for user, its in ((0, True), (4711, True), (4712, False)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert (homes.home() == str(tmp_path)) == its


def test_the_socket_of_a_long_home_has_a_short_path_of_its_own(tmp_path: Path) -> None:
    long, other = tmp_path / ("x" * 100), tmp_path / ("y" * 100)
    long.mkdir()
    other.mkdir()
    path = homes.own_socket_folder(long)
    assert len(path) <= 107
    assert path == homes.socket_path(f"{long}/") == homes.socket_path(long)
    assert path != homes.socket_path(other)
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
    Path(path).unlink()


@pytest.mark.skipif(not is_root(), reason="only root can give a folder away")
def test_a_socket_folder_of_another_user_is_not_trusted(
    tmp_path: Path, segue: Segue, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    os.chown(long, 4711, -1)
    folder = Path(homes.socket_path(long)).parent
    folder.mkdir()
    try:
        assert not homes.trusted(long)
        with pytest.raises(PermissionError):
            homes.own_socket_folder(long)
        monkeypatch.setenv("SEGUE_HOME", str(long))
        said = segue("restart", "-s", "shop")
        assert said.status == 3
        assert "nothing is sent to it" in said.err
    finally:
        folder.rmdir()


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody."""
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work tree with one commit and the service in a folder of it."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "app.py").write_text("one")
    (tmp_path / "readme").write_text("one")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_version_is_called_after_its_commit(tree: Path) -> None:
    sha = git(tree, "rev-parse", "--short", "HEAD").strip()
    assert default_version(tree / "shop", NOON) == sha
    (tree / "readme").write_text("changed elsewhere")
    assert default_version(tree / "shop", NOON) == sha


def test_what_differs_from_the_commit_has_a_name_by_its_content(tree: Path) -> None:
    clean = default_version(tree / "shop", NOON)
    names = set()
    for change in (("app.py", "two"), ("app.py", "three"), ("new.py", "four"), ("new.py", "five")):
        (tree / "shop" / change[0]).write_text(change[1])
        names.add(default_version(tree / "shop", NOON))
    assert len(names) == 4
    assert all(name.startswith(f"{clean}-dirty.") for name in names)
    (tree / "shop" / "new.py").write_text("four")
    assert default_version(tree / "shop", NOON) in names
    (tree / "shop" / "new.py").unlink()
    (tree / "shop" / "app.py").write_text("one")
    assert default_version(tree / "shop", NOON) == clean


def test_without_a_commit_a_version_is_called_after_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_version(tmp_path, NOON) == "20250301-120000"
    git(tmp_path, "init", "-q")
    assert default_version(tmp_path, NOON) == "20250301-120000"
    monkeypatch.setenv("PATH", "")
    assert default_version(tmp_path, NOON) == "20250301-120000"
