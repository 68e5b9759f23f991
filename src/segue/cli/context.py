"""What every command is given: the common options, the control plane, the way to print.

Rule: nothing is imported at the top that `segue status` cannot afford.
"""

from __future__ import annotations

import os
import sys

from segue.cli.client import Absent, Broken, Client
from segue.home import has_state, home, socket_path, trusted

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
        """What was named is there, whether the command needs it or not. Raises Usage."""
        named = {"--service": self._service, "--directory": self.directory, "--file": self.file}
        empty = [option for option, value in named.items() if value == ""]
        folder_missing = self.directory is not None and not os.path.isdir(self.directory)
        file_missing = self.file is not None and not os.path.exists(self.manifest)
        if empty or folder_missing or file_missing:
            from segue.errors import Usage

            if empty:
                raise Usage(f"{empty[0]} is empty.", next="segue --help")
            raise Usage(f"There is no manifest at {self.manifest}.", next="segue init")

    @property
    def wanted(self) -> str | None:
        """The service that was named on the command line."""
        return self._service

    def ask(self, method: str, path: str, body: object = None, *, timeout: float = 30, key: str | None = None) -> Any:
        """The control plane's answer; a control plane is started if none runs. Raises SegueError, Broken.

        Where nothing was ever deployed none is started for who only looks: that raises NothingYet.
        """
        self._mistrust()
        for _ in range(_TRIES):
            try:
                return self._answer(method, path, body, timeout, key)
            except Absent:
                if method == "GET":
                    self._insist_on_state()
                self.start()
            except Broken:  # with a key it is one request, however often it is asked for
                if method != "GET" and key is None:
                    raise
        return self._answer(method, path, body, timeout, key)

    def _answer(self, method: str, path: str, body: object, timeout: float, key: str | None) -> Any:
        """What is answered. Who names a service, where there is none at all, is told how to get a first one."""
        try:
            return self.client.ask(method, path, body, timeout=timeout, key=key)
        except Exception as error:  # SegueError's module is imported only where there is one
            unknown = getattr(error, "code", "") == "unknown" and path.startswith("/v1/services/")
            if unknown and not self.client.ask("GET", "/v1/services")["services"]:
                error.next = self.first  # type: ignore[attr-defined]
            raise

    def wake(self) -> None:
        """A control plane answers; it is started if none does. Raises NothingYet."""
        self.ask("GET", "/healthz")

    def _insist_on_state(self) -> None:
        if not has_state(self.home):
            from segue.cli.trouble import NothingYet

            raise NothingYet("there is no service yet", next=self.first)

    @property
    def first(self) -> str:
        """The command that leads to a first service."""
        return "segue deploy" if os.path.exists(self.manifest) else "segue init"

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

    def services(self) -> Any:
        """The status document of all services. Where nothing was ever deployed no control plane is started for it."""
        try:
            return self.client.ask("GET", "/v1/services")
        except Absent:
            if not has_state(self.home):
                return {"schema": 1, "services": []}
        except Broken:
            pass
        return self.ask("GET", "/v1/services")

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

        names = [entry["service"] for entry in self.services()["services"]]
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
