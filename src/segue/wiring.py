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
from segue.ports import Platform
from segue.routers.envoy.router import EnvoyRouter


def control_plane(home: Path, platform: Platform | None = None) -> ControlPlane:
    """The control plane of `home` behind one Envoy. `platform`: None is processes on this machine. Starts nothing."""
    platform, router = platform or ProcessPlatform(home / "platform"), EnvoyRouter(home / "envoy")
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
