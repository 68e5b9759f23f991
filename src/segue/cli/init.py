"""`segue init`: a commented manifest that fits the folder."""

from __future__ import annotations

import os
from pathlib import Path

from segue.cli.context import Context
from segue.errors import Refused, Usage
from segue.manifest.init import suggest


def init(context: Context, force: bool = False) -> int:
    """Write the manifest; one that is there is left alone unless `force`."""
    path = Path(context.manifest)
    if not path.parent.is_dir():
        raise Usage(f"There is no folder {path.parent}.", next="segue init")
    if path.exists() and not force:
        raise Refused(f"{path} is there already and was left as it is.", next="segue check, or segue init --force")
    path.write_text(suggest(path.parent, as_root=os.geteuid() == 0), encoding="utf-8")
    if context.json:
        context.print({"written": str(path)})
    else:
        print(f"Wrote {path}: a guess from what is in the folder. Read it, then: segue check")
    return 0
