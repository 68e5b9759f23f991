"""How much room the machine has for more instances: its memory, and how busy its processors are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from segue.core.situation import Room

LEFT_ALONE = 0.1
"""The part of the machine's memory that instances are not planned to take."""
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def room(instances: Iterable[int]) -> Room:
    """How many more instances there is memory for, if each takes as much as the largest of these processes does."""
    each = max((memory for pid in instances if (memory := _memory_of(pid))), default=None)
    if each is None:
        return Room()
    free = free_memory()
    return Room(free // each, free, each)


def unique(instances: Iterable[int]) -> int | None:
    """Bytes that another instance takes at least: what the smallest of these processes shares with none."""
    return min((memory for pid in instances if (memory := _memory_of(pid, unique=True))), default=None)


def obtainable() -> int:
    """Bytes that more processes can have at most: against `free_memory` nothing is left alone, and swap counts."""
    return int(psutil.virtual_memory().available) + int(psutil.swap_memory().free)


def free_memory() -> int:
    """Bytes that more processes may take: what is available, here or in this control group, less a part."""
    memory = psutil.virtual_memory()
    available, total = int(memory.available), int(memory.total)
    for limit, used in _LIMITS:
        with suppress(OSError, ValueError):  # there is no such limit
            most = int(Path(limit).read_text())
            available, total = min(available, most - int(Path(used).read_text())), min(total, most)
    return max(0, available - int(total * LEFT_ALONE))


def busy() -> float | None:
    """The part of the processors that was in use in the last five minutes; None: the system does not say."""
    try:
        return os.getloadavg()[1] / (os.cpu_count() or 1)
    except OSError:
        return None


def _memory_of(pid: int, *, unique: bool = False) -> int | None:
    """Bytes that a process and all that it has started hold, or hold alone if `unique`; None: it cannot be seen."""
    try:
        whole = psutil.Process(pid)
        family = (whole, *whole.children(recursive=True))
        return sum(int(one.memory_full_info().uss if unique else one.memory_info().rss) for one in family)
    except psutil.Error:
        return None
