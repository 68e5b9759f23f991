"""The commands that only look: status, watch, history, report, logs, version."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from segue.cli.status import overview

from . import stories
from .canned import Failure, Plane, Stream, Text
from .conftest import Segue

EVIL = "<script>alert('x')</script> & \"quotes\" | `ticks` \x1b[31m"


def test_status_shows_services_versions_and_rollouts(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/services", stories.status())
    said = segue("status")
    assert said.status == 0
    assert said.out == (
        "shop  steady  0.0.0.0:8080\n"
        "  VERSION  SHARE  INSTANCES\n"
        "  v2       100%   2 ready\n"
        "  v1       0%     1 of 2 ready  kept until 2025-03-01 12:10\n"
        "\n"
        "api  rolling_out  0.0.0.0:8080  api.example.com  /v1\n"
        "  v7 → v8  canary  step 4 of 11  (r9)\n"
        "  VERSION  SHARE  INSTANCES\n"
        "  v7       100%   0 of 1 ready\n"
    )


def test_status_names_a_strategy_as_everything_does(segue: Segue, plane: Plane) -> None:
    document = stories.status()
    document["services"][1]["rollout"]["strategy"] = "blue_green"
    plane.on("GET", "/v1/services", document)
    assert "  v7 → v8  blue/green  step 4 of 11  (r9)\n" in segue("status").out


def restarted(entry: dict[str, Any], **now: Any) -> str:
    """The rows of the versions where two revisions of v1 are there: v1.9, and the newer v1.10."""
    instances = entry["versions"]["v2"]["instances"]
    old, new = {"revision": "v1.9", "size": 2, "share": 0.0}, {"revision": "v1.10", "size": 2, "share": 1.0}
    stable, other = (old, new) if now["candidate"] else (new, old)
    versions = {"v1": {**stable, "instances": instances}, other["revision"]: {**other, "instances": instances}}
    shown = overview({"services": [{**entry, "versions": versions, **now}]}, on=False)
    return " | ".join(" ".join(line.split()) for line in shown.splitlines()[2:])


def test_after_a_restart_what_is_kept_is_said_of_the_revision_that_does_not_serve() -> None:
    entry = stories.status()["services"][0]
    kept = restarted(entry, candidate=None, stable="v1")
    assert kept == "v1 100% 2 ready | v1.9 0% 2 ready kept until 2025-03-01 12:10"
    new = restarted(entry, candidate="v1", stable="v1", previous=None)
    assert new == "v1 0% 2 ready | v1.10 100% 2 ready new"


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_status_of_one_service_asks_for_that_one(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/services/shop", stories.status()["services"][0])
    assert segue("status", "-s", "shop").out.startswith("shop  steady")
    document = json.loads(segue("status", "-s", "shop", "--json").out)
    assert document == {"schema": 1, "services": stories.status()["services"][:1]}


def test_status_json_is_the_control_planes_document(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/services", stories.status())
    assert json.loads(segue("status", "--json").out) == stories.status()


def test_status_tells_what_is_wrong_with_an_instance_but_not_that_one_is_starting(segue: Segue, plane: Plane) -> None:
    from datetime import UTC, datetime

    document = stories.status()
    first, second = document["services"][0]["versions"]["v2"]["instances"]
    first |= {"state": "unready", "problem": "answered with status 500"}
    second |= {"state": "starting", "problem": "cannot connect", "since": datetime.now(UTC).isoformat()}
    document["services"][0]["degraded"] = "the way back failed"
    plane.on("GET", "/v1/services", document)
    said = segue("status")
    assert "shop-v2.1-1: answered with status 500" in said.out
    assert "cannot connect" not in said.out
    assert "degraded: the way back failed" in said.out


def test_status_starts_nothing_where_nothing_was_ever_deployed(segue: Segue, home: Path) -> None:
    assert segue("status").out == "No service yet. Next: segue init\n"
    assert json.loads(segue("status", "--json").out) == {"schema": 1, "services": []}
    assert list(home.iterdir()) == []


def test_wait_starts_nothing_where_nothing_was_ever_deployed(segue: Segue, home: Path, shop: Path) -> None:
    said = segue("wait")
    assert (said.status, said.out) == (0, "No service yet. Next: segue deploy\n")
    assert json.loads(segue("wait", "--json").out)["outcome"] is None
    assert segue("history").out == "shop has had no rollout yet. Next: segue deploy\n"
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("line", ["experiment", "wait r1", "report", "explain r1", "logs", "status -s nope"])
def test_who_looks_for_something_where_nothing_was_ever_deployed_is_told_how_to_begin(
    line: str, segue: Segue, home: Path, shop: Path
) -> None:
    said = segue(*line.split())
    assert (said.status, said.out) == (4, "")
    assert said.err == "Error: there is no service yet.\nNext:  segue deploy\n"
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("line", ["status", "rollback", "promote", "retire", "logs"])
def test_who_names_a_service_where_there_is_none_is_told_how_to_begin(line: str, segue: Segue, plane: Plane) -> None:
    unknown = {"code": "unknown", "exit": 4, "message": "there is no service nope: …", "next": "segue status"}
    what = line.split()[0]
    plane.on("GET", "/v1/services/nope", Failure(404, unknown))
    plane.on("POST", f"/v1/services/nope/{what}", Failure(404, unknown))
    plane.on("GET", "/v1/services", {"schema": 1, "services": []})
    assert segue(*line.split(), "-s", "nope").err.splitlines()[1] == "Next:  segue init"
    plane.on("GET", "/v1/services", {"schema": 1, "services": [{"service": "shop"}]})
    assert segue(*line.split(), "-s", "nope").err.splitlines()[1] == "Next:  segue status"


def test_a_body_that_ends_with_the_connection_is_read_too(segue: Segue, plane: Plane, shop: Path) -> None:
    plane.chunked = False
    plane.on("GET", "/v1/services/shop", stories.status()["services"][0])
    plane.on("GET", "/v1/services/shop/logs", Text(["shop-v1.1-1 | hello"]))
    assert segue("logs").out == "shop-v1.1-1 | hello\n"


def test_logs_asks_for_what_was_wanted(segue: Segue, plane: Plane, shop: Path) -> None:
    plane.on("GET", "/v1/services/shop", stories.status()["services"][0])
    plane.on("GET", "/v1/services/shop/logs", Text(["shop-v1.1-1 | a \x1b[2Jb", "shop-v1.1-2 | c | d"]))
    said = segue("logs", "--version", "v1", "-n", "5")
    assert said.out == "shop-v1.1-1 | a �[2Jb\nshop-v1.1-2 | c | d\n"
    (asked,) = plane.asked("GET", "/v1/services/shop/logs")
    assert asked.query == {"version": ["v1"], "lines": ["5"], "follow": ["false"]}
    lines = [json.loads(line) for line in segue("logs", "--json").out.splitlines()]
    assert lines[1] == {"instance": "shop-v1.1-2", "line": "c | d"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--version v3", "no instance of v3 is there; versions with instances: v1, v2."),
        ("--instance shop-v9.1-1", "there is no instance shop-v9.1-1; instances: shop-v1.1-1, shop-v2.1-1, "),
        ("--version v1 --instance shop-v2.1-1", "there is no instance shop-v2.1-1; instances: shop-v1.1-1."),
    ],
)
def test_logs_of_what_is_not_there_are_refused_with_what_is(
    line: str, sentence: str, segue: Segue, plane: Plane, shop: Path
) -> None:
    plane.on("GET", "/v1/services/shop", stories.status()["services"][0])
    plane.on("GET", "/v1/services/shop/logs", Text([]))
    said = segue("logs", *line.split())
    assert (said.status, said.out) == (4, "")
    assert sentence in said.err
    for known in ("--version v2.1", "--instance shop-v1.1-1"):
        assert segue("logs", *known.split()).status == 0


def test_the_only_service_is_meant_where_no_manifest_names_one(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/services", {"schema": 1, "services": [{"service": "web"}]})
    plane.on("GET", "/v1/services/web", {"service": "web", "versions": {}})
    plane.on("GET", "/v1/services/web/logs", Text(["web-v1.1-1 | hello"]))
    assert segue("logs").status == 0


def past(**more: Any) -> dict[str, Any]:
    """A rollout as the history lists it."""
    return {
        "rollout": "r1",
        "service": "shop",
        "strategy": "blue_green",
        "from": "v1",
        "to": "v2",
        "state": "decided",
        "outcome": "rolled_back",
        "basis": "evidence",
        "reason": "3 of 40 requests failed",
        "started": "2025-03-01T12:00:00+00:00",
        "decided": "2025-03-01T12:01:02+00:00",
        "seconds": 62.0,
        "who": "ann",
        **more,
    }


def test_history_is_a_table(segue: Segue, plane: Plane, shop: Path) -> None:
    plane.on("GET", "/v1/rollouts", {"rollouts": [past()]})
    said = segue("history", "-n", "5")
    heading, row = said.out.splitlines()
    assert heading.split() == ["ROLLOUT", "STARTED", "WAY", "STRATEGY", "OUTCOME", "TIME", "WHO", "WHY"]
    assert re.split(r" {2,}", row)[2:] == [
        "v1 → v2",
        "blue/green",
        "rolled back",
        "1 min 2 s",
        "ann",
        "3 of 40 requests failed",
    ]
    assert plane.requests[0].query == {"service": ["shop"], "limit": ["5"]}
    assert json.loads(segue("history", "--json").out) == {"rollouts": [past()]}


def test_history_says_once_what_was_asked_for_and_is_the_reason(segue: Segue, plane: Plane, shop: Path) -> None:
    rollouts = [past(asked="it is slow", reason="it is slow"), past(asked="it is slow", reason="v1 serves")]
    plane.on("GET", "/v1/rollouts", {"rollouts": rollouts})
    rows = segue("history").out.splitlines()[1:]
    assert [re.split(r" {2,}", row)[-1] for row in rows] == ["it is slow", "it is slow: v1 serves"]


def report(**more: Any) -> dict[str, Any]:
    """A rollout's report, with texts that want to be markup."""
    return past(
        requests={
            "total": 12345,
            "answered_by": {"v1": 12000, "v2": 300},
            "failed_by": {"v2": 40},
            "shielded": 3,
            "hedged": 0,
            "cut": 2,
            "uncounted": 0,
            "balanced": True,
        },
        latency_ms={"v1": {"p50": 1.234, "p90": 5.0, "p99": 1500.0}, "v2": {"p50": 2.0, "p90": 6.0, "p99": 9.0}},
        switch_ms=2.4,
        rollback_ms=8.1,
        steps=[{"step": "check v2.1", "began": "2025-03-01T12:00:01+00:00", "outcome": "done", "verdict": None}],
        judgements=[{"verdict": "fail", "basis": "evidence", "reason": EVIL}],
        notes=[EVIL],
        log=[EVIL],
    ) | {"reason": EVIL, **more}


@pytest.fixture
def reported(plane: Plane, shop: Path) -> None:
    plane.on("GET", "/v1/rollouts", {"rollouts": [past()]})
    plane.on("GET", "/v1/rollouts/r1/report", report())


def test_a_report_accounts_for_every_request(segue: Segue, reported: None) -> None:
    said = segue("report")
    assert said.status == 0
    for line in (
        "✗ shop: v1 → v2, blue/green, rolled back",
        "  answered by v1       12,000",
        "  failed by v2         40",
        "  shielded             3",
        "  all                  12,345",
        "  the books balance    yes",
        "  check v2.1  1.0 s  done",
        "  v1       1.23 ms  5 ms  1.5 s",
    ):
        assert line in said.out.splitlines()
    assert "\x1b" not in said.out
    assert json.loads(segue("report", "r1", "--json").out) == report()


def test_a_report_of_an_experiment_says_what_it_has_shown(segue: Segue, plane: Plane, reported: None) -> None:
    found = {
        "from": "v1",
        "to": "v2",
        "goal": "/thanks",
        "users": {"v1": 1200, "v2": 0},
        "reached": {"v1": 60, "v2": 0},
        "rates": {"v1": 0.05, "v2": None},
        "words": ["60 of 1,200 users of v1 reached /thanks (5.00 %).", "No difference was shown."],
    }
    plane.on("GET", "/v1/rollouts/r1/report", report(experiment=found))
    lines = segue("report").out.splitlines()
    assert any(line.endswith("reached /thanks (5.00 %). No difference was shown.") for line in lines)
    table = [line.split() for line in lines[lines.index("Experiment") + 1 :][:3]]
    assert table == [
        ["version", "users", "reached", "/thanks", "rate"],
        ["v1", "1,200", "60", "5.00%"],
        ["v2", "0", "0"],
    ]


def test_a_report_has_no_empty_table_of_times(segue: Segue, plane: Plane, reported: None) -> None:
    plane.on("GET", "/v1/rollouts/r1/report", report(latency_ms={"v1": {"p50": None, "p90": None, "p99": None}}))
    assert "Latency" not in segue("report").out


@pytest.mark.parametrize(
    ("uncounted", "why"), [(0, "the router began to count anew"), (7, "what became of some is not known")]
)
def test_books_that_do_not_balance_say_why(
    uncounted: int, why: str, segue: Segue, reported: None, plane: Plane
) -> None:
    document = report()
    document["requests"] |= {"balanced": False, "uncounted": uncounted}
    plane.on("GET", "/v1/rollouts/r1/report", document)
    assert f"  the books balance    no: {why}" in segue("report").out.splitlines()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_escapes_everything(segue: Segue, reported: None, folder: Path) -> None:
    said = segue("report", "--html", "out.html")
    assert (said.status, said.out) == (0, "")
    written = (folder / "out.html").read_text()
    page = _Page()
    page.feed(written)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "://" not in written
    assert page.text.count("<script>alert('x')</script>") == 4  # reason, judgement, note, log
    assert "12,345" in page.text


def test_nothing_in_the_markdown_becomes_markup(segue: Segue, reported: None) -> None:
    said = segue("report", "--markdown")
    assert said.status == 0
    prose = "\n".join(line for line in said.out.splitlines() if not line.startswith("    "))
    assert "<script>" not in prose
    assert "| answered by v1 | 12,000 |" in prose
    judgement = next(line for line in prose.splitlines() if line.startswith("| fail |"))
    assert len(re.findall(r"(?<!\\)\|", judgement)) == 4
    assert "\\`ticks\\`" in prose


def test_a_page_that_cannot_be_written_is_told(segue: Segue, reported: None) -> None:
    said = segue("report", "--html", "nowhere/out.html")
    assert said.status == 2
    assert "nowhere/out.html: No such file or directory." in said.err


def test_a_service_without_rollouts_has_nothing_to_report(segue: Segue, plane: Plane, shop: Path) -> None:
    plane.on("GET", "/v1/rollouts", {"rollouts": []})
    said = segue("report")
    assert said.status == 4
    assert "Next:  segue deploy" in said.err


def test_watch_prints_every_event_as_a_line(process: Callable[..., subprocess.Popen[str]], plane: Plane) -> None:
    plane.on("GET", "/v1/events", Stream(stories.promoted().events, ends=False))
    running = process("watch")
    assert running.stdout is not None
    lines = [running.stdout.readline() for _ in range(6)]
    running.send_signal(2)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert re.fullmatch(r"\S+ \S+  shop  v1 → v2  rolling  \(r1\)\n", lines[0])
    assert lines[4].endswith("[ 1/10] ✓ v2.1: 1 instance  500 ms\n")


def test_watch_that_came_late_knows_what_ended(process: Callable[..., subprocess.Popen[str]], plane: Plane) -> None:
    told = {
        "kind": "deploy",
        "from": "v1",
        "to": "v2",
        "outcome": "promoted",
        "basis": "health",
        "reason": "v2 serves",
    }
    story = stories.Story().tell("finished", exit=0, seconds=5.3, log=[], **told)
    plane.on("GET", "/v1/events", Stream(story.events, ends=False))
    running = process("watch")
    assert running.stdout is not None
    assert running.stdout.readline().endswith("  shop  ✓ shop: v2 serves all traffic, after 5.3 s.\n")
    running.send_signal(2)
    running.communicate(timeout=20)


def test_watch_json_is_events(process: Callable[..., subprocess.Popen[str]], plane: Plane) -> None:
    plane.on("GET", "/v1/events", Stream(stories.promoted().events, ends=False))
    running = process("watch", "--json", "-s", "shop")
    assert running.stdout is not None
    assert [json.loads(running.stdout.readline())["seq"] for _ in range(10)] == list(range(1, 11))
    assert plane.asked("GET", "/v1/events")[0].query == {"service": ["shop"]}


def test_version_tells_itself(segue: Segue) -> None:
    from segue import __version__

    assert segue("version").out.startswith(f"segue {__version__} (Python 3.")
    assert json.loads(segue("version", "--json").out)["segue"] == __version__
    assert segue("--version").out == f"segue {__version__}\n"
