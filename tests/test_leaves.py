"""Every setting of the manifest has a test in which changing it changes behaviour: `@pytest.mark.leaf(name)`."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

from segue.manifest.outline import leaves

CHECK = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "check-leaves"))
MARKED: dict[str, list[str]] = CHECK["marked"](Path(__file__).parent)


def test_every_setting_has_a_test() -> None:
    assert sorted(set(leaves()) - set(MARKED)) == []


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
