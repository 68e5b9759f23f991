"""What Segue's Envoy costs: requests a second through it ÷ through a bare Envoy with a static configuration.

Both have the same number of workers and the same instances, and are loaded in turn. The instances are Envoys
that answer at once, so that the one before them is what is measured. If the target is missed, or would be missed
were there nothing but Envoy on the cores, Segue's own configuration is served by a third Envoy, with one feature
after the other taken out.
"""

from __future__ import annotations

import copy
import json
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import psutil
from numbers_table import RUNS, Number

from segue.routers.envoy.http import TYPE
from segue.routers.envoy.process import binary
from segue.testing.load import Wrk
from segue.testing.site import as_user, free_port

SECONDS = 2.0
WORKERS = psutil.cpu_count() or 1
Document = dict[str, Any]


def throughput() -> Iterator[Number]:
    """The ratio of requests a second, and of Envoy's own CPU for one request."""
    common.progress("throughput …")
    with common.shop() as shop, tempfile.TemporaryDirectory(prefix="sg-") as folder:
        shop.write(replicas=2, process={"command": _instance(), **as_user()})
        shop.deploy("v1")
        addresses = [one["address"] for one in shop.status()["versions"]["v1"]["instances"]]
        pid = json.loads((shop.segue.home / "envoy" / "envoy.json").read_text())["pid"]
        with _envoy(Path(folder), "bare", _bare, addresses) as bare:
            pairs = [(_loaded(shop.url, pid), _loaded(*bare)) for _ in range(RUNS)]
        ratios = [ours[0] / theirs[0] for ours, theirs in pairs]
        number = Number("throughput through Segue's Envoy ÷ a bare Envoy", "×", ratios, 0.95, at_least=True)
        yield number
        yield Number("  requests a second through Segue's Envoy", "/s", [ours[0] for ours, _ in pairs], at_least=True)
        dearer = Number("  CPU of Envoy for one request, Segue's ÷ bare", "×", [a[1] / b[1] for a, b in pairs])
        yield dearer
        yield Number("  CPU of the bare Envoy for one request", "µs", [theirs[1] for _, theirs in pairs])
        if number.missed or dearer.median > 1 / 0.95:
            last = json.loads((shop.segue.home / "envoy" / "envoy-static.json").read_text())
            yield from _features(Path(folder), last)


def _features(folder: Path, ours: Document) -> Iterator[Number]:
    """Segue's configuration as it is ÷ without one feature: CPU of Envoy for one request."""
    for name, without in FEATURES.items():
        ratios = []
        with (
            _envoy(folder, "whole", lambda port, _: _at(ours, port), []) as whole,
            _envoy(folder, "less", lambda port, _, cut=without: cut(_at(ours, port)), []) as less,  # type: ignore[misc]
        ):
            ratios = [_loaded(*whole, seconds=0.8)[1] / _loaded(*less, seconds=0.8)[1] for _ in range(RUNS)]
        yield Number(f"  of it: with ÷ without {name}, CPU for one request", "×", ratios)


def _loaded(url: str, pid: int, seconds: float = SECONDS) -> tuple[float, float]:
    """Requests a second, and the CPU in µs that the process `pid` took for one."""
    envoy = psutil.Process(pid)
    wrk = Wrk(url)
    began, cpu = time.monotonic(), sum(envoy.cpu_times()[:2])
    time.sleep(seconds)
    seen = wrk.stop()
    took, used = time.monotonic() - began, sum(envoy.cpu_times()[:2]) - cpu
    if seen.lost:
        raise RuntimeError(f"{url} lost {seen.lost} requests: {seen.detail}")
    return seen.requests / took, used * 1e6 / seen.requests


@contextmanager
def _envoy(
    folder: Path, name: str, config: Callable[[int, list[str]], Document], addresses: list[str]
) -> Iterator[tuple[str, int]]:
    """An Envoy with what `config` makes of a port and the instances' addresses: its URL and pid."""
    port, path = free_port(), folder / f"{name}.json"
    document = config(port, addresses)
    document["admin"] = {"address": {"pipe": {"path": str(folder / f"{name}.sock"), "mode": 0o600}}}
    path.write_text(json.dumps(document))
    command = [str(binary()), "-c", str(path), "--concurrency", str(WORKERS), "-l", "critical"]
    envoy = subprocess.Popen([*command, "--use-dynamic-base-id"], stderr=subprocess.DEVNULL)
    try:
        _listening(envoy.pid, port)
        yield f"http://127.0.0.1:{port}/", envoy.pid
    finally:
        envoy.send_signal(signal.SIGTERM)
        envoy.wait(20)


def _listening(pid: int, port: int) -> None:
    deadline = time.monotonic() + 20
    while not any(c.laddr.port == port for c in psutil.Process(pid).net_connections("tcp") if c.status == "LISTEN"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Envoy does not listen on {port}")
        time.sleep(0.02)


def _instance() -> str:
    """An instance that answers at once."""
    answer = {"status": 200, "body": {"inline_string": "hello\n"}}
    routes = [{"match": {"prefix": "/"}, "direct_response": answer}]
    document = {"static_resources": {"listeners": [_listener("{port}", routes)]}}
    text = json.dumps(document).replace('"{port}"', "{port}")
    return f"{binary()} --config-yaml {shlex.quote(text)} --concurrency 1 -l critical --use-dynamic-base-id"


def _listener(port: object, routes: list[Document]) -> Document:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [router],
    }
    return {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _bare(port: int, addresses: list[str]) -> Document:
    """The least that proxies to the instances."""
    places = [address.rpartition(":") for address in addresses]
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(number)}}}}
        for host, _, number in places
    ]
    cluster = {
        "name": "app",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]
    return {"static_resources": {"listeners": [_listener(port, routes)], "clusters": [cluster]}}


def _at(ours: Document, port: int) -> Document:
    """A copy of Segue's configuration that listens on another port."""
    document = copy.deepcopy(ours)
    document["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = port
    return document


def _manager(document: Document) -> Document:
    found: Document = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def _no_attempt_log(document: Document) -> Document:
    _manager(document)["http_filters"][-1]["typed_config"].pop("upstream_log")
    return document


def _no_request_log(document: Document) -> Document:
    _manager(document).pop("access_log")
    return document


def _no_route_policy(document: Document) -> Document:
    for host in _manager(document)["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            route.pop("request_body_buffer_limit", None)
            route["route"].pop("retry_policy", None)
    return document


def _no_instance_statistics(document: Document) -> Document:
    for cluster in document["static_resources"]["clusters"]:
        cluster.pop("track_cluster_stats", None)
    return document


def _no_edge(document: Document) -> Document:
    for name in ("use_remote_address", "normalize_path", "common_http_protocol_options", "request_headers_timeout"):
        _manager(document).pop(name, None)
    return document


FEATURES: dict[str, Callable[[Document], Document]] = {
    "the attempt log": _no_attempt_log,
    "the request log": _no_request_log,
    "both logs": lambda document: _no_request_log(_no_attempt_log(document)),
    "retries and buffered bodies": _no_route_policy,
    "statistics of each instance": _no_instance_statistics,
    "the edge's own settings": _no_edge,
}
