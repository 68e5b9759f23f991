"""The numbers of design 2.8 other than losses: each with its target, five runs, median and worst.

A target is held against the median. Python's bytecode is cached, as it is where Segue was installed.
(A module `numbers` here would hide the standard library's from everything in this folder.)

    python bench/numbers_to_hold.py [--only traffic]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence

import common
from numbers_commands import commands
from numbers_many import many
from numbers_table import RUNS, Number
from numbers_throughput import throughput
from numbers_traffic import traffic

from segue.testing.load import tool

GROUPS = {"commands": commands, "traffic": traffic, "throughput": throughput, "many": many}


def page(numbers: Sequence[Number], seconds: float) -> str:
    """The page in docs/measured."""
    held = [number for number in numbers if number.target is not None]
    missed = [number for number in held if number.missed]
    return PAGE.format(
        runs=RUNS,
        met=len(held) - len(missed),
        all=len(held),
        facts=common.listed(common.facts(took=f"{seconds:.0f} s")),
        numbers=common.table(("what", "target", "median", "worst", ""), (number.row() for number in numbers)),
        single="\n".join(f"* {n.what.strip()} ({n.unit}): {', '.join(f'{run:.3g}' for run in n.runs)}" for n in held),
    )


PAGE = """\
# Numbers to hold

{runs} runs of each at least, median and worst; targets are for medians. **{met} of {all} targets are met.**
Written by `make bench` (`bench/numbers_to_hold.py`). Requests lost by deployments: [loss.md](loss.md).

{facts}

{numbers}

Where other work runs on the same cores ("load before"), milliseconds say little; ratios compare what ran in turn.
A number without a target is printed to explain another one. The load under which shares are changed is one
request every two milliseconds: what lasts less than that is seen as 0. Clients, instances and Envoy share the
cores, so a ratio of throughputs varies more than that of CPU for one request, which says more.

## Every run

{single}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything; 0 when every target was met."""
    parser = argparse.ArgumentParser(description="The numbers to hold, other than losses.")
    parser.add_argument("--only", choices=GROUPS, help="one group; no page is written")
    given = parser.parse_args(argv)
    for name in ("wrk", "h2load"):
        tool(name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sg-") as cache:
        os.environ["PYTHONPYCACHEPREFIX"] = cache
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        groups = [GROUPS[given.only]] if given.only else list(GROUPS.values())
        numbers = [number for group in groups for number in group()]
    text = page(numbers, time.monotonic() - began)
    sys.stdout.write(text)
    if not given.only:
        common.write_page("numbers", text)
    return int(any(number.missed for number in numbers))


if __name__ == "__main__":
    sys.exit(main())
