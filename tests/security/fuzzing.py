"""Inputs that nobody would send, for the manifest loader and for the API of a control plane over the fakes.

Rule 1: everything comes from one seed, so that what was found can be found again.
Rule 2: an input is judged by three sentences: nothing is raised but what callers are told of; an error is a document;
nothing takes more than five seconds of the processor.
Rule 3: nothing of the machine is read but the folder that is named: a source that is `/` would be copied.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fastapi import FastAPI

from segue.api.app import make
from segue.manifest import load
from segue.manifest.load import Loaded, ManifestError, parse
from segue.testing.plane import Lab

LONGEST = 5.0
"""Seconds of processor time."""

REFERENCE = Path(load.__file__).with_name("reference.yaml").read_text("utf-8")
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MANIFESTS = (
    REFERENCE,
    "service: shop\nrun: {process: {command: ./serve, env: {A: !env A, B: b}, env_file: .env}}\n",
    f"service: shop\n{BOMB}run: {{process: {{command: x, env: *i}}}}\n",
    "service: shop\nrun: &r {process: *r}\n",
)
PIECES = (
    *(
        ": ",
        "- ",
        "\n",
        "  ",
        "\t",
        "[",
        "]",
        "{",
        "}",
        "!env ",
        "!!int ",
        "&a ",
        "*a",
        "<<: ",
        "'",
        '"',
        "|",
        ">",
        "#",
    ),
    *(
        "? ",
        "---\n",
        "...\n",
        "%YAML 9\n",
        "\0",
        "\ufeff",
        "\x85",
        "\u2028",
        "\ud7ff",
        "9" * 400,
        "1e999",
        "0o7",
        ".nan",
    ),
    *("1:30:00", "2001-01-01", "!!binary x", "[" * 400, "{a: " * 300, "é", "\U0001f600", "${HOME}", "100%", "-1s"),
)
TEXTS = (
    "",
    ".",
    "..",
    "/",
    "a" * 3000,
    "\0",
    "\ud800",
    "²",
    "é\u202e",
    "0",
    "nan",
    "v1",
    "shop",
    "'",
    "a b",
    "%s{0}",
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *TEXTS,
    *(
        [],
        {},
        [[]],
        {"": {}},
        ["x"] * 300,
        {"from_env": 1},
        "10%",
        "5s",
        "1e5s",
        "127.0.0.1:1",
        "[::1]:80",
        "unix:/x",
    ),
)


class Found(AssertionError):
    """An input that broke one of the sentences."""


@contextmanager
def bounded() -> Iterator[None]:
    """Raises Found inside when it has taken too long."""

    def stop(*_: object) -> None:
        raise Found(f"it takes longer than {LONGEST:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# Manifests


def a_manifest(chance: random.Random) -> str:
    """A manifest with some of it cut out, doubled, or replaced."""
    text = chance.choice(MANIFESTS)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(text) + 1)
        cut = chance.choice((0, 0, 1, 3, 40))
        put = chance.choice((chance.choice(PIECES), "", text[at : at + chance.choice((5, 50))], chance.choice(TEXTS)))
        text = text[:at] + put + text[at + cut :]
    return text


def read_manifest(text: str, folder: Path) -> str:
    """Read `text` in every way that there is; what became of it, in a word. Raises Found."""
    try:
        with bounded():
            found = _in_a_file(text, folder)
            found.environment(dict.fromkeys(re.findall(r"!env (\w+)", text), "1"))
            again = parse(found.redacted())
            assert again.manifest.service == found.manifest.service
    except ManifestError as error:
        json.dumps(error.document())
        return "refused"
    except Found:
        raise
    except Exception as error:
        raise Found(f"{type(error).__name__}: {error}") from error
    return "read"


def _in_a_file(text: str, folder: Path) -> Loaded:
    (folder / ".env").write_text("B=2\n")
    path = folder / "segue.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return load.load(path, as_root=False)


# The API


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass
class Answered:
    """What came back; `ended` is false for a stream that was left."""

    status: int = 0
    body: bytes = b""
    ended: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)


ACTS = ("plan", "rollouts", "rollback", "promote", "scale", "pause", "resume", "restart", "retire", "down", "fly")
GETS = ("/healthz", "/openapi.json", "/v1/services", "/v1/rollouts", "/v1/events", "/v1", "/", "/v1/services/{}")
GETS += ("/v1/services/{}/logs", "/v1/rollouts/{}", "/v1/rollouts/{}/report", "/v1/rollouts/{}/events")
POSTS = (*(f"/v1/services/{{}}/{act}" for act in ACTS), *(f"/v1/rollouts/{{}}/{act}" for act in ACTS), "/v1/shutdown")
QUERIES = ("wait", "lines", "follow", "limit", "after", "service", "version", "instance", "other")


def a_request(chance: random.Random, folder: Path) -> Asked:
    """A request that is nearly right."""
    is_post = chance.random() < 0.75
    name = chance.choice(("shop", "shop", "shop", "latest", "other", *TEXTS))
    path = chance.choice(POSTS if is_post else GETS).format(quote(name, safe="", errors="replace"))
    asked = {query: chance.choice((*TEXTS, "1", "-1", "10" * 12, "true", "1e3")) for query in QUERIES}
    picked = chance.sample(QUERIES, chance.choice((0, 0, 1, 2)))
    query = "&".join(f"{key}={quote(asked[key], errors='replace')}" for key in picked)
    headers = [(b"content-type", chance.choice((b"application/json", b"application/json", b"text/plain", b"\xff")))]
    for header in (b"idempotency-key", b"x-segue-who", b"last-event-id", b"accept"):
        if chance.random() < 0.2:
            headers.append(
                (header, chance.choice((b"", b"k1", b"\xb2", b"9" * 5000, b"text/event-stream", b"\xff\x00")))
            )
    body = _a_body(chance, path, folder) if is_post else b""
    method = chance.choice(("POST" if is_post else "GET",) * 20 + ("PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"))
    return Asked(method, path, query, tuple(headers), body)


def _a_body(chance: random.Random, path: str, folder: Path) -> bytes:
    body: Any = {"reason": "because"}
    if path.endswith(("plan", "/rollouts")):
        body = _a_deployment(chance, folder)
    elif path.endswith("scale"):
        body["count"] = 3
    for _ in range(chance.choice((0, 0, 1, 1, 2, 5))):
        body = _changed(chance, body)
    text = json.dumps(_kept_here(body, folder)).encode()
    if chance.random() < 0.1:
        at = chance.randrange(len(text) + 1)
        text = text[:at] + chance.choice((b"", b"\xff", b"[" * 5000, b"}", b'"', b"\\ud800", b"NaN")) + text[at + 1 :]
    return text


def _a_deployment(chance: random.Random, folder: Path) -> dict[str, Any]:
    whole = chance.random() < 0.5
    text = REFERENCE if whole else "service: shop\nrun: {process: {command: serve, user: root, source: .}}\n"
    manifest = parse(text).manifest.model_dump(mode="json")
    manifest["service"] = "shop"
    manifest["run"]["process"]["user"] = "root"
    manifest["health"] = {"command": "health {url}"}
    return {
        "manifest": manifest,
        "text": text,
        "folder": str(folder),
        "environment": {"A": "1"},
        "version": f"v{chance.randrange(9)}",
        "if_busy": chance.choice(("refuse", "replace")),
    }


def _changed(chance: random.Random, document: Any) -> Any:
    """A copy of `document` that is different in one place."""
    changed = copy.deepcopy(document)
    inside, steps = changed, chance.randrange(1, 6)
    for step in range(steps):
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        if not keys:
            break
        key = chance.choice(keys)
        if step < steps - 1 and isinstance(inside[key], (dict, list)):
            inside = inside[key]
            continue
        if chance.random() < 0.2 and isinstance(inside, dict):
            del inside[key]
        else:
            inside[key] = copy.deepcopy(chance.choice(VALUES))
        break
    return changed


def _kept_here(body: Any, folder: Path) -> Any:
    """`body` with a source and a folder of which nothing is copied but what is ours."""
    if isinstance(body, dict):
        if isinstance(body.get("folder"), str) and body["folder"] not in (str(folder), "\0", "relative", "", "/\0"):
            body["folder"] = "/nowhere/at/all"
        try:
            process = body["manifest"]["run"]["process"]
            if isinstance(process.get("source"), str) and process["source"] not in (".", "a" * 3000, "\0", "\ud800"):
                process["source"] = "nowhere"
        except (KeyError, TypeError, AttributeError):
            pass
    return body


async def ask(app: FastAPI, asked: Asked) -> Answered:
    """What `app` answers; a stream is left after a second."""
    answered, given = Answered(), False

    async def receive() -> dict[str, Any]:
        nonlocal given
        if given:
            await answered.news.wait()
            return {"type": "http.disconnect"}
        given = True
        return {"type": "http.request", "body": asked.body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answered.status = message["status"]
        else:
            answered.body += message.get("body", b"")
            answered.ended = not message.get("more_body", False)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "server": ("segue", None),
        "method": asked.method,
        "path": unquote(asked.path, errors="replace"),
        "raw_path": asked.path.encode(),
        "query_string": asked.query.encode(),
        "headers": list(asked.headers),
    }
    try:
        async with asyncio.timeout(1):
            await app(scope, receive, send)
    except TimeoutError:
        answered.news.set()
    return answered


def judge(answered: Answered) -> str:
    """What became of a request, in a word. Raises Found."""
    if not answered.status and not answered.ended:
        return "waited"
    if answered.status >= 500:
        raise Found(f"{answered.status}: {answered.body[:300]!r}")
    if answered.status >= 400 and answered.body:
        error = json.loads(answered.body)["error"]
        if not (error["code"] and error["message"] and isinstance(error["exit"], int)):
            raise Found(f"{answered.status} says nothing: {error}")
    return f"{answered.status // 100}xx"


def ask_all(chance: random.Random, count: int, told: Callable[[str], None]) -> None:
    """Ask a control plane of its own so many questions, one after another. Raises Found."""
    with tempfile.TemporaryDirectory(prefix="sg-") as name:
        folder = Path(name)
        (folder / "source").mkdir()
        (folder / "source" / "app").write_text("x")
        lab = Lab(folder / "home")

        async def scene(plane: Any) -> None:
            app = make(plane, lambda everything: None)
            for _ in range(count):
                asked = a_request(chance, folder / "source")
                try:
                    with bounded():
                        told(judge(await ask(app, asked)))
                except Exception as error:
                    raise Found(f"{asked}\n{type(error).__name__}: {error}") from error

        lab.run(scene)
