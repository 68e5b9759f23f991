"""The routing table of all services, merged by one hand: next = last confirmed + what changed meanwhile.

Changes that come while a table is being confirmed go together into the next one. If the router refuses that, it is
told of them one after the other: so a refusal names its culprit, is undone, and concerns nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from segue.core.traffic import RoutingTable, ServiceTable
from segue.errors import RouterRefused
from segue.ports import Router

Changes = Mapping[str, ServiceTable | None]
"""Services that are routed otherwise from now on; None: not any more."""


@dataclass(slots=True)
class TableKeeper:
    """Keeps the router's table. `confirmed` holds what every proxy has confirmed, by service."""

    router: Router
    confirmed: dict[str, ServiceTable] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _waiting: dict[str, ServiceTable | None] = field(default_factory=dict)
    _refused: dict[str, RouterRefused] = field(default_factory=dict)

    async def put(self, service: str, table: ServiceTable | None) -> None:
        """Route `service` so; None: no longer. Returns when it is confirmed. One at a time for each service.

        Raises RouterRefused, after which everything is as before, and RouterLost.
        """
        self._waiting[service] = table
        try:
            async with self._turn:
                if service in self._waiting:
                    await self._tell(dict(self._waiting))
        finally:
            self._waiting.pop(service, None)
        if refusal := self._refused.pop(service, None):
            raise RouterRefused(f"{service}: {refusal.message}") from refusal

    async def _tell(self, changes: Changes) -> None:
        """Have the router confirm all of `changes`, or all that it does not refuse."""
        for service in changes:
            self._refused.pop(service, None)
        try:
            await self._apply(changes)
        except RouterRefused as refusal:
            await self._tell_each(changes, refusal)
        for service in changes:
            self._waiting.pop(service, None)

    async def _tell_each(self, changes: Changes, refusal: RouterRefused) -> None:
        if len(changes) == 1:
            self._refused |= dict.fromkeys(changes, refusal)
            return
        for service, table in changes.items():
            try:
                await self._apply({service: table})
            except RouterRefused as its_own:
                self._refused[service] = its_own

    async def _apply(self, changes: Changes) -> None:
        wanted: dict[str, ServiceTable | None] = {**self.confirmed, **changes}
        table = {service: told for service, told in wanted.items() if told is not None}
        try:
            await self.router.apply(RoutingTable(table))
        except RouterRefused:
            await self.router.apply(RoutingTable(dict(self.confirmed)))
            raise
        self.confirmed = table
