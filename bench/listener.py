"""What a listener carries: connections at rest, what each feature costs, ten thousand connections.

python bench/listener.py [--only features]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence

import common
from common import Section
from connections import connections
from features import features
from keep_alive import keep_alive

from segue.testing.load import tool

SECTIONS = {"keep_alive": keep_alive, "features": features, "connections": connections}


def page(sections: Sequence[Section], seconds: float) -> str:
    """The page in docs/measured."""
    flaws = [flaw for section in sections for flaw in section.flaws]
    return PAGE.format(
        facts=common.listed(common.facts(took=f"{seconds:.0f} s")),
        missed="".join(f"* {flaw}\n" for flaw in flaws) or "No target was missed.\n",
        sections="\n".join(f"## {section.title}\n\n{section.text}" for section in sections),
    )


PAGE = """\
# What a listener carries

Written by `make bench-listener` (`bench/listener.py`). Where other work ran on the same cores meanwhile, losses and
counts are facts; times and rates are to be read beside those of "bare, once more".

{facts}

{missed}
{sections}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything; 0 when every target was met."""
    parser = argparse.ArgumentParser(description="What a listener carries.")
    parser.add_argument("--only", choices=SECTIONS, help="one section; no page is written")
    given = parser.parse_args(argv)
    for name in ("wrk", "h2load"):
        tool(name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sg-") as cache:
        os.environ["PYTHONPYCACHEPREFIX"] = cache
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sections = [SECTIONS[given.only]()] if given.only else [section() for section in SECTIONS.values()]
    text = page(sections, time.monotonic() - began)
    sys.stdout.write(text)
    if not given.only:
        common.write_page("listener", text)
    return int(any(section.flaws for section in sections))


if __name__ == "__main__":
    sys.exit(main())
