"""Whole lives of a service on virtual time, thousands of them, each drawn from one number and played again from it.

A scene is a launch and one to three deployments by random strategies, of versions good and bad, with what persons
say meanwhile; at every await of a port something may go wrong. The witness judges every event, and at the end
everything must be as the records say. What goes wrong, when, and what is promised stands in `segue.testing.chaos`.

    python -m segue.testing.simulation --seeds 1000             # seeds 0 to 999; exit status 1 where one fails
    python -m segue.testing.simulation --seed 4711 -v           # that one again, with its story
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from segue.testing.lives import Play


@dataclass(frozen=True, slots=True)
class Played:
    """How a seed went: `found` is what broke a promise, `trace` the story, `struck` what went wrong on the way."""

    seed: int
    found: tuple[str, ...]
    trace: tuple[str, ...]
    struck: tuple[str, ...]
    outcomes: tuple[str, ...]


def played(seed: int) -> Played:
    """How the scene of `seed` goes."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="segue-", dir=memory if memory.is_dir() else None) as folder:
        play = Play(seed, Path(folder))
        play.play()
    lab = play.lab
    return Played(
        seed,
        tuple(lab.witness.found),
        tuple(lab.stormy.record.trace),
        tuple(lab.storm.struck),
        tuple(lab.inquest.outcomes),
    )


def replay(seed: int) -> str:
    """The command that plays `seed` again."""
    return f"{os.path.relpath(sys.executable)} -m segue.testing.simulation --seed {seed} -v"


def main() -> int:
    """Play seeds; each that fails is told with the command that plays it again."""
    parser = argparse.ArgumentParser(
        prog="simulation", description="Lives of a service in which anything may go wrong."
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first that fails")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the story")
    chosen = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of the story
        again = [sys.executable, "-m", "segue.testing.simulation", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})
    first, number = (chosen.first, chosen.seeds) if chosen.seed is None else (chosen.seed, 1)
    return _all(range(first, first + number), verbose=chosen.verbose, keep_going=chosen.keep_going)


def _all(seeds: range, *, verbose: bool, keep_going: bool) -> int:
    began = time.process_time()
    struck, ends, failed = Counter[str](), Counter[str](), 0
    for seed in seeds:
        result = played(seed)
        struck.update(result.struck)
        ends.update(result.outcomes)
        failed += bool(result.found)
        for line in result.trace if verbose else ():
            _say(line)
        if result.found:
            _say(f"seed {seed}: {'; '.join(result.found)}", f"  {replay(seed)}")
        if result.found and not keep_going:
            break
    seconds = time.process_time() - began
    _say(
        f"{seed - seeds[0] + 1} seeds in {seconds:.1f} s of a core: {failed} failed",
        f"faults: {_sums(struck)}",
        f"ends: {_sums(ends)}",
    )
    return 1 if failed else 0


def _sums(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.most_common()) or "none"


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
