"""Envoy's life: adopted, started again, asked by the next control plane, served from the last table."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from segue.core.traffic import Preview, Sticky
from segue.errors import Refused, RouterLost, RouterRefused, SegueError
from segue.routers.envoy import process
from segue.routers.envoy.router import EnvoyRouter
from segue.routers.envoy.static import start_static

from .world import HALF, V1, V2, Answer, Line, World, Wrk, ask, asked, closed, port, service, table, until, version


class Routers:
    """Control planes of one folder, one after the other; the last Envoy ends with the test."""

    def __init__(self) -> None:
        self._all: list[EnvoyRouter] = []

    async def __call__(self, folder: Path) -> EnvoyRouter:
        """The next control plane."""
        self._all.append(EnvoyRouter(folder, concurrency=2, drain=2))
        await self._all[-1].start()
        return self._all[-1]

    async def close(self) -> None:
        """Let go of every Envoy."""
        for router in self._all:
            await router.close()


@pytest.fixture
async def started() -> AsyncIterator[Routers]:
    """Starts routers, which are closed in the end."""
    routers = Routers()
    yield routers
    await routers.close()


@pytest.fixture
async def folder(tmp_path: Path, started: Routers) -> AsyncIterator[Path]:
    """The folder of a router whose Envoy ends with the test, whoever started it."""
    path = tmp_path / "router"
    yield path
    await started.close()
    last = await started(path)
    await last.shutdown()


async def more_than(world: World, count: int) -> bool:
    return sum([await process.seen() for process in world.processes]) > count


async def flows(world: World, requests: int = 200) -> None:
    """Return when so many more requests have reached the backends."""
    before = sum([await process.seen() for process in world.processes])
    await until(lambda: more_than(world, before + requests), "more load")


async def test_the_next_control_plane_adopts_the_same_envoy_and_no_request_is_lost(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    first = await started(folder)
    await first.apply(table(service(listen, version(V1, 1, old), version(V2, 0, new), trial=V2)))
    async with Wrk(listen) as wrk:
        await flows(world)
        await first.close()
        await flows(world)
        second = await started(folder)
        assert second.pid == first.pid
        await flows(world)
        await second.apply(table(service(listen, version(V2, 1, new))))
        await second.settled()
        load = await wrk.stop()
    assert load.errors == 0, load.text
    assert await ask(listen) == Answer(200, "new")
    assert set((await second.stats("^cluster.shop.*membership_total$")).values) == {
        "cluster.shop@v2.1.membership_total",
        "cluster.shop~v2.1.membership_total",
    }
    await second.close()


async def test_nothing_is_told_to_an_adopted_envoy_before_the_first_table(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    first = await started(folder)
    await first.apply(table(service(listen, version(V1, 1, await world.backend("old")))))
    await first.close()
    second = await started(folder)
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await asyncio.open_unix_connection(str(process.sockets(folder) / "ads.sock"))
    assert await ask(listen) == Answer(200, "old")
    await second.close()


async def test_an_envoy_whose_start_was_not_written_down_is_found(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    first = await started(folder)
    await first.apply(table(service(listen, version(V1, 1, await world.backend("old")))))
    await first.close()
    record = json.loads((folder / "envoy.json").read_text())
    (folder / "envoy.json").write_text(json.dumps({**record, "pid": 0, "started": ""}))
    second = await started(folder)
    assert second.pid == record["pid"]
    await second.close()


@pytest.mark.parametrize("change", [{"boot": "another"}, {"started": "1"}])
def test_a_process_that_merely_has_the_pid_is_not_ours(tmp_path: Path, change: dict[str, str]) -> None:
    here = process.Running(process.boot(), os.getpid(), process.started(os.getpid()), 0, "", "", 1)
    assert process.alive(here)
    assert not process.alive(replace(here, **change))


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.started(child.pid) == ""
    child.wait()


async def test_an_envoy_that_is_killed_is_back_with_its_table(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    old = await world.backend("old")
    router = await started(folder)
    await router.apply(table(service(listen, version(V1, 1, old))))
    for _ in range(2):
        before = router.pid
        os.kill(before, signal.SIGKILL)
        await until(lambda old=before: is_another(router, old), "another Envoy")  # type: ignore[misc]
        await until(lambda: serves(listen), "an answer")
    await router.apply(table(service(listen, version(V1, 0, old))))
    assert (await ask(listen)).status == 503
    await router.close()


async def is_another(router: EnvoyRouter, before: int) -> bool:
    return router.pid != before


async def serves(listen: str) -> bool:
    try:
        return (await ask(listen)).status == 200
    except OSError:
        return False


async def test_a_table_under_way_when_envoy_dies_is_lost_and_can_be_applied_again(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    old = await world.backend("old")
    router = await started(folder)
    wanted = table(service(listen, version(V1, 1, old)))
    os.kill(router.pid, signal.SIGSTOP)
    applying = asyncio.create_task(router.apply(wanted))
    await asyncio.sleep(0)
    os.kill(router.pid, signal.SIGKILL)
    with pytest.raises(RouterLost):
        await applying
    await until(lambda: applies(router, wanted), "the table")  # type: ignore[arg-type]
    assert await ask(listen) == Answer(200, "old")
    await router.close()


async def applies(router: EnvoyRouter, wanted: object) -> bool:
    try:
        await router.apply(wanted)  # type: ignore[arg-type]
    except RouterLost:
        return False
    return True


async def test_every_control_plane_has_an_epoch_of_its_own(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    old = await world.backend("old")
    epochs = []
    for _ in range(2):
        router = await started(folder)
        await router.apply(table(service(listen, version(V1, 1, old))))
        epochs.append((folder / "epoch").read_text().strip())
        await router.close()
    assert epochs == ["1", "2"]


async def test_a_port_that_a_stranger_has_is_refused(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    router = await started(folder)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", int(listen.rpartition(":")[2])))
        stranger.listen()
        with pytest.raises(Refused, match=listen):
            await router.refuse_taken(listen)
        with pytest.raises(RouterRefused, match=listen):
            await router.apply(table(service(listen, version(V1, 1, await world.backend("old")))))
        assert router.table.services == {}
    await router.apply(table(service(listen, version(V1, 1, await world.backend("old")))))
    await router.refuse_taken(listen)
    await router.close()


async def test_without_an_envoy_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_ENVOY", str(tmp_path / "none"))
    with pytest.raises(SegueError, match="SEGUE_ENVOY names"):
        await EnvoyRouter(tmp_path / "router").start()


async def test_an_envoy_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "envoy").write_text("#!/bin/sh\necho the disk is on fire\nexit 1\n")
    (tmp_path / "envoy").chmod(0o755)
    monkeypatch.setenv("SEGUE_ENVOY", str(tmp_path / "envoy"))
    with pytest.raises(SegueError, match="the disk is on fire"):
        await EnvoyRouter(tmp_path / "router").start()


async def test_a_folder_with_a_long_name_is_as_good_as_any(
    tmp_path: Path, world: World, listen: str, started: Routers
) -> None:
    router = await started(tmp_path / ("long" * 20) / ("name" * 20))
    await router.apply(table(service(listen, version(V1, 1, await world.backend("old")))))
    assert await ask(listen) == Answer(200, "old")
    await router.shutdown()


async def test_shutting_down_waits_for_requests_in_flight(
    tmp_path: Path, world: World, listen: str, started: Routers
) -> None:
    router = await started(tmp_path / "router")
    old = await world.backend("old")
    await router.apply(table(service(listen, version(V1, 1, old))))
    held = asyncio.create_task(ask(listen, "/hold"))
    await old.holding()
    ending = asyncio.create_task(router.shutdown(drain=30))
    await until(lambda: closed(listen), "the end of listening")
    await old.release()
    assert await held == Answer(200, "old")
    began = time.monotonic()
    await ending
    assert time.monotonic() - began < 30


async def left_alone(router: EnvoyRouter, folder: Path, listen: str) -> None:
    """The control plane has gone and Envoy has died: another Envoy serves the last table."""
    await router.close()
    os.kill(router.pid, signal.SIGKILL)
    await until(lambda: closed(listen), "the death of Envoy")
    assert start_static(folder)
    await until(lambda: serves(listen), "an answer")


async def test_without_a_control_plane_envoy_starts_with_the_last_table(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    old, new, gone = await world.backend("old"), await world.backend("new"), f"127.0.0.1:{port()}"
    router = await started(folder)
    other = service(f"127.0.0.1:{port()}", version(V1, 1, old), name="other", path="/x")
    sides = version(V1, HALF, old), version(V2, HALF, new)
    await router.apply(table(service(listen, *sides, trial=V2), other))
    await router.settled()
    await router.close()
    os.kill(router.pid, signal.SIGKILL)
    await until(lambda: closed(listen), "the death of Envoy")
    pid = start_static(folder)
    assert pid and start_static(folder) is None, "a second one must not start"
    await until(lambda: serves(listen), "an answer")
    answers = await asked(listen, 200)
    assert min(answers[200, "old"], answers[200, "new"]) > 40 and len(answers) == 2
    assert (await ask(other.route.listen, "/y")).status == 404
    assert gone


@pytest.mark.parametrize("by", [Sticky(), Sticky("x-user-id")])
async def test_without_a_control_plane_users_stay_where_they_were_and_a_preview_is_shown(
    folder: Path, world: World, listen: str, started: Routers, by: Sticky
) -> None:
    old, new, place = await world.backend("old"), await world.backend("new"), f"127.0.0.1:{port()}"
    router = await started(folder)
    sides = service(listen, version(V1, HALF, old), version(V2, HALF, new), trial=V2)
    await router.apply(table(replace(sides, sticky=by, preview=Preview(place, V2, "token"))))
    users = [
        "x-user-id: {0}\r\ncookie: segue-shop={0:08x}-0000-4000-8000-000000000000\r\n".format(number * 2**26)
        for number in range(64)
    ]
    before = [(await ask(listen, headers=user)).body for user in users]
    assert 10 < before.count("new") < 54
    await left_alone(router, folder, listen)
    assert [(await ask(listen, headers=user)).body for user in users] == before
    await until(lambda: answers(place, 403), "the preview")  # its listener opens after the users'
    assert await ask(place, headers="x-segue-preview: token\r\n") == Answer(200, "new")


async def test_an_envoy_that_was_never_told_anything_is_replaced_by_one_that_serves_the_last_table(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    router = await started(folder)
    await router.apply(table(service(listen, version(V1, 1, await world.backend("old")))))
    os.kill(router.pid, signal.SIGKILL)
    await until(lambda: closed(listen), "the death of Envoy")
    await router.close()
    again = await started(folder)  # as a control plane does that dies before it has told it anything
    asking = again.pid
    await again.close()
    assert await closed(listen)
    pid = start_static(folder)
    assert pid not in (None, asking) and not process.started(asking)
    await until(lambda: serves(listen), "an answer")
    assert start_static(folder) is None


async def test_the_users_of_an_envoy_that_is_replaced_leave_it_with_their_next_answer(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    """Until they leave no table reaches them: their requests are those of a split that is long over."""
    old, new = await world.backend("old"), await world.backend("new")
    router = await started(folder)
    await router.apply(table(service(listen, version(V1, 1, old))))
    await router.settled()
    await left_alone(router, folder, listen)
    lines = [await Line.to(listen) for _ in range(20)]
    assert all([not (await line.ask()).closing for line in lines])
    router = await started(folder)
    await router.apply(table(service(listen, version(V1, 0, old), version(V2, 1, new))))
    assert all([(await line.ask()).closing for line in lines])
    assert await asked(listen, 20) == {(200, "new"): 20}


async def answers(address: str, status: int) -> bool:
    try:
        return (await ask(address)).status == status
    except OSError:
        return False


@asynccontextmanager
async def newcomers(listen: str) -> AsyncIterator[list[object]]:
    """Users who come one after the other, each with a connection of its own: what those got who were not served."""
    unserved: list[object] = []

    async def come() -> None:
        while True:
            try:
                answer = await ask(listen)
            except OSError as error:
                unserved.append(error)
            else:
                unserved.extend([answer] if answer.status != 200 else [])

    coming = [asyncio.create_task(come()) for _ in range(2)]
    try:
        yield unserved
    finally:
        for users in coming:
            users.cancel()


async def test_the_control_plane_that_returns_replaces_an_envoy_that_asks_nobody_without_a_loss(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    router = await started(folder)
    await router.apply(table(service(listen, version(V1, 1, old))))
    await left_alone(router, folder, listen)
    async with Wrk(listen) as wrk, newcomers(listen) as unserved:
        await flows(world)
        router = await started(folder)
        alone = router.pid
        await flows(world)
        await router.apply(table(service(listen, version(V1, 0, old), version(V2, 1, new), trial=V2)))
        assert router.pid != alone
        await flows(world)
        await router.settled()
        assert not process.started(alone), "what is in flight in the old Envoy cannot be seen"
        before = await old.seen()
        await flows(world)
        assert await old.seen() == before
        load = await wrk.stop()
    assert load.errors == 0, load.text
    assert unserved == []
    os.kill(router.pid, signal.SIGKILL)
    await until(lambda: serves(listen), "an answer of the third Envoy")
    await router.apply(table(service(listen, version(V1, 0, old), version(V2, 1, new), trial=V2)))
    assert await ask(listen) == Answer(200, "new")
    await router.close()


def test_the_guardian_can_start_envoy_with_the_standard_library_alone() -> None:
    code = "import sys; import segue.routers.envoy.static; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    foreign = {"grpc", "google", "structlog", "pydantic", "psutil", "envoy"}
    assert not foreign & {name.partition(".")[0] for name in loaded}


async def test_an_unready_instance_is_not_in_the_last_table(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    router = await started(folder)
    await router.apply(table(service(listen, version(V1, Fraction(1), await world.backend("old")))))
    await router.settled()
    ready = (folder / "envoy-static.json").read_text()
    port_of = world.processes[0].address.rpartition(":")[2]
    assert port_of in ready
    await router.apply(table(service(listen, version(V1, Fraction(1)))))
    await router.settled()
    assert port_of not in (folder / "envoy-static.json").read_text()
    await router.close()


async def test_a_control_plane_that_dies_in_a_takeover_leaves_nothing_that_its_successor_does_not_know(
    folder: Path, world: World, listen: str, started: Routers
) -> None:
    wanted = table(service(listen, version(V1, 1, await world.backend("old"))))
    router = await started(folder)
    await router.apply(wanted)
    await router.close()
    os.kill(router.pid, signal.SIGKILL)
    await until(lambda: closed(listen), "the death of Envoy")
    parent = start_static(folder)
    assert parent
    await until(lambda: serves(listen), "an answer")
    taking_over = await started(folder)
    await taking_over.apply(wanted)
    await taking_over.close()
    assert process.started(parent), "the first Envoy still has time for its connections"
    successor = await started(folder)
    assert successor.pid == taking_over.pid
    os.kill(successor.pid, signal.SIGKILL)
    await until(lambda: applies(successor, wanted), "the table")
    assert await ask(listen) == Answer(200, "old")
    assert not process.started(parent)
