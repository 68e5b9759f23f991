from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from segue.routers.envoy.router import EnvoyRouter

from .world import Process, World, port


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Backends that end with the test."""
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def old(world: World) -> Process:
    """The old version's instance."""
    return await world.backend("old")


@pytest.fixture
async def new(world: World) -> Process:
    """The new version's instance."""
    return await world.backend("new")


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[EnvoyRouter]:
    """A router with two workers that ends with the test."""
    made = EnvoyRouter(tmp_path / "router", concurrency=2, drain=2)
    await made.start()
    yield made
    await made.shutdown()


@pytest.fixture
def listen() -> str:
    """An address nobody listens on."""
    return f"127.0.0.1:{port()}"
