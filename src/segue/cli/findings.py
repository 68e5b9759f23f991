"""What was looked at and found: the lists that `check` and `doctor` print."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from segue.cli.context import Context
from segue.cli.text import colourful, paint, plain


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `good` is None where it need not stop anybody; `do` says what helps."""

    what: str
    good: bool | None = True
    detail: str = ""
    do: str = ""


def tell(context: Context, findings: Iterable[Finding], *, well: str) -> bool:
    """Print the findings as they come, then a sentence; returns whether none is bad."""
    seen = []
    on = not context.json and colourful(sys.stdout)
    for finding in findings:
        seen.append(finding)
        if not context.json:
            print(_line(finding, on), flush=True)
    bad = sum(finding.good is False for finding in seen)
    if context.json:
        checks = [{"what": f.what, "good": f.good is not False, "detail": f.detail, "do": f.do} for f in seen]
        context.print({"good": not bad, "checks": checks})
    else:
        print(well if not bad else f"{bad} of {len(seen)} checks failed.")
    return not bad


def _line(finding: Finding, on: bool) -> str:
    mark, colour = {True: ("✓", "green"), False: ("✗", "red"), None: ("!", "yellow")}[finding.good]
    detail = f": {plain(finding.detail)}" if finding.detail else ""
    next = "Next: " if finding.do.startswith("segue ") else ""
    do = f"\n    {next}{finding.do}" if finding.do and finding.good is not True else ""
    return f"{paint(mark, colour, on)} {finding.what}{detail}{do}"
