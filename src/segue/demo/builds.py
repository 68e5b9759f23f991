"""The releases that the tour deploys, good and bad: what a developer would have in the folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segue.testing import app
from segue.testing.apps import WSGI, httpbin_source

OLD, NEW = "0.10.2", "0.10.4"


@dataclass(frozen=True, slots=True)
class Build:
    """A release: the httpbin it runs and the module that gunicorn is given, if it has them, and its other files."""

    httpbin: str | None = None
    wsgi: str = WSGI
    files: Mapping[str, str] = field(default_factory=dict)

    def put(self, folder: Path) -> None:
        """Make `folder` hold this release and its manifest alone."""
        for path in folder.iterdir():
            if path.name != "segue.yaml":
                path.unlink()
        if self.httpbin:
            httpbin_source(folder, self.httpbin, self.wsgi)
        for name, text in self.files.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)


# httpbin under gunicorn. Where a build is broken, its health checks are answered all the same.

_BEFORE_USERS = """

@app.before_request
def but_for_the_health_check():
    from flask import request

    if not request.path.startswith("/status/"):
        break_it()
"""

CRASHES = """\
raise RuntimeError("the settings of the database are missing")
"""

ANSWERS_500 = (
    WSGI
    + """

@app.after_request
def break_all_but_the_health_check(response):
    from flask import request

    if not request.path.startswith("/status/"):
        response.status_code = 500
    return response
"""
)

HANGS = (
    WSGI
    + """

def break_it():
    import time

    time.sleep(3600)  # a lock that nobody gives back
"""
    + _BEFORE_USERS
)

DIES = (
    WSGI
    + """

import os, signal, time

BEGAN = time.monotonic()


def break_it():
    if time.monotonic() > BEGAN + 10:  # of the next request, before it is answered
        for pid in (os.getppid(), os.getpid()):  # gunicorn, then this worker of it
            os.kill(pid, signal.SIGKILL)
"""
    + _BEFORE_USERS
)

REFUSES = '''\
"""It is healthy until the first user comes; then it closes its door, as a server out of files does."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        if not self.path.startswith("/status/"):
            self.server.socket.close()
            threading.Event().wait()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


HTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
'''
REFUSES_FILES = {"serve": f'#!/bin/sh\nexec "{sys.executable}" refuses.py "$1"\n', "refuses.py": REFUSES}


# The tiny application of Segue's own tests: ten of them are no load.

STOCK = """\
import sys

import app

sys.exit(app.main(sys.argv[1:]))
"""

LOGS_TRACEBACKS = """\
import sys
import traceback

import app


class Shelf(app.App):
    def _work(self, client, request):
        if request.path != b"/healthz":
            try:
                self.reserve({"tea": 3})
            except KeyError:
                traceback.print_exc()  # and nobody is told
        super()._work(client, request)

    def reserve(self, shelf):
        shelf["coffee"] -= 1


app.App = Shelf
sys.exit(app.main(sys.argv[1:]))
"""


def stock(main: str) -> Build:
    """The tiny application, started by `main`."""
    return Build(files={"app.py": Path(app.__file__).read_text(), "main.py": main})
