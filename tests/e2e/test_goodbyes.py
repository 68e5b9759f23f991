"""Who is still connected when an instance ends: what users see of it, and what the report says."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from homes import AT_ONCE, Service
from loads import eventually
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from segue.testing.site import Segue

STREAMS = f"{sys.executable} -m segue.testing.streams {{port}} {{version}}"
GOING_AWAY, WITHOUT_A_WORD = 1001, 1006
NOTHING = {"goodbye": 0, "cut": 0, "repeated": 0, "unclear": 0}


@pytest.fixture
def shop(segue: Segue) -> Service:
    """A service whose users stay."""
    return Service(segue, "shop")


@dataclass
class Users:
    """Those who are connected: how it ended for each, once it did."""

    websockets: list[asyncio.Task[int | None]]
    followers: list[asyncio.Task[bool]]

    @property
    def number(self) -> int:
        """How many they are."""
        return len(self.websockets) + len(self.followers)

    async def ends(self) -> tuple[Counter[int | None], Counter[bool]]:
        """The codes of the WebSockets, and how often the events had an end."""
        async with asyncio.timeout(20):
            return Counter(await asyncio.gather(*self.websockets)), Counter(await asyncio.gather(*self.followers))


async def connected(shop: Service) -> Users:
    """Two who follow events, and so many WebSockets that both instances have one."""
    followers = [asyncio.create_task(follows(shop)) for _ in range(2)]
    lines, processes = [], set()
    while len(processes) < 2:
        line = await connect(f"ws://127.0.0.1:{shop.port}/ws")
        processes.add(str(await line.recv()).split()[-1])
        lines.append(asyncio.create_task(closed(line)))
    return Users(lines, followers)


async def closed(line: ClientConnection) -> int | None:
    """The code that a WebSocket is closed with."""
    async with line:
        with suppress(ConnectionClosed):
            async for _ in line:
                pass
    return line.close_code


async def follows(shop: Service) -> bool:
    """Whether the events that are followed have an end, or break off."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
    writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        await reader.readuntil(b"\r\n0\r\n\r\n")
        return True
    except asyncio.IncompleteReadError:
        return False
    finally:
        writer.close()


async def replaced(shop: Service, stop: Mapping[str, str]) -> Users:
    """The users of two instances of v1, which v2 replaces."""
    shop.write(process={"command": STREAMS}, replicas=2, stop=dict(stop), strategy=AT_ONCE["blue_green"])
    await asyncio.to_thread(shop.deploy, "v1")
    users = await connected(shop)
    await asyncio.to_thread(shop.deploy, "v2")
    return users


def said(shop: Service) -> Any:
    """What the report says of the farewells, once v1 is gone."""
    eventually(lambda: not shop.status()["versions"].get("v1", {}).get("instances"))
    return shop.report()["farewells"]


def test_goodbyes_reach_the_users_and_the_report_at_different_times(shop: Service) -> None:
    async def scene() -> Users:
        users = await replaced(shop, {"drain": "500ms", "spread": "800ms", "grace": "10s"})
        assert await users.ends() == (Counter({GOING_AWAY: len(users.websockets)}), Counter({True: 2}))
        return users

    users = asyncio.run(scene())
    found = said(shop)
    assert {one["instance"] for one in found["instances"]} == {"shop-v1.1-1", "shop-v1.1-2"}
    assert found["open"] == users.number
    assert {kind: found[kind] for kind in NOTHING} == {**NOTHING, "goodbye": users.number}
    assert "open at the signal  said goodbye to  cut" in shop.segue("report", cwd=shop.folder).stdout
    first, second = signals(shop)
    assert first.open + second.open == users.number
    assert first.after >= 0.49
    assert second.after >= 0.89, "both were told to end at once"


@pytest.mark.slow
def test_who_is_connected_to_an_instance_that_must_be_killed_is_cut(shop: Service) -> None:
    async def scene() -> Users:
        users = await replaced(shop, {"signal": "WINCH", "drain": "500ms", "grace": "300ms"})
        assert await users.ends() == (Counter({WITHOUT_A_WORD: len(users.websockets)}), Counter({False: 2}))
        return users

    users = asyncio.run(scene())
    found = said(shop)
    assert {kind: found[kind] for kind in NOTHING} == {**NOTHING, "cut": users.number}
    assert found["killed"] == 2


@dataclass(order=True)
class Signal:
    """An instance was told to end: so many seconds after it left the traffic, with so much open."""

    after: float
    open: int


def signals(shop: Service) -> list[Signal]:
    """What the two instances of v1 were told, the first one first."""
    left: dict[str, datetime] = {}
    found: list[Signal] = []

    def both(event: Any) -> bool:
        if event["event"] == "instance" and event["state"] == "draining":
            at = datetime.fromisoformat(event["at"])
            began = left.setdefault(event["instance"], at)
            if "farewell" in event:
                found.append(Signal((at - began).total_seconds(), event["in_flight"]))
        return len(found) == 2

    shop.told(both)
    return sorted(found)
