"""How long `segue status` takes, the whole command, as a multiple of a bare interpreter's start. Target: 3.

Both are run in turn; the medians are compared. With a control plane it is measured against that one, else against
a canned one that answers at once. ``bench/cli_start.py [RUNS]``
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = 3.0
ROUNDS = 5


def measure(segue: Sequence[str], runs: int) -> tuple[float, float]:
    """Medians in milliseconds: of the bare interpreter, of the command."""
    bare, whole = [], []
    for _ in range(runs):
        bare.append(_milliseconds([sys.executable, "-c", "pass"]))
        whole.append(_milliseconds(segue))
    return statistics.median(bare), statistics.median(whole)


def _milliseconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def report(segue: Sequence[str], runs: int) -> bool:
    """Print the ratio of each round, their median and the worst; returns whether the target is met."""
    ratios = []
    for _ in range(ROUNDS):
        bare, whole = measure(segue, runs)
        ratios.append(whole / bare)
        print(f"  bare interpreter {bare:5.1f} ms   segue status {whole:5.1f} ms   {whole / bare:4.2f} ×")
    median = statistics.median(ratios)
    word = "met" if median <= TARGET else "MISSED"
    print(
        f"segue status: {median:.2f} × a bare interpreter's start, worst {max(ratios):.2f} × "
        f"(target: at most {TARGET:g} ×, {word})"
    )
    return median <= TARGET


def main() -> int:
    """Measure; returns 1 if the target is missed."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    segue = [sys.executable, str(Path(sys.executable).parent / "segue"), "status"]
    if (Path(os.environ.get("SEGUE_HOME", "")) / "segue.sock").is_socket():
        return 0 if report(segue, runs) else 1
    sys.path.insert(0, str(ROOT))
    from tests.cli import canned, stories

    with tempfile.TemporaryDirectory() as home, canned.control_plane(Path(home)) as plane:
        os.environ["SEGUE_HOME"] = home
        plane.on("GET", "/v1/services", stories.status())
        return 0 if report(segue, runs) else 1


if __name__ == "__main__":
    sys.exit(main())
