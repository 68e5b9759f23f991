"""What may go wrong in a soak, as data: what is done, how a deployment may end then, and what users may lose."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from soak_world import World, during

from segue.testing.cast import Victim, gone
from segue.testing.moments import until
from segue.testing.tally import Loss

OUTAGE = frozenset({Loss.REFUSED, Loss.RESET, Loss.CUT})
"""What becomes of requests when the process that has their connections is killed."""


@dataclass(frozen=True)
class Fault:
    """`act`: what is done in the middle of an operation. `before`: it is done at rest, before the operation.

    `exits`: how an operation that would succeed may end besides. `lost`: what of safe requests users may lose.
    `forgets`: the operation itself may be forgotten. `replaces`: Envoy is another one afterwards. `returns`: a
    version that was promoted may be gone back from while the old one is kept.
    """

    name: str
    act: Callable[[World], None]
    exits: frozenset[int] = frozenset()
    lost: frozenset[Loss] = frozenset()
    before: bool = False
    forgets: bool = False
    replaces: bool = False
    returns: bool = False

    def __str__(self) -> str:
        return self.name


def _kill(who: Callable[[World], int]) -> Callable[[World], None]:
    def act(world: World) -> None:
        with suppress(ProcessLookupError):
            os.kill(who(world), signal.SIGKILL)

    return act


def _kill_both(world: World) -> None:
    world.kill(Victim.BOTH)


def _kill_guardian(world: World) -> None:
    guardian = world.guardian()
    _kill(World.guardian)(world)
    until(lambda: gone(guardian))


def _kill_guardian_and_plane(world: World) -> None:
    keepers = world.pids(Victim.KEEPERS)
    world.kill(Victim.KEEPERS)
    until(lambda: all(map(gone, keepers)))
    world.guard()


def _an_instance(world: World) -> int:
    return world.random.choice(until(world.instances))


def _stop(who: Callable[[World], int], least: float, most: float) -> Callable[[World], None]:
    def act(world: World) -> None:
        pid = who(world)

        def again() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        with suppress(ProcessLookupError):
            during(world.random.uniform(least, most), lambda: os.kill(pid, signal.SIGSTOP), again)

    return act


def _fill(world: World) -> None:
    filler = world.home.parent / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(65536)):
                pass

    during(world.random.uniform(1, 4), fill, filler.unlink)


def _no_descriptors(world: World) -> None:
    pid = world.plane()
    try:
        whole = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        few = psutil.Process(pid).num_fds() + world.random.randint(0, 4)
        during(
            world.random.uniform(1, 4),
            lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, whole[1])),
            lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, whole),
        )
    except (ProcessLookupError, psutil.Error):
        return


def _damage(world: World) -> None:
    """The control plane ends, and what it wrote is not what is read again."""
    guardian, plane = world.guardian(), world.plane()
    os.kill(guardian, signal.SIGSTOP)
    try:
        os.kill(plane, signal.SIGKILL)
        until(lambda: gone(plane))
        _overwrite(world, world.home / "journal" / "journal.db")
    finally:
        os.kill(guardian, signal.SIGCONT)
    world.answering()


def _overwrite(world: World, path: Path) -> None:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for _ in range(max(4, size // 16384)):
            file.seek(world.random.randrange(0, size, 512))
            file.write(world.random.randbytes(512))


def _step(least: float, most: float) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.set_clock(world.random.uniform(least, most))

    return act


def _bad_link(world: World) -> None:
    """Loopback loses packets, and is slow; that of this network alone."""
    loss = world.random.choice([1, 2, 4])
    rules = f"""
table inet soak {{
    chain out {{
        type filter hook output priority 0;
        oif lo meta l4proto tcp numgen random mod 100 < {loss} drop
    }}
}}
"""

    def begin() -> None:
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        shape = ["tbf", "rate", "20mbit", "burst", "64kb", "latency", "200ms"]
        subprocess.run(["tc", "qdisc", "replace", "dev", "lo", "root", *shape], check=True)

    def end() -> None:
        subprocess.run(["nft", "delete", "table", "inet", "soak"], check=True)
        subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)

    during(world.random.uniform(2, 6), begin, end)


REFUSED = frozenset({1})
NONE = Fault("nothing", lambda world: None)
FAULTS = (
    Fault("control plane killed", _kill(World.plane)),
    Fault("guardian killed", _kill_guardian),
    Fault("guardian and control plane killed", _kill_guardian_and_plane),
    Fault("Envoy killed", _kill(World.envoy), REFUSED, OUTAGE, replaces=True),
    Fault("Envoy and control plane killed", _kill_both, REFUSED, OUTAGE, replaces=True),
    Fault("an instance killed", _kill(_an_instance), REFUSED, returns=True),
    Fault("control plane stands still", _stop(World.plane, 1, 6)),
    Fault("Envoy stands still", _stop(World.envoy, 0.3, 1.5), REFUSED),
    Fault("an instance stands still", _stop(_an_instance, 1, 4), REFUSED, returns=True),
    Fault("disk full", _fill, frozenset({1, 3, 4})),
    Fault("no descriptors", _no_descriptors, frozenset({1, 3, 4})),
    Fault("journal damaged at rest", _damage, before=True),
    # The version on trial is forgotten with all of the rollout: what it was about to be replayed has nowhere to go.
    Fault("journal damaged in the middle", _damage, frozenset({1, 3, 4, 5}), frozenset({Loss.STATUS}), forgets=True),
    Fault("clock set forward", _step(600, 7200)),
    Fault("clock set back", _step(-7200, -600)),
    Fault("lossy and slow link", _bad_link, REFUSED),
)
