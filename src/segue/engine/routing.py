"""The routing table of all services, merged by one hand: next = last confirmed + one service's change.

So a refusal names its culprit, is undone, and concerns nobody else.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from segue.core.traffic import RoutingTable, ServiceTable
from segue.errors import RouterRefused
from segue.ports import Router


@dataclass(slots=True)
class TableKeeper:
    """Keeps the router's table. `confirmed` holds what every proxy has confirmed, by service."""

    router: Router
    confirmed: dict[str, ServiceTable] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def put(self, service: str, table: ServiceTable | None) -> None:
        """Route `service` so; None: no longer. Returns when it is confirmed.

        Raises RouterRefused, after which everything is as before, and RouterLost.
        """
        async with self._turn:
            changed = {name: kept for name, kept in self.confirmed.items() if name != service}
            if table is not None:
                changed[service] = table
            try:
                await self.router.apply(RoutingTable(changed))
            except RouterRefused as refusal:
                await self.router.apply(RoutingTable(dict(self.confirmed)))
                raise RouterRefused(f"{service}: {refusal.message}") from refusal
            self.confirmed = changed
