"""How much of its machine an Envoy may take.

Half of the memory: beside it run the applications. Half of the descriptors: a user's connection may need a second
one, to an instance. An Envoy that has used them up can answer neither its users nor the control plane.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_RESERVED = 200
"""Descriptors for what is no user's: listeners on each worker, the control plane, logs."""
_FEWEST = 50
_MOST = 1_000_000
_GROUPS = Path("/proc/self/cgroup")
_MOUNTED = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Limits:
    """What an Envoy may take: bytes of memory that it allocates, and connections of users at a time."""

    memory: int
    connections: int


def limits() -> Limits:
    """What an Envoy that is started now may take."""
    return Limits(_memory() // 2, min(max((_descriptors() - _RESERVED) // 2, _FEWEST), _MOST))


def _memory() -> int:
    """Bytes that processes of ours may have: the machine's, or fewer where a control group says so."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_of_groups()])


def _of_groups() -> Iterator[int]:
    """The bounds of the control groups that we are in, and of those that these are in."""
    if not _GROUPS.exists():
        return
    for line in _GROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folder, file = _MOUNTED, "memory.max"
        elif "memory" in controllers.split(","):
            folder, file = _MOUNTED / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path(path.lstrip("/"))
        for each in (group, *group.parents):
            bound = folder / each / file
            if bound.exists() and (text := bound.read_text().strip()).isdigit():
                yield int(text)


def _descriptors() -> int:
    """How many an Envoy has: it is started with as many as it may have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 2 * _MOST if most == resource.RLIM_INFINITY else most
