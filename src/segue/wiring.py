"""Names in the manifest → adapters. An unknown name is an error that lists the known ones."""

from __future__ import annotations

from pathlib import Path

from segue.engine.clock import SystemClock
from segue.engine.control import ControlPlane, World
from segue.evidence.envoy import EnvoyEvidence
from segue.evidence.logs import LogLines
from segue.platforms.hooks import run_command
from segue.platforms.identity import boot_id
from segue.platforms.process import ProcessPlatform
from segue.routers.envoy.router import EnvoyRouter


def control_plane(home: Path) -> ControlPlane:
    """The control plane of `home`: processes on this machine behind one Envoy. Nothing is started yet."""
    platform, router = ProcessPlatform(home / "platform"), EnvoyRouter(home / "envoy")
    world = World(
        platform=platform,
        router=router,
        evidence=EnvoyEvidence(router),
        commands=run_command,
        lines=lambda patterns: LogLines(platform, patterns),
        clock=SystemClock(),
        boot=boot_id(),
    )
    return ControlPlane(home, world)
