"""What Segue's Envoy costs: requests a second through it ÷ through a bare Envoy with a static configuration.

Both have the same number of workers and the same instances, and are loaded in turn when warm, Segue's once it has
noticed that very many requests come (`segue.routers.envoy.sampling`). The instances are Envoys that answer at once,
so that the one before them is what is measured. All of them are started anew for each pair: where its memory lies
favours an Envoy for life, by up to a tenth. What each part of it costs: `features.py`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import common
from envoys import Use, bare, counts_few, instance, loaded, running
from numbers_table import RUNS, Number

from segue.testing.site import as_user, free_port

STARTS = 3 * RUNS


def throughput() -> Iterator[Number]:
    """The ratio of requests a second, and of Envoy's own CPU for one request."""
    common.progress("throughput …")
    pairs = [_pair(first=number % 2 == 0) for number in range(STARTS)]
    ratios = [ours.rate / theirs.rate for ours, theirs in pairs]
    yield Number("throughput through Segue's Envoy ÷ a bare Envoy", "×", ratios, 0.95, at_least=True)
    yield Number("  requests a second through Segue's Envoy", "/s", [ours.rate for ours, _ in pairs], at_least=True)
    dearer = [ours.cpu / theirs.cpu for ours, theirs in pairs]
    yield Number("  CPU of Envoy for one request, Segue's ÷ bare", "×", dearer)
    yield Number("  CPU of the bare Envoy for one request", "µs", [theirs.cpu for _, theirs in pairs])


def _pair(*, first: bool) -> tuple[Use, Use]:
    """Segue's Envoy, which is loaded `first` or last, and a bare one, both new, each for a second."""
    with common.shop() as shop, tempfile.TemporaryDirectory(prefix="sg-") as folder:
        shop.write(replicas=2, process={"command": instance(), **as_user()})
        shop.deploy("v1")
        addresses = [one["address"] for one in shop.status()["versions"]["v1"]["instances"]]
        router, port = shop.segue.home / "envoy", free_port()
        pid = json.loads((router / "envoy.json").read_text())["pid"]
        with running(Path(folder), "bare", bare(port, addresses), [port]) as other:

            def ours() -> Use:
                return loaded(shop.url, pid, ready=lambda: counts_few(router))

            def theirs() -> Use:
                return loaded(f"http://127.0.0.1:{port}/", other)

            if first:
                return ours(), theirs()
            reference = theirs()
            return ours(), reference
