"""Homes for the end-to-end tests: a control plane of its own that leaves no process behind, and services in it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segue.cli.client import Client
from segue.testing.site import Segue, Shop, kill, leftovers

AT_ONCE: dict[str, Any] = {
    "rolling": {"rolling": {"first_judge": "0s", "judge": "0s"}},
    "blue_green": {"blue_green": {"judge": "0s", "keep": "0s"}},
}
"""Strategies that wait for nothing."""


@contextmanager
def a_home() -> Iterator[Segue]:
    """The command line with a home of its own; everything that was started in it ends with it, or the test fails."""
    folder = Path(tempfile.mkdtemp(prefix="sg-"))
    line = Segue(folder / "home")
    try:
        yield line
        line.end()
        left = leftovers(folder)
        assert not left, f"left running: {left}"
    finally:
        kill(folder)
        print(line.log())
        shutil.rmtree(folder, ignore_errors=True)


class Service(Shop):
    """A service called `name` among others of one home. Unless said otherwise one instance, deployed at once."""

    def __init__(self, segue: Segue, name: str) -> None:
        super().__init__(segue, segue.home.parent / name)
        self.name = name

    def write(self, *, health: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """Write the manifest; `health` adds to what is usual."""
        usual = {"path": "/healthz", "every": "50ms", "healthy": 1, "deadline": "10s"}
        wanted = {"service": self.name, "replicas": 1, "strategy": AT_ONCE["rolling"], **settings}
        super().write(health={**usual, **(health or {})}, **wanted)

    def ask(self, path: str, method: str = "GET", body: object = None, **options: Any) -> Any:
        """What the control plane answers: quicker than a command, and the same document."""
        return Client(str(self.segue.home / "segue.sock")).ask(method, path, body, **options)

    def status(self) -> Any:
        """The service's entry in `segue status`."""
        return self.ask(f"/v1/services/{self.name}")

    def history(self) -> Any:
        """The rollouts of `segue history`, newest first."""
        return self.ask(f"/v1/rollouts?service={self.name}")["rollouts"]

    def report(self, rollout: str = "latest") -> Any:
        """`segue report` of a rollout."""
        return self.ask(f"/v1/rollouts/{rollout}/report?service={self.name}")

    def events(self, kind: str, rollout: str = "latest") -> list[Any]:
        """What clients were told of a rollout that is decided, by kind of event."""
        path = f"/v1/rollouts/{rollout}/events?service={self.name}"
        with Client(str(self.segue.home / "segue.sock")).open("GET", path, timeout=20) as body:
            lines = (line for line in body.lines(None) if line and line.strip())
            return [event for event in map(json.loads, lines) if event["event"] == kind]
