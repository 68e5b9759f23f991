"""How Envoy speaks HTTP with users and instances, and what it writes down: pure documents.

Nothing in a listener may depend on a table: a listener that changes drains its connections.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

Document = dict[str, Any]

TYPE = "type.googleapis.com/"
ADS: Document = {"ads": {}, "resource_api_version": "V3"}
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def duration(time: timedelta) -> str:
    """`time` as Envoy's documents have it."""
    return f"{time.total_seconds():f}s"


def stream_limits() -> Document:
    """HTTP/1.1 to the instances. Applications close idle connections, so we must be the first to close them."""
    return {
        _OPTIONS: {
            "@type": TYPE + _OPTIONS,
            "explicit_http_config": {"http_protocol_options": {}},
            "common_http_protocol_options": {"idle_timeout": "1s"},
        }
    }


def listener(listen: str, address: Document, routes: Document, *, counted: bool = True) -> Document:
    """The listener at `listen`; `routes` is either ``rds`` or ``route_config``.

    `counted`: its requests are evidence and in the books. Else it has its own name in the statistics: the address
    may be a service's later, whose books are compared with all that came there.
    """
    manager: Document = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": listen if counted else f"preview~{listen}",
            **routes,
            **_EDGE,
            "http_filters": [_router([_attempt_log()] if counted else [])],
            "access_log": [_request_log(listen)] if counted else [],
        },
    }
    return {
        "name": listen,
        "address": address,
        "per_connection_buffer_limit_bytes": 32768,
        "filter_chains": [{"filters": [manager]}],
    }


def barrier(name: str, address: Document) -> Document:
    """A listener that nobody uses: a worker has it when it is past everything it was told before."""
    response = {
        "@type": TYPE + "envoy.extensions.filters.network.direct_response.v3.Config",
        "response": {"inline_string": "segue\n"},
    }
    filters = [{"name": "envoy.filters.network.direct_response", "typed_config": response}]
    return {"name": name, "address": address, "filter_chains": [{"filters": filters}]}


def _router(upstream_log: list[Document]) -> Document:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": True,
            "upstream_log": upstream_log,
        },
    }


def _attempt_log() -> Document:
    """One sample per attempt on an instance: its outcome, and its time to the first byte."""
    counted = {"stat": {"name": "n", "tags": [_ROUTE, _INSTANCE, _CODE, _FLAGS]}, "value_fixed": 1}
    timed = {
        "stat": {"name": "us", "tags": [_ROUTE, _VERSION]},
        "unit": "Microseconds",
        "value_format": "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%",
    }
    return _stats_logger({"stat_prefix": "attempt", "counters": [counted], "histograms": [timed]})


def _request_log(listen: str) -> Document:
    """One count per user's request when it ends: the account."""
    tags = [{"name": "listen", "value_format": listen}, _ROUTE, _VERSION, _CODE, _FLAGS]
    counted = {"stat": {"name": "n", "tags": tags}, "value_fixed": 1}
    return _stats_logger({"stat_prefix": "request", "counters": [counted]})


def _stats_logger(config: Document) -> Document:
    return {
        "name": "envoy.access_loggers.stats",
        "typed_config": {"@type": TYPE + "envoy.extensions.access_loggers.stats.v3.Config", **config},
    }


_ROUTE = {"name": "route", "value_format": "%ROUTE_NAME%"}
_VERSION = {"name": "version", "value_format": "%UPSTREAM_METADATA(segue:version)%"}
# One tag that names version and instance costs no more than one that names the version.
_INSTANCE = {"name": "version", "value_format": "%UPSTREAM_METADATA(segue:attempt)%"}
_CODE = {"name": "code", "value_format": "%RESPONSE_CODE%"}
_FLAGS = {"name": "flags", "value_format": "%RESPONSE_FLAGS%"}

# By default private addresses are trusted: what they say a request's identity, retries and timeout are.
_NOBODY = {"address_prefix": "255.255.255.255", "prefix_len": 32}
# Slashes are left as they came and a silent stream is not cut: what an application sees is not ours to change.
_EDGE: Document = {
    "use_remote_address": True,
    "normalize_path": True,
    "preserve_external_request_id": False,
    "server_header_transformation": "PASS_THROUGH",
    "internal_address_config": {"unix_sockets": False, "cidr_ranges": [_NOBODY]},
    "stream_idle_timeout": "0s",
    "request_timeout": "0s",
    "request_headers_timeout": "10s",
    "delayed_close_timeout": "1s",
    "max_request_headers_kb": 60,
    "common_http_protocol_options": {"idle_timeout": "3600s", "max_headers_count": 100},
    "http2_protocol_options": {
        "max_concurrent_streams": 100,
        "initial_stream_window_size": 65536,
        "initial_connection_window_size": 1048576,
    },
    "upgrade_configs": [{"upgrade_type": "websocket"}],
}
