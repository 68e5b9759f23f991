"""`segue deploy` and the commands that start a rollout: what is asked, what is shown, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segue.cli import capacity, follow

from . import stories
from .canned import Failure, Plane, Silence, Stream
from .conftest import Process, Segue, deploys, screen, until

DECIDED = {"outcome": "promoted", "basis": "person", "reason": "asked", "exit": 0, "seconds": 0.008}


def events_of(out: str) -> list[dict[str, Any]]:
    """Standard output as events: it is pure JSON, one object a line."""
    return [json.loads(line) for line in out.splitlines()]


def test_a_deploy_sends_everything_that_only_this_shell_knows(segue: Segue, plane: Plane, shop: Path) -> None:
    deploys(plane, stories.promoted().events)
    assert segue("deploy", "--version", "v2", "--reason", "a fix", "--strategy", "rolling").status == 0
    (asked,) = plane.asked("POST", "/v1/services/shop/rollouts")
    assert asked.body["environment"] == {"TOKEN": "a-secret-value"}
    assert (asked.body["version"], asked.body["reason"]) == ("v2", "a fix")
    assert (asked.body["strategy"], asked.body["if_busy"]) == ("rolling", "refuse")
    assert asked.body["folder"] == str(shop)
    assert asked.body["manifest"]["run"]["process"]["env"] == {"TOKEN": {"from_env": "TOKEN"}}
    assert asked.key is not None
    without_environment = {key: value for key, value in asked.body.items() if key != "environment"}
    assert "a-secret-value" not in json.dumps(without_environment)


def test_a_deploy_prints_a_line_a_step_and_a_summary(segue: Segue, plane: Plane, shop: Path) -> None:
    deploys(plane, stories.promoted().events)
    said = segue("deploy")
    assert said.status == 0
    lines = said.out.splitlines()
    assert lines[0] == "shop  v1 → v2  rolling  (r1)"
    steps = [line for line in lines if "/10]" in line]
    assert len(steps) == len(stories.PLAN)
    assert steps[2] == "  [ 3/10] ✓ traffic: v1.1 50%, v2.1 50%  500 ms"
    assert lines[-1] == "✓ shop: v2 serves all traffic, after 12.3 s."
    assert "\x1b" not in said.out


def test_a_refused_version_is_told_with_reason_last_lines_and_next_command(
    segue: Segue, plane: Plane, shop: Path
) -> None:
    deploys(plane, stories.refused().events)
    said = segue("deploy")
    assert said.status == 1
    end = said.out[said.out.index("✗ shop:") :].splitlines()
    assert end == [
        "✗ shop: v2 was refused; v1 serves as before, after 1.9 s.",
        "  Reason: shop-v2.1-1 exited with status 1",
        "  The instance's last lines:",
        "    | Traceback (most recent call last):",
        "    | ModuleNotFoundError: No module named 'shopp'",
        "  Next: segue report r1",
    ]
    assert "  turned back: shop-v2.1-1 exited with status 1" in said.out
    assert "  [2/3] ✓ traffic: v1.1 100%  100 ms" in said.out


@pytest.mark.parametrize("status", [0, 1, 5, 7])
def test_a_deploy_exits_as_the_rollout_ended(status: int, segue: Segue, plane: Plane, shop: Path) -> None:
    story = stories.promoted()
    story.events[-1] |= {"outcome": {0: "promoted", 5: "failed"}.get(status, "rolled_back"), "exit": status}
    deploys(plane, story.events)
    assert segue("deploy").status == status


@pytest.mark.parametrize("told", [stories.promoted, stories.refused])
def test_with_json_standard_output_is_events_and_the_last_one_is_finished(
    told: Callable[[], stories.Story], segue: Segue, plane: Plane, shop: Path
) -> None:
    deploys(plane, told().events)
    said = segue("deploy", "--json")
    last = events_of(said.out)[-1]
    assert last["event"] == "finished"
    assert {"rollout", "outcome", "basis", "reason"} <= set(last)
    assert said.status == last["exit"]
    assert said.err == ""


def test_a_broken_stream_is_taken_up_again_and_nothing_is_shown_twice(segue: Segue, plane: Plane, shop: Path) -> None:
    deploys(plane, stories.promoted().events, breaks=[3, 4, 9, 20])
    said = segue("deploy", "--json")
    assert said.status == 0
    assert [event["seq"] for event in events_of(said.out)] == list(range(1, len(stories.promoted().events) + 1))
    after = [request.query["after"] for request in plane.asked("GET", "/v1/rollouts/r1/events")]
    assert after == [["0"], ["3"], ["4"], ["9"], ["20"]]


def test_a_rollout_that_was_forgotten_is_told_to_be(segue: Segue, plane: Plane, shop: Path) -> None:
    unknown = {"code": "refused", "exit": 4, "message": "there is no rollout r1", "next": "segue history"}
    deploys(plane, stories.promoted().events, breaks=[3], then=Failure(404, unknown))
    said = segue("deploy")
    assert said.status == 4
    assert "r1 is no longer known: the journal was damaged, and its last copy is older" in said.err
    assert "Next:  segue status" in said.err


def test_a_control_plane_that_stays_away_is_given_up(
    segue: Segue, plane: Plane, shop: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 0.3)
    deploys(plane, stories.promoted().events[:3])
    said = segue("deploy")
    assert said.status == 3
    assert "did not come back" in said.err
    assert "Next:  segue wait r1" in said.err


def test_a_request_that_was_not_answered_is_repeated_with_the_same_key(
    segue: Segue, plane: Plane, shop: Path
) -> None:
    deploys(plane, stories.promoted().events)
    plane.on("POST", "/v1/services/shop/rollouts", Silence())
    assert segue("deploy").status == 0
    first, second = plane.asked("POST", "/v1/services/shop/rollouts")
    assert first.key == second.key


def test_detach_returns_at_once(segue: Segue, plane: Plane, shop: Path) -> None:
    deploys(plane, [], ends=False)
    said = segue("deploy", "--detach")
    assert (said.status, said.out) == (0, "Under way: segue wait r1\n")
    assert json.loads(segue("deploy", "--detach", "--json").out) == {"rollout": "r1"}


def test_the_same_version_again_is_nothing_to_do(segue: Segue, plane: Plane, shop: Path) -> None:
    plane.on("POST", "/v1/services/shop/rollouts", {"rollout": None, "message": "v1 already serves shop"})
    assert segue("deploy").out == "v1 already serves shop.\n"
    said = segue("deploy", "--json")
    assert said.status == 0
    (event,) = events_of(said.out)
    assert (event["event"], event["exit"], event["reason"]) == ("finished", 0, "v1 already serves shop")


def test_a_refusal_is_told_with_its_next_command(segue: Segue, plane: Plane, shop: Path) -> None:
    error = {"code": "refused", "exit": 4, "message": "shop is busy with r0", "next": "segue wait r0"}
    plane.on("POST", "/v1/services/shop/rollouts", Failure(409, error))
    said = segue("deploy")
    assert (said.status, said.out) == (4, "")
    assert said.err == "Error: shop is busy with r0.\nNext:  segue wait r0\n"
    said = segue("deploy", "--json")
    assert (json.loads(said.out), said.err) == ({"error": error}, "")


def test_a_wait_that_is_over_leaves_the_rollout_alone(segue: Segue, plane: Plane, shop: Path) -> None:
    deploys(plane, stories.promoted().events[:5], ends=False)
    said = segue("deploy", "--wait", "300ms")
    assert said.status == 130
    assert "not decided within 0.3 s" in said.err
    assert "segue wait r1" in said.err
    plane.released.set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_interrupts_is_told_that_the_rollout_goes_on(
    number: signal.Signals, process: Process, plane: Plane, shop: Path
) -> None:
    deploys(plane, stories.promoted().events[:5], ends=False)
    running = process("deploy")
    until(lambda: plane.asked("GET", "/v1/rollouts/r1/events"))
    assert running.stdout is not None
    assert running.stdout.readline().startswith("shop  v1 → v2")
    running.send_signal(number)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert err == "Detached (interrupted): the rollout goes on. Next: segue wait r1\n"
    assert plane.asked("POST", "/v1/rollouts/r1/rollback") == []


def test_a_closed_pipe_ends_without_a_traceback(process: Process, plane: Plane, shop: Path) -> None:
    deploys(plane, stories.promoted().events * 50)
    reading, writing = os.pipe()
    os.close(reading)
    running = process("deploy", stdout=writing)
    os.close(writing)
    _, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (141, "")


def test_a_log_cannot_command_the_terminal(segue: Segue, plane: Plane, shop: Path) -> None:
    story = stories.refused()
    story.events[-1]["log"] = ["\x1b]0;owned\x07\x1b[2J gone\tthere"]
    deploys(plane, story.events)
    said = segue("deploy")
    assert "\x1b" not in said.out
    assert "\x07" not in said.out
    assert "gone there" in said.out


def test_an_output_that_knows_no_arrows_gets_question_marks(
    process: Process, plane: Plane, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploys(plane, stories.promoted().events)
    running = process("deploy", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    out, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (0, "")
    assert out.startswith("shop  v1 ? v2")


def test_a_deploy_says_which_manifest_is_about_another_service(segue: Segue, plane: Plane, shop: Path) -> None:
    said = segue("deploy", "-s", "api")
    assert said.status == 2
    assert "is about shop, not about api" in said.err


def test_a_wrong_manifest_is_told_with_every_place(segue: Segue, plane: Plane, shop: Path) -> None:
    (shop / "segue.yaml").write_text("service: shop\nreplica: 2\nrun: {process: {comand: x, user: root}}\n")
    said = segue("deploy")
    assert said.status == 2
    assert "segue.yaml:2:1: unknown key `replica`" in said.err
    assert "segue.yaml:3:17: " in said.err
    assert "did you mean `command`?" in said.err
    assert plane.requests == []


def test_plan_shows_every_step_with_what_is_true_after_it(segue: Segue, plane: Plane, shop: Path) -> None:
    document = {
        "strategy": "rolling",
        "from": "v1",
        "to": "v2",
        "steps": [
            {"step": "v2.1: 1 instance", "counts": {"v1.1": 1, "v2.1": 1}, "shares": {"v1.1": 1.0}},
            {"step": "traffic: v2.1 100%", "counts": {"v1.1": 1, "v2.1": 1}, "shares": {"v2.1": 1.0}},
        ],
        "decided_after": 2,
        "peak": 2,
        "extra": 1,
        "instance_minutes": 0.6,
        "seconds": 62.0,
        "notes": ["versions share files"],
    }
    plane.on("POST", "/v1/services/shop/plan", document)
    said = segue("plan")
    assert said.status == 0
    assert "1  v2.1: 1 instance    v1.1: 1, v2.1: 1    v1.1 100%" in said.out
    assert "At most 2 instances (1 more than usual, 0.6 instance-minutes of it), about 1 min 2 s." in said.out
    assert "Note: versions share files" in said.out
    assert json.loads(segue("plan", "--json").out) == document


def rollout(**more: Any) -> dict[str, Any]:
    """A rollout's document."""
    return {"rollout": "r2", "service": "shop", "kind": "rollback", "from": "v2", "to": "v1", "who": "ann", **more}


def test_a_rollback_says_how_long_it_took(segue: Segue, plane: Plane, folder: Path) -> None:
    plane.on("POST", "/v1/services/shop/rollback", {"rollout": "r2", **DECIDED})
    plane.on("GET", "/v1/rollouts/r2", rollout(**DECIDED))
    said = segue("rollback", "-s", "shop", "--reason", "it is slow")
    assert (said.status, said.out) == (0, "Back on v1 (v2 → v1 in 8 ms).\n")
    assert plane.asked("POST", "/v1/services/shop/rollback")[0].body == {"to": None, "reason": "it is slow"}
    last = json.loads(segue("rollback", "-s", "shop", "--json").out)
    assert (last["event"], last["outcome"], last["rollout"]) == ("finished", "promoted", "r2")


@pytest.mark.parametrize(
    ("old", "sentence"),
    [(None, "Back on v1 (nothing → v1 in 8 ms)."), ("v1", "Back on the former instances of v1, in 8 ms.")],
)
def test_a_rollback_after_down_or_after_a_restart_says_what_it_has_come_from(
    old: str | None, sentence: str, segue: Segue, plane: Plane, shop: Path
) -> None:
    plane.on("POST", "/v1/services/shop/rollback", {"rollout": "r2", **DECIDED})
    plane.on("GET", "/v1/rollouts/r2", rollout(**DECIDED) | {"from": old})
    assert segue("rollback").out == f"{sentence}\n"


def test_a_rollback_that_turns_a_rollout_back_has_succeeded(segue: Segue, plane: Plane, shop: Path) -> None:
    turned = {**DECIDED, "outcome": "rolled_back", "exit": 7, "seconds": 500.0}
    plane.on("POST", "/v1/services/shop/rollback", {"rollout": "r2", **turned})
    plane.on("GET", "/v1/rollouts/r2", rollout(**turned) | {"kind": "deploy", "from": "v1", "to": "v2"})
    said = segue("rollback")
    assert said.status == 0
    assert said.out.startswith("Back on v1 (v2 → v1 in ")
    assert "min" not in said.out


def test_a_rollback_whose_version_does_not_start_has_failed(segue: Segue, plane: Plane, shop: Path) -> None:
    failed = {**DECIDED, "outcome": "rolled_back", "exit": 1, "reason": "shop-v1.2-1 does not start"}
    plane.on("POST", "/v1/services/shop/rollback", {"rollout": "r2", **failed})
    plane.on("GET", "/v1/rollouts/r2", rollout(**failed))
    said = segue("rollback")
    assert said.status == 1
    assert "v1 was refused; v2 serves as before" in said.out


def test_a_rollback_that_takes_its_time_is_shown(segue: Segue, plane: Plane, shop: Path) -> None:
    story = stories.Story(rollout="r2")
    story.tell("accepted", kind="rollback", strategy="rollback", **{"from": "v2", "to": "v1"}, who="ann", reason=None)
    story.tell("planned", steps=["v1.2: 1 instance"], peak=2, notes=[])
    story.tell("ended", step=1, of=1, text="v1.2: 1 instance", outcome="done", seconds=2.0)
    story.tell("finished", **DECIDED | {"seconds": 2.1}, log=[])
    plane.on("POST", "/v1/services/shop/rollback", (202, {"rollout": "r2"}))
    plane.on("GET", "/v1/rollouts/r2/events", Stream(story.events))
    plane.on("GET", "/v1/rollouts/r2", rollout(**DECIDED))
    said = segue("rollback")
    assert said.status == 0
    assert "[1/1] ✓ v1.2: 1 instance" in said.out
    assert "✓ shop: v1 serves all traffic, after 2.1 s." in said.out


def test_nothing_to_go_back_to_is_4(segue: Segue, plane: Plane, shop: Path) -> None:
    error = {"code": "refused", "exit": 4, "message": "there is no version to go back to", "next": "segue history"}
    plane.on("POST", "/v1/services/shop/rollback", Failure(409, error))
    assert segue("rollback").status == 4


@pytest.mark.parametrize(
    ("line", "path", "body", "sentence"),
    [
        ("scale 4", "scale", {"count": 4}, "shop: 4 instances, after 8 ms."),
        ("restart", "restart", {}, "shop: fresh instances, after 8 ms."),
        ("retire", "retire", {}, "shop: the old version is stopped, after 8 ms."),
        ("down", "down", {}, "shop is stopped, after 8 ms."),
    ],
)
def test_the_other_changes_ask_and_tell(
    line: str, path: str, body: object, sentence: str, segue: Segue, plane: Plane, shop: Path
) -> None:
    plane.on("POST", f"/v1/services/shop/{path}", {"rollout": "r2", **DECIDED})
    plane.on("GET", "/v1/rollouts/r2", rollout(**DECIDED) | {"kind": path})
    plane.on("GET", "/v1/rollouts/r2/events", Stream(stories.retired().events))
    said = segue(*line.split())
    assert (said.status, said.out) == (0, sentence + "\n")
    assert plane.asked("POST", f"/v1/services/shop/{path}")[0].body == body


@pytest.mark.parametrize("answer", [{"rollout": "r2", **DECIDED}, (202, {"rollout": "r2"})])
def test_who_retires_is_told_that_the_hook_after_it_has_failed(
    answer: Any, segue: Segue, plane: Plane, shop: Path
) -> None:
    plane.on("POST", "/v1/services/shop/retire", answer)
    plane.on("GET", "/v1/rollouts/r2", rollout(**DECIDED) | {"kind": "retire", "from": "v1", "to": "v2"})
    plane.on("GET", "/v1/rollouts/r2/events", Stream(stories.retired(3).events))
    said = segue("retire")
    assert said.status == 5
    assert said.out.splitlines()[-3:] == [
        "✗ shop: the old version is stopped, but the after hook has failed, after 8 ms.",
        "  Reason: the after hook exited with status 3: shop is degraded",
        "  Next: segue status",
    ]
    assert events_of(segue("retire", "--json").out)[-1]["exit"] == 5


def test_the_step_of_a_hook_that_has_failed_is_marked_so(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/rollouts/r2/events", Stream(stories.retired(3).events))
    said = segue("wait", "r2")
    assert said.status == 5
    assert "  [2/2] ✗ run the after hook  100 ms  the after hook exited with status 3" in said.out
    plane.on("GET", "/v1/rollouts/r2/events", Stream(stories.retired().events))
    assert "[2/2] ✓ run the after hook" in segue("wait", "r2").out


@pytest.fixture
def scaling(plane: Plane, shop: Path) -> None:
    """One instance of shop runs: this process."""
    one = {"id": "shop-v1.1-1", "state": "ready", "pid": os.getpid()}
    versions = {"v1": {"revision": "v1.1", "share": 1.0, "size": 1, "instances": [one]}}
    plane.on("GET", "/v1/services/shop", {"service": "shop", "stable": "v1", "versions": versions})
    plane.on("POST", "/v1/services/shop/scale", {"rollout": "r2", **DECIDED})
    plane.on("GET", "/v1/rollouts/r2", rollout(**DECIDED) | {"kind": "scale"})


def test_more_instances_than_there_is_memory_for_are_refused(
    segue: Segue, plane: Plane, scaling: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "unique", lambda pids: 128 << 20 if list(pids) == [os.getpid()] else None)
    monkeypatch.setattr(capacity, "obtainable", lambda: 3 << 30)
    said = segue("scale", "99")
    assert (said.status, plane.asked("POST", "/v1/services/shop/scale")) == (4, [])
    assert said.err.startswith("Error: for 98 more instances about 12.2 GiB are needed, and 3.0 GiB are free.\n")
    assert segue("scale", "25").status == 0
    monkeypatch.setattr(capacity, "unique", lambda pids: None)
    assert segue("scale", "99").status == 0


def test_what_another_instance_takes_is_less_than_what_one_holds() -> None:
    alone, whole = capacity.unique([os.getpid()]), capacity._memory_of(os.getpid())
    assert alone and whole and 0 < alone < whole
    assert capacity.unique([]) is None


def test_wait_takes_the_latest_rollout_and_exits_as_it_did(segue: Segue, plane: Plane, shop: Path) -> None:
    deploys(plane, stories.refused().events)
    plane.on("GET", "/v1/rollouts", {"rollouts": [{"rollout": "r1"}]})
    assert segue("wait").status == 1
    assert segue("wait", "r1").status == 1
    plane.on("GET", "/v1/rollouts", {"rollouts": []})
    said = segue("wait")
    assert (said.status, said.out) == (0, "shop has had no rollout yet: there is nothing to wait for.\n")


def test_on_a_terminal_a_block_is_redrawn_and_the_summary_stays(process: Process, plane: Plane, shop: Path) -> None:
    deploys(plane, stories.promoted().events)
    shown, status = screen(process, "deploy")
    assert status == 0
    assert "\x1b[1A" in shown  # one line up: it is drawn again in place
    assert "judging: 3 of 5 s; v2: 120 attempts" in shown
    assert "████████████\x1b[0m\x1b[2m░░░░░░░░░░░░" in shown
    assert re.search(r"v1\.1.* 50%.*as before", shown)
    last = shown[shown.rindex("✓ 7 steps before") :]
    assert "100%" in last
    assert "shop: v2 serves all traffic, after 12.3 s." in last


def test_with_no_color_a_terminal_gets_plain_lines(process: Process, plane: Plane, shop: Path) -> None:
    deploys(plane, stories.promoted().events)
    shown, status = screen(process, "deploy", NO_COLOR="1")
    assert status == 0
    assert "\x1b" not in shown
    assert "[ 1/10] ✓ v2.1: 1 instance" in shown
