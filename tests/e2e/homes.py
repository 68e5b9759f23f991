"""Homes for the end-to-end tests: a control plane of its own that leaves no process behind, and services in it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segue.cli.client import Body, Client
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
        self.name, self.versions = name, 0

    def write(self, *, health: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """Write the manifest; `health` adds to what is usual."""
        path = {} if "command" in (health or {}) else {"path": "/healthz"}
        usual = {**path, "every": "50ms", "healthy": 1, "deadline": "10s"}
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

    def told(self, what: Callable[[Any], bool]) -> Any:
        """The first event of the service, from its beginning on, of which `what` is true, once there is one."""
        path = f"/v1/events?after=0&service={self.name}"
        with Client(str(self.segue.home / "segue.sock")).open("GET", path, timeout=20) as body:
            return next(event for event in _events(body) if what(event))


def _events(body: Body) -> Iterator[Any]:
    return (json.loads(line) for line in body.lines() if line and line.strip())
