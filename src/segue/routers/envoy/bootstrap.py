"""What an Envoy is started with: pure documents.

Two kinds: one that asks the control plane for everything and waits until it answers, and a whole last table
with which Envoy can start while no control plane runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from segue.routers.envoy import machine
from segue.routers.envoy.documents import ADS, TYPE, Document
from segue.routers.envoy.loggers import RESTED
from segue.routers.envoy.machine import Limits

NEVER = 2**31
"""Milliseconds that no request takes: where nobody can be told of rest, nothing comes at rest."""
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MONITORS = TYPE + "envoy.extensions.resource_monitors."
_HEAP = "envoy.resource_monitors.fixed_heap"
_COUNTED = (
    r"upstream_rq_(total|active|pending_active|retry|retry_overflow)|upstream_cx_(active|connect_fail)|membership_.*"
)


def asking(ads: Path, admin: Path, limits: Limits | None = None) -> Document:
    """Ask at the Unix socket `ads`; be asked at `admin`. `limits`: how much to take; None: what is this machine's."""
    # The default back-off goes up to 30 s, and the default wait of 15 s ends in serving nothing.
    retry = {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}}
    grpc = {"envoy_grpc": {"cluster_name": "segue", "retry_policy": retry}}
    source = {**ADS, "initial_fetch_timeout": "0s"}
    return {
        **_common(admin, limits or machine.limits()),
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [grpc],
                "set_node_on_first_message_only": True,
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": {"clusters": [_control_plane(ads)]},
    }


def static(admin: Path, clusters: Iterable[str], listeners: Iterable[str], limits: Limits | None = None) -> str:
    """Serve these, which are JSON texts, and ask nobody. `limits` as in `asking`."""
    common = json.dumps(_common(admin, limits or machine.limits(), {RESTED: NEVER}))[:-1]
    resources = f'{{"clusters": [{",".join(clusters)}], "listeners": [{",".join(listeners)}]}}'
    return f'{common}, "static_resources": {resources}}}'


def fixed(cluster: Document, endpoints: Mapping[str, Document]) -> Document:
    """`cluster` with those of its endpoints that are healthy now for ever."""
    if "eds_cluster_config" not in cluster:
        return cluster
    assignment = endpoints[cluster["name"]]
    healthy = [e for e in assignment["endpoints"][0]["lb_endpoints"] if e["health_status"] == "HEALTHY"]
    document = {key: value for key, value in cluster.items() if key != "eds_cluster_config"}
    return {
        **document,
        "type": "STATIC",
        "load_assignment": {**assignment, "endpoints": [{"lb_endpoints": healthy}]},
    }


def _common(admin: Path, limits: Limits, runtime: Mapping[str, int] | None = None) -> Document:
    return {
        "node": {"id": "segue", "cluster": "segue"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "stats_config": {"stats_matcher": {"inclusion_list": {"patterns": _COUNTERS}}},
        "stats_flush_interval": "1s",  # histograms are merged no more often than this
        "overload_manager": _overload(limits),
        "layered_runtime": {
            "layers": [
                {"name": "segue", "static_layer": {"re2.max_program_size.error_level": 1000, **(runtime or {})}},
                {"name": "admin", "admin_layer": {}},  # what is changed while it runs
            ]
        },
    }


def _overload(limits: Limits) -> Document:
    """What is done, and in which order, when memory runs short; and how many users may be connected.

    First what hurts nobody. Then connections at rest go, then requests are refused, at last connections wait.
    """
    monitors = {
        _HEAP: {"@type": f"{_MONITORS}fixed_heap.v3.FixedHeapConfig", "max_heap_size_bytes": str(limits.memory)},
        "envoy.resource_monitors.global_downstream_max_connections": {
            "@type": f"{_MONITORS}downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": str(limits.connections),
        },
    }
    timers = {
        "@type": TYPE + "envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
        "timer_scale_factors": [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"}],
    }
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [{"name": name, "typed_config": config} for name, config in monitors.items()],
        "actions": [
            _action("shrink_heap", {"threshold": {"value": 0.80}}),
            _action("reduce_timeouts", {"scaled": {"scaling_threshold": 0.85, "saturation_threshold": 0.95}}, timers),
            _action("disable_http_keepalive", {"threshold": {"value": 0.92}}),
            _action("stop_accepting_requests", {"threshold": {"value": 0.95}}),
            _action("stop_accepting_connections", {"threshold": {"value": 0.98}}),
        ],
    }


def _action(name: str, trigger: Document, config: Document | None = None) -> Document:
    """What is done when `trigger`, a part of the bound of memory, is reached."""
    action: Document = {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": _HEAP, **trigger}]}
    return action if config is None else {**action, "typed_config": config}


def _control_plane(ads: Path) -> Document:
    pipe = {"endpoint": {"address": {"pipe": {"path": str(ads)}}}}
    http2 = {"@type": TYPE + _OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "name": "segue",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {_OPTIONS: http2},
        "load_assignment": {"cluster_name": "segue", "endpoints": [{"lb_endpoints": [pipe]}]},
    }


_COUNTERS: list[Document] = [
    *({"prefix": prefix} for prefix in ("attempt.", "request.", "server.", "listener_manager.", "control_plane.")),
    {"prefix": "overload."},
    *({"exact": name} for name in ("cluster_manager.warming_clusters", "filesystem.write_failed")),
    {"safe_regex": {"regex": r"http\..*\.downstream_rq_(total|active)"}},
    {"safe_regex": {"regex": r"listener\..*\.downstream_global_cx_overflow"}},
    {"safe_regex": {"regex": rf"cluster\..*\.({_COUNTED})"}},
]
