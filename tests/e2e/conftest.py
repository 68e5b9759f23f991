"""A control plane of its own for every end-to-end test, driven by the real command line of this checkout.

Rule 1: a home lies in a short path (the kernel limits the path of a Unix socket to some hundred bytes).
Rule 2: a test that leaves a process behind fails, whatever else it found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from homes import a_home

from segue.testing.load import Probe
from segue.testing.site import Segue, Shop


@pytest.fixture
def segue() -> Iterator[Segue]:
    """The command line with a home of its own; everything that was started in it ends with the test."""
    with a_home() as line:
        yield line


@pytest.fixture
def shop(segue: Segue) -> Shop:
    """A service that runs the tiny application, in a folder of its own; nothing is deployed yet."""
    return Shop(segue, segue.home.parent / "shop")


@pytest.fixture
def load(request: pytest.FixtureRequest) -> Iterator[Callable[..., Probe]]:
    """Starts load as an independent process (see `Probe`) that ends at the latest with the test."""
    running: list[Probe] = []

    def start(url: str, *options: str, connections: int = 64, rate: float | None = None) -> Probe:
        running.append(Probe(url, *options, connections=connections, rate=rate))
        return running[-1]

    yield start
    for probe in running:
        probe.kill()
