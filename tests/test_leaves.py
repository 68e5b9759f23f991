"""Every setting of the manifest has a test in which changing it changes behaviour: `@pytest.mark.leaf(name)`.

PENDING lists those that have none yet. It only shrinks: whoever marks a test takes the name out.
"""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

from segue.manifest.outline import leaves

CHECK = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "check-leaves"))
MARKED: dict[str, list[str]] = CHECK["marked"](Path(__file__).parent)

PENDING = {
    "service",
    "replicas",
    "route.listen",
    "route.hosts",
    "route.path",
    "route.timeout",
    "route.shield",
    "run.process.command",
    "run.process.source",
    "run.process.shared",
    "run.process.build",
    "run.process.env",
    "run.process.user",
    "health.path",
    "health.command",
    "health.expect",
    "health.every",
    "health.timeout",
    "health.healthy",
    "health.unhealthy",
    "health.min_ready",
    "health.deadline",
    "smoke[].http.path",
    "smoke[].http.expect",
    "smoke[].http.contains",
    "smoke[].command",
    "stop.signal",
    "stop.drain",
    "stop.spread",
    "stop.grace",
    "hooks.before",
    "hooks.on_rollback",
    "hooks.timeout",
    "strategy.rolling.batch",
    "strategy.rolling.surge",
    "strategy.rolling.first_judge",
    "strategy.rolling.judge",
    "strategy.rolling.keep",
    "strategy.in_place.batch",
    "strategy.in_place.first_judge",
    "strategy.in_place.judge",
    "strategy.blue_green.judge",
    "strategy.blue_green.keep",
    "retain",
}


def test_every_setting_has_a_test_or_is_pending() -> None:
    assert set(leaves()) - set(MARKED) - PENDING == set()


def test_what_is_pending_has_no_test_yet_and_is_a_setting() -> None:
    assert PENDING & set(MARKED) == set(), "take these out of PENDING"
    assert set(leaves()) >= PENDING


def test_every_mark_names_a_setting() -> None:
    assert {name: places for name, places in MARKED.items() if name not in leaves()} == {}


def test_marks_are_found_on_functions_and_on_parameters() -> None:
    source = """
@pytest.mark.leaf("replicas")
def test_one(): ...
@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.leaf("retain", "route.path"))])
def test_two(x): ...
@mark.leaf(NAME)
@pytest.mark.slow
def test_three(): ...
"""
    names = [name for name, _ in CHECK["marks"](ast.parse(source))]
    assert sorted(names) == ["NAME", "replicas", "retain", "route.path"]
