"""Tests that mostly wait for others and tests that compute take turns, so that four at a time keep two cores busy."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

WAITING = {"cli", "e2e", "evidence", "hosts", "platforms", "routers", "security"}
"""Folders whose tests start processes and wait for them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mix the modules of both kinds evenly; a module stays in one piece, for what its tests share."""
    modules = [list(tests) for _, tests in groupby(items, lambda item: item.path)]
    kinds = [[module for module in modules if _waits(module[0].path) is kind] for kind in (True, False)]
    placed = [(number / len(kind), module) for kind in kinds for number, module in enumerate(kind)]
    items[:] = [item for _, module in sorted(placed, key=lambda one: one[0]) for item in module]


def _waits(path: Path) -> bool:
    return not WAITING.isdisjoint(path.parts)
