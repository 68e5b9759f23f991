"""`segue history` and `segue report`: what was done, and one rollout's account."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segue.cli import text
from segue.cli.context import Context, quote
from segue.cli.text import STATE_COLOURS, plain, words
from segue.cli.trouble import NothingYet
from segue.errors import Refused, Usage


def history(context: Context, limit: int | None = None) -> int:
    """Print the service's past rollouts, newest first."""
    path = f"/v1/rollouts?service={quote(context.service())}&limit={20 if limit is None else limit}"
    try:
        document = context.ask("GET", path)
    except NothingYet:
        document = {"rollouts": []}
    if context.json:
        context.print(document)
    elif not document["rollouts"]:
        print(f"{context.service()} has had no rollout yet. Next: segue deploy")
    else:
        print(_table(document["rollouts"], on=text.colourful(sys.stdout)))
    return 0


def _table(rollouts: list[Mapping[str, Any]], *, on: bool) -> str:
    from segue.cli.status import local, way

    rows = [("ROLLOUT", "STARTED", "WAY", "STRATEGY", "OUTCOME", "TIME", "WHO", "WHY")]
    styles: list[tuple[str | None, ...]] = []
    for rollout in rollouts:
        outcome = rollout.get("outcome") or rollout.get("state") or "running"
        took = text.seconds(rollout["seconds"]) if rollout.get("seconds") is not None else ""
        rows.append(
            (
                str(rollout["rollout"]),
                local(rollout["started"]),
                way(rollout),
                words(rollout.get("strategy") or ""),
                words(outcome).replace("_", " "),
                took,
                plain(rollout.get("who") or ""),
                plain(": ".join(dict.fromkeys(filter(None, (rollout.get("asked"), rollout.get("reason")))))),
            )
        )
        styles.append((None, "dim", None, None, STATE_COLOURS.get(outcome), None, None, "dim"))
    return text.table(rows, styles, on)


def report(context: Context, rollout: str | None = None, html: str | None = None, markdown: bool = False) -> int:
    """Print or write the account of a rollout; without an id that of the service's latest."""
    if markdown and context.json:
        raise Usage("--markdown and --json exclude each other.", next="segue report --markdown")
    document = context.ask("GET", f"/v1/rollouts/{quote(rollout or latest(context, 'report'))}/report")
    if html is not None:
        from segue.cli.page import page

        Path(html).write_text(page(document), encoding="utf-8")
        if not context.json:
            print(f"Written to {html}.", file=sys.stderr)
    if context.json:
        context.print(document)
    elif markdown:
        from segue.cli.account import as_markdown

        print(as_markdown(document))
    elif html is None:
        from segue.cli.account import as_text

        print(as_text(document, on=text.colourful(sys.stdout)))
    return 0


def latest(context: Context, what: str) -> str:
    """The id of the service's latest rollout. Raises Refused where there is none to do `what` with."""
    service = context.service()
    rollouts = context.ask("GET", f"/v1/rollouts?service={quote(service)}&limit=1")["rollouts"]
    if not rollouts:
        raise Refused(f"{service} has had no rollout yet: there is nothing to {what}.", next="segue deploy")
    return str(rollouts[0]["rollout"])
