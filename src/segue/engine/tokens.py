"""A secret of this home's own: made once, kept in a file for its owner only, never in the journal."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def own_token(path: Path) -> str:
    """The token in the file `path`, which is made where there is none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text("ascii").strip()
    with os.fdopen(descriptor, "w") as file:
        token = secrets.token_urlsafe(24)
        file.write(f"{token}\n")
    return token
