"""How Envoy speaks HTTP with users and instances, and what it writes down: pure documents.

Nothing in a listener may depend on a table: a listener that changes drains its connections.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from segue.core.traffic import Protocol
from segue.routers.envoy.goodbyes import NOTED, OPENED, SCRIPT

Document = dict[str, Any]

TYPE = "type.googleapis.com/"
ADS: Document = {"ads": {}, "resource_api_version": "V3"}
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def duration(time: timedelta) -> str:
    """`time` as Envoy's documents have it."""
    return f"{time.total_seconds():f}s"


def upstream(protocol: Protocol) -> Document:
    """How instances are spoken to. Applications close idle connections, so we must be the first to close them."""
    spoken = (
        {"http_protocol_options": _TRAILERS} if protocol is Protocol.HTTP1 else {"http2_protocol_options": _UPGRADES}
    )
    return {
        _OPTIONS: {
            "@type": TYPE + _OPTIONS,
            "explicit_http_config": spoken,
            "common_http_protocol_options": {"idle_timeout": "0.5s"},
        }
    }


def manager(listen: str, routes: Document, *, counted: bool = True) -> Document:
    """What speaks HTTP with the users of the listener at `listen`; `routes` is either ``rds`` or ``route_config``.

    `counted`: its requests are evidence and in the books. Else it has its own name in the statistics: the address
    may be a service's later, whose books are compared with all that came there.
    """
    end = [_COUNTING, _router()] if counted else [_router()]
    logs = [_request_log(listen), _last_attempt_log(), _upgrade_log(), *_FILES] if counted else []
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": listen if counted else f"preview~{listen}",
            **routes,
            **EDGE,
            "http_filters": [_MARK, _BUFFER, *end],
            "upgrade_configs": [{"upgrade_type": "websocket", "filters": [_MARK, _GOODBYES, *end]}],
            "access_log": logs,
        },
    }


def configuration(listen: str) -> Document:
    """What the routes of the listener at `listen` have in common; its hosts are to be added as ``virtual_hosts``."""
    return {"name": listen, "ignore_port_in_host_matching": True, "request_headers_to_add": [_USER]}


def listener(listen: str, address: Document, chains: Sequence[Document]) -> Document:
    """The listener at `listen`, whose connections go to the first of `chains` that they fit."""
    return {
        "name": listen,
        "address": address,
        "per_connection_buffer_limit_bytes": 32768,
        "socket_options": _SIGN_OF_LIFE,
        "filter_chains": list(chains),
    }


def barrier(name: str, address: Document) -> Document:
    """A listener that nobody uses: a worker has it when it is past everything it was told before."""
    response = {
        "@type": TYPE + "envoy.extensions.filters.network.direct_response.v3.Config",
        "response": {"inline_string": "segue\n"},
    }
    filters = [{"name": "envoy.filters.network.direct_response", "typed_config": response}]
    return {"name": name, "address": address, "filter_chains": [{"filters": filters}]}


def _router(*upstream_log: Document) -> Document:
    """The filter that gives requests to instances, with these logs of attempts."""
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": True,
            "dynamic_stats": False,  # clusters' own counters by status: a tenth of a request, and nobody reads them
            "upstream_log": list(upstream_log),
        },
    }


def _attempt_log() -> Document:
    """One sample per attempt on an instance, or on some of them: its outcome, and its time to the first byte."""
    return {**_attempts("attempt"), "filter": _SOME}


def _last_attempt_log() -> Document:
    """One sample per request when it ends: its last attempt, and which one that was.

    For requests that came at rest, and for those whose attempt was cancelled: the log of attempts does not say that.
    """
    long = {"op": "GE", "value": {"default_value": 0, "runtime_key": RESTED}}
    wanted = [{"duration_filter": {"comparison": long}}, {"response_flag_filter": {"flags": ["UT", "DC", "DR"]}}]
    some = {"and_filter": {"filters": [_SOME, {"or_filter": {"filters": wanted}}]}}
    return {**_attempts("attempt.last", _RESTS, _TRIES), "filter": some}


def _attempts(prefix: str, *marks: tuple[str, str]) -> Document:
    """Counts attempts by how they ended, and their times, below these `marks`."""
    tag = _tag(*marks, _ROUTE, _INSTANCE, _CODE, _FLAGS)
    counted = {"stat": {"name": "n", "tags": [tag]}, "value_fixed": 1}
    timed = {
        "stat": {"name": "us", "tags": [_tag(*marks, _ROUTE, _VERSION)]},
        "unit": "Microseconds",
        "value_format": "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%",
    }
    return _stats_logger({"stat_prefix": prefix, "counters": [counted], "histograms": [timed]})


def _request_log(listen: str) -> Document:
    """One count per user's request when it ends: the account."""
    tag = _tag(("listen", listen.replace("%", "%%")), _ROUTE, _VERSION, _CODE, _FLAGS)
    counted = {"stat": {"name": "n", "tags": [tag]}, "value_fixed": 1}
    return _stats_logger({"stat_prefix": "request", "counters": [counted]})


def _upgrade_log() -> Document:
    """One count per WebSocket when it ends, by its instance: the log of attempts does not know of goodbyes."""
    tag = _tag(_INSTANCE, ("flags", f"%RESPONSE_FLAGS%{NOTED}"))
    counted = {"stat": {"name": "websocket", "tags": [tag]}, "value_fixed": 1}
    logger = _stats_logger({"stat_prefix": "attempt", "counters": [counted]})
    return {**logger, "filter": _marked(OPENED, {"bool_match": True})}


def _file(mark: str, path: str, line: Document) -> Document:
    """One line of JSON per user's request when it ends, of those that have this mark."""
    return {
        "name": "envoy.access_loggers.file",
        "filter": _marked(mark, {"string_match": {"exact": YES}}),
        "typed_config": {
            "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": line},
        },
    }


def _marked(mark: str, value: Document) -> Document:
    """A filter: requests on which a filter of ours has noted `value` as this mark."""
    matcher = {"filter": "segue", "path": [{"key": mark}], "value": value}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _tag(*tags: tuple[str, str]) -> Document:
    """One tag that reads as all of these, each a name and its value, would: Envoy pays for each tag at each entry."""
    (name, value), *others = tags
    return {"name": name, "value_format": ".".join([value, *(f"{name}.{value}" for name, value in others)])}


def _stats_logger(config: Document) -> Document:
    return {
        "name": "envoy.access_loggers.stats",
        "typed_config": {"@type": TYPE + "envoy.extensions.access_loggers.stats.v3.Config", **config},
    }


ATTEMPTS = "segue.attempts"
"""What Envoy's runtime calls the part of the attempts that is counted, in per cent; all, where it says nothing."""
RESTED = "segue.rested"
"""What it calls the time in ms that a request has taken at least if it came at rest; where it says nothing, any."""
_SOME: Document = {
    "runtime_filter": {
        "runtime_key": ATTEMPTS,
        "percent_sampled": {"numerator": 100},
        "use_independent_randomness": True,
    }
}

_RESTS = "rest", "%METADATA(VIRTUAL_HOST:segue:rest)%"
_TRIES = "tries", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"
_ROUTE = "route", "%ROUTE_NAME%"
_VERSION = "version", "%UPSTREAM_HOST_NAME%"
# One name of version and instance costs no more than one of the version.
_INSTANCE = "version", "%UPSTREAM_METADATA(segue:attempt)%"
_CODE = "code", "%RESPONSE_CODE%_%RESP(grpc-status):2%%TRAILER(grpc-status):2%"
_FLAGS = "flags", "%RESPONSE_FLAGS%"

YES = "1"
"""What a mark says where it is: that a request is to be written down, or that it came at rest."""

_COUNTED = "segue.counted"
# Where this is on, the router in it is the last filter for a request, and no other is reached (decision 0036).
_COUNTING: Document = {
    "name": _COUNTED,
    "typed_config": {
        "@type": TYPE + "envoy.extensions.filters.http.filter_chain.v3.FilterChainConfig",
        "default_filter_chain": {"filters": [_router(_attempt_log())]},
    },
}
RESTS: Document = {
    "metadata": {"filter_metadata": {"segue": {"rest": YES}}},
    "typed_per_filter_config": {_COUNTED: {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "disabled": True}},
}
"""What a host has whose requests come at rest: they are marked, and pass the router without a log of attempts."""

ACCESS_LOG = "access.log"
"""The file in the folder where Envoy runs."""
# No query, no body and no header but this one: they may hold secrets.
_LINE = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "service": "%METADATA(ROUTE:segue:service)%",
    "given_to": "%METADATA(ROUTE:segue:version)%",
    "version": "%UPSTREAM_METADATA(segue:revision)%",
    "instance": "%UPSTREAM_METADATA(segue:instance)%",
    "address": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "user": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "user_agent": "%REQ(USER-AGENT)%",
    "protocol": "%PROTOCOL%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ:PATH)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}

VISITS = "visits.log"
"""The file for the visits of an experiment's users, and for paths that are to be learned, in the same folder."""
# Of what users send nothing else is needed; they are told apart by what they are known by.
_VISIT = {
    **{key: _LINE[key] for key in ("service", "status")},
    "version": "%METADATA(ROUTE:segue:version)%",
    "trial": "%METADATA(ROUTE:segue:trial)%",
    "path": "%PATH(NQ:PATH)%",
    "user": "%DYNAMIC_METADATA(segue:user)%",
    "goal": "%DYNAMIC_METADATA(segue:goal)%",
}
_FILES = (_file("written", ACCESS_LOG, _LINE), _file("visit", VISITS, _VISIT))

MARK = "segue.written"
MARKING = TYPE + "envoy.extensions.filters.http.header_to_metadata.v3.Config"
# Off but for the routes of services whose requests are written down.
_MARK: Document = {"name": MARK, "disabled": True, "typed_config": {"@type": MARKING}}

BUFFER = "envoy.filters.http.buffer"
# Off but for the routes that bound a body whose length is not told beforehand.
_BUFFER: Document = {
    "name": BUFFER,
    "disabled": True,
    "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": 1},
}
# By default what follows a body is dropped where HTTP/1.1 is spoken.
_TRAILERS: Document = {"enable_trailers": True}
_GOODBYES: Document = {
    "name": "envoy.filters.http.lua",
    "typed_config": {
        "@type": TYPE + "envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": SCRIPT},
    },
}
# A WebSocket within HTTP/2 is a CONNECT.
_UPGRADES: Document = {"allow_connect": True}

# A user who is silent for five minutes is asked whether he is there: nothing else would tell of a WebSocket.
_SIGN_OF_LIFE: list[Document] = [
    {"level": str(level), "name": str(name), "int_value": str(value), "state": "STATE_PREBIND"}
    for level, name, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 0x10), 300),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
    )
]

# Who a user is and how he came is for us to say: x-forwarded-*, forwarded, x-real-ip, and what an application that
# reads them from its environment cannot tell from these, where hyphens are underscores. What Envoy would obey, or an
# application take for Envoy's word, is x-envoy-*. An expression costs more.
_FORGED = ({"contains": "forwarded"}, {"suffix": "real-ip"}, {"suffix": "real_ip"}, {"prefix": "x-envoy-"})
_EARLY = "envoy.http.early_header_mutation.header_mutation"
_UNFORGED: Document = {
    "name": _EARLY,
    "typed_config": {
        "@type": TYPE + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        "mutations": [*({"remove_on_match": {"key_matcher": name}} for name in _FORGED), {"remove": "x-request-id"}],
    },
}
# Envoy's own `use_remote_address` says the machine's address where a user came over loopback, and costs more.
_USER: Document = {
    "header": {"key": "x-forwarded-for", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}
# Slashes are left as they came and a silent stream is not cut: what an application sees is not ours to change.
EDGE: Document = {
    "normalize_path": True,
    "server_header_transformation": "PASS_THROUGH",
    "early_header_mutation_extensions": [_UNFORGED],
    "stream_idle_timeout": "0s",
    "request_timeout": "0s",
    "request_headers_timeout": "10s",
    "delayed_close_timeout": "0.25s",  # a WebSocket ends so much later; a user who still sends reads the answer first
    "proxy_100_continue": True,
    "max_request_headers_kb": 60,
    "http_protocol_options": {"accept_http_10": True, **_TRAILERS},
    "common_http_protocol_options": {"idle_timeout": "3600s", "max_headers_count": 100},
    "http2_protocol_options": {
        "max_concurrent_streams": 100,
        "initial_stream_window_size": 65536,
        "initial_connection_window_size": 1048576,
    },
}
