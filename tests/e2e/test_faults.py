"""What else can happen to the control plane, its guardian, its journal and an instance, while users are served.

Nothing of it costs a request, unless the test says so.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

from segue.testing.kills import Blow, Moment, Point, Stage, Victim, until
from segue.testing.site import Segue, Shop, leftovers
from segue.testing.site import kill as end
from segue.testing.stage import RATE


@pytest.fixture
def stage(segue: Segue, shop: Shop) -> Iterator[Stage]:
    """A shop under load whose first version serves. Nothing may be lost in the whole test."""
    stage = Stage(segue, shop, Random(0))
    try:
        stage.launch()
        yield stage
        if stage.probe:
            stage.probe.more(200)
            assert stage.rest().lost == ()
    finally:
        stage.close()


def test_an_instance_that_is_killed_is_started_again_and_no_get_is_lost(stage: Stage) -> None:
    before = set(stage.instances())
    stage.kill(Victim.INSTANCE)
    until(lambda: len(set(stage.instances()) - before) == 1 and stage.at_rest(), every=0.05)
    assert stage.running()
    restarts = [i["restarts"] for i in stage.shop.status()["versions"]["v1"]["instances"]]
    assert sorted(restarts) == [0, 1]


def test_without_its_guardian_the_control_plane_goes_on_and_the_next_command_starts_both(stage: Stage) -> None:
    plane, envoy, instances = stage.answering(), stage.envoy(), stage.instances()
    os.kill(stage.guardian(), signal.SIGKILL)
    assert stage.update().exit == 0
    assert stage.answering() == plane
    instances = stage.instances()
    os.kill(plane, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(plane) or psutil.Process(plane).status() == psutil.STATUS_ZOMBIE)
    stage.segue("restart", "-s", "nobody", expect=4)
    assert stage.answering() != plane
    assert psutil.Process(stage.plane()).ppid() == stage.guardian()
    assert (stage.envoy(), stage.instances()) == (envoy, instances)
    assert stage.running()


def test_after_a_shutdown_the_next_command_adopts_everything(stage: Stage) -> None:
    envoy, instances, before = stage.envoy(), stage.instances(), stage.status()
    stage.segue("shutdown")
    assert stage.probe is not None
    stage.probe.more(500)
    stage.segue("restart", "-s", "nobody", expect=4)
    assert (stage.envoy(), stage.instances(), stage.status()) == (envoy, instances, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_control_plane_in_the_foreground_leaves_the_services_running(number: signal.Signals, stage: Stage) -> None:
    envoy, instances = stage.envoy(), stage.instances()
    stage.segue("shutdown")
    serving = stage.segue.start("serve")
    try:
        until(lambda: stage.answering() == serving.pid)
        assert stage.segue("serve", expect=None).returncode == 3
        serving.send_signal(number)
        assert serving.wait(20) == 0, serving.communicate()[0]
    finally:
        serving.kill()
        serving.communicate()
    assert stage.probe is not None
    stage.probe.more(500)
    assert (stage.envoy(), stage.instances()) == (envoy, instances)


def test_a_control_plane_without_descriptors_takes_nobody_out_of_the_traffic(stage: Stage) -> None:
    plane, log = stage.plane(), stage.segue.home / "control-plane.log"
    instances = len(stage.instances())
    whole = resource.prlimit(plane, resource.RLIMIT_NOFILE)
    resource.prlimit(plane, resource.RLIMIT_NOFILE, (3, whole[1]))  # no new one has a number as low as that
    try:
        until(lambda: log.read_text().count("instance_not_asked") >= instances)
        assert stage.probe is not None
        stage.probe.more(3 * RATE)  # longer than an instance may fail its health checks
    finally:
        resource.prlimit(plane, resource.RLIMIT_NOFILE, whole)
    assert stage.update().exit == 0


# The journal


def _without_control_plane(stage: Stage) -> Path:
    """The folder of the journal, when nobody has it open."""
    stage.segue("shutdown")
    return stage.segue.home / "journal"


def test_a_damaged_journal_is_moved_aside_and_its_copy_takes_its_place(stage: Stage) -> None:
    stage.update()
    envoy, instances, before = stage.envoy(), stage.instances(), stage.status()
    folder = _without_control_plane(stage)
    with (folder / "journal.db").open("r+b") as journal:
        journal.seek(100)
        journal.write(b"damaged " * 1000)
    stage.segue("restart", "-s", "nobody", expect=4)
    assert list(folder.glob("journal.damaged-*.db"))
    assert (stage.envoy(), stage.instances(), stage.status()) == (envoy, instances, before)
    assert stage.update().exit == 0


def test_a_journal_that_is_gone_is_restored_from_its_copy(stage: Stage) -> None:
    stage.update()
    envoy, instances, before = stage.envoy(), stage.instances(), stage.status()
    folder = _without_control_plane(stage)
    for file in folder.glob("journal.db*"):
        file.unlink()
    stage.segue("restart", "-s", "nobody", expect=4)
    assert (stage.envoy(), stage.instances(), stage.status()) == (envoy, instances, before)


def test_without_journal_and_copy_everything_runs_on(stage: Stage) -> None:
    envoy, instances = stage.envoy(), stage.instances()
    shutil.rmtree(_without_control_plane(stage))
    stage.segue("restart", "-s", "nobody", expect=4)
    assert stage.probe is not None
    stage.probe.more(500)
    assert (stage.envoy(), stage.instances()) == (envoy, instances)
    stage.rest()
    end(stage.segue.home.parent)  # nobody knows of them any more


# A full disk


@pytest.fixture
def small(segue: Segue) -> Iterator[Path]:
    """A home on a disk of its own, of 64 MB."""
    segue.home.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0711", "tmpfs", str(segue.home)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only who may mount can have a small disk")
    try:
        yield segue.home
    finally:
        if segue.home.exists():
            (segue.home / "ballast").unlink(missing_ok=True)
            segue.end()
            assert not leftovers(segue.home.parent)
        subprocess.run(["umount", "-l", str(segue.home)], check=True)


def fill(folder: Path) -> None:
    """Leave no room on the disk of `folder`."""
    with (folder / "ballast").open("wb", buffering=0) as ballast:
        try:
            while ballast.write(b"\0" * 65536):
                pass
        except OSError:
            return


def test_on_a_full_disk_a_rollout_turns_back_and_a_rollback_is_not_refused(
    small: Path, segue: Segue, shop: Shop
) -> None:
    stage = Stage(segue, shop, Random(0))
    try:
        stage.launch()
        stage.update(keep="5m")
        blow = Blow(Point("scale up", Moment.BETWEEN), lambda _: fill(small))
        found = stage.update(blow, keep="5m", first_judge="10s")  # so that it is full before all is decided
        assert found.exit == 1, stage.said
        assert "the disk is full" in stage.said
        segue("rollback", cwd=shop.folder)
        assert stage.shop.status()["stable"] == "v1"
        assert stage.rest().lost == ()
    finally:
        stage.close()
