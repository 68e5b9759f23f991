"""The examples run as they stand, and so does the tour. Changed are only the port, and as root the user."""

from __future__ import annotations

import shutil
import urllib.request
from pathlib import Path

import pytest

from segue.testing.site import Segue, as_user, free_port

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
FROM_A_REGISTRY = ("httpbin", "json-server")
PATHS = {"hello": "/", "httpbin": "/get", "json-server": "/posts"}
ELSEWHERE = {"migration"}
"""Played by tests of their own: ``test_migration.py``."""


def test_every_example_is_known_here() -> None:
    assert {folder.name for folder in EXAMPLES.iterdir() if folder.is_dir()} == set(PATHS) | ELSEWHERE


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in FROM_A_REGISTRY else []) for name in PATHS]
)
def test_the_example_is_deployed_twice(name: str, segue: Segue) -> None:
    if name == "json-server" and not shutil.which("npm"):
        pytest.skip("npm is not installed")
    folder, port = segue.home.parent / name, free_port()
    shutil.copytree(EXAMPLES / name, folder)
    if name == "json-server":
        (folder / "data").mkdir()
        shutil.copy(folder / "db.json", folder / "data")
    manifest = folder / "segue.yaml"
    user = "".join(f"    {key}: {value}\n" for key, value in as_user().items())
    text = manifest.read_text().replace("127.0.0.1:8080}", f"127.0.0.1:{port}}}")
    manifest.write_text(text.replace("    source: .\n", f"    source: .\n{user}"))
    segue("check", cwd=folder)
    for version in ("v1", "v2"):
        segue("deploy", "--version", version, cwd=folder)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{PATHS[name]}") as answer:
            assert answer.status == 200


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_tour_ends_as_it_must(segue: Segue) -> None:
    assert "Every act ended as it must, and no request was lost." in segue("demo", within=380).stdout
