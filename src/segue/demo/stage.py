"""Where the tour plays: a folder and a home of its own, the real command line, load from a process of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from segue.demo.acts import MANIFEST, Build
from segue.testing.apps import httpbin_source
from segue.testing.load import Probe
from segue.testing.site import Segue, as_user, free_port

WIDTH = 96
RATE = 200.0
"""Requests a second: enough to see every loss, few enough for two small instances."""

_WRAP = textwrap.TextWrapper(width=WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 12)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and how long it took."""

    exit: int
    seconds: float


class Stage:
    """The shop's folder, its users' address, and `segue` in a home that nothing else uses."""

    def __init__(self, folder: Path, screen: TextIO) -> None:
        self.folder = folder / "shop"
        self.folder.mkdir()
        self._screen = screen
        self._segue = Segue(folder / "home", {"COLUMNS": str(WIDTH - 4)})
        port = free_port()
        self._url = f"http://127.0.0.1:{port}/get"
        user = "".join(f"\n    {key}: {value}" for key, value in as_user().items())
        (self.folder / "segue.yaml").write_text(MANIFEST.format(port=port, user=user))

    def say(self, text: str = "") -> None:
        """Print `text`."""
        self._screen.write(text + "\n")
        self._screen.flush()

    def put(self, build: Build) -> None:
        """Make the shop's folder hold `build`, as a developer would."""
        httpbin_source(self.folder, build.httpbin, build.wsgi)

    def show(self, *command: str) -> Ended:
        """Run a `segue` command before the viewer's eyes."""
        self.say(f"$ segue {' '.join(command)}")
        began = time.monotonic()
        process = self._segue.start(*command, cwd=self.folder)
        assert process.stdout is not None
        for line in process.stdout:
            self.say("\n".join(_WRAP.wrap(line.rstrip())))
        return Ended(process.wait(), time.monotonic() - began)

    def ask(self, *command: str) -> Any:
        """The document that a `segue` command prints; None if it fails."""
        done = self._segue(*command, "--json", cwd=self.folder, expect=None)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def serving(self) -> str | None:
        """The version that has all of the traffic."""
        entries = (self.ask("status") or {}).get("services", [])
        shares = {name: version["share"] for entry in entries for name, version in entry["versions"].items()}
        return next((name for name, share in shares.items() if share == 1), None)

    def load(self) -> Probe:
        """Users: 64 connections, from a process of its own."""
        return Probe(self._url, connections=64, rate=RATE)


@contextmanager
def stage(screen: TextIO) -> Iterator[Stage]:
    """A stage that is cleared at the end, whatever happens on it."""
    folder = Path(tempfile.mkdtemp(prefix="segue-demo-"))
    segue = Segue(folder / "home")
    try:
        yield Stage(folder, screen)
    finally:
        segue.end()
        shutil.rmtree(folder, ignore_errors=True)
