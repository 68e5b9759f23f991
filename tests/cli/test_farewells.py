"""Those who are connected to an instance that ends, as people are shown them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from segue.cli.account import as_markdown, as_text
from segue.cli.picture import Picture
from segue.cli.status import overview
from segue.cli.views import Lines

from .stories import Story

ONE = {"instance": "shop-v1.1-1", "drained": 40, "open": 312, "goodbye": 300, "cut": 2, "unclear": 10}
TWO = {"instance": "shop-v1.1-2", "drained": 44, "open": 1_000, "goodbye": 0, "cut": 1_000, "unclear": 0}


def report(*instances: dict[str, Any]) -> dict[str, Any]:
    """A report with what is said of `instances`."""
    rows = [{"repeated": 0, "killed": False, **one} for one in instances]
    whole = {kind: sum(row[kind] for row in rows) for kind in (rows[0] if rows else {}) if kind != "instance"}
    head = {"rollout": "r1", "service": "shop", "from": "v1", "to": "v2", "outcome": "promoted", "started": None}
    return {**head, "farewells": {**whole, "instances": rows}}


def test_the_report_has_a_row_for_each_instance_that_had_somebody() -> None:
    said = [" ".join(line.split()) for line in as_text(report(ONE, {**TWO, "killed": True})).splitlines()]
    at = said.index("Goodbyes")
    assert said[at + 1 : at + 5] == [
        "instance open at the signal said goodbye to cut not known",
        "shop-v1.1-1 312 300 2 10",
        "shop-v1.1-2 1,000 0 1,000 0 killed after its grace",
        "all 1,312 300 1,002 10",
    ]


def test_one_instance_needs_no_sum_and_what_nobody_met_no_column() -> None:
    said = as_markdown(report({**ONE, "unclear": 0}))
    assert "| instance | open at the signal | said goodbye to | cut |  |" in said
    assert "| all |" not in said


def test_where_nobody_was_left_nothing_is_said() -> None:
    assert "Goodbyes" not in as_text(report())


def test_the_status_says_what_is_open_and_for_how_long_it_is_waited_for() -> None:
    until = datetime.now(UTC) + timedelta(seconds=90.5)
    there = {"address": None, "pid": 1, "restarts": 0, "since": until.isoformat(), "problem": None}
    ready = {"id": "shop-v2.1-1", "state": "ready", "in_flight": None, "until": None, **there}
    leaves = {"id": "shop-v1.1-1", "state": "draining", "in_flight": 312, "until": until.isoformat(), **there}
    versions = {
        "v1": {"share": 0.0, "size": 0, "instances": [leaves]},
        "v2": {"share": 1.0, "size": 1, "instances": [ready]},
    }
    entry = {"service": "shop", "state": "steady", "route": {}, "versions": versions}
    said = overview({"services": [entry]}, on=False)
    assert "  shop-v1.1-1 is draining: 312 open, 1 min 30 s left" in said.splitlines()
    leaves["in_flight"] = 0
    assert "open" not in overview({"services": [entry]}, on=False)


def test_a_log_says_what_is_still_open() -> None:
    story = Story()
    story.tell("instance", instance="shop-v1.1-1", state="draining", detail=None)
    story.tell("instance", instance="shop-v1.1-1", state="draining", detail="312 open, at most 29 s more")
    told = [line for event in story.events for line in Lines().lines(Picture(), event)]
    assert told == ["  shop-v1.1-1 is draining: 312 open, at most 29 s more"]
