"""The page for Prometheus: every line as the text format has it, and what it says of a service that runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx

from segue.api.app import make
from segue.core.release import BlueGreen
from segue.engine.control import ControlPlane
from segue.testing.plane import Lab, an_order, deployed

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*)\})? (\d+(?:\.\d+)?)')


async def read(plane: ControlPlane) -> dict[tuple[str, str], float]:
    """Each metric by its name and labels."""
    app = make(plane, lambda everything: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://segue") as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    types = {line.split(" ")[2] for line in lines if line.startswith("# TYPE ")}
    found = [match for line in lines if not line.startswith("# ") and (match := LINE.fullmatch(line))]
    assert len(found) == sum(not line.startswith("# ") for line in lines)
    assert {match[1] for match in found} <= types
    values = {(match[1], match[2] or ""): float(match[3]) for match in found}
    assert len(values) == len(found), "a metric twice"
    return values


def test_a_service_and_its_requests_are_told_to_prometheus(tmp_path: Path) -> None:
    lab = Lab(tmp_path)

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=2))
        lab.world.evidence.flow("shop", rate=100_000, failing={"v1.1": 0.25})
        await asyncio.sleep(12)
        found = await read(plane)
        assert found["segue_router_up", ""] == 1
        assert found["segue_service_state", 'service="shop",state="steady"'] == 1
        assert found["segue_service_state", 'service="shop",state="degraded"'] == 0
        assert found["segue_share", 'service="shop",version="v1"'] == 1
        assert found["segue_instances", 'service="shop",version="v1",state="ready"'] == 2
        books = await lab.world.evidence.books("shop")
        assert books.total > 1_000_000
        requests = {labels: value for (name, labels), value in found.items() if name == "segue_requests_total"}
        of_v1 = 'service="shop",outcome="{}",version="v1",revision="v1.1"'
        assert requests[of_v1.format("answered")] == sum(books.answered.values())
        assert requests[of_v1.format("failed")] == sum(books.failed.values()) > 0
        assert sum(requests.values()) == books.total

    lab.run(scene)


def test_two_revisions_of_a_version_are_two(tmp_path: Path) -> None:
    lab = Lab(tmp_path)

    async def scene(plane: ControlPlane) -> None:
        keep = BlueGreen()
        await deployed(plane, an_order("v1", replicas=2, strategy=keep))
        await deployed(plane, an_order("v2", replicas=2, strategy=keep))
        await deployed(plane, an_order("v1", replicas=2, strategy=keep))
        lab.world.evidence.flow("shop", rate=10)
        await read(plane)

    lab.run(scene)


def test_without_a_router_there_are_no_requests_and_the_rest_is_told(tmp_path: Path) -> None:
    lab = Lab(tmp_path)

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=2))
        lab.world.router.lose(50)
        found = await read(plane)
        assert found["segue_router_up", ""] == 0
        assert found["segue_share", 'service="shop",version="v1"'] == 1
        assert not any(name == "segue_requests_total" for name, _ in found)

    lab.run(scene)
