"""Applications whose servers close idle connections: as they are by default, and as their users may set them."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from segue.testing.apps import httpbin

ASGI = """\
import asyncio


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(0.02)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"hello\\n"})


if __name__ == "__main__":
    import sys

    import uvicorn

    port, rest = int(sys.argv[1]), float(sys.argv[2])
    uvicorn.run(app, port=port, timeout_keep_alive=rest, log_level="warning", access_log=False)
"""

WSGI = """\
def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", "6")])
    return [b"hello\\n"]
"""

NODE = """\
const http = require("http");
const server = http.createServer((request, response) => {
  request.resume();
  setTimeout(() => response.end("hello\\n"), 20);
});
if (process.argv[3]) server.keepAliveTimeout = Number(process.argv[3]);
server.listen(Number(process.argv[2]), "127.0.0.1");
process.on("SIGTERM", () => { server.close(); server.closeIdleConnections(); });
"""

FILES = {"asgi.py": ASGI, "wsgi.py": WSGI, "server.js": NODE}


@dataclass(frozen=True)
class App:
    """One application. `service`: its name for Segue; `covered`: whether Segue's default is meant for it."""

    name: str
    service: str
    command: str
    covered: bool = True


def apps() -> list[App]:
    """Every application of the benchmark. Raises NotInstalled, FileNotFoundError."""
    gunicorn = f"{httpbin('0.10.4') / 'bin' / 'gunicorn'} --log-level warning -b 127.0.0.1:{{port}} wsgi:app"
    uvicorn = f"{sys.executable} asgi.py {{port}}"
    node = f"{_node()} server.js {{port}}"
    return [
        App("gunicorn, sync", "sync", gunicorn),
        App("gunicorn, gthread", "gthread", f"{gunicorn} -k gthread --threads 16"),
        App("uvicorn", "uvicorn", f"{sys.executable} -m uvicorn --port {{port}} --log-level warning asgi:app"),
        App("Node", "node", node),
        App("gunicorn, gthread, --keep-alive 1", "gthread-1", f"{gunicorn} -k gthread --threads 16 --keep-alive 1"),
        App("uvicorn, --timeout-keep-alive 1", "uvicorn-1", f"{uvicorn} 1"),
        App("Node, keepAliveTimeout = 1000", "node-1", f"{node} 1000"),
        App("uvicorn, timeout_keep_alive=0.3", "uvicorn-03", f"{uvicorn} 0.3", covered=False),
    ]


def write(folder: Path) -> None:
    """Put the applications' files into `folder`."""
    for name, text in FILES.items():
        (folder / name).write_text(text)


def _node() -> str:
    found = shutil.which("node")
    if found is None:
        raise FileNotFoundError("node is not installed")
    return found
