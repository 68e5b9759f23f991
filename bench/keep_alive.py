"""Requests on connections that the application is about to close: spaced by just what it allows an idle connection.

All applications are deployed by one Segue and asked at the same time, in bursts (see `segue.testing.bursts`), first
after the rest that Segue's Envoy allows, then after the application's own, which is measured on it before; then its
twin is, which is Segue's last table in an Envoy of its own, with Envoy's default rest (an hour) and no request
repeated. A twin that loses nothing shows that the aim was bad.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import common
import keep_alive_apps
from common import Section
from envoys import Document, every, running
from keep_alive_apps import App

from segue.testing.bursts import Bursts, idle_limit, send
from segue.testing.site import Shop, free_port
from segue.testing.tally import Tally

REQUESTS = 2000
"""Of each method in every row."""
FEW, MANY = 40, 200
"""Requests in a burst: few where bursts follow fast, or an overloaded machine would be what is measured."""
INSTANCES = 2
AIM = 0.01
"""Seconds before and after an application's own rest within which it is asked."""

Rest = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """What came of one application. `limit`: how long it lets a connection rest; `ours`: how long Envoy does."""

    app: App
    limit: Rest
    ours: float
    at_ours: Mapping[str, Tally]
    at_its: Mapping[str, Tally]
    twin: Mapping[str, Tally]

    @property
    def closes(self) -> bool:
        """Whether it keeps connections at all."""
        return self.limit[1] > 0

    @property
    def seen(self) -> list[Tally]:
        """All that went through Segue's Envoy."""
        return [*self.at_ours.values(), *self.at_its.values()]

    @property
    def flaws(self) -> list[str]:
        """Why the row does not show what it must; empty: it does."""
        found = [f"only {tally.total:,} requests" for tally in self.seen if tally.total < REQUESTS]
        if self.app.covered:
            found += [f"lost: {tally}" for tally in self.seen if tally.lost_count]
        if self.closes and not any(tally.lost_count for tally in self.twin.values()):
            found.append("BLIND: the twin lost nothing")
        return found

    def cells(self) -> tuple[object, ...]:
        """The row of the table."""
        least, most = self.limit
        limit = "closes at once" if not self.closes else f"{least:.2f} s" if most - least < 0.02 else ""
        limit = limit or f"{least:.2f}–{most:.2f} s"
        verdict = "MISSED" if self.flaws else "met" if self.app.covered else "printed"
        return self.app.name, limit, *map(_losses, (self.at_ours, self.at_its, self.twin)), verdict


def _losses(seen: Mapping[str, Tally]) -> str:
    return ", ".join(f"{method} {tally.lost_count}" for method, tally in seen.items())


def keep_alive() -> Section:
    """All rows, at the same time."""
    common.progress("connections that the application is about to close …")
    with common.shop() as shop, tempfile.TemporaryDirectory(prefix="sg-") as folder, ExitStack() as stack:
        apps = keep_alive_apps.apps()
        shops = [_deployed(shop, app) for app in apps]
        table = json.loads((shop.segue.home / "envoy" / "envoy-static.json").read_text())
        ours = next(float(str(limits["idle_timeout"]).rstrip("s")) for limits in _limits(table))
        ports = {one.port: free_port() for one in shops}
        stack.enter_context(running(Path(folder), "twin", _careless(table, ports), list(ports.values())))
        rows = asyncio.run(_rows(apps, shops, ports, ours))
    for row in rows:
        common.progress(f"    {' | '.join(map(str, row.cells()))} {'; '.join(row.flaws)}")
    return Section("Connections at rest", _text(rows, ours), [f"{r.app.name}: {f}" for r in rows for f in r.flaws])


def _deployed(beside: Shop, app: App) -> Shop:
    folder = beside.folder / app.service
    folder.mkdir()
    keep_alive_apps.write(folder)
    shop = Shop(beside.segue, folder)
    shop.write(service=app.service, process={"command": app.command}, replicas=INSTANCES, health={"path": "/"})
    shop.deploy("v1")
    return shop


def _limits(table: Document) -> Iterator[Document]:
    """What bounds the connections to instances."""
    for cluster in table["static_resources"]["clusters"]:
        for found in every(cluster, "common_http_protocol_options"):
            if "idle_timeout" in found:
                yield found


def _careless(table: Document, ports: Mapping[int, int]) -> Document:
    """The same on other ports, without what protects requests from connections that are being closed."""
    twin: Document = json.loads(json.dumps(table))
    for limits in _limits(twin):
        del limits["idle_timeout"]
    for route in every(twin["static_resources"]["listeners"], "route"):
        route.pop("retry_policy", None)
    for listener in twin["static_resources"]["listeners"]:
        place = listener["address"]["socket_address"]
        place["port_value"] = ports[place["port_value"]]
    return twin


async def _rows(apps: Sequence[App], shops: Sequence[Shop], twins: Mapping[int, int], ours: float) -> list[Row]:
    jobs = (_row(app, shop, twins[shop.port], ours) for app, shop in zip(apps, shops, strict=True))
    return list(await asyncio.gather(*jobs))


async def _row(app: App, shop: Shop, twin: int, ours: float) -> Row:
    status = shop.segue.json("status", cwd=shop.folder)["services"]
    [entry] = [entry for entry in status if entry["service"] == app.service]
    address = str(entry["versions"]["v1"]["instances"][0]["address"])
    limit = await idle_limit(address, Bursts(address, (0, 0)).request("GET"))
    await asyncio.sleep(random.uniform(0, ours))  # not all applications at the same moment
    at_ours = await _sent(shop.port, (ours - AIM, ours + AIM), FEW)
    own = (limit[0] - AIM, limit[1] + AIM) if limit[1] else (ours, ours)
    together = FEW if own[1] < 1 else MANY
    await asyncio.sleep(random.uniform(0, own[1]))
    at_its = await _sent(shop.port, own, together)
    return Row(app, limit, ours, at_ours, at_its, await _sent(twin, own, together))


async def _sent(port: int, rest: Rest, together: int) -> Mapping[str, Tally]:
    rounds = -(-2 * REQUESTS // together)
    return await send(Bursts(f"127.0.0.1:{port}", rest, rounds=rounds, together=together))


def _text(rows: Sequence[Row], ours: float) -> str:
    head = ("application", "lets a connection rest", f"lost, {ours:g} s apart", "lost, its rest apart", "twin", "")
    total = sum(tally.total for row in rows if row.app.covered for tally in row.seen)
    lost = sum(tally.lost_count for row in rows if row.app.covered for tally in row.seen)
    return TEXT.format(
        lost=lost, total=total, requests=REQUESTS, ours=ours, table=common.table(head, (row.cells() for row in rows))
    )


TEXT = """\
Target: 0 lost of {requests:,} GETs and as many POSTs in every column but the twin's.
**Measured: {lost} lost of {total:,}.** An application closes what has been idle for its time; a request that is
written in that moment is lost, and one that is not safe to repeat is lost for good. Segue's Envoy closes after
{ours:g} s, so that it is first. The twin has Envoy's default of an hour and repeats nothing: it must lose where
the application keeps connections at all.

{table}

A rest below Segue's own ("printed") is not covered by the default.
"""
