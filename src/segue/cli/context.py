"""What every command is given: the common options, the control plane, the way to print.

Rule: nothing is imported at the top that `segue status` cannot afford.
"""

from __future__ import annotations

import os
import sys

from segue.cli.client import Absent, Broken, Client
from segue.home import home, socket_path, trusted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MANIFEST = "segue.yaml"
_TRIES = 3
"""How often a control plane that is away, or goes away in the middle of the answer, is asked again."""


class Context:
    """One call of `segue`: its common options and its control plane."""

    def __init__(
        self,
        service: str | None = None,
        directory: str | None = None,
        file: str | None = None,
        json: bool = False,
    ) -> None:
        self._service = service
        self.directory = directory
        self.file = file
        self.json = json
        self.home = home()
        self.client = Client(socket_path(self.home), self.home)

    @property
    def manifest(self) -> str:
        """The path of the manifest, whether it exists or not."""
        return os.path.join(self.directory or ".", self.file or MANIFEST)

    def insist(self) -> None:
        """A folder or a manifest that was named is there, whether the command needs it or not. Raises Usage."""
        folder_missing = self.directory is not None and not os.path.isdir(self.directory)
        if folder_missing or (self.file is not None and not os.path.exists(self.manifest)):
            from segue.errors import Usage

            raise Usage(f"There is no manifest at {self.manifest}.", next="segue init")

    @property
    def wanted(self) -> str | None:
        """The service that was named on the command line."""
        return self._service

    def ask(self, method: str, path: str, body: object = None, *, timeout: float = 30, key: str | None = None) -> Any:
        """The control plane's answer; a control plane is started if none runs. Raises SegueError, Broken."""
        self._mistrust()
        for _ in range(_TRIES):
            try:
                return self.client.ask(method, path, body, timeout=timeout, key=key)
            except Absent:
                self.start()
            except Broken:  # with a key it is one request, however often it is asked for
                if method != "GET" and key is None:
                    raise
        return self.client.ask(method, path, body, timeout=timeout, key=key)

    def start(self) -> None:
        """Start a control plane in the background. Raises Unreachable."""
        from segue.cli.start import start

        pid = start(self.home, self.client)
        print(f"Started the control plane (pid {pid}).", file=sys.stderr)

    def service(self) -> str:
        """The service that is meant: named, that of the manifest, or the only one. Raises Usage."""
        if self._service:
            return self._service
        return self._of_manifest() or self._only()

    def path(self, rest: str = "") -> str:
        """The path of the meant service in the API."""
        return f"/v1/services/{quote(self.service())}{rest}"

    def print(self, document: object) -> None:
        """Print `document` as JSON, on one line if it is an event."""
        import json

        print(json.dumps(document, ensure_ascii=False), flush=True)

    def _of_manifest(self) -> str | None:
        from segue.cli.which import service_in

        return service_in(self.manifest, must_exist=bool(self.file or self.directory))

    def _only(self) -> str:
        from segue.errors import Usage

        names = [entry["service"] for entry in self.ask("GET", "/v1/services")["services"]]
        if len(names) == 1:
            return str(names[0])
        if names:
            raise Usage(
                f"Which service? There are {', '.join(names)}, and no {MANIFEST} in this folder.",
                next=f"segue … -s {names[0]}",
            )
        raise Usage(f"There is no service yet, and no {MANIFEST} in this folder.", next="segue init")

    def _mistrust(self) -> None:
        if not trusted(self.home):
            from segue.errors import Unreachable

            folder = os.path.dirname(self.client.path)
            raise Unreachable(
                f"{folder} belongs to another user than {self.home}: nothing is sent to it.", next="segue doctor"
            )


def quote(text: str) -> str:
    """`text` as a part of a URL's path or query."""
    if text.replace("-", "").replace("_", "").replace(".", "").isalnum() and text.isascii():
        return text
    from urllib.parse import quote as percent

    return percent(text, safe="")
