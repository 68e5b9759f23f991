"""A deploy that is told to end: `on_cancel` of the manifest, and who is asked to take the rollout back."""

from __future__ import annotations

import json
import os
import pty
import signal
from pathlib import Path

import pytest

from . import stories
from .canned import Failure, Late, Plane
from .conftest import MANIFEST, Process, deploys, until

BACK = "/v1/rollouts/r1/rollback"
END = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture
def plane_of_a_job(plane: Plane, shop: Path) -> Plane:
    """A control plane where a rollout goes on and on, for a manifest that takes it back."""
    (shop / "segue.yaml").write_text(MANIFEST + "on_cancel: rollback\n")
    deploys(plane, stories.promoted().events[:5], ends=False)
    plane.on("POST", BACK, (202, {"rollout": "r1"}))
    return plane


@END
@pytest.mark.leaf("on_cancel")
def test_a_job_that_is_cancelled_has_its_rollout_taken_back(
    number: signal.Signals, process: Process, plane_of_a_job: Plane
) -> None:
    running = process("deploy")
    until(lambda: plane_of_a_job.asked("GET", "/v1/rollouts/r1/events"))
    running.send_signal(number)
    _, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (130, "Cancelled: r1 is being taken back. Next: segue wait r1\n")
    (asked,) = plane_of_a_job.asked("POST", BACK)
    assert asked.body == {"reason": "the job that deployed it was cancelled"}
    assert asked.key is not None


@pytest.mark.leaf("on_cancel")
def test_by_default_a_job_that_is_cancelled_leaves_its_rollout_alone(
    process: Process, plane_of_a_job: Plane, shop: Path
) -> None:
    (shop / "segue.yaml").write_text(MANIFEST)
    running = process("deploy")
    until(lambda: plane_of_a_job.asked("GET", "/v1/rollouts/r1/events"))
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (130, "Detached (interrupted): the rollout goes on. Next: segue wait r1\n")
    assert plane_of_a_job.asked("POST", BACK) == []


@END
def test_on_a_terminal_it_only_detaches(number: signal.Signals, process: Process, plane_of_a_job: Plane) -> None:
    ours, theirs = pty.openpty()
    running = process("deploy", stdin=theirs, stdout=theirs, env={**os.environ, "NO_COLOR": "1"})
    os.close(theirs)
    assert os.read(ours, 10)
    running.send_signal(number)
    _, err = running.communicate(timeout=20)
    os.close(ours)
    assert running.returncode == 130
    assert "Detached (interrupted): the rollout goes on." in err
    assert plane_of_a_job.asked("POST", BACK) == []


@END
def test_who_is_cancelled_before_the_answer_waits_for_it_and_takes_back_what_has_begun(
    number: signal.Signals, process: Process, plane_of_a_job: Plane
) -> None:
    plane_of_a_job.on("POST", "/v1/services/shop/rollouts", Late({"rollout": "r1"}))
    running = process("deploy", "--json")
    until(lambda: plane_of_a_job.asked("POST", "/v1/services/shop/rollouts"))
    running.send_signal(number)
    plane_of_a_job.released.set()
    out, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (130, "")
    assert len(plane_of_a_job.asked("POST", BACK)) == 1
    last = json.loads(out.splitlines()[-1])
    assert (last["event"], last["rollout"], last["outcome"], last["exit"]) == ("finished", "r1", None, 130)
    assert last["reason"] == "the job that deployed it was cancelled; it is being taken back"


def test_what_cannot_be_taken_back_is_said(process: Process, plane_of_a_job: Plane) -> None:
    message = "rollout r1 has ended: promoted; v2 serves shop"
    error = {"code": "refused", "exit": 4, "message": message, "next": "segue status"}
    plane_of_a_job.on("POST", BACK, Failure(409, error))
    running = process("deploy")
    until(lambda: plane_of_a_job.asked("GET", "/v1/rollouts/r1/events"))
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert err == f"Cancelled, but r1 is not taken back: {message}. Next: segue status\n"


def test_who_detaches_takes_nothing_back(process: Process, plane_of_a_job: Plane) -> None:
    running = process("deploy", "--detach")
    assert running.wait(20) == 0
    assert plane_of_a_job.asked("POST", BACK) == []
