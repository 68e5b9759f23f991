"""A folder in memory where there is one: the journal syncs at every commit, and these tests commit a lot."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder that is gone after the test."""
    with tempfile.TemporaryDirectory(prefix="segue-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)
