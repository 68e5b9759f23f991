"""A server that speaks the part of Prometheus's API that evidence is read from, and whatever else a test wants said.

with Metrics({'up{version="v2"}': [1.0]}) as metrics:
    metrics.url                      # http://127.0.0.1:…
    metrics.asked                    # what was asked, as it came
    metrics.says = lambda path, query: (200, b"{}")
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Says = Callable[[str, Mapping[str, str]], tuple[int, bytes]]


class Metrics:
    """The server. `values`: the values of a query's series, or a function that makes them; others have no series."""

    def __init__(self, values: Mapping[str, Sequence[float] | Callable[[], Sequence[float]]] | None = None) -> None:
        self.values = dict(values or {})
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.says: Says = self._prometheus
        self.hangs = threading.Event()
        self.goes_on = threading.Event()
        metrics = self

        class Handler(BaseHTTPRequestHandler):
            """One request."""

            def do_GET(self) -> None:
                """Answer it, when it is not to hang."""
                metrics._note(self.path, dict(self.headers))
                if metrics.hangs.is_set():
                    metrics.goes_on.wait(60)
                url = urlsplit(self.path)
                status, body = metrics.says(url.path, {key: one[0] for key, one in parse_qs(url.query).items()})
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:  # nobody waits for it any more
                    pass

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.goes_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _note(self, path: str, headers: dict[str, str]) -> None:
        self.asked.append(path)
        self.headers.append(headers)

    def _prometheus(self, path: str, query: Mapping[str, str]) -> tuple[int, bytes]:
        """What Prometheus answers."""
        if path != "/api/v1/query":
            return 404, b"404 page not found"
        if query["query"].count("(") != query["query"].count(")"):
            said = {
                "status": "error",
                "errorType": "bad_data",
                "error": "1:5: parse error: unclosed left parenthesis",
            }
            return 400, json.dumps(said).encode()
        known = self.values.get(query["query"], ())
        series = known() if callable(known) else known
        return 200, vector(*series)


def vector(*values: float | str) -> bytes:
    """An answer with so many series."""
    result = [{"metric": {"instance": f"i{i}"}, "value": [1700000000.0, str(v)]} for i, v in enumerate(values)]
    return data("vector", result)


def data(kind: str, result: Any) -> bytes:
    """An answer of another kind."""
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()
