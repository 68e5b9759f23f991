"""What an Envoy is started with: pure documents.

Two kinds: one that asks the control plane for everything and waits until it answers, and a whole last table
with which Envoy can start while no control plane runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from segue.routers.envoy.http import ADS, TYPE, Document

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_COUNTED = (
    r"upstream_rq_(total|active|pending_active|retry|retry_overflow)|upstream_cx_(active|connect_fail)|membership_.*"
)


def asking(ads: Path, admin: Path) -> Document:
    """Ask at the Unix socket `ads`; be asked at `admin`."""
    # The default back-off goes up to 30 s, and the default wait of 15 s ends in serving nothing.
    retry = {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}}
    grpc = {"envoy_grpc": {"cluster_name": "segue", "retry_policy": retry}}
    source = {**ADS, "initial_fetch_timeout": "0s"}
    return {
        **_common(admin),
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


def static(admin: Path, clusters: Iterable[str], listeners: Iterable[str]) -> str:
    """Serve these, which are JSON texts, and ask nobody."""
    common = json.dumps(_common(admin))[:-1]
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


def _common(admin: Path) -> Document:
    return {
        "node": {"id": "segue", "cluster": "segue"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "stats_config": {"stats_matcher": {"inclusion_list": {"patterns": _COUNTERS}}},
        "stats_flush_interval": "1s",  # histograms are merged no more often than this
        "layered_runtime": {
            "layers": [{"name": "segue", "static_layer": {"re2.max_program_size.error_level": 1000}}]
        },
    }


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
    {"exact": "cluster_manager.warming_clusters"},
    {"safe_regex": {"regex": r"http\..*\.downstream_rq_(total|active)"}},
    {"safe_regex": {"regex": rf"cluster\..*\.({_COUNTED})"}},
]
