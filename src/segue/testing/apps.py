"""Real applications that Segue's authors did not write, installed once into a cache: for tests, the tour, benchmarks.

Rule 1: an installation is complete when its marker exists; without the marker it is made anew.
Rule 2: one process installs at a time (a lock per application); the others wait for it.
Run as a command it installs those named: ``python -m segue.testing.apps httpbin json-server``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

GUNICORN = {"0.10.2": "23.0.0", "0.10.4": "27.0.1"}
"""The versions of httpbin, and the gunicorn that each runs under."""

JSON_SERVER = {"0.17.4": "lib/cli/bin.js", "1.0.0-beta.3": "lib/bin.js"}
"""The versions of json-server, and the script that starts each. 0.17.4 drops what is in flight on SIGTERM."""

NODE_RED = ("3.1.15",)

WSGI = """\
from importlib.metadata import version

from httpbin import app


@app.after_request
def name_the_version(response):
    response.headers["X-Version"] = version("httpbin")
    return response
"""


class NotInstalled(Exception):
    """An application could not be installed here; the message says why."""


def cache() -> Path:
    """Where the applications are: ``$SEGUE_APPS`` or the user's cache folder."""
    return Path(os.environ.get("SEGUE_APPS") or platformdirs.user_cache_dir("segue-apps"))


def httpbin(version: str) -> Path:
    """The virtual environment that has httpbin `version` and gunicorn."""
    return _installed(f"httpbin-{version}", lambda folder: _python(folder, *_httpbin_parts(version)))


def httpbin_source(folder: Path, version: str, wsgi: str = WSGI, workers: int = 1) -> None:
    """Write a release of httpbin into `folder`: ``wsgi.py`` and ``serve PORT``, which starts it under gunicorn.

    Every answer names the installed version in ``X-Version``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wsgi.py").write_text(wsgi)
    serve = folder / "serve"
    gunicorn = f"{httpbin(version) / 'bin' / 'gunicorn'} -w {workers} -k gthread --threads 8 --log-level warning"
    serve.write_text(f'#!/bin/sh\nexec {gunicorn} -b "127.0.0.1:$1" wsgi:app\n')
    serve.chmod(0o755)


def json_server(version: str, delay_ms: int = 0) -> str:
    """The command that starts json-server `version`, but for ``--port PORT FILE``.

    Its users' path is ``/posts``; ``X-Powered-By`` tells the versions apart (Express, then tinyhttp).
    """
    folder = _installed(f"json-server-{version}", lambda folder: _npm(folder, f"json-server@{version}"))
    script = folder / "node_modules" / "json-server" / JSON_SERVER[version]
    delay = f" --delay {delay_ms}" if delay_ms else ""
    return f"{_program('node')} {script} --quiet --host 127.0.0.1{delay}"


def node_red(version: str = NODE_RED[0]) -> str:
    """The command that starts Node-RED, but for ``-p PORT -u FOLDER -s SETTINGS``."""
    folder = _installed(f"node-red-{version}", lambda folder: _npm(folder, f"node-red@{version}"))
    return f"{_program('node')} {folder / 'node_modules' / 'node-red' / 'red.js'}"


def _httpbin_parts(version: str) -> tuple[str, str]:
    return f"httpbin=={version}", f"gunicorn=={GUNICORN[version]}"


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    folder = cache() / name
    with _locked(cache() / f"{name}.lock"):
        marker = folder / ".complete"
        if not marker.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            install(folder)
            marker.touch()
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _python(folder: Path, *parts: str) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is not None:
        _run(uv, "venv", "--allow-existing", "--python", sys.executable, str(folder))
        _run(uv, "pip", "install", "--python", str(folder / "bin" / "python"), *parts)
    else:
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *parts)


def _npm(folder: Path, part: str) -> None:
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
    _run(_program("npm"), "install", "--ignore-scripts", *quiet, "--prefix", str(folder), part)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotInstalled(f"{name} is not installed")
    return found


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise NotInstalled(f"{' '.join(command)} ended with status {done.returncode}: {' '.join(last)}")


def main(argv: list[str]) -> int:
    """Install the applications named in `argv`; without any, httpbin and json-server."""
    for name in argv or ["httpbin", "json-server"]:
        if name == "httpbin":
            places = [str(httpbin(version)) for version in GUNICORN]
        elif name == "json-server":
            places = [json_server(version) for version in JSON_SERVER]
        elif name == "node-red":
            places = [node_red()]
        else:
            sys.stderr.write(f"{name} is not known: httpbin, json-server, node-red\n")
            return 2
        sys.stdout.write("".join(f"{name}: {place}\n" for place in places))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
