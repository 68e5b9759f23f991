"""`segue install` on a machine with a real systemd: from its start on, and whatever becomes of the control plane.

The machine is a throw-away copy of this one (``tests/hosts``). A service user without any privilege serves port 80.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.request import urlopen

import pytest

from segue.cli.client import Absent, Broken, Client
from segue.testing.kills import until
from segue.testing.load import Probe, tiny_app

sys.path.append(str(Path(__file__).resolve().parents[1] / "hosts"))
from machine import Host, missing, open_way

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

Load = Callable[[str], Probe]
SEGUE = (sys.executable, "-m", "segue.cli.main")
UNIT = "/etc/systemd/system/segue.service"
GOES_ON = "the control plane was restarted and goes on"


class Site:
    """A user of `host` with a service on `port`, and the home of the control plane that keeps it."""

    def __init__(self, host: Host, user: str, home: str, port: int) -> None:
        self.host, self.user, self.home = host, user, home
        self.url = f"http://127.0.0.1:{port}/"
        self.folder = f"/srv/{user}"
        manifest = {
            "service": user,
            "replicas": 2,
            "route": {"listen": f"127.0.0.1:{port}"},
            "run": {"process": {"command": f"{tiny_app()} {{port}} {{version}}", "user": user}},
            "health": {"path": "/healthz", "every": "100ms", "deadline": "20s"},
            "strategy": {
                "use": "rolling",
                "rolling": {"first_judge": "3s", "judge": "500ms"},
                "blue_green": {"judge": "4s", "keep": "0s"},
                "canary": {
                    "steps": ["50%", "100%"],
                    "judge": {"least": "2s", "most": "4s"},
                    "holdback": "0%",
                    "keep": "0s",
                },
            },
            "judge": {"undecided": "continue"},
        }
        host.file(self.folder).mkdir()
        (host.file(self.folder) / "segue.yaml").write_text(json.dumps(manifest))

    def segue(self, *words: str, user: str = "") -> CompletedProcess[str]:
        """Run a command in the service's folder, as its user unless said otherwise. Nobody says where the home is."""
        return self.host.run(*SEGUE, *words, user=user or self.user, cwd=self.folder)

    def ask(self, path: str) -> Any:
        """What the control plane answers."""
        return Client(str(self.host.file(f"{self.home}/segue.sock"))).ask("GET", path)

    def answering(self) -> int | None:
        """The control plane that answers now, as the machine counts."""
        try:
            return int(self.ask("/healthz")["pid"])
        except (Absent, Broken):
            return None

    def state(self) -> tuple[Any, ...]:
        """What users would notice: the version that serves, its share, its size, how many of it are ready."""
        service = self.ask(f"/v1/services/{self.user}")
        versions = {
            name: (version["share"], version["size"], [i["state"] for i in version["instances"]])
            for name, version in service["versions"].items()
        }
        return service["state"], service["stable"], versions

    def processes(self) -> set[int]:
        """Envoy and the instances, as the machine counts."""
        versions = self.ask(f"/v1/services/{self.user}")["versions"].values()
        return {self.envoy(), *(instance["pid"] for version in versions for instance in version["instances"])}

    def envoy(self) -> int:
        """The Envoy that runs, as the machine counts."""
        return int(json.loads(self.host.file(f"{self.home}/envoy/envoy.json").read_text())["pid"])

    def get(self, path: str = "", within: float = 5) -> int:
        """How a user who comes is answered. Raises OSError."""
        with self.host.network(), urlopen(self.url + path, timeout=within) as answer:
            return int(answer.status)

    def is_served(self) -> bool:
        """Whether a user who comes gets an answer."""
        try:
            return bool(self.get())
        except OSError:
            return False


class Unit:
    """The unit that keeps a site's control plane."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def __call__(self, *words: str) -> str:
        """Ask systemd."""
        return self.site.host.run("systemctl", *words, "segue").stdout.strip()

    def pid(self) -> int:
        """Its control plane, as the machine counts."""
        return int(self("show", "--property=MainPID", "--value"))

    def answers(self, *, after: int) -> None:
        """Return when another control plane than `after` answers."""
        until(lambda: self.site.answering() not in (None, after), every=0.05)
        assert self.site.answering() == self.pid()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A machine that Segue was copied to."""
    with Host(f"sg-{os.getpid()}") as machine:
        open_way(machine)
        yield machine


@pytest.fixture(scope="module")
def shop(host: Host) -> Site:
    """A service of the user `shop`, installed and deployed."""
    host.run("useradd", "--system", "shop")
    site = Site(host, "shop", "/var/lib/segue", 80)
    site.segue("install", "--user", "shop", user="root")
    site.segue("deploy", "--version", "v1")
    return site


@pytest.fixture
def unit(shop: Site) -> Unit:
    """The unit of the shop."""
    return Unit(shop)


@pytest.fixture
def load(load: Callable[..., Probe], host: Host) -> Load:
    """Starts load on the machine itself."""

    def start(url: str) -> Probe:
        with host.network():
            return load(url, connections=16, rate=300)

    return start


def test_no_request_is_lost_though_the_unit_is_restarted_and_its_control_plane_killed_in_mid_rollout(
    shop: Site, unit: Unit, load: Load
) -> None:
    probe = load(shop.url)
    probe.more(200)
    deploy = shop.host.start(*SEGUE, "deploy", "--version", "v2", "--json", user="shop", cwd=shop.folder)
    probe.until(lambda tally: "v2" in tally.by_version)
    shop.segue("pause")
    first = unit.pid()
    unit("restart")
    unit.answers(after=first)
    probe.more(200)
    second = unit.pid()
    shop.host.run("kill", "-9", str(second))
    unit.answers(after=second)
    probe.more(200)
    shop.segue("resume")
    said, _ = deploy.communicate(timeout=60)
    assert (deploy.returncode, said.count(GOES_ON)) == (0, 2), said
    probe.more(200)
    tally = probe.finish()
    assert (tally.lost, set(tally.by_version)) == ((), {"v1", "v2"})
    assert shop.state() == ("steady", "v2", {"v2": (1.0, 2, ["ready", "ready"])})


@pytest.mark.parametrize("strategy", ["blue_green", "canary"])
def test_the_unit_is_restarted_in_mid_rollout_though_nobody_paused_it_and_a_request_is_under_way(
    shop: Site, unit: Unit, load: Load, strategy: str
) -> None:
    probe = load(shop.url)
    probe.more(200)
    with ThreadPoolExecutor() as pool:
        long = pool.submit(shop.get, "slow?6", within=60)
        options = ("--version", strategy, "--strategy", strategy, "--json")
        deploy = shop.host.start(*SEGUE, "deploy", *options, user="shop", cwd=shop.folder)
        probe.until(lambda tally: strategy in tally.by_version)
        first = unit.pid()
        unit("restart")
        unit.answers(after=first)
        said, _ = deploy.communicate(timeout=60)
    assert (deploy.returncode, said.count(GOES_ON)) == (0, 1), said
    assert long.result() == 200
    probe.more(200)
    assert probe.finish().lost == ()
    assert shop.state() == ("steady", strategy, {strategy: (1.0, 2, ["ready", "ready"])})


def test_after_a_loss_of_power_the_service_is_there_as_it_was(shop: Site, unit: Unit) -> None:
    before, boot = shop.state(), shop.host.boot_id()
    shop.host.cut_power()
    shop.host.boot()
    assert shop.host.boot_id() != boot
    until(shop.is_served, every=0.1)
    until(lambda: shop.state() == before, every=0.1)
    assert shop.answering() == unit.pid()
    assert unit("is-enabled") == "enabled"
    assert shop.host.run("systemd-analyze", "verify", UNIT).stderr == ""


@pytest.mark.slow
def test_while_the_unit_is_stopped_users_are_served_and_its_next_control_plane_finds_all(
    shop: Site, unit: Unit, load: Load
) -> None:
    probe, first, processes = load(shop.url), unit.pid(), shop.processes()
    unit("stop")
    assert shop.answering() is None
    with pytest.raises(AssertionError, match="sudo systemctl start segue"):
        shop.segue("status")
    probe.more(300)
    assert "Started the control plane" in shop.segue("status", user="root").stderr
    unit.answers(after=first)
    probe.more(300)
    assert probe.finish().lost == ()
    assert shop.processes() == processes


def test_a_command_waits_for_the_control_plane_while_the_unit_is_restarted(shop: Site, unit: Unit) -> None:
    first, status = unit.pid(), shop.segue("status", "--json").stdout
    unit("restart")
    assert shop.segue("status", "--json").stdout == status
    assert unit.pid() not in (first, 0)
    assert not shop.host.file("/var/lib/segue/guardian.pid").exists()


def test_the_control_plane_may_open_low_ports_and_the_instances_may_not(shop: Site, unit: Unit) -> None:
    low_ports, envoy = f"{1 << 10:016x}", shop.envoy()
    assert [capabilities(shop.host, pid) for pid in (unit.pid(), envoy)] == [low_ports] * 2
    instances = shop.processes() - {envoy}
    assert [capabilities(shop.host, pid) for pid in instances] == [f"{0:016x}"] * 2


def capabilities(host: Host, pid: int) -> str:
    """What a process may do that not everybody may, as the kernel says it."""
    return host.run("sed", "-n", r"s/^CapEff:\s*//p", f"/proc/{pid}/status").stdout.strip()


def test_an_envoy_that_died_with_the_control_plane_serves_before_the_next_one_does(shop: Site, unit: Unit) -> None:
    first, envoy = unit.pid(), shop.envoy()
    shop.host.run("kill", "-9", str(first), str(envoy))
    until(shop.is_served, every=0.02)
    served_without = shop.answering() is None
    unit.answers(after=first)
    assert served_without


@pytest.mark.slow
def test_a_user_hands_what_runs_over_to_the_unit_and_takes_it_back(host: Host, load: Load) -> None:
    host.run("useradd", "--create-home", "ana")
    host.run("loginctl", "enable-linger", "ana")
    ana = Site(host, "ana", "/home/ana/.local/share/segue", 8080)
    ana.segue("deploy", "--version", "v1")
    probe, by_hand, processes = load(ana.url), ana.answering(), ana.processes()
    probe.more(100)
    said = json.loads(ana.segue("install", "--json").stdout)
    assert (said["before"], said["pid"], said["lingers"]) == (by_hand, ana.answering(), True)
    again = json.loads(ana.segue("install", "--json").stdout)
    assert again == {**said, "before": None, "changed": False}
    assert ana.processes() == processes
    ana.segue("install", "--uninstall")
    assert ana.answering() is None
    probe.more(100)
    ana.segue("status")
    assert ana.processes() == processes
    probe.more(100)
    assert probe.finish().lost == ()
