"""What outlives a control plane: its epoch, and the last confirmed table as a configuration that needs nobody."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import structlog

from segue.routers.envoy import bootstrap, preview, process, snapshot, static
from segue.routers.envoy.hosts import is_plain, virtual_host
from segue.routers.envoy.snapshot import Built

_HOSTS = "<virtual hosts>"

log = structlog.get_logger()


def next_epoch(folder: Path) -> int:
    """A number that no control plane of this folder has had before."""
    path = folder / "epoch"
    epoch = 1 + (int(path.read_text()) if path.exists() else 0)
    process.write(path, f"{epoch}\n")
    return epoch


class LastTable:
    """Keeps `envoy-static.json` in `folder` at the last confirmed table, in the background.

    Tables that come while one is being written are skipped but for the last.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts: dict[str, tuple[Built, str, str]] = {}
        self._next: dict[str, list[Built]] | None = None
        self._writing: asyncio.Task[None] | None = None

    def write(self, listeners: dict[str, list[Built]]) -> None:
        """Begin to write this table: the services by the address they are reached at."""
        self._next = listeners
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def written(self) -> None:
        """Return when the last table is on the disk."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        while self._next is not None:
            listeners, self._next = self._next, None
            text = self._text(listeners)
            try:
                await asyncio.to_thread(process.write, self._folder / static.CONFIG, text)
            except OSError as error:  # the table is in force all the same; the next one is written again
                log.error("last_table_not_written", error=str(error))

    def _text(self, listeners: dict[str, list[Built]]) -> str:
        services = [built for group in listeners.values() for built in group]
        self._texts = {built.table.service: self._of(built) for built in services}
        clusters = [clusters for _, clusters, _ in self._texts.values() if clusters]
        texts = [self._listener(listen, group) for listen, group in listeners.items()]
        previews = (built.documents.preview for built in services)
        texts += [json.dumps(preview.listener(routes["name"], routes)) for routes in previews if routes]
        return bootstrap.static(process.admin_socket(self._folder, 0), clusters, texts)

    def _of(self, built: Built) -> tuple[Built, str, str]:
        before = self._texts.get(built.table.service)
        if before is not None and before[0] is built:
            return before
        documents = built.documents
        fixed = (bootstrap.fixed(cluster, documents.endpoints) for cluster in documents.clusters.values())
        return built, ",".join(map(json.dumps, fixed)), ",".join(map(json.dumps, documents.routes.everybody))

    def _listener(self, listen: str, group: list[Built]) -> str:
        routes = {"name": listen, "ignore_port_in_host_matching": True, "virtual_hosts": _HOSTS}
        document = json.dumps(snapshot.listener(listen, {"route_config": routes}))
        hosts = (self._host(host, services) for host, services in snapshot.by_host(group))
        return document.replace(json.dumps(_HOSTS), f"[{','.join(hosts)}]")

    def _host(self, host: str, services: list[Built]) -> str:
        tenants = [built.tenant for built in services]
        if not is_plain(tenants):
            return json.dumps(virtual_host(host, tenants))
        routes = ",".join(self._texts[built.table.service][2] for built in services)
        return f'{{"name": {json.dumps(host)}, "domains": [{json.dumps(host)}], "routes": [{routes}]}}'
