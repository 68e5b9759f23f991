"""Which service a manifest is about, found without reading it as YAML where that is possible.

`service` is a key of the top level, so in block style its line begins with it. Anything else is parsed.
"""

from __future__ import annotations

from segue.errors import Usage
from segue.manifest import values


def service_in(path: str, *, must_exist: bool) -> str | None:
    """The service that the manifest at `path` is about; None if there is none there. Raises Usage."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        if must_exist:
            raise Usage(f"There is no manifest at {path}.", next="segue init") from None
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise Usage(f"{path} cannot be read: {exc}.", next="segue check") from exc
    if found := values.service_in(text):
        return found
    from pathlib import Path

    from segue.manifest.load import load

    return load(Path(path), as_root=False).manifest.service
