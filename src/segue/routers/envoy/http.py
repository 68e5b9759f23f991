"""How Envoy speaks HTTP with users and instances: pure documents.

Nothing in a listener may depend on a table: a listener that changes drains its connections.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from segue.core.traffic import Protocol
from segue.routers.envoy import loggers
from segue.routers.envoy.documents import TYPE, Document
from segue.routers.envoy.goodbyes import SCRIPT
from segue.routers.envoy.loggers import YES

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


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
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": listen if counted else f"preview~{listen}",
            **routes,
            **EDGE,
            "http_filters": [_MARK, _BUFFER, *end],
            "upgrade_configs": [{"upgrade_type": "websocket", "filters": [_MARK, _GOODBYES, *end]}],
            "access_log": loggers.of_requests(listen) if counted else [],
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


_COUNTED = "segue.counted"
# Where this is on, the router in it is the last filter for a request, and no other is reached (decision 0036).
_COUNTING: Document = {
    "name": _COUNTED,
    "typed_config": {
        "@type": TYPE + "envoy.extensions.filters.http.filter_chain.v3.FilterChainConfig",
        "default_filter_chain": {"filters": [_router(loggers.attempts())]},
    },
}
RESTS: Document = {
    "metadata": {"filter_metadata": {"segue": {"rest": YES}}},
    "typed_per_filter_config": {_COUNTED: {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "disabled": True}},
}
"""What a host has whose requests come at rest: they are marked, and pass the router without a log of attempts."""

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
