"""What Segue's Envoy costs: requests a second through it ÷ through a bare Envoy with a static configuration.

Both have the same number of workers and the same instances, and are loaded in turn when warm, Segue's once it has
noticed that very many requests come (`segue.routers.envoy.sampling`). The instances are Envoys that answer at once,
so that the one before them is what is measured. All of them are started anew each time, lest where its memory lies
favour one of them throughout. What each part of it costs: `features.py`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import common
from envoys import Target, Turns, bare, counts_few, in_turn, instance, means, running
from numbers_table import RUNS, Number

from segue.testing.site import as_user, free_port

STARTS = 2 * RUNS


def throughput() -> Iterator[Number]:
    """The ratio of requests a second, and of Envoy's own CPU for one request."""
    common.progress("throughput …")
    starts = [_started() for _ in range(STARTS)]
    ratios = means(starts, lambda ours, theirs: ours.rate / theirs.rate)
    rates = means(starts, lambda ours, _: ours.rate)
    dearer = means(starts, lambda ours, theirs: ours.cpu / theirs.cpu)
    cpu = means(starts, lambda _, theirs: theirs.cpu)
    yield Number("throughput through Segue's Envoy ÷ a bare Envoy", "×", ratios, 0.95, at_least=True)
    yield Number("  requests a second through Segue's Envoy", "/s", rates, at_least=True)
    yield Number("  CPU of Envoy for one request, Segue's ÷ bare", "×", dearer)
    yield Number("  CPU of the bare Envoy for one request", "µs", cpu)


def _started() -> Turns:
    """Segue's Envoy and a bare one, both new, in turn."""
    with common.shop() as shop, tempfile.TemporaryDirectory(prefix="sg-") as folder:
        shop.write(replicas=2, process={"command": instance(), **as_user()})
        shop.deploy("v1")
        instances = shop.status()["versions"]["v1"]["instances"]
        router, port = shop.segue.home / "envoy", free_port()
        pid = json.loads((router / "envoy.json").read_text())["pid"]
        ours = Target(shop.url, pid, ready=lambda: counts_few(router))
        document = bare(port, [each["address"] for each in instances])
        with running(Path(folder), "bare", document, [port]) as other:
            return in_turn(ours, Target(f"http://127.0.0.1:{port}/", other), [each["pid"] for each in instances])
