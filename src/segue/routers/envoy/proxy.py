"""One Envoy beside the control plane: found or started, started again when it dies, replaced, ended.

Rule: an Envoy that runs is adopted before one is started, and lives on when we end.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from segue.errors import RouterLost, SegueError
from segue.following import rotate, size_of
from segue.minding import beside
from segue.routers.envoy import access_log, bootstrap, process
from segue.routers.envoy.admin import Admin
from segue.routers.envoy.process import Running
from segue.routers.envoy.static import MOST_WORKERS

ANSWERS_WITHIN = 15.0
"""Seconds that an Envoy may take from its start to its first answer."""
_LIVED = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0

log = structlog.get_logger()


class Proxy:
    """The Envoy of one folder. `drain`: seconds that connections have when a listener or an Envoy is replaced."""

    def __init__(self, folder: Path, concurrency: int | None, drain: int) -> None:
        self._folder = folder
        self._concurrency = concurrency or min(os.cpu_count() or 1, MOST_WORKERS)
        self._drain = drain
        self._running: Running | None = None
        self._parent: Running | None = None
        self._watches: list[asyncio.Task[None]] = []

    @property
    def running(self) -> Running:
        """The Envoy that serves. Raises RouterLost before `start`."""
        if self._running is None:
            raise RouterLost("The router has not been started.")
        return self._running

    @property
    def ads(self) -> Path:
        """Where it asks for its configuration."""
        return process.sockets(self._folder) / "ads.sock"

    @property
    def admin(self) -> Admin:
        """The admin interface of the Envoy that serves."""
        return Admin(self.running.admin)

    @property
    def is_static(self) -> bool:
        """Whether it serves a table of its own and asks nobody."""
        return not self.running.node

    async def start(self) -> None:
        """Adopt the Envoy that runs or start one, and watch over it. Raises SegueError if none can be started."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._running = await self._adopted() or await self._started()
        self._watch()

    async def close(self) -> None:
        """Watch over it no longer."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        self._watches = []

    async def replace(self) -> None:
        """Start a second Envoy that takes over from the one that runs, without losing a request.

        Raises RouterLost if it cannot be started: then the first one goes on.
        """
        async with self._unwatched():
            first = self.running
            options = (
                "--parent-shutdown-time-s",
                str(self._drain + 5),
                "--skip-hot-restart-parent-stats",  # half of them would be counted twice, half not at all
            )
            try:
                self._running = await self._started(first, options)
            except SegueError as error:
                process.record(self._folder, first)
                raise RouterLost(error.message, next=error.next) from error
            self._parent = first

    async def parent_gone(self) -> None:
        """Return when the Envoy that was replaced has ended: what is in flight there cannot be seen."""
        if self._parent is not None:
            await process.ended(self._parent)
            self._parent = None

    async def stop(self, drain: float) -> None:
        """Take no more connections, wait at most `drain` seconds for requests in flight, end it."""
        await self.close()
        if self._parent is not None:
            await _end(self._parent)
        if drain:
            await self._drained(drain)
        await _end(self.running)
        self._running = None

    async def supervise(self) -> None:
        """Start Envoy again whenever it dies: at once, more slowly if it dies again soon."""
        pause = 0.0
        while True:
            began = asyncio.get_running_loop().time()
            await process.ended(self.running)
            lived = asyncio.get_running_loop().time() - began
            pause = 0.0 if lived > _LIVED else min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)
            log.warning("router_died", pid=self.running.pid, lived=round(lived, 1), pause=pause)
            await asyncio.sleep(pause)
            try:
                await self._restart()
            except (SegueError, OSError) as error:  # a full disk, too, may have room again
                log.error("router_not_started", error=str(error))

    async def tend(self) -> None:
        """Rotate the access log, and what Envoy says itself, whenever they are long."""
        said = self._folder / process.LOG
        while True:
            await asyncio.sleep(access_log.EVERY)
            try:
                await access_log.rotate(self._folder, self.admin)
                if size_of(said) > access_log.LONGEST:
                    await asyncio.to_thread(rotate, said, keep=1)
            except (RouterLost, OSError) as error:
                log.warning("log_not_rotated", error=str(error))

    async def _restart(self) -> None:
        if self._parent is not None:  # it would keep the one that comes from starting
            await _end(self._parent)
            self._parent = None
        self._running = await self._started()
        log.info("router_started", pid=self.running.pid)

    async def _adopted(self) -> Running | None:
        running = process.recorded(self._folder)
        if running is None:
            return None
        try:
            await Admin(running.admin).get("/server_info")
        except RouterLost:
            log.warning("router_hangs", pid=running.pid)
            await _end(running)
            return None
        self._parent = running.before if process.alive(running.before) else None
        return running

    async def _started(self, parent: Running | None = None, options: tuple[str, ...] = ()) -> Running:
        """A new Envoy, which takes over from `parent` if there is one."""
        epoch, before = (parent.epoch + 1, (parent.pid, parent.started)) if parent else (0, (0, ""))
        admin = process.admin_socket(self._folder, epoch)
        config = self._folder / f"envoy-{epoch}-boot.json"
        process.write(config, json.dumps(bootstrap.asking(self.ads, admin)))
        node = f"segue-{secrets.token_hex(6)}"
        planned = Running(process.boot(), 0, "", epoch, str(admin), node, self._concurrency, before)
        with process.locked(self._folder):
            running = process.launch(self._folder, config, planned, options, drain=self._drain)
        await self._answering(running)
        return running

    async def _answering(self, running: Running) -> None:
        admin, deadline = Admin(running.admin), asyncio.get_running_loop().time() + ANSWERS_WITHIN
        while True:
            try:
                await admin.get("/server_info")
                return
            except RouterLost:
                if process.alive(running) and asyncio.get_running_loop().time() < deadline:
                    await asyncio.sleep(0.01)
                    continue
            await _end(running)
            last = (self._folder / process.LOG).read_text(errors="replace").splitlines()[-3:]
            raise SegueError(f"Envoy did not start: {' '.join(last)}", next=f"see {self._folder / process.LOG}")

    async def _drained(self, drain: float) -> None:
        try:
            async with asyncio.timeout(drain):
                await self.admin.post("/healthcheck/fail")  # answers now ask for the connection to be closed
                await self.admin.post("/drain_listeners")
                while await self._in_flight():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except (TimeoutError, RouterLost):
            return

    async def _in_flight(self) -> int:
        active = (await self.admin.stats(r"^http\..*\.downstream_rq_active$")).values
        return sum(count for name, count in active.items() if not name.startswith("http.admin."))

    def _watch(self) -> None:
        self._watches = [beside(work, "Envoy") for work in (self.supervise(), self.tend())]

    @asynccontextmanager
    async def _unwatched(self) -> AsyncIterator[None]:
        await self.close()
        try:
            yield
        finally:
            self._watch()


async def _end(running: Running) -> None:
    """End it: asked first, killed after a while."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        process.send(running, number)
        try:
            async with asyncio.timeout(5):
                await process.ended(running)
                return
        except TimeoutError:
            continue
