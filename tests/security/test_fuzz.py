"""Inputs that nobody would send: a few seconds of what `make fuzz` does for as long as one likes."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import cast

import pytest
from fuzzing import BOMB, Answered, Asked, Found, a_manifest, ask, ask_all, judge, read_manifest

from segue.api.app import make
from segue.engine.control import ControlPlane
from segue.testing.plane import Lab

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_whatever_a_manifest_says_it_is_read_or_refused(tmp_path: Path) -> None:
    chance, became = random.Random(20), Counter[str]()
    for _ in range(80):
        became[read_manifest(a_manifest(chance), tmp_path)] += 1
    assert became["read"] >= 5 and became["refused"] >= 20, became


def test_whatever_the_api_is_asked_it_answers_or_says_what_is_wrong(tmp_path: Path) -> None:
    became = Counter[str]()
    ask_all(random.Random(20), 300, lambda word: became.update([word]))
    assert became["2xx"] >= 5 and became["4xx"] >= 50, became


def test_a_manifest_that_would_grow_without_end_is_refused(tmp_path: Path) -> None:
    for text in (f"service: shop\n{BOMB}", f"{BOMB}service: shop\nrun: {{process: {{command: x, env: *i}}}}\n"):
        assert read_manifest(text, tmp_path) == "refused"


@pytest.mark.parametrize(
    "wrong",
    [Answered(500, b"Internal Server Error", True), Answered(404, b'{"error": {"code": "", "message": ""}}', True)],
)
def test_a_wrong_answer_is_found(wrong: Answered) -> None:
    with pytest.raises((Found, KeyError)):
        judge(wrong)


@pytest.mark.parametrize(
    ("method", "path", "query", "header", "status"),
    [
        ("GET", "/nothing", "", b"", 404),
        ("PUT", "/v1/services", "", b"", 405),
        ("GET", "/v1/rollouts/x/events", "after=99999999999999999999", b"", 400),
        ("GET", "/v1/events", f"after={2**63}", b"", 400),
        ("GET", "/v1/events", "", b"\xb2", 200),
        ("GET", "/v1/events", "", b"9" * 5000, 200),
    ],
)
def test_what_was_found_stays_found(
    method: str, path: str, query: str, header: bytes, status: int, tmp_path: Path
) -> None:
    headers = ((b"last-event-id", header),) if header else ()

    async def scene(plane: ControlPlane) -> Answered:
        app = make(plane, lambda everything: None)
        return await ask(app, Asked(method, path, query, headers, b""))

    answered = cast(Answered, Lab(tmp_path / "home").run(scene))
    assert answered.status == status
    judge(answered)
