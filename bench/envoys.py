"""Envoys of a benchmark's own: started from a document, loaded, and asked what they used."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import shlex
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from segue.core.traffic import Certificate
from segue.routers.envoy.admin import Admin
from segue.routers.envoy.documents import TYPE
from segue.routers.envoy.loggers import ATTEMPTS
from segue.routers.envoy.process import binary
from segue.routers.envoy.sampling import ALL, said
from segue.testing.load import read_h2load, tool

WORKERS = psutil.cpu_count() or 1
Document = dict[str, Any]
WARM = 0.4
"""Seconds under load before what is measured: what was idle meanwhile is slower than what never is."""
READY_WITHIN = 20
"""Seconds under load in which it is ready at the latest."""
TURNS, REQUESTS = 32, 2000
"""How often two are loaded in turn, and with how many requests: a seventh of a second of what this machine does.

Two that are alike differ from turn to turn, and no less in long ones: many short ones say more than a few long ones.
"""
_RATE = re.compile(r"finished in .*, ([\d.]+) req/s")


@contextmanager
def running(folder: Path, name: str, document: Document, ports: Sequence[int]) -> Iterator[int]:
    """An Envoy with `document`, which listens on `ports`: its pid. Its files are in `folder`."""
    path = folder / f"{name}.json"
    admin = {"address": {"pipe": {"path": str(folder / f"{name}.sock"), "mode": 0o600}}}
    path.write_text(json.dumps({**document, "admin": admin}))
    command = [str(binary()), "-c", str(path), "--concurrency", str(WORKERS), "-l", "critical"]
    # In a session of its own, as Segue's is: the kernel divides the cores among sessions first.
    envoy = subprocess.Popen([*command, "--use-dynamic-base-id"], start_new_session=True, cwd=folder)
    try:
        listening(envoy.pid, set(ports))
        yield envoy.pid
    finally:
        envoy.send_signal(signal.SIGTERM)
        envoy.wait(20)


def listening(pid: int, ports: set[int]) -> None:
    """Return when the process listens on all of these. Raises TimeoutError."""
    deadline = time.monotonic() + 20
    while not ports <= {c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.status == "LISTEN"}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Envoy does not listen on {sorted(ports)}")
        time.sleep(0.02)


def counts_few(folder: Path) -> bool:
    """Whether the router in `folder` has noticed that very many requests come (`segue.routers.envoy.sampling`)."""
    admin = Admin(json.loads((folder / "envoy.json").read_text())["admin"])
    return asyncio.run(said(admin))[ATTEMPTS] < ALL


def instance() -> str:
    """The command of an instance that answers at once, but for its ``{port}``: what is before it is measured."""
    answer = {"status": 200, "body": {"inline_string": "hello\n"}}
    routes = [{"match": {"prefix": "/"}, "direct_response": answer}]
    document = {"static_resources": {"listeners": [listener("{port}", routes)]}}
    text = json.dumps(document).replace('"{port}"', "{port}")
    return f"{binary()} --config-yaml {shlex.quote(text)} --concurrency 1 -l critical --use-dynamic-base-id"


def bare(port: int, addresses: Sequence[str]) -> Document:
    """The least that proxies to the instances at `addresses`."""
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
    return {"static_resources": {"listeners": [listener(port, routes)], "clusters": [cluster]}}


def careful(port: int, addresses: Sequence[str]) -> Document:
    """What one writes who cares: the edge as Envoy's own best practices have it, retries, an access log of all."""
    document = bare(port, addresses)
    [place] = document["static_resources"]["listeners"]
    place["per_connection_buffer_limit_bytes"] = 32768
    manager = next(every(place, "filters"))[0]["typed_config"]
    log = {"@type": f"{TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "/dev/null"}
    manager |= {**_BEST_PRACTICE, "access_log": [{"name": "envoy.access_loggers.file", "typed_config": log}]}
    retry = {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2}
    next(every(manager, "route"))["retry_policy"] = retry
    document["static_resources"]["clusters"][0]["per_connection_buffer_limit_bytes"] = 32768
    return document


def with_tls(document: Document, certificate: Certificate) -> Document:
    """`document` with TLS towards users, HTTP/2 offered."""
    pem = {
        "certificate_chain": {"inline_string": certificate.chain},
        "private_key": {"inline_string": certificate.key},
    }
    context = {
        "@type": f"{TYPE}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [pem]},
    }
    for chains in every(document, "filter_chains"):
        chains[0]["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return document


def listener(port: object, routes: list[Document]) -> Document:
    """The least that listens on `port` of loopback and has `routes`."""
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


_BEST_PRACTICE: Document = {
    "use_remote_address": True,
    "normalize_path": True,
    "merge_slashes": True,
    "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
    "common_http_protocol_options": {"idle_timeout": "3600s", "headers_with_underscores_action": "REJECT_REQUEST"},
    "http2_protocol_options": {
        "max_concurrent_streams": 100,
        "initial_stream_window_size": 65536,
        "initial_connection_window_size": 1048576,
    },
    "stream_idle_timeout": "300s",
    "request_timeout": "300s",
}


@dataclass(frozen=True)
class Use:
    """What an Envoy did under load: requests a second; its CPU in µs for one; that of client and instances, too."""

    rate: float
    cpu: float
    whole: float


Turns = Sequence[tuple[Use, Use]]
"""What was measured in one start: what is looked at and its base, in turn."""


@dataclass(frozen=True)
class Target:
    """An Envoy that can be loaded. `ready`: whether it is what is to be measured, once it is under load."""

    url: str
    pid: int
    options: tuple[str, ...] = ()
    ready: Callable[[], bool] = lambda: True

    def warm(self) -> None:
        """Load it until it is warm and ready. Raises TimeoutError if it is never ready."""
        command = [tool("wrk"), "-t1", "-c64", "--timeout", "10s", *self.options, self.url, f"-d{READY_WITHIN}s"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as load:
            try:
                time.sleep(WARM)
                while not self.ready():
                    if load.poll() is not None:
                        raise TimeoutError(f"{self.url} has been under load for a while, and was never ready")
                    time.sleep(0.05)
            finally:
                load.terminate()

    def loaded(self, instances: Sequence[int]) -> Use:
        """h2load with 64 connections over HTTP/1.1 on it, before these `instances`, which may have been idle.

        Raises RuntimeError if a request is lost.
        """
        self._ask(REQUESTS // 4)
        cpu, others = _cpu(self.pid), _waited_for() + sum(map(_cpu, instances))
        seconds = self._ask(REQUESTS)
        used = _cpu(self.pid) - cpu
        beside = _waited_for() + sum(map(_cpu, instances)) - others
        return Use(REQUESTS / seconds, used * 1e6 / REQUESTS, (used + beside) * 1e6 / REQUESTS)

    def _ask(self, requests: int) -> float:
        """The seconds that so many took."""
        command = [tool("h2load"), "--h1", "-t1", "-c64", f"-n{requests}", *self.options, self.url]
        text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        if (seen := read_h2load(text)).lost or seen.requests != requests:
            raise RuntimeError(f"{self.url} answered {seen.requests - seen.lost} of {requests}: {seen.detail}")
        return requests / float(_RATE.findall(text)[0])


def in_turn(ours: Target, base: Target, instances: Sequence[int], turns: int = TURNS) -> Turns:
    """Both, loaded in turn when warm, each as often first as the other: what else runs then disturbs both alike."""
    ours.warm()
    base.warm()
    pairs = []
    for turn in range(turns):
        order = (ours, base) if turn % 2 else (base, ours)
        used = {one: one.loaded(instances) for one in order}
        pairs.append((used[ours], used[base]))
    return pairs


def means(starts: Iterable[Turns], compare: Callable[[Use, Use], float]) -> list[float]:
    """The geometric mean of `compare` in each start: of ratios it is 1 between two that are alike."""
    return [statistics.geometric_mean(compare(ours, base) for ours, base in turns) for turns in starts]


def _waited_for() -> float:
    """The CPU in seconds of all processes of ours that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu(pid: int) -> float:
    """The seconds that a process has run, to the microsecond: `cpu_times` has ticks of ten milliseconds."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def every(document: object, key: str) -> Iterator[Any]:
    """What stands under `key`, anywhere in `document`."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == key:
                yield value
            yield from every(value, key)
    elif isinstance(document, list):
        for value in document:
            yield from every(value, key)
