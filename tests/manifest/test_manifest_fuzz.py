"""Whatever is given, the answer is a manifest or a ManifestError."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from segue.manifest import load, outline, values
from segue.manifest.document import read
from segue.manifest.load import ManifestError, parse, receive
from segue.manifest.schema import Manifest

REFERENCE = Path(load.__file__).with_name("reference.yaml").read_text("utf-8")
BASE = {"service": "shop", "run": {"process": {"command": "./serve"}}}
PIECES = st.sampled_from(
    [": ", "- ", "\n", "  ", "[", "]", "{", "}", "!env ", "!!int ", "&a ", "*a", "<<", "'", '"', "|", "#"]
)
KEYS = st.sampled_from(sorted({part for leaf in outline.leaves() for part in leaf.replace("[]", "").split(".")}))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=3)
)


def outcome(text: str) -> Manifest | ManifestError:
    try:
        return parse(text).manifest
    except ManifestError as error:
        json.dumps(error.document())
        assert error.problem
        return error


@settings(max_examples=150, deadline=None)
@given(st.text() | st.lists(PIECES | KEYS | st.text(max_size=3)).map("".join))
@example('"\\UFFFFFFFF"')
@example("%YAML 1.1\n---\nservice: 1\n")
@example("%FOO\n---\nservice: 1\n")
@example("? ? ?")
@example("service: !!binary x")
@example("!!python/object:os.system x")
@example("replicas: 0x" + "f" * 9000)
@example("replicas: " + "9" * 9000)
@example("\ufeff\ufeff")
@example("a: &a {<<: [*a, *a]}")
def test_any_text_is_a_manifest_or_a_manifest_error(text: str) -> None:
    outcome(text)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(REFERENCE)), st.integers(0, 30), PIECES | st.text(max_size=4))
def test_the_reference_with_anything_put_in_it_is_a_manifest_or_a_manifest_error(at: int, cut: int, put: str) -> None:
    found = outcome(REFERENCE[:at] + put + REFERENCE[at + cut :])
    if isinstance(found, Manifest):
        assert Manifest.model_validate(json.loads(json.dumps(found.model_dump(mode="json")))) == found


@settings(max_examples=150, deadline=None)
@given(ANYTHING | st.dictionaries(KEYS, ANYTHING, max_size=4).map(lambda more: {**BASE, **more}))
def test_any_json_is_a_manifest_or_a_manifest_error(document: Any) -> None:
    try:
        receive(document, as_root=False)
    except ManifestError as error:
        assert error.line is None


def refusal(document: Any) -> ManifestError | None:
    try:
        receive(document, as_root=False)
    except ManifestError as error:
        return error
    return None


@cache
def reference() -> str:
    return json.dumps(parse(REFERENCE).manifest.model_dump(mode="json"))


def with_leaf(leaf: str, value: Any) -> Any:
    """The reference as JSON with `value` in one place."""
    document = json.loads(reference())
    *inside, key = leaf.replace("[]", ".0").split(".")
    section: Any = document
    for part in inside:
        section = section[int(part)] if part.isdigit() else section[part]
    if section is not None:
        section[key] = value
    return document


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(outline.leaves()), PLAIN)
def test_any_value_of_any_leaf_is_accepted_or_refused(leaf: str, value: Any) -> None:
    try:
        manifest = receive(with_leaf(leaf, value), as_root=False)
    except ManifestError:
        return
    assert receive(manifest.model_dump(mode="json"), as_root=False) == manifest


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(outline.leaves()), PLAIN | st.from_regex(r"[0-9٣]{1,3} ?[a-z%/*]{0,2}[0-9]?", fullmatch=True))
@example("approve_within", 0)
@example("judge.false_alarm", "101%")
@example("route.hosts", "*")
@example("strategy.canary.steps", "10%")
def test_what_is_suggested_is_something_else_and_not_refused(leaf: str, value: Any) -> None:
    error = refusal(with_leaf(leaf, value))
    if error is None or error.nearest is None or error.key != leaf.replace("[]", "[0]"):
        return
    suggested = read(error.nearest).data
    assert suggested != value or type(suggested) is not type(value)
    again = refusal(with_leaf(leaf, suggested))
    assert again is None or not again.key.startswith(error.key), (error, again)


@given(st.timedeltas(min_value=values.duration("0s"), max_value=values.duration("3650d")))
def test_every_duration_is_read_as_it_was_written(span: Any) -> None:
    assert values.duration(values.duration_text(span)) == span


@given(st.text())
def test_what_is_suggested_as_a_service_is_one(name: str) -> None:
    suggested = values.valid_service(name)
    assert suggested is None or values.service_name(suggested) == suggested


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("service: hop-'\"#\n{}")))
def test_the_service_found_without_a_parser_is_the_one_that_is_parsed(text: str) -> None:
    found = values.service_in(f"{text}\nservice: shop\n")
    if isinstance(outcome(f"{text}\nservice: shop\nrun: {{process: {{command: x}}}}\n"), Manifest):
        assert found == read(f"{text}\nservice: shop\n").data["service"]
