"""Who may be reached where: two services never at one place, and none where another program listens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from segue.core.places import conflict, places
from segue.core.release import BlueGreen
from segue.core.traffic import Route
from segue.engine.orders import Order
from segue.engine.routing import TableKeeper
from segue.errors import Refused
from segue.ports import Router

if TYPE_CHECKING:
    from segue.engine.service import Service

_ELSEWHERE = "choose another route.listen, route.hosts or route.path"


class Addresses:
    """Where `services` are reached, and what an order may take."""

    def __init__(self, services: Mapping[str, Service], tables: TableKeeper, router: Router) -> None:
        self._services, self._tables, self._router = services, tables, router

    async def refuse(self, order: Order) -> None:
        """Raise Refused where `order` wants to be where somebody else is."""
        for name, other in self._services.items():
            for route in claimed(other) if name != order.service else ():
                if found := conflict(order.route, route, name):
                    raise Refused(found, next=_ELSEWHERE)
        await self._refuse_preview(order)
        ours = set(self._ours())
        mine = self._services.get(order.service)
        for place in places(order.route):
            serves = mine is not None and mine.record.stable is not None and mine.record.route == order.route
            if place.listen not in ours and not serves:
                await self._router.refuse_taken(place.listen)

    def _ours(self) -> Iterator[str]:
        """Where the router listens already."""
        for table in self._tables.confirmed.values():
            yield from (place.listen for place in places(table.route))

    async def _refuse_preview(self, order: Order) -> None:
        """Raise Refused where somebody has the address at which the new version is to be looked at."""
        listen = order.strategy.preview if isinstance(order.strategy, BlueGreen) else None
        if listen is None:
            return
        for name, other in self._services.items():
            users = {place.listen for place in places(other.record.route)}
            trial = other.keeper.trial
            preview = {trial.preview.listen} if trial and trial.preview else set()
            if listen in users | preview and (name != order.service or listen in users):
                raise Refused(f"the preview's address {listen} is {name}'s", next="choose another preview")
        if not (mine := self._services.get(order.service)) or mine.rollout is None:
            await self._router.refuse_taken(listen)


def claimed(service: Service) -> Iterator[Route]:
    """Where a service is reached, and where it will be when its rollout is decided."""
    if service.record.stable or service.rollout:
        yield service.record.route
    if service.rollout and service.rollout.route:
        yield service.rollout.route
