"""Where the tour plays: folders and a home of its own, the real command line, load from a process of its own."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, TextIO

from segue.demo.acts import Scene
from segue.testing.load import Probe
from segue.testing.site import Segue, as_user, free_port

WIDTH = 80
"""The width of a terminal as it comes."""

RATE = 200.0
"""Requests a second: enough to see every loss, few enough for two small instances."""

_QUOTE = "| "


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and how long it took."""

    exit: int
    seconds: float


class Stage:
    """A service's folder, its users' address, and `segue` in a home that nothing else uses."""

    def __init__(self, folder: Path, screen: TextIO, scene: Scene) -> None:
        self.scene = scene
        self.folder = folder / scene.service
        self.folder.mkdir()
        self._screen = screen
        self._segue = Segue(folder / "home", {"COLUMNS": str(WIDTH - 4)})
        port = free_port()
        self._url = f"http://127.0.0.1:{port}{scene.path}"
        user = "".join(f"\n    {key}: {value}" for key, value in as_user().items())
        facts = {"port": port, "user": user, "python": sys.executable, "replicas": scene.replicas}
        (self.folder / "segue.yaml").write_text(Template(scene.manifest).substitute(facts))

    def say(self, text: str = "", hang: int = 0) -> None:
        """Print `text`, a long line in several, of which all but the first begin `hang` further to the right."""
        for line in text.splitlines() or [""]:
            self._screen.write("\n".join(wrapped(line, hang)) + "\n")
        self._screen.flush()

    def show(self, *command: str) -> Ended:
        """Run a `segue` command before the viewer's eyes."""
        self.say(f"$ segue {' '.join(command)}")
        began = time.monotonic()
        process = self._segue.start(*command, cwd=self.folder)
        assert process.stdout is not None
        for line in process.stdout:
            self.say(f"  {line.rstrip()}", hang=4)
        return Ended(process.wait(), time.monotonic() - began)

    def ask(self, *command: str) -> Any:
        """The document that a `segue` command prints; empty if it fails."""
        done = self._segue(*command, "--json", cwd=self.folder, expect=None)
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def serving(self) -> str | None:
        """The version that has all of the traffic."""
        entries = [one for one in self.ask("status").get("services", []) if one["service"] == self.scene.service]
        shares = {name: version["share"] for entry in entries for name, version in entry["versions"].items()}
        return next((name for name, share in shares.items() if share == 1), None)

    def load(self) -> Probe:
        """Users: 64 connections, from a process of its own."""
        return Probe(self._url, connections=64, rate=RATE)

    def clear(self) -> None:
        """Stop the service: the next one has the machine to itself."""
        self._segue("down", cwd=self.folder)


def wrapped(line: str, hang: int = 0) -> list[str]:
    """`line` in parts that fit the screen. What an instance wrote is quoted, in every part, and cut anywhere."""
    bare = line.lstrip()
    indent = line[: len(line) - len(bare)]
    if bare.startswith(_QUOTE):
        room = WIDTH - len(indent + _QUOTE)
        return [line[:WIDTH], *(f"{indent}{_QUOTE}{part}" for part in _cut(line[WIDTH:], room))]
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent + " " * hang, break_on_hyphens=False) or [line]


def _cut(text: str, room: int) -> Iterator[str]:
    yield from (text[at : at + room] for at in range(0, len(text), room))


@contextmanager
def place() -> Iterator[Path]:
    """A folder for services and a home, which are stopped and removed at the end, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="segue-demo-"))
    try:
        yield folder
    finally:
        Segue(folder / "home").end()
        shutil.rmtree(folder, ignore_errors=True)
