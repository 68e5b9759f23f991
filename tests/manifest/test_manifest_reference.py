"""The reference is an example, the documentation of the schema, and the manual: it says everything, and the truth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from segue.manifest import load, outline
from segue.manifest.document import Document, read
from segue.manifest.load import ManifestError, parse
from segue.manifest.schema import Manifest

PATH = Path(load.__file__).with_name("reference.yaml")
TEXT = PATH.read_text("utf-8")
LINES = TEXT.splitlines()
DOCUMENT: Document = read(TEXT)

ALTERNATIVES = {"health.command": "health.path"}
"""Settings that exclude others: their lines stand as comments beside those of the others."""

CONDITIONAL = {"hooks.after": ("  use: rolling ", "  use: blue_green ")}
"""Settings that demand another one than the default: their lines are comments too. What is changed for them."""

COMMENTS = {*ALTERNATIVES, *CONDITIONAL}


def dotted(path: tuple[str | int, ...]) -> str:
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def shown() -> set[str]:
    return {dotted(path) for path in DOCUMENT.keys if path[:3] != ("run", "process", "env") or len(path) == 3}


def default(leaf: str) -> Any:
    """What the schema takes for `leaf` when it is left out; None where there is no default."""
    section, _, key = leaf.rpartition(".")
    field = outline.sections()[section].model_fields[key]
    value = field.get_default(call_default_factory=True)
    return None if value in (PydanticUndefined, (), {}, None) else value


def test_the_reference_loads_as_it_stands() -> None:
    assert load.load(PATH, as_root=False).manifest.service == "shop"


def test_every_leaf_of_the_schema_stands_in_the_reference() -> None:
    assert set(outline.leaves()) - shown() == COMMENTS


def test_every_key_of_the_reference_is_in_the_schema() -> None:
    assert shown() <= {*outline.leaves(), *(name.removesuffix("[]") for name in outline.sections())} | {
        name for name in outline.sections() if "[]" in name
    }


@pytest.mark.parametrize(("leaf", "other"), ALTERNATIVES.items())
def test_an_alternative_stands_as_a_comment_that_loads_in_place_of_the_other(leaf: str, other: str) -> None:
    section, _, key = leaf.rpartition(".")
    other_key = other.rpartition(".")[2]
    text, count = re.subn(rf"^  {other_key}: .*\n  # ({key}: .*)$", r"  \1", TEXT, flags=re.MULTILINE)
    assert count == 1
    loaded = getattr(parse(text).manifest, section)
    assert getattr(loaded, key) is not None and getattr(loaded, other_key) is None


@pytest.mark.parametrize(("leaf", "change"), CONDITIONAL.items())
def test_a_conditional_setting_stands_as_a_comment_that_loads_where_its_condition_holds(
    leaf: str, change: tuple[str, str]
) -> None:
    section, _, key = leaf.rpartition(".")
    text, count = re.subn(rf"^  # ({key}: .*)$", r"  \1", TEXT, flags=re.MULTILINE)
    assert count == 1
    with pytest.raises(ManifestError):
        parse(text)
    assert getattr(getattr(parse(text.replace(*change)).manifest, section), key) is not None


@pytest.mark.parametrize("leaf", [leaf for leaf in outline.leaves() if leaf not in COMMENTS])
def test_the_reference_shows_the_default_or_says_that_there_is_none(leaf: str) -> None:
    path = next(path for path in DOCUMENT.keys if dotted(path) == leaf)
    value: Any = load.load(PATH, as_root=False).manifest
    for part in path:
        value = value[part] if isinstance(part, int) else getattr(value, part)
    line = DOCUMENT.keys[path].line
    said = comment(line)
    if default(leaf) is None:
        assert said.startswith(("no default: ", "No default: ", "required", "Required")), said
    else:
        assert value == default(leaf)
        assert said and "default" not in said


def comment(line: int) -> str:
    """What is said about the setting in `line`: after it, or in the lines above."""
    if "#" in LINES[line - 1].replace('"#"', ""):
        return LINES[line - 1].partition(" # ")[2].strip()
    above = []
    while (text := LINES[line - 2].strip()).startswith("#"):
        above.insert(0, text.removeprefix("#").strip())
        line -= 1
    return " ".join(above)


def test_required_is_what_the_schema_requires() -> None:
    for leaf in outline.leaves():
        section, _, key = leaf.rpartition(".")
        if leaf not in COMMENTS:
            path = next(path for path in DOCUMENT.keys if dotted(path) == leaf)
            said = comment(DOCUMENT.keys[path].line).lower().startswith("required")
            assert said == outline.sections()[section].model_fields[key].is_required(), leaf


@pytest.mark.parametrize("wrong", ["{a: 1}", "[[]]", "!x y"])
@pytest.mark.parametrize("leaf", [leaf for leaf in outline.leaves() if leaf not in COMMENTS])
def test_any_leaf_of_a_wrong_type_is_refused_in_its_line(leaf: str, wrong: str) -> None:
    path = next(path for path in DOCUMENT.keys if dotted(path) == leaf)
    line = DOCUMENT.keys[path].line
    before = LINES[line - 1][: DOCUMENT.values[path].column - 1]
    changed = [*LINES[: line - 1], before + wrong, *LINES[line:]]
    if leaf == "run.process.env" and wrong == "{a: 1}":
        return
    with pytest.raises(ManifestError) as refused:
        parse("\n".join(changed))
    blamed = refused.value
    assert blamed.line == line, blamed
    assert re.sub(r"\[\d+\]", "[]", blamed.key).startswith(leaf)


def test_the_leaves_are_the_schema() -> None:
    assert len(outline.leaves()) == len(set(outline.leaves())) > 40
    for leaf in ("service", "run.process.env", "smoke[].http.path", "strategy.blue_green.keep", "retain"):
        assert leaf in outline.leaves()
    assert outline.sections()[""] is Manifest
