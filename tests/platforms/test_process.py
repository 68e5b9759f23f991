"""Instances as processes: how they are started, whose the port is, what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from segue.core.release import Revision
from segue.core.traffic import InstanceId
from segue.core.version import Version
from segue.errors import StartFailed
from segue.platforms import launch
from segue.platforms.identity import alive, identify, members
from segue.platforms.process import ProcessPlatform
from segue.ports import Instance, Intent

from .apps import ends_what_is_left, until

ONE = InstanceId("shop-v1.1-1")
GRACE, NO_GRACE = timedelta(seconds=20), timedelta(0)
PYTHON = f"{shlex.quote(sys.executable)} -I -S"

LISTEN = """\
import socket, sys, time
unix = "/" in sys.argv[1]
address = sys.argv[1] if unix else (sys.argv[1], int(sys.argv[2]))
listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
if "shared" in sys.argv:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(address)
listener.listen()
time.sleep(600)
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[ProcessPlatform]:
    (tmp_path / "listen.py").write_text(LISTEN)
    with ends_what_is_left(tmp_path / "platform"):
        yield ProcessPlatform(tmp_path / "platform")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def version(folder: Path, command: str, **changes: Any) -> Version:
    fields: dict[str, Any] = {"service": "shop", "revision": Revision("v1.1"), "digest": "", "folder": folder}
    return Version(**{**fields, "command": command, **changes})


async def begin(platform: ProcessPlatform, made: Version, name: InstanceId = ONE) -> Instance:
    return await platform.start(made, await platform.place(made, name))


async def output(platform: ProcessPlatform, made: Version) -> list[str]:
    """What an instance wrote that has ended by itself."""
    instance = await begin(platform, made)
    await asyncio.wait_for(platform.gone(instance), 20)
    return await lines(platform)


async def lines(platform: ProcessPlatform) -> list[str]:
    return [line async for line in platform.logs(ONE, lines=100, follow=False)]


def claim(folder: Path, intent: Intent) -> Path:
    return folder / "platform" / "intents" / intent.nonce


# How it is started


async def test_the_environment_is_the_versions_and_the_port_and_little_else(
    platform: ProcessPlatform, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUE_HOME", "/nowhere")
    monkeypatch.setenv("OURS", "1")
    made = version(folder, "env", environment={"LOG_LEVEL": "info", "HOME": "/srv", "WORDS": "a 'b' $c\nd"})
    intent = await platform.place(made, ONE)
    instance = await platform.start(made, intent)
    assert await asyncio.wait_for(platform.gone(instance), 20) == 0
    assert sorted(await lines(platform)) == sorted(
        [
            "LOG_LEVEL=info",
            "HOME=/srv",
            "WORDS=a 'b' $c",
            "d",
            f"PORT={intent.address.rpartition(':')[2]}",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
        ]
    )


async def test_what_stands_in_braces_is_filled_in_and_other_braces_stay(
    platform: ProcessPlatform, folder: Path
) -> None:
    made = version(folder, "echo {port} {version} {service} {instance} '{\"a\": {}}' '{port} x' {other}")
    intent = await platform.place(made, ONE)
    instance = await platform.start(made, intent)
    await asyncio.wait_for(platform.gone(instance), 20)
    port = intent.address.rpartition(":")[2]
    assert await lines(platform) == [f'{port} v1 shop {ONE} {{"a": {{}}}} {port} x {{other}}']


async def test_an_instance_runs_in_its_folder_in_its_own_session_with_nothing_to_read(
    platform: ProcessPlatform, folder: Path
) -> None:
    (folder / "app").mkdir()
    program = """
import os
print(os.getcwd(), os.getsid(0) == os.getpid(), os.readlink('/proc/self/fd/0'), os.listdir('/proc/self/fd'))
"""
    told = await output(platform, version(folder / "app", f'{PYTHON} -c "{program}"'))
    assert told == [f"{folder / 'app'} True /dev/null ['0', '1', '2', '3']"]  # 3: the listing itself


async def test_signals_that_the_control_plane_ignores_are_not_ignored(
    platform: ProcessPlatform, folder: Path
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        told = await output(platform, version(folder, "grep -E '^Sig(Ign|Blk)' /proc/self/status"))
    finally:
        signal.signal(signal.SIGHUP, before)
    ours = ~(0b11 << 31)  # 32 and 33 are the C library's own: nobody can set them
    assert [int(line.split()[1], 16) & ours for line in told] == [0, 0]


async def test_secrets_are_in_no_argument_of_any_process(platform: ProcessPlatform, folder: Path) -> None:
    made = version(folder, "sleep 600", environment={"PASSWORD": "hunter2-and-more"})
    intent = await platform.place(made, ONE)
    starting = asyncio.ensure_future(platform.start(made, intent))
    seen: set[str] = set()
    while not starting.done():
        seen |= _command_lines()
        await asyncio.sleep(0)
    instance = starting.result()
    seen |= _command_lines()
    assert any("launch.py" in line for line in seen)
    assert any(line.startswith("sleep\x00600") for line in seen)
    assert not [line for line in seen if "hunter2" in line]
    assert "hunter2" in Path(f"/proc/{instance.pid}/environ").read_text()
    kept = [file for file in (folder / "platform").rglob("*") if file.is_file()]
    assert not [file for file in kept if "hunter2" in file.read_text()]
    await platform.stop(instance, "TERM", NO_GRACE)


def _command_lines() -> set[str]:
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(file.read_text(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("no-such-program --x", "command not found: no-such-program"),
        ("./missing", "command not found: ./missing"),
        ("./closed", "./closed cannot be run (permission denied)"),
        ("./unnamed", "./unnamed is not a program: its first line must name its interpreter (#!/bin/sh)"),
        ("./orphan", "the interpreter that the first line of ./orphan names does not exist"),
        ("sh -c 'x", "the command of v1.1 cannot be read: no closing quotation"),
        ("  ", "the command of v1.1 is empty"),
    ],
)
async def test_a_command_that_cannot_be_run_says_why(
    platform: ProcessPlatform, folder: Path, command: str, why: str
) -> None:
    for name, text, mode in (("closed", "", 0o600), ("unnamed", "echo\n", 0o700), ("orphan", "#!/no/sh\n", 0o700)):
        (folder / name).write_text(text)
        (folder / name).chmod(mode)
    with pytest.raises(StartFailed) as failure:
        await begin(platform, version(folder, command))
    assert failure.value.message.endswith(why)


async def test_a_folder_that_is_missing_is_named(platform: ProcessPlatform, folder: Path) -> None:
    with pytest.raises(StartFailed, match=f"{ONE} cannot be started: its folder {folder}/gone cannot be entered"):
        await begin(platform, version(folder / "gone", "true"))


async def test_a_user_that_does_not_exist_is_named(platform: ProcessPlatform, folder: Path) -> None:
    with pytest.raises(StartFailed, match="there is no user nobody-at-all"):
        await begin(platform, version(folder, "true", user="nobody-at-all"))


async def test_a_disk_that_takes_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    platform = ProcessPlatform(tmp_path / "file" / "platform")
    with pytest.raises(StartFailed, match=f"{ONE} cannot be started: not a directory"):
        await begin(platform, version(tmp_path, "true"))


async def test_an_instance_that_ends_at_once_is_told_with_its_status_and_output(
    platform: ProcessPlatform, folder: Path
) -> None:
    instance = await begin(platform, version(folder, "sh -c 'echo no config >&2; exit 7'"))
    assert await asyncio.wait_for(platform.gone(instance), 20) == 7
    assert await lines(platform) == ["no config"]


async def test_an_instance_that_a_signal_ended_is_told_with_the_signal(
    platform: ProcessPlatform, folder: Path
) -> None:
    instance = await begin(platform, version(folder, "sh -c 'kill -SEGV $$'"))
    assert await asyncio.wait_for(platform.gone(instance), 20) == -signal.SIGSEGV


async def test_no_zombie_is_left_by_what_was_waited_for_stopped_or_failed(
    platform: ProcessPlatform, folder: Path
) -> None:
    waited = await begin(platform, version(folder, "true"))
    await asyncio.wait_for(platform.gone(waited), 20)
    stopped = await begin(platform, version(folder, "sleep 600"))
    await platform.stop(stopped, "TERM", GRACE)
    with pytest.raises(StartFailed):
        await begin(platform, version(folder, "no-such-program"))
    assert psutil.Process().children() == []


# The user


@pytest.fixture
async def open_folder() -> AsyncIterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="segue-test-"))
    folder.chmod(0o755)
    with ends_what_is_left(folder / "platform"):
        yield folder
    shutil.rmtree(folder)


@as_root
async def test_an_instance_is_its_user_with_no_right_of_root_left(open_folder: Path) -> None:
    platform = ProcessPlatform(open_folder / "platform")
    account = pwd.getpwnam("nobody")
    made = version(open_folder, "sh -c 'id -u; id -g; id -G; echo $HOME; echo again >> /dev/stdout'", user="nobody")
    groups = " ".join(map(str, os.getgrouplist("nobody", account.pw_gid)))
    ours = os.getgroups()
    os.setgroups([*ours, 4242])
    try:
        told = await output(platform, made)
    finally:
        os.setgroups(ours)
    assert told == [str(account.pw_uid), str(account.pw_gid), groups, account.pw_dir, "again"]


@as_root
async def test_a_folder_that_the_user_may_not_enter_is_named(open_folder: Path) -> None:
    platform = ProcessPlatform(open_folder / "platform")
    (open_folder / "closed").mkdir(mode=0o700)
    with pytest.raises(StartFailed, match=r"its folder .*closed cannot be entered \(permission denied\)"):
        await begin(platform, version(open_folder / "closed", "true", user="nobody"))


@as_root
async def test_the_user_of_an_instance_can_make_its_socket_and_others_can_connect(open_folder: Path) -> None:
    platform = ProcessPlatform(open_folder / "platform")
    (open_folder / "listen.py").write_text(LISTEN)
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("no Python that every user can run")
    made = version(open_folder, f"{python} -I -S listen.py {{socket}}", user="nobody")
    instance = await begin(platform, made)
    await _listening(platform, instance)
    path = Path(instance.intent.address.removeprefix("unix:"))
    assert path.stat().st_mode & 0o777 == 0o666
    assert path.owner() == "nobody"
    await platform.stop(instance, "TERM", GRACE)
    assert not path.parent.exists()


async def test_only_root_may_start_as_another_user(
    platform: ProcessPlatform, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(StartFailed, match="only root can run something as nobody"):
        await begin(platform, version(folder, "true", user="nobody"))


# The address


async def _listening(platform: ProcessPlatform, instance: Instance) -> None:
    deadline = time.monotonic() + 20
    while not await platform.listens(instance):
        assert time.monotonic() < deadline, "it never listened"
        await asyncio.sleep(0.01)


async def test_a_socket_of_a_grandchild_is_the_instances_own(platform: ProcessPlatform, folder: Path) -> None:
    instance = await begin(platform, version(folder, f"sh -c '{PYTHON} listen.py 0.0.0.0 $PORT; true'"))
    await _listening(platform, instance)
    await platform.stop(instance, "TERM", GRACE)


async def test_a_stranger_at_the_port_is_not_taken_for_the_instance(platform: ProcessPlatform, folder: Path) -> None:
    made = version(folder, "sleep 600")
    intent = await platform.place(made, ONE)
    with _listener(intent.address):
        instance = await platform.start(made, intent)
        assert not await platform.listens(instance)
    await platform.stop(instance, "TERM", NO_GRACE)


async def test_a_port_that_is_shared_with_a_stranger_is_not_the_instances(
    platform: ProcessPlatform, folder: Path
) -> None:
    made = version(folder, f"{PYTHON} listen.py 127.0.0.1 {{port}} shared")
    intent = await platform.place(made, ONE)
    with _listener(intent.address, shared=True):
        instance = await platform.start(made, intent)
        await until(lambda: len(_table(intent.address)) == 2)
        assert not await platform.listens(instance)
    await _listening(platform, instance)
    await platform.stop(instance, "TERM", GRACE)


def _table(address: str) -> list[str]:
    end = f":{int(address.rpartition(':')[2]):04X} 00000000:0000 0A"
    return [line for line in Path("/proc/net/tcp").read_text().splitlines() if end in line]


def _listener(address: str, shared: bool = False) -> socket.socket:
    host, _, port = address.rpartition(":")
    listener = socket.socket()
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, int(port)))
    listener.listen()
    return listener


async def test_a_unix_socket_has_a_short_path_and_is_removed_with_its_instance(
    platform: ProcessPlatform, folder: Path
) -> None:
    instance = await begin(platform, version(folder, f"{PYTHON} listen.py {{socket}}"))
    path = instance.intent.address.removeprefix("unix:")
    assert instance.intent.address.startswith("unix:/")
    assert len(path) < 100
    await _listening(platform, instance)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    assert await platform.stop(instance, "TERM", GRACE)
    assert not Path(path).parent.exists()


async def test_a_port_rests_until_it_was_released_and_a_minute_more(tmp_path: Path) -> None:
    now = 1000.0
    port = _free_port()
    platform = ProcessPlatform(tmp_path, port_range=(port, port), clock=lambda: now)
    made = version(tmp_path, "sleep 600")
    intent = await platform.place(made, ONE)
    platform.rest(intent.address)
    instance = await platform.start(made, intent)
    await platform.stop(instance, "TERM", GRACE)

    async def refused() -> bool:
        try:
            return not await platform.place(made, ONE)
        except StartFailed as failure:
            return "no port between" in failure.message

    now += 3600
    assert await refused()
    platform.release(intent.address)
    now += 59.9
    assert await refused()
    now += 0.2
    assert (await platform.place(made, ONE)).address == intent.address


async def test_without_a_word_from_the_router_a_port_rests_a_minute_after_its_instance(tmp_path: Path) -> None:
    now = 0.0
    port = _free_port()
    platform = ProcessPlatform(tmp_path, port_range=(port, port), clock=lambda: now)
    made = version(tmp_path, "sleep 600")
    instance = await begin(platform, made)
    await platform.stop(instance, "TERM", GRACE)
    with pytest.raises(StartFailed):
        await platform.place(made, ONE)
    now += 61
    assert await platform.place(made, ONE)


async def test_the_port_of_an_adopted_instance_is_not_handed_out(tmp_path: Path) -> None:
    port = _free_port()
    made = version(tmp_path, "sleep 600")
    with ends_what_is_left(tmp_path):
        instance = await begin(ProcessPlatform(tmp_path, port_range=(port, port)), made)
        after = ProcessPlatform(tmp_path, port_range=(port, port))
        await after.find([instance.intent])
        with pytest.raises(StartFailed, match="is free"):
            await after.place(made, ONE)


async def test_a_port_that_somebody_listens_at_is_not_handed_out(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartFailed, match=f"no port between {port} and {port} is free on 127.0.0.1"):
            await ProcessPlatform(tmp_path, port_range=(port, port)).place(version(tmp_path, "true"), ONE)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


# After a crash


async def test_a_late_child_gives_up(platform: ProcessPlatform, folder: Path) -> None:
    """The control plane was killed after it had started the launcher; the next one looks before that has claimed."""
    made = version(folder, f"touch {folder}/ran")
    intent = await platform.place(made, ONE)
    starting = asyncio.ensure_future(platform.start(made, intent))
    await asyncio.sleep(0)  # the launcher exists, its interpreter is still starting
    assert not claim(folder, intent).exists()
    assert await ProcessPlatform(folder / "platform").find([intent]) == []
    with pytest.raises(StartFailed, match="started or given up before"):
        await starting
    assert not (folder / "ran").exists()
    assert claim(folder, intent).read_text() == "given-up"


async def test_a_launcher_whose_control_plane_was_killed_starts_the_instance_all_the_same(
    platform: ProcessPlatform, folder: Path
) -> None:
    """`find` sees it or gives it up, and never anything between."""
    program = f"""
import asyncio, os
from pathlib import Path
from segue.core.version import Version
from segue.ports import Intent
from segue.platforms.process import ProcessPlatform
async def main():
    platform = ProcessPlatform(Path({str(folder / "platform")!r}))
    made = Version("shop", "v1.1", "", Path({str(folder)!r}), "sleep 600")
    starting = asyncio.ensure_future(platform.start(made, Intent("shop", {ONE!r}, "v1.1", "abc", "127.0.0.1:1")))
    await asyncio.sleep(0)
    os._exit(9)
asyncio.run(main())
"""
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await killed.wait() == 9
    intent = Intent("shop", ONE, Revision("v1.1"), "abc", "127.0.0.1:1")
    await until(claim(folder, intent).exists)
    [instance] = await platform.find([intent])
    await until(lambda: Path(f"/proc/{instance.pid}/comm").read_text() == "sleep\n")
    waiting = asyncio.ensure_future(platform.gone(instance))
    assert await platform.stop(instance, "TERM", GRACE)
    assert await asyncio.wait_for(waiting, 20) is None


async def test_what_ended_long_ago_is_forgotten_and_what_runs_is_not(platform: ProcessPlatform, folder: Path) -> None:
    made = version(folder, f"{PYTHON} listen.py 127.0.0.1 {{port}}")
    runs, ended, fresh = [await begin(platform, made) for _ in range(3)]
    for instance in (ended, fresh):
        await platform.stop(instance, "TERM", GRACE)
    long_ago = time.time() - 2 * 86400
    for instance in (runs, ended):
        os.utime(claim(folder, instance.intent), (long_ago, long_ago))
    await platform.tend([])
    there = {instance.intent.nonce for instance in (runs, ended, fresh) if claim(folder, instance.intent).exists()}
    assert there == {runs.intent.nonce, fresh.intent.nonce}


async def test_a_process_that_has_the_pid_of_an_instance_is_neither_found_nor_signalled(
    platform: ProcessPlatform, folder: Path
) -> None:
    instance = await begin(platform, version(folder, "sleep 600"))
    file = claim(folder, instance.intent)
    boot, pid, started, at = file.read_text().split()
    file.write_text(f"{boot} {pid} {int(started) - 100} {at}")
    after = ProcessPlatform(folder / "platform")
    assert not await after.listens(instance)
    assert await asyncio.wait_for(after.gone(instance), 20) is None
    # The log gives the session away as ours in this simulation, so it is taken away as well.
    (folder / "platform" / "logs" / f"{ONE}.log").unlink()
    assert await after.stop(instance, "KILL", NO_GRACE)
    assert await after.find([instance.intent]) == []
    stranger = identify(instance.pid)
    assert stranger is not None
    assert alive(stranger)
    os.kill(instance.pid, signal.SIGKILL)
    await asyncio.wait_for(platform.gone(instance), 20)


async def test_after_a_reboot_nothing_is_found_and_nothing_is_signalled(
    platform: ProcessPlatform, folder: Path
) -> None:
    instance = await begin(platform, version(folder, "sleep 600"))
    file = claim(folder, instance.intent)
    told = file.read_text()
    file.write_text("another-boot " + told.partition(" ")[2])
    (folder / "platform" / "logs" / f"{ONE}.log").unlink()
    assert await ProcessPlatform(folder / "platform").find([instance.intent]) == []
    found = identify(instance.pid)
    assert found is not None
    assert alive(found)
    os.kill(instance.pid, signal.SIGKILL)
    await asyncio.wait_for(platform.gone(instance), 20)


async def test_workers_that_a_killed_master_left_are_ended_when_they_are_looked_for(
    platform: ProcessPlatform, folder: Path
) -> None:
    instance = await begin(platform, version(folder, "sh -c 'sleep 600 & sleep 600 & wait'"))
    await until(lambda: len(members(instance.pid)) == 3)
    os.kill(instance.pid, signal.SIGKILL)
    assert await asyncio.wait_for(platform.gone(instance), 20) == -signal.SIGKILL
    assert len(members(instance.pid)) == 2
    assert await ProcessPlatform(folder / "platform").find([instance.intent]) == []
    assert members(instance.pid) == []


async def test_stopping_a_master_that_was_killed_ends_its_workers(platform: ProcessPlatform, folder: Path) -> None:
    instance = await begin(platform, version(folder, "sh -c 'sleep 600 & sh -c \"sleep 600 & wait\" & wait'"))
    await until(lambda: len(members(instance.pid)) == 4)
    os.kill(instance.pid, signal.SIGKILL)
    await asyncio.wait_for(platform.gone(instance), 20)
    assert not await platform.stop(instance, "TERM", NO_GRACE)
    assert members(instance.pid) == []


async def test_the_claims_of_what_has_ended_do_not_stay_for_ever(platform: ProcessPlatform, folder: Path) -> None:
    old = await begin(platform, version(folder, "sleep 600"))
    await platform.stop(old, "TERM", GRACE)
    running = await begin(platform, version(folder, "sleep 600"))
    for instance in (old, running):
        os.utime(claim(folder, instance.intent), (0, 0))
    await platform.find([])
    assert not claim(folder, old.intent).exists()
    assert await platform.find([running.intent]) == [running]
    await platform.stop(running, "TERM", GRACE)


def test_only_the_first_of_many_gets_a_claim(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import launch; print(launch.put(*sys.argv[2:], first=True))"
    )
    folder = str(Path(launch.__file__).parent)
    racers = [
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program, folder, str(tmp_path / "claim"), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    answers = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert sorted(answers) == ["False"] * 7 + ["True"]
    assert (tmp_path / "claim").read_text() == str(answers.index("True"))
    assert [file.name for file in tmp_path.iterdir()] == ["claim"]
