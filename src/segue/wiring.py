"""Names in the manifest → adapters. An unknown name is an error that lists the known ones."""

from __future__ import annotations

from pathlib import Path

from segue.core.sources import Asked, Metric
from segue.engine.clock import SystemClock
from segue.engine.control import ControlPlane, World
from segue.evidence.address import AskAddress
from segue.evidence.command import AskCommand
from segue.evidence.envoy import EnvoyEvidence
from segue.evidence.logs import LogLines
from segue.evidence.prometheus import Prometheus
from segue.platforms.hooks import run_command
from segue.platforms.identity import boot_id
from segue.platforms.process import ProcessPlatform
from segue.ports import Platform, Source
from segue.routers.envoy.router import EnvoyRouter


def source(asked: Asked) -> Source:
    """The adapter that asks what `asked` describes."""
    if isinstance(asked, Metric):
        return Prometheus(asked)
    return AskCommand(asked, run_command) if asked.command else AskAddress(asked)


def control_plane(home: Path, platform: Platform | None = None) -> ControlPlane:
    """The control plane of `home` behind one Envoy. `platform`: None is processes on this machine. Starts nothing."""
    platform, router = platform or ProcessPlatform(home / "platform"), EnvoyRouter(home / "envoy")
    world = World(
        platform=platform,
        router=router,
        evidence=EnvoyEvidence(router),
        commands=run_command,
        lines=lambda patterns: LogLines(platform, patterns),
        source=source,
        clock=SystemClock(),
        boot=boot_id(),
    )
    return ControlPlane(home, world)
