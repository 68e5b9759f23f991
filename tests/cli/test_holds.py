"""A rollout that asks a person, or is paused: what is shown of it, how it is left, and how it is answered."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from segue.cli import text
from segue.cli.live import block
from segue.cli.picture import Picture
from segue.cli.status import local, overview
from segue.cli.views import detached, held

from . import stories
from .canned import Failure, Plane, Stream
from .conftest import Process, Segue, deploys, holds, screen, until

HELD = (
    "Held: approve the switch to v2.1. The rollout stays, at most until 2025-03-02 12:00. "
    "Next: segue promote, or segue rollback"
)


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def picture(story: stories.Story) -> Picture:
    """What is known after the story."""
    known = Picture()
    for event in story.events:
        known.add(event)
    return known


# What is known


def test_a_hold_is_known_from_its_event_and_not_from_a_step() -> None:
    known = picture(stories.held())
    assert (known.hold, known.until) == (stories.HOLD, "2025-03-02T12:00:00+00:00")
    story = stories.Story().accepted().tell("began", step=1, of=1, text="hold: is the colour right?")
    assert picture(story).hold is None


def test_an_undecided_judgement_is_a_hold_too() -> None:
    story = stories.Story().accepted().tell("began", step=4, of=10, text="judge for 5 s")
    story.tell("judging", step=4, text="leans neither way").tell("holding", step=4, text="it leans neither way")
    known = picture(story)
    assert (known.hold, known.until, known.judging) == ("it leans neither way", None, None)


@pytest.mark.parametrize(
    ("event", "body"),
    [
        ("went_on", {"text": "ann promoted it"}),
        ("turned_back", {"reason": "nobody answered", "steps": []}),
        ("finished", {"outcome": "rolled_back", "exit": 7}),
    ],
)
def test_a_hold_and_a_pause_are_over_when_it_goes_on_back_or_ends(event: str, body: dict[str, Any]) -> None:
    known = picture(stories.held().tell("paused").tell(event, **body))
    assert (known.hold, known.until, known.paused) == (None, None, False)


def test_a_pause_lasts_until_it_is_resumed() -> None:
    assert picture(stories.held().tell("paused")).paused
    assert not picture(stories.held().tell("paused").tell("resumed")).paused


# What is said


def test_what_a_person_is_asked_is_said_with_the_end_and_the_next_commands() -> None:
    assert held(picture(stories.held())) == HELD
    open_end = picture(stories.Story().tell("holding", text="is the colour right?"))
    assert held(open_end) == ("Held: is the colour right? The rollout stays. Next: segue promote, or segue rollback")


def test_today_needs_no_date() -> None:
    noon = datetime.now(UTC).replace(hour=14, minute=5, second=9)
    assert (local(noon.isoformat(), seconds=False), local(noon.isoformat())) == ("14:05", "14:05:09")


def test_who_leaves_a_rollout_is_told_how_it_stays() -> None:
    story = stories.held()
    assert detached(picture(story), "r1", "interrupted") == (
        "Detached (interrupted): the rollout stays held. Next: segue promote, or segue rollback"
    )
    story.tell("went_on", text="ann promoted it").tell("paused")
    assert detached(picture(story), "r1", "interrupted") == (
        "Detached (interrupted): the rollout stays paused. Next: segue resume, or segue rollback"
    )
    assert detached(picture(story.tell("resumed")), "r1", "interrupted").endswith("goes on. Next: segue wait r1")


def test_the_block_on_a_terminal_shows_a_hold_and_a_pause() -> None:
    console = Console(width=100, no_color=True, file=StringIO())
    console.print(block(picture(stories.held().tell("paused")), datetime.now(UTC)))
    shown = "\n".join(map(str.rstrip, console.file.getvalue().splitlines())) + "\n"  # type: ignore[attr-defined]
    assert "  held: approve the switch to v2.1, at most until 2025-03-02 12:00\n" in shown
    assert "  Next: segue promote, or segue rollback\n" in shown
    assert "  paused. Next: segue resume, or segue rollback\n" in shown


# How a deploy is left


@pytest.mark.parametrize("command", ["deploy", "wait r1", "deploy --no-wait"])
def test_without_a_terminal_a_hold_returns_6_and_says_once_what_is_asked(
    command: str, segue: Segue, plane: Plane, shop: Path
) -> None:
    deploys(plane, stories.held().events, ends=False)
    holds(plane, stories.HOLD)
    said = segue(*command.split())
    assert said.status == 6
    assert said.out.splitlines()[-1] == HELD
    assert said.out.count("Held") == 1


def test_with_json_the_last_line_of_a_hold_says_holding(segue: Segue, plane: Plane, shop: Path) -> None:
    deploys(plane, stories.held().events, ends=False)
    holds(plane, stories.HOLD)
    said = segue("deploy", "--json")
    *_, before, last = [json.loads(line) for line in said.out.splitlines()]
    assert before["event"] == "holding"
    assert (said.status, said.err) == (6, "")
    assert last == {
        "event": "finished",
        "rollout": "r1",
        "outcome": "holding",
        "basis": None,
        "reason": stories.HOLD,
        "exit": 6,
    }


def test_a_hold_that_is_over_is_history(segue: Segue, plane: Plane, shop: Path) -> None:
    deploys(plane, stories.approved().events)
    said = segue("wait", "r1")
    assert said.status == 0
    assert "  went on: ann promoted it" in said.out.splitlines()
    assert said.out.splitlines()[-1] == "✓ shop: v2 serves all traffic, after 9.0 s."


def test_a_hold_is_left_only_if_it_still_stands(process: Process, plane: Plane, shop: Path) -> None:
    deploys(plane, stories.held().events, ends=False)
    holds(plane, None)
    running = process("wait", "r1")
    until(lambda: len(plane.asked("GET", "/v1/services/shop")) > 1)
    assert running.poll() is None
    holds(plane, stories.HOLD)
    assert running.wait(20) == 6


def test_on_a_terminal_a_hold_is_stayed_with_unless_told_otherwise(
    process: Process, plane: Plane, shop: Path
) -> None:
    deploys(plane, stories.held().events, ends=False)
    holds(plane, stories.HOLD)
    shown, status = screen(process, "deploy", "--no-wait")
    assert status == 6
    assert "held: approve the switch to v2.1" in shown
    deploys(plane, stories.approved().events)
    shown, status = screen(process, "deploy")
    assert status == 0
    assert "hold: approve the switch to v2.1" in shown


def test_on_a_terminal_without_colours_the_next_commands_are_said_too(
    process: Process, plane: Plane, shop: Path
) -> None:
    deploys(plane, stories.approved().events)
    shown, status = screen(process, "deploy", NO_COLOR="1")
    assert (status, "Next: segue promote, or segue rollback" in shown) == (0, True)


def test_a_pause_and_its_end_are_a_line_each(segue: Segue, plane: Plane, shop: Path) -> None:
    story = stories.Story().accepted().tell("paused", text="paused by ann").tell("resumed", text="resumed by bob")
    story.tell("finished", outcome="promoted", basis="health", reason="", exit=0, seconds=1.0, log=[])
    deploys(plane, story.events)
    lines = segue("deploy").out.splitlines()
    assert "  paused by ann. Next: segue resume, or segue rollback" in lines
    assert "  resumed by bob" in lines


# How it is answered


def decided(**more: Any) -> dict[str, Any]:
    """A rollout that was decided."""
    told = {"rollout": "r1", "outcome": "promoted", "basis": "person", "reason": "asked", "exit": 0, "seconds": 4e4}
    return told | {"service": "shop", "kind": "deploy", "from": "v1", "to": "v2"} | more


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("promote", {"full": False, "reason": None}),
        ("promote --full --reason good", {"full": True, "reason": "good"}),
    ],
)
def test_promote_asks_and_says_what_came_of_it(
    line: str, body: object, segue: Segue, plane: Plane, shop: Path
) -> None:
    plane.on("POST", "/v1/services/shop/promote", decided())
    plane.on("GET", "/v1/rollouts/r1", decided())
    said = segue(*line.split())
    assert said.status == 0
    assert re.fullmatch(r"shop: v2 serves all traffic, after \d+ ms\.\n", said.out)
    (asked,) = plane.asked("POST", "/v1/services/shop/promote")
    assert asked.body == body
    assert asked.key is not None


def test_promote_follows_the_rollout_until_the_next_hold(segue: Segue, plane: Plane, shop: Path) -> None:
    story = stories.held().tell("went_on", text="ann promoted it").tell("holding", step=5, text="approve more")
    plane.on("POST", "/v1/services/shop/promote", (202, {"rollout": "r1"}))
    plane.on("GET", "/v1/rollouts/r1/events", Stream(story.events, ends=False))
    plane.on("GET", "/v1/rollouts/r1", decided(outcome=None, exit=None))
    holds(plane, "approve more")
    said = segue("promote")
    assert said.status == 0, "it went past the hold that it was for"
    assert said.out.splitlines()[-1].startswith("Held: approve more. The rollout stays.")


def test_promote_exits_as_the_deploy_would(segue: Segue, plane: Plane, shop: Path) -> None:
    refused = decided(outcome="rolled_back", exit=1, reason="5 of 9 failed")
    plane.on("POST", "/v1/services/shop/promote", refused)
    plane.on("GET", "/v1/rollouts/r1", refused)
    said = segue("promote")
    assert said.status == 1
    assert "v2 was refused; v1 serves as before" in said.out
    assert "Reason: 5 of 9 failed" in said.out


def test_promote_detached_returns_at_once(segue: Segue, plane: Plane, shop: Path) -> None:
    plane.on("POST", "/v1/services/shop/promote", (202, {"rollout": "r1"}))
    said = segue("promote", "--detach")
    assert (said.status, said.out) == (0, "Under way: segue wait r1\n")
    assert plane.asked("POST", "/v1/services/shop/promote")[0].query == {}


@pytest.mark.parametrize("command", ["promote", "pause", "resume"])
def test_where_nothing_runs_there_is_nothing_to_answer(command: str, segue: Segue, plane: Plane, shop: Path) -> None:
    error = {"code": "refused", "exit": 4, "message": "no rollout of shop runs", "next": "segue status"}
    plane.on("POST", f"/v1/services/shop/{command}", Failure(409, error))
    said = segue(command)
    assert (said.status, said.out) == (4, "")
    assert said.err == "Error: no rollout of shop runs.\nNext:  segue status\n"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("pause", "shop is paused: no further step begins. Next: segue resume, or segue rollback"),
        ("resume", "shop is no longer paused. Next: segue wait r1"),
    ],
)
def test_pause_and_resume_return_at_once(command: str, sentence: str, segue: Segue, plane: Plane, shop: Path) -> None:
    path = f"/v1/services/shop/{command}"
    plane.on("POST", path, (202, {"rollout": "r1"}))
    assert segue(command).out == sentence + "\n"
    assert json.loads(segue(command, "--json").out) == {"rollout": "r1"}
    assert plane.asked("POST", path)[0].query == {}
    plane.on("POST", path, {"rollout": None, "message": "shop is paused already"})
    assert (segue(command).out, segue(command).status) == ("shop is paused already.\n", 0)


# Status


def shown(state: str, *, on: bool = False, **rollout: Any) -> list[str]:
    """The status of api in `state`, as lines."""
    entry = stories.status()["services"][1]
    entry["state"] = state
    entry["rollout"] |= rollout
    return overview({"services": [entry]}, on=on).splitlines()


def test_status_says_what_is_held_and_that_it_is_paused() -> None:
    head, line, *_ = shown("holding", hold="approve more\x1b[2J")
    assert head.startswith("api  holding  ")
    assert line == "  v7 → v8  canary  step 4 of 11  held: approve more�[2J  (r9)"
    head, line, *_ = shown("paused")
    assert head.startswith("api  paused  ")
    assert line == "  v7 → v8  canary  step 4 of 11  paused  (r9)"


@pytest.mark.parametrize(("state", "word"), [("holding", "held: approve more"), ("paused", "paused")])
def test_a_hold_and_a_pause_are_yellow(state: str, word: str) -> None:
    head, line, *_ = shown(state, on=True, hold="approve more" if state == "holding" else None)
    assert text.paint(state, "yellow", on=True) in head
    assert text.paint(word, "yellow", on=True) in line


def test_watch_tells_a_hold_and_its_end_with_time_and_service(process: Process, plane: Plane) -> None:
    plane.on("GET", "/v1/events", Stream(stories.approved().events, ends=False))
    running = process("watch")
    assert running.stdout is not None
    lines = [running.stdout.readline() for _ in range(8)]
    running.send_signal(2)
    assert running.wait(20) == 130
    assert any(line.endswith(f"  shop  {HELD}\n") for line in lines)
    assert any(line.endswith("  shop  went on: ann promoted it\n") for line in lines)


@pytest.mark.parametrize("width", [20, 60, 100])
def test_a_judgement_is_told_whole_and_leaves_room_for_who_types_ctrl_c(width: int) -> None:
    said = (
        "at most 27 s left; 0 of 16 attempts on v2 failed (0.00 %): not enough evidence yet, a verdict needs 364 more"
    )
    story = stories.Story().accepted().tell("judging", step=4, text=said)
    console = Console(width=max(width, 40), no_color=True, file=StringIO())
    console.print(block(picture(story), datetime.now(UTC), width))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    judging = lines[next(n for n, line in enumerate(lines) if line.startswith("  judging: ")) :]
    assert " ".join(" ".join(judging).split()) == f"judging: {said}"
    assert all(len(line) <= max(width, 40) - 2 for line in judging)
