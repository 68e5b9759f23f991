"""A service that is deployed again and again for as long as one likes, while what can go wrong goes wrong.

Strategies, versions and faults are drawn by a seed. After every round the service must be what its last command made
of it, nobody may have lost a request where the promise says so, and nothing may be left behind.

    python bench/soak.py --seconds 3600 [--seed 7] [--only 'disk full'] [--keep]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random, SystemRandom

import common
from soak_faults import FAULTS, NONE, Fault
from soak_rounds import GOOD, Deployer, Round, play, strategy
from soak_world import Census, World, own_machine

QUIET = 0.25
"""The share of the rounds in which nothing goes wrong but perhaps the version."""
FRESH = 600.0
"""Seconds after which other users come: a client ends by itself after some time."""
MORE = 1.25
"""What is at rest in the last quarter may be so many times what it was in the second one, and `SLACK` more."""
SLACK = {"plane_memory": 8, "envoy_memory": 8, "guardian_memory": 4, "home": 16, "files": 40}
GROWS = {
    "claims": "what was started is known for a day after its end",
    "put_aside": "damaged files are kept for whoever wants to look at them",
}
"""What is known to grow, and why that is bearable."""


def rounds(world: World, seconds: float, faults: Sequence[Fault]) -> Iterator[Round]:
    """Rounds until the time is over."""
    deployer = Deployer(world, world.random)
    world.write("v0", GOOD, replicas=3, strategy=strategy(world.random))
    world.guard()
    world.shop.deploy("v0")
    deployer.served("v0")
    deployer.retained.clear()
    began = fresh = time.monotonic()
    world.come()
    number = 0
    while time.monotonic() - began < seconds:
        number += 1
        quiet = len(faults) > 1 and world.random.random() < QUIET
        yield play(deployer, number, NONE if quiet else world.random.choice(faults))
        if time.monotonic() - fresh > FRESH:
            fresh = time.monotonic()
            _leave(world, number)
            world.come()
    _leave(world, number)


def _leave(world: World, number: int) -> None:
    """Users go. What they can tell then: whether a POST was executed twice."""
    assert world.users is not None
    world.users.finish()
    if twice := world.executed_twice():
        raise RuntimeError(f"executed more than once until round {number}: {twice[:5]}")
    for path in world.shop.folder.glob("posts-*"):
        path.unlink()


def page(played: Sequence[Round], seed: int, seconds: float) -> str:
    """The page in docs/measured."""
    flawed = [this for this in played if this.flaws]
    grown = leaks([this.census for this in played if this.census])
    facts = common.facts(seed=seed, took=f"{seconds:.0f} s")
    return PAGE.format(
        facts=common.listed(facts),
        rounds=len(played),
        requests=sum(this.safe for this in played),
        flaws="".join(f"* round {this}\n" for this in flawed) + "".join(f"* {text}\n" for text in grown)
        or "Nothing was found.\n",
        faults=_by(played, lambda this: this.fault.name, "what went wrong"),
        operations=_by(played, lambda this: this.operation.name, "operation"),
        census=_census([this.census for this in played if this.census]),
    )


PAGE = """\
# Deployments while everything goes wrong

Written by `make soak` (`bench/soak.py`).

{facts}

{rounds} rounds, {requests:,} requests of safe methods.

{flaws}
"lost" counts requests of safe methods. Where Envoy itself is killed, those that it has and those that come before
there is another one are lost; anywhere else it must be 0.

{faults}

{operations}

What there is at rest after a round: medians of the quarters.

{census}
"""


def _by(played: Sequence[Round], key: Callable[[Round], str], head: str) -> str:
    groups: defaultdict[str, list[Round]] = defaultdict(list)
    for this in played:
        groups[key(this)].append(this)
    rows = []
    for name, those in sorted(groups.items()):
        exits = Counter(this.exit for this in those)
        ended = ", ".join(f"{number} × {exit}" for exit, number in sorted(exits.items(), key=str))
        lost = sum(sum(this.losses.values()) for this in those)
        flaws = sum(bool(this.flaws) for this in those)
        middle = statistics.median(this.seconds for this in those)
        requests = sum(this.safe for this in those)
        verdict = f"{flaws} WRONG" if flaws else "right"
        rows.append((name, len(those), ended, f"{middle:.1f} s", f"{requests:,}", lost, verdict))
    return common.table((head, "rounds", "exits", "median", "requests", "lost", ""), rows)


def _quarters(counted: Sequence[Census], name: str) -> list[float]:
    size = max(1, len(counted) // 4)
    parts = [counted[n * size : (n + 1) * size] for n in range(3)] + [counted[3 * size :]]
    return [statistics.median(getattr(one, name) for one in part) if part else 0.0 for part in parts]


def leaks(counted: Sequence[Census]) -> list[str]:
    """What is more in the last quarter than it may be."""
    found = []
    for name in Census.names():
        _, second, _, last = _quarters(counted, name)
        if name not in GROWS and last > second * MORE + SLACK.get(name, 4):
            found.append(f"{name} grew from {second:g} to {last:g}")
    return found


def _census(counted: Sequence[Census]) -> str:
    rows = []
    for name in Census.names():
        quarters = [f"{value:,.1f}".removesuffix(".0") for value in _quarters(counted, name)]
        rows.append((name.replace("_", " "), *quarters, GROWS.get(name, "")))
    return common.table(("what", "first", "second", "third", "last", ""), rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Play; 0 when nothing was found."""
    parser = argparse.ArgumentParser(description="Deployments one after another, while everything goes wrong.")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10_000))
    parser.add_argument("--only", default="", help="faults with this in their name, in every round")
    parser.add_argument("--write", action="store_true", help="write docs/measured/soak.md")
    parser.add_argument("--keep", action="store_true", help="stop at the first flaw, and keep the home")
    given = parser.parse_args(argv)
    own_machine(sys.argv)
    faults = [fault for fault in FAULTS if given.only in fault.name]
    common.progress(f"seed {given.seed}")
    root = Path(tempfile.mkdtemp(prefix="sg-"))
    world = World(root, Random(given.seed))
    played: list[Round] = []
    began = time.monotonic()
    try:
        for this in rounds(world, given.seconds, faults):
            played.append(this)
            common.progress(str(this))
            if this.flaws and given.keep:
                break
        text = page(played, given.seed, time.monotonic() - began)
        sys.stdout.write(text)
        if given.write:
            common.write_page("soak", text)
    except BaseException:
        common.progress(world.segue.log())
        raise
    finally:
        if given.keep:
            sockets = shutil.ignore_patterns("*.sock", "hot_*")
            shutil.copytree(world.home, root / "kept", symlinks=True, ignore=sockets)
        world.close()
    wrong = any(this.flaws for this in played)
    if not given.keep:
        shutil.rmtree(root, ignore_errors=True)
    return int(wrong or bool(leaks([this.census for this in played if this.census])))


if __name__ == "__main__":
    sys.exit(main())
