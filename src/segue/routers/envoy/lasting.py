"""What outlives a control plane: its epoch, and the last confirmed table as a configuration that needs nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from segue.minding import beside
from segue.routers.envoy import bootstrap, http, listeners, preview, process, static
from segue.routers.envoy.hosts import is_plain, virtual_host
from segue.routers.envoy.sites import Site, by_host, shown
from segue.routers.envoy.snapshot import Built, by_listener

_HOSTS = "<virtual hosts>"

log = structlog.get_logger()


def next_epoch(folder: Path) -> int:
    """A number that no control plane of this folder has had before."""
    path = folder / "epoch"
    epoch = 1 + (int(path.read_text()) if path.exists() else 0)
    process.write(path, f"{epoch}\n")
    return epoch


class _Texts(NamedTuple):
    """What was written of one service: its clusters, and its routes at each of its sites."""

    built: Built
    clusters: str
    routes: dict[Site, str]


class LastTable:
    """Keeps `envoy-static.json` in `folder` at the last confirmed table, in the background.

    Tables that come while one is being written are skipped but for the last.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts: dict[str, _Texts] = {}
        self._next: Sequence[Built] | None = None
        self._writing: asyncio.Task[None] | None = None

    def write(self, services: Sequence[Built]) -> None:
        """Begin to write the table of these services."""
        self._next = services
        if self._writing is None or self._writing.done():
            self._writing = beside(self._write(), "the last table")

    async def written(self) -> None:
        """Return when the last table is on the disk."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        while self._next is not None:
            services, self._next = self._next, None
            try:
                text = self._text(services)
                await asyncio.to_thread(process.write, self._folder / static.CONFIG, text)
            except OSError as error:  # the table is in force all the same; the next one is written again
                log.error("last_table_not_written", error=str(error))

    def _text(self, services: Sequence[Built]) -> str:
        self._texts = {built.table.service: self._of(built) for built in services}
        clusters = [texts.clusters for texts in self._texts.values() if texts.clusters]
        listeners = [self._listener(listen, group) for listen, group in by_listener(services).items()]
        previews = (built.documents.preview for built in services)
        listeners += [json.dumps(preview.listener(routes["name"], routes)) for routes in previews if routes]
        return bootstrap.static(process.admin_socket(self._folder, 0), clusters, listeners)

    def _of(self, built: Built) -> _Texts:
        before = self._texts.get(built.table.service)
        if before is not None and before.built is built:
            return before
        documents = built.documents
        fixed = (bootstrap.fixed(cluster, documents.endpoints) for cluster in documents.clusters.values())
        routes = {site: ",".join(map(json.dumps, site.routes.everybody)) for site in built.sites}
        return _Texts(built, ",".join(map(json.dumps, fixed)), routes)

    def _listener(self, listen: str, group: list[Site]) -> str:
        routes = {**http.configuration(listen), "virtual_hosts": _HOSTS}
        document = json.dumps(listeners.fixed(listen, shown(group), routes))
        hosts = (self._host(host, there) for host, there in by_host(group))
        return document.replace(json.dumps(_HOSTS), f"[{','.join(hosts)}]")

    def _host(self, host: str, there: list[Site]) -> str:
        tenants = [site.tenant for site in there]
        if not is_plain(tenants):
            return json.dumps(virtual_host(host, tenants))
        routes = ",".join(self._texts[site.service].routes[site] for site in there)
        return f'{{"name": {json.dumps(host)}, "domains": [{json.dumps(host)}], "routes": [{routes}]}}'
