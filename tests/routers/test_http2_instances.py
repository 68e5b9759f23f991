"""Instances that speak HTTP/2 only, without TLS: what users of HTTP/1.1 ask comes to them, WebSockets too.

The instance is an Envoy that takes nothing else, before an application with WebSockets.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from segue.core.traffic import Protocol, RoutingTable
from segue.routers.envoy.documents import TYPE, Document
from segue.routers.envoy.process import binary
from segue.routers.envoy.router import EnvoyRouter
from segue.testing.site import free_port

from .world import V1, ask, closed, service, table, until, version


def speaking_http2_only(port: int, app: int) -> Document:
    """Answers with the protocol that it was asked by; what is below ``/ws`` goes on to `app`, by HTTP/1.1."""

    def at(number: int) -> Document:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    said = {"status": 200, "body_format": {"text_format_source": {"inline_string": "%PROTOCOL%"}}}
    manager = {
        "@type": f"{TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "instance",
        "codec_type": "HTTP2",
        "http2_protocol_options": {"allow_connect": True},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/ws"}, "route": {"cluster": "app", "timeout": "0s"}},
                        {"match": {"prefix": "/"}, "direct_response": said},
                    ],
                }
            ]
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": at(app)}}]}]
    cluster = {"name": "app", "type": "STATIC", "load_assignment": {"cluster_name": "app", "endpoints": endpoints}}
    place = {"address": at(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [place], "clusters": [cluster]}}


@pytest.fixture
async def instance(tmp_path: Path) -> AsyncIterator[str]:
    """Where it is."""
    app, port = free_port(), free_port()
    config = tmp_path / "instance.json"
    config.write_text(json.dumps(speaking_http2_only(port, app)))
    commands = (
        (sys.executable, "-m", "segue.testing.streams", str(app), "v1"),
        (str(binary()), "-c", str(config), "--concurrency", "1", "-l", "critical", "--use-dynamic-base-id"),
    )
    processes = [await asyncio.create_subprocess_exec(*command) for command in commands]

    async def listens() -> bool:
        return not (await closed(f"127.0.0.1:{app}") or await closed(f"127.0.0.1:{port}"))

    try:
        await until(listens, "the instance")
        yield f"127.0.0.1:{port}"
    finally:
        for process in processes:
            process.kill()
            await process.wait()


def spoken_to(protocol: Protocol, listen: str, instance: str) -> RoutingTable:
    return table(service(listen, replace(version(V1, 1, instance), protocol=protocol)))


async def test_an_instance_is_asked_by_http2_where_that_is_what_it_speaks(
    router: EnvoyRouter, listen: str, instance: str
) -> None:
    await router.apply(spoken_to(Protocol.HTTP2, listen, instance))
    answer = await ask(listen)
    assert (answer.status, answer.body) == (200, "HTTP/2")
    elsewhere = f"127.0.0.1:{free_port()}"
    await router.apply(spoken_to(Protocol.HTTP1, elsewhere, instance))
    assert (await ask(elsewhere)).status in (502, 503)


async def test_a_websocket_comes_to_an_instance_that_speaks_http2(
    router: EnvoyRouter, listen: str, instance: str
) -> None:
    await router.apply(spoken_to(Protocol.HTTP2, listen, instance))
    async with connect(f"ws://{listen}/ws") as line:
        assert str(await line.recv()).startswith("hello v1")
        await line.send("say 1")
        assert await line.recv() == "say 1"
