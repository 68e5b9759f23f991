"""`segue install` with a systemd that plays its part: what is written, what is asked, what is refused.

With a real one: ``tests/e2e/test_install.py``.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segue.cli import install, unit
from segue.cli.client import Client
from segue.cli.start import start
from segue.cli.unit import Unit, compose, keeper, own

from .canned import Plane, control_plane
from .conftest import Segue, is_root, until

NOBODY = 4194305
"""More than any process is called on Linux."""

PLAYED = """\
#!/bin/sh
echo "$@" >> {calls}
case "$*" in
*is-active*) echo {state} ;;
*MainPID*) echo 4242 ;;
esac
"""


class Played:
    """A systemd that says yes to everything. The unit's control plane is 4242."""

    def __init__(self, folder: Path) -> None:
        self.calls, self.program = folder / "calls", folder / "systemctl"
        self.plays()

    def plays(self, state: str = "active") -> None:
        """Play it so, and forget what was asked."""
        self.calls.write_text("")
        self.program.write_text(PLAYED.format(calls=self.calls, state=state))
        self.program.chmod(0o755)

    def asked(self) -> list[str]:
        """What was asked of it that changes something."""
        words = (line.split() for line in self.calls.read_text().splitlines())
        said = [" ".join(word for word in line if not word.startswith("--")) for line in words]
        return [line for line in said if line.split()[0] not in ("show", "is-active")]


@pytest.fixture
def systemd(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    """It runs this machine, as far as Segue can see, and looks for units in a folder of the test's."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SEGUE_ENVOY", raising=False)
    monkeypatch.setattr(unit, "MACHINE", tmp_path / "config" / "machine")
    monkeypatch.setattr(unit, "BOOTED", tmp_path)
    return Played(tmp_path / "bin")


@pytest.fixture
def plane(plane: Plane) -> Plane:
    """A control plane without services that answers as 4242."""
    plane.on("GET", "/v1/services", {"schema": 1, "services": []})
    return plane


def settings(text: str) -> list[str]:
    """The lines of a unit that are no comment."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_unit_is_written_started_and_starts_with_the_machine(
    segue: Segue, systemd: Played, plane: Plane, home: Path
) -> None:
    said = segue("install")
    assert said.status == 0, said.err
    assert f"is written: systemd keeps the control plane of {home} (pid 4242)" in said.out
    assert systemd.asked() == ["daemon-reload", "enable segue.service", "restart segue.service"]
    assert own().path.stat().st_mode & 0o777 == 0o644
    assert keeper(str(home)) == own()
    assert plane.asked("POST", "/v1/shutdown") == []


def test_installed_twice_is_installed_once(segue: Segue, systemd: Played, plane: Plane, home: Path) -> None:
    assert segue("install").status == 0
    written = own().path.stat().st_mtime_ns
    systemd.plays()
    said = json.loads(segue("install", "--json").out)
    assert systemd.asked() == ["enable segue.service", "start segue.service"]
    assert own().path.stat().st_mtime_ns == written
    assert said == {
        "unit": str(own().path),
        "home": str(home),
        "user": None,
        "pid": 4242,
        "changed": False,
        "before": None,
        "lingers": None if is_root() else said["lingers"],
    }


def test_a_control_plane_that_runs_is_told_to_end_without_its_services_before_the_unit_begins(
    segue: Segue, systemd: Played, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "_WITHIN", 0)
    plane.on("GET", "/healthz", {"pid": NOBODY})
    plane.on("POST", "/v1/shutdown", {})
    said = segue("install")
    assert [request.body for request in plane.asked("POST", "/v1/shutdown")] == [{"all": False}]
    assert systemd.asked()[-1] == "restart segue.service"
    assert (said.status, "its control plane does not answer" in said.err) == (3, True)


@pytest.mark.parametrize(
    ("of_user", "user", "has", "lacks"),
    [
        (False, None, ["WantedBy=multi-user.target", "After=network-online.target"], ["User", "Ambient"]),
        (False, "shop", ["User=shop", "AmbientCapabilities=CAP_NET_BIND_SERVICE"], []),
        (True, None, ["WantedBy=default.target"], ["User", "Ambient", "After"]),
    ],
)
def test_the_unit_is_for(of_user: bool, user: str | None, has: list[str], lacks: list[str]) -> None:
    lines = settings(compose("/srv/segue", of_user=of_user, user=user, environment={"SEGUE_ENVOY": "/opt/envoy"}))
    always = ["KillMode=process", "Restart=always", "RestartPreventExitStatus=0 2 3", "OOMPolicy=continue"]
    always += [f'ExecStart="{sys.executable}" -P -m segue.cli.main serve']
    always += ['Environment="SEGUE_HOME=/srv/segue"', 'Environment="SEGUE_ENVOY=/opt/envoy"']
    assert {*always, *has} <= set(lines)
    assert not [line for line in lines for name in lacks if line.startswith(name)]


@pytest.mark.parametrize("home", ["/srv/a b", '/srv/100%/"x"', "/srv/back\\slash", "/srv/%h\\"])
def test_a_home_of_any_name_is_found_again(home: str, tmp_path: Path) -> None:
    there = Unit(tmp_path, of_user=False)
    there.write(compose(home, of_user=False, user=None, environment={}))
    assert there.home() == home


def test_the_unit_is_printed_where_there_is_no_systemd_and_nothing_changes(
    segue: Segue, systemd: Played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(unit, "BOOTED", tmp_path / "nowhere")
    said = segue("install", "--print")
    assert (said.status, said.err) == (0, "")
    document = json.loads(segue("install", "--print", "--json").out)
    assert document == {"unit": str(own().path), "text": said.out}
    assert systemd.asked() == [] and not own().folder.exists()


def nothing(_: Path, __: pytest.MonkeyPatch) -> None:
    """As it is."""


def no_systemd(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(unit, "BOOTED", folder / "nowhere")


def a_unit_by_hand(_: Path, __: pytest.MonkeyPatch) -> None:
    Unit(own().folder, False).write("[Service]\nExecStart=segue serve\n")


def a_unit_of_another_home(_: Path, __: pytest.MonkeyPatch) -> None:
    own().write(compose("/srv/other", of_user=False, user=None, environment={}))


def a_folder_that_is_a_file(_: Path, __: pytest.MonkeyPatch) -> None:
    own().folder.parent.mkdir(parents=True)
    own().folder.write_text("")


def an_envoy_that_does_not_run(_: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("SEGUE_ENVOY", "/bin/false")


@pytest.mark.parametrize(
    ("words", "world", "status", "sentence"),
    [
        ("", no_systemd, 3, "systemd does not run this machine: nothing was changed."),
        ("--uninstall", no_systemd, 0, "segue.service is not installed."),
        ("--uninstall", nothing, 0, "segue.service is not installed."),
        ("--user nobody-has-this-name", nothing, 2, "There is no user nobody-has-this-name on this machine."),
        ("--uninstall --print", nothing, 2, "--uninstall goes with neither --user nor --print."),
        ("", a_unit_by_hand, 4, "is there, and `segue install` did not write it."),
        ("--uninstall", a_unit_by_hand, 4, "`segue install` did not write"),
        ("", a_unit_of_another_home, 4, "segue.service is the control plane of /srv/other"),
        ("", a_folder_that_is_a_file, 2, "Nothing can be written in"),
        ("", an_envoy_that_does_not_run, 3, "It would not work: Envoy: it does not run here"),
    ],
)
def test_what_is_refused_changes_nothing(
    words: str,
    world: Callable[[Path, pytest.MonkeyPatch], None],
    status: int,
    sentence: str,
    segue: Segue,
    systemd: Played,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world(tmp_path, monkeypatch)
    before = own().text()
    said = segue("install", *words.split())
    assert (said.status, sentence in said.err + said.out) == (status, True), said
    assert (systemd.asked(), own().text()) == ([], before)


def test_what_was_made_for_a_control_plane_that_cannot_work_is_gone_again(
    segue: Segue, systemd: Played, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUE_HOME", str(home / "new"))
    monkeypatch.setenv("SEGUE_ENVOY", "/bin/false")
    assert segue("install").status == 3
    assert not (home / "new").exists()


@pytest.mark.skipif(not is_root(), reason="only root can give a folder away")
def test_a_home_with_services_of_somebody_else_is_left_to_them(segue: Segue, systemd: Played, home: Path) -> None:
    (home / "journal").mkdir()
    said = segue("install", "--user", "nobody")
    assert (said.status, said.err.splitlines()) == (
        4,
        [
            f"Error: {home} is root's, and so is what runs in it.",
            f"Next:  segue shutdown --all; chown -R nobody: {home}",
        ],
    )
    os.chown(home, pwd.getpwnam("nobody").pw_uid, -1)
    said = segue("install")
    assert (said.status, said.err.splitlines()[-1]) == (4, "Next:  segue install --user nobody")


@pytest.mark.skipif(not is_root(), reason="only root can become somebody else")
def test_a_user_who_cannot_run_this_segue_is_told(
    segue: Segue, systemd: Played, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(closed / "python"))
    said = segue("install", "--user", "nobody")
    assert said.status == 3
    assert f"nobody cannot run this Segue ({closed / 'python'}): " in said.err


def test_a_control_plane_that_does_not_stay_up_is_told(segue: Segue, systemd: Played) -> None:
    systemd.plays("failed")
    said = segue("install")
    assert said.status == 3
    assert said.err.splitlines() == [
        "Error: The unit is installed, but its control plane does not stay up.",
        f"Next:  {own().journal}",
    ]


def test_uninstalled_it_is_stopped_and_gone(segue: Segue, systemd: Played, plane: Plane) -> None:
    assert segue("install").status == 0
    systemd.plays()
    said = segue("install", "--uninstall")
    assert (said.status, own().text()) == (0, None)
    assert "The services go on" in said.out
    assert systemd.asked() == ["disable segue.service", "daemon-reload"]


def test_a_command_waits_for_a_unit_that_is_about_to_answer_and_starts_nothing(systemd: Played, home: Path) -> None:
    own().write(compose(str(home), of_user=False, user=None, environment={}))
    systemd.plays("activating")
    with ThreadPoolExecutor() as beside:
        pid = beside.submit(start, str(home), Client(str(home / "segue.sock")))
        until(lambda: "is-active" in systemd.calls.read_text())
        with control_plane(home):
            assert pid.result(20) == 4242
    assert (systemd.asked(), list(home.iterdir())) == ([], [])


def test_a_unit_that_rests_is_started_once_and_no_control_plane_beside_it(
    segue: Segue, systemd: Played, home: Path
) -> None:
    own().write(compose(str(home), of_user=False, user=None, environment={}))
    systemd.plays("inactive")
    said = segue("restart", "-s", "shop")
    assert (said.status, said.err.splitlines()) == (
        3,
        [f"Error: The control plane of {own().path} did not start.", f"Next:  {own().journal}"],
    )
    assert (systemd.asked(), list(home.iterdir())) == (["start segue.service"], [])


@pytest.mark.skipif(not is_root(), reason="only root can give a folder away")
def test_nobody_starts_a_control_plane_in_a_home_with_services_of_somebody_else(segue: Segue, home: Path) -> None:
    (home / "journal").mkdir()
    os.chown(home, pwd.getpwnam("nobody").pw_uid, -1)
    said = segue("restart", "-s", "shop")
    assert (said.status, said.err.splitlines()) == (
        3,
        [
            f"Error: {home} is nobody's, whose control plane does not run.",
            "Next:  sudo -u nobody segue status",
        ],
    )
    assert [file.name for file in home.iterdir()] == ["journal"]


def test_doctor_says_what_happens_after_a_restart_of_the_machine(
    segue: Segue, systemd: Played, plane: Plane, home: Path
) -> None:
    assert "✓ after a restart: the first command starts the control plane" in segue("doctor").out
    own().write(compose(str(home), of_user=False, user=None, environment={}))
    assert f"✓ after a restart: {own().path}" in segue("doctor").out
    systemd.plays("inactive")
    assert f"! after a restart: {own().path} does not run" in segue("doctor").out
    own().write(compose(str(home), of_user=False, user=None, environment={}).replace(sys.executable, "/else/python"))
    assert "starts another Segue than this one" in segue("doctor").out
