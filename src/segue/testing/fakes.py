"""The ports in memory: deterministic, with faults that a test can order, on the time of a given clock.

The world they stand for survives the control plane: a test may drop an engine, even crash its loop
(`Record.crash_at`), and build a new one over the same fakes. What they were asked is in `World.record`.

    world = World(clock)
    world.platform.order("v2.1", Behaviour(exits=3, status=1))     # ends 3 s after it was started
    world.router.confirming.close()                                # no table is confirmed until .open()
    world.evidence.flow("shop", rate=50, failing={"v2.1": 0.5})    # requests a second, by the confirmed shares

Instances are not reached over the network: `a_version` asks for its health and smoke tests by command, and
`FakeCommands` answers those as the platform was ordered.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from segue.core.release import Revision
from segue.core.version import Health, SmokeCommand, Version
from segue.engine.clock import Clock
from segue.testing.calls import Record, losses
from segue.testing.fake_commands import FakeCommands, Script
from segue.testing.fake_platform import Behaviour, FakePlatform
from segue.testing.fake_sources import FakeSources
from segue.testing.fake_traffic import FakeEvidence, FakeRouter
from segue.testing.gate import Gate

__all__ = [
    "Behaviour",
    "FakeCommands",
    "FakeEvidence",
    "FakePlatform",
    "FakeRouter",
    "FakeSources",
    "Gate",
    "Record",
    "Script",
    "World",
    "a_version",
    "losses",
]


class World:
    """All the fakes over one clock and one record. `router`: a kind of fake router with more to it."""

    def __init__(self, clock: Clock, router: type[FakeRouter] = FakeRouter) -> None:
        self.clock = clock
        self.record = Record()
        self.platform = FakePlatform(clock, self.record)
        self.commands = FakeCommands(clock, self.record, self.platform)
        self.router = router(clock, self.record)
        self.evidence = FakeEvidence(clock, self.router, self.record)
        self.sources = FakeSources(clock)


def a_version(service: str = "shop", revision: str = "v1.1", **changes: Any) -> Version:
    """A version whose health and smoke tests `FakeCommands` answers; `changes` are fields of `Version`."""
    version = Version(
        service=service,
        revision=Revision(revision),
        digest=f"sha256:{revision}",
        folder=Path("/nowhere"),
        command="serve",
        health=Health(command="health {url}"),
        smoke=(SmokeCommand("smoke {url}"),),
    )
    return replace(version, **changes)
