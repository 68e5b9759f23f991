"""A home in use, with every kind of secret in it, and what can be seen of it: by readers, by others, by what it runs.

All tests look at one home: a service with TLS, secrets from three places and a preview off loopback, deployed twice.
As root it runs as another user, as it must.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from strangers import as_root, open_folder, tried

from segue.cli.client import Client
from segue.testing import app, certificates
from segue.testing.site import Segue, Shop, free_port, kill, leftovers

SECRETS = {"PLAIN": "hunter2-in-the-manifest", "TAKEN": "hunter2-of-the-shell", "FILED": "hunter2-in-the-file"}
OWNER = "nobody" if os.geteuid() == 0 else None
LOOK = (
    "id -u; id -g; id -G | tr ' ' '\\n' | sort | tr '\\n' ' '; echo;"
    " grep -hE '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status;"
    " ls -l /proc/self/fd | sed -n 's/.* -> /fd /p' | grep -vE '/dev/null|/proc/|pipe:' ; true"
)
"""A command that says who it is, what it may do, and which files it was given."""


@dataclass(frozen=True)
class Used:
    """The home, the service, and the secrets that are not values of the environment."""

    segue: Segue
    shop: Shop
    key: str
    token: str

    @property
    def home(self) -> Path:
        return self.segue.home

    def processes(self) -> list[psutil.Process]:
        """The guardian, the control plane, Envoy and the instances."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.home.parent) in " ".join(
                    (process.cwd(), *process.cmdline(), *process.environ().values())
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return [process for process in found if process.pid != os.getpid()]

    def instance(self) -> psutil.Process:
        """The instance that serves."""
        status = self.shop.status()
        (instance,) = status["versions"][status["stable"]]["instances"]
        return psutil.Process(instance["pid"])


@pytest.fixture(scope="module")
def used() -> Iterator[Used]:
    with open_folder() as folder:
        segue = Segue(folder / "home", {"TAKEN": SECRETS["TAKEN"]})
        try:
            yield _deployed(segue, folder)
            segue.end()
            left = leftovers(folder)
            assert not left, f"left running: {left}"
        finally:
            kill(folder)
            print(segue.log())


def _deployed(segue: Segue, folder: Path) -> Used:
    shop = Shop(segue, folder / "shop")
    shutil.copy(app.__file__, shop.folder / "app.py")
    _, key = certificates.write(shop.folder, "site", ["shop.test"])
    (shop.folder / ".env").write_text(f"FILED={SECRETS['FILED']}\n")
    (shop.folder / ".segueignore").write_text(".env\nsegue.yaml\n*.pem\n")
    manifest = {
        "replicas": 1,
        "route": {"listen": f"127.0.0.1:{shop.port}", "tls": {"cert": "site.pem", "key": key.name}},
        "run": {
            "process": {
                "source": ".",
                "command": "/usr/bin/env python3 -I -S app.py {port} {version}",
                "build": LOOK,
                "env": {"PLAIN": SECRETS["PLAIN"], "TAKEN": "TAKEN-FROM-ENV"},
                "env_file": ".env",
                **({"user": OWNER} if OWNER else {}),
            }
        },
        "health": {"command": f'sh -c "{LOOK}"', "every": "200ms", "healthy": 1},
        "hooks": {"before": LOOK},
        "strategy": {"blue_green": {"judge": "0s", "preview": f"0.0.0.0:{free_port()}"}},
    }
    text = json.dumps({"service": "shop", **manifest}).replace('"TAKEN-FROM-ENV"', "!env TAKEN")
    (shop.folder / "segue.yaml").write_text(text)
    shop.deploy("v1")
    shop.deploy("v2")
    token = (segue.home / "preview.token").read_text().strip()
    secret = "".join(key.read_text().splitlines()[1:-1])
    return Used(segue, shop, secret[-40:], token)


# Secrets


def test_secrets_are_in_the_files_that_are_for_them_and_in_no_other(used: Used) -> None:
    allowed = {
        "environment": ("environment",),
        "key": ("envoy-static.json", "certificates"),
        "token": ("preview.token", "envoy-static.json"),
    }
    secrets = {**dict.fromkeys(SECRETS.values(), "environment"), used.key: "key", used.token: "token"}
    found = set()
    for file in _files(used.home):
        text = file.read_bytes().replace(b"\\n", b"").replace(b"\n", b"")
        for secret, kind in secrets.items():
            if secret.encode() in text:
                found.add(kind)
                assert any(name in file.parts for name in allowed[kind]), f"{kind} in {file}"
    assert {"environment", "key"} <= found, "they are where they must be"


def test_the_journal_holds_the_names_and_no_value(used: Used) -> None:
    rows = []
    for name in ("journal", "events"):
        with closing(sqlite3.connect(used.home / "journal" / f"{name}.db")) as db:
            rows += list(db.iterdump())
    text = "\n".join(rows)
    assert "shop" in text and "v2" in text
    assert [secret for secret in _secrets(used) if secret in text] == []


def test_no_answer_and_no_output_holds_a_secret(used: Used) -> None:
    client = Client(str(used.home / "segue.sock"))
    paths = ("/v1/services", "/v1/rollouts", "/v1/rollouts/latest", "/v1/rollouts/latest/report", "/healthz")
    told = [json.dumps(client.ask("GET", path)) for path in paths]
    with client.open("GET", "/v1/rollouts/latest/events", timeout=20) as body:
        told.append(body.whole().decode())
    for command in ("report", "plan --version v3", "check"):
        done = used.segue(*command.split(), cwd=used.shop.folder, expect=None)
        told.append(done.stdout + done.stderr)
    assert all(len(text) > 1 for text in told)
    assert [(secret, text) for secret in _secrets(used) for text in told if secret in text] == []


def test_no_secret_is_in_arguments_nor_in_the_environment_of_what_is_not_the_version(used: Used) -> None:
    processes, instance = used.processes(), used.instance()
    assert len(processes) >= 4 and instance in processes
    for process in processes:
        try:
            environment = {} if process.cwd().startswith(str(used.home / "versions")) else process.environ()
            seen = " ".join((*process.cmdline(), *environment.values()))
        except psutil.NoSuchProcess:  # a health command
            continue
        assert [secret for secret in _secrets(used) if secret in seen] == [], process
    assert instance.environ()["TAKEN"] == SECRETS["TAKEN"]


def _secrets(used: Used) -> list[str]:
    return [*SECRETS.values(), used.key, used.token]


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]


# Who may look, and speak


def test_nothing_in_the_home_is_for_others_but_the_way_of_the_versions_users(used: Used) -> None:
    versions = used.home / "versions"
    for path in (used.home, *used.home.rglob("*")):
        kind = path.lstat()
        if stat.S_ISLNK(kind.st_mode) or "files" in path.relative_to(used.home).parts[:-1]:
            continue
        is_way = path.is_dir() and (path in (used.home, versions) or versions in path.parents)
        allowed = 0o011 if OWNER and is_way else 0
        assert kind.st_mode & 0o077 & ~allowed == 0, f"{path} has mode {stat.filemode(kind.st_mode)}"


@as_root
def test_another_user_can_read_lock_and_speak_to_nothing_of_it(used: Used) -> None:
    everything = [used.home, *used.home.rglob("*")]
    assert any(path.is_socket() for path in everything)
    assert tried(everything) == []
    assert tried([used.shop.folder / "app.py"]) == [f"open {used.shop.folder / 'app.py'}"], "the attempt can succeed"


@pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="only Linux has sockets without a file")
def test_no_socket_is_open_that_no_file_protects(used: Used) -> None:
    """Envoy's own default for hot restarts was such a socket: whoever could reach it could end Envoy."""
    held = {target for process in used.processes() for target in _targets(process)}
    sockets = [line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    named = [fields[7] for fields in sockets if len(fields) == 8 and f"socket:[{fields[6]}]" in held]
    assert any("hot_parent" in name for name in named)
    assert [name for name in named if name.startswith("@")] == []


# What runs in it


def test_an_instance_holds_no_file_or_socket_of_the_control_plane(used: Used) -> None:
    instance = used.instance()
    held = [target for target in _targets(instance) if str(used.home) in target]
    assert {Path(target).parent for target in held} == {used.home / "platform" / "logs"}
    others = {target for process in used.processes() if process != instance for target in _targets(process)}
    shared = {target for target in _targets(instance) if target.startswith(("socket:", "anon_inode:[pidfd"))} & others
    assert shared == set()


def _targets(process: psutil.Process) -> list[str]:
    folder = Path(f"/proc/{process.pid}/fd")
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):  # a health command that has ended
        for file in list(folder.iterdir()):
            with suppress(FileNotFoundError):
                found.append(str(file.readlink()))
    return found


@as_root
@pytest.mark.parametrize("what", ["build", "hook", "health command", "instance"])
def test_whatever_a_version_brings_runs_as_its_user_and_as_nobody_else(used: Used, what: str) -> None:
    account = pwd.getpwnam("nobody")
    groups = set(os.getgrouplist("nobody", account.pw_gid))
    if what == "instance":
        status = Path(f"/proc/{used.instance().pid}/status").read_text()
        words = {line.split(":")[0]: line.split()[1:] for line in status.splitlines()}
        assert words["Uid"] == [str(account.pw_uid)] * 4 and words["Gid"] == [str(account.pw_gid)] * 4
        assert set(map(int, words["Groups"])) == groups
        assert [words[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [["0" * 16]] * 4
        return
    logs = {"build": "versions/shop/v1.1/build.log", "hook": "hooks/*/before.log", "health command": "checks/*.log"}
    text = next(used.home.glob(logs[what])).read_text().splitlines()
    uid, gid, told = text[:3]
    assert (int(uid), int(gid)) == (account.pw_uid, account.pw_gid)
    assert set(map(int, told.split())) == groups
    capabilities = [line for line in text if line.startswith("Cap")]
    assert capabilities and {line.split()[1] for line in capabilities} == {"0" * 16}
    given = {line.removeprefix("fd ") for line in text if line.startswith("fd ")}
    assert {Path(target).suffix for target in given} == {".log"}
