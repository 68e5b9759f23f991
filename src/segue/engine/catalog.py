"""The versions of one service: what is known of each, what can be gone back to, what is forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from segue.core.release import Revision, revision, version_of
from segue.core.traffic import Protocol
from segue.core.version import Version
from segue.engine.clock import Clock
from segue.engine.journal import Journal
from segue.engine.orders import Order
from segue.engine.records import Recipe, VersionRecord
from segue.engine.versions import VersionStore
from segue.errors import Refused

MANIFEST = "segue.yaml"
"""It may lie in the source, but is no part of a version: more replicas or another strategy make no other one."""


class Catalog:
    """The revisions of the versions of `service` that are known, by revision in `known`."""

    def __init__(self, service: str, journal: Journal, store: VersionStore, clock: Clock) -> None:
        self.service = service
        self.known = {version.revision: version for version in journal.versions(service)}
        self._whole: dict[Revision, Version] = {}
        self._journal, self._store, self._clock = journal, store, clock

    def version(self, revision: Revision) -> Version:
        """A revision with its environment."""
        if revision not in self._whole:
            known = self.known[revision]
            environment = self._store.environment(self.service, known.recipe.files)
            self._whole[revision] = replace(known.version, environment=environment)
        return self._whole[revision]

    def put(self, known: VersionRecord) -> None:
        """Write down what is known of a revision now; of a version's first one its environment, too."""
        if known.revision not in self.known and known.recipe.files == known.revision:
            self._store.save_environment(self.service, known.revision, known.version.environment)
        self._journal.put_version(known)
        self.known[known.revision] = known
        self._whole.pop(known.revision, None)

    def named(self, name: str) -> VersionRecord | None:
        """The newest revision of the version `name`."""
        found = [version for version in self.known.values() if version.name == name]
        return found[-1] if found else None

    async def digest(self, order: Order) -> str:
        """What identifies the version that `order` describes."""
        settings = {
            "command": order.command.replace("{version}", order.version),
            "environment": dict(order.environment),
            "build": order.build,
            "shared": list(order.shared),
            "user": order.user,
            "folder": None if order.source else str(order.folder),
            "settings": repr((order.health, order.smoke, order.warm_up, order.stop)),
            **({} if order.protocol is Protocol.HTTP1 else {"protocol": order.protocol.value}),
        }
        return await self._store.digest(order.source, settings, [(order.folder / MANIFEST).resolve()])

    def next_number(self, name: str) -> int:
        """The number of the next revision of the version `name`."""
        return 1 + max((version.number for version in self.known.values() if version.name == name), default=0)

    def again(self, known: VersionRecord) -> VersionRecord:
        """The next revision of a version that was started before."""
        number = self.next_number(known.name)
        again = replace(known.version, revision=revision(known.name, number))
        return replace(known, number=number, version=again, created=self._clock.now())

    def new(self, order: Order, digest: str) -> VersionRecord:
        """The revision to start for `order`. Raises Refused where its name is taken by other content."""
        known = self.named(order.version)
        if known is None:
            return self._first(order, digest)
        if known.version.digest != digest:
            raise Refused(
                f"the name {order.version} is taken by other content: a version never changes",
                next="segue deploy --version ANOTHER",
            )
        return replace(self.again(known), hooks=order.hooks)

    def _first(self, order: Order, digest: str) -> VersionRecord:
        first = revision(order.version, 1)
        version = Version(
            service=self.service,
            revision=first,
            digest=digest,
            folder=order.folder,
            command=order.command.replace("{version}", order.version),
            environment=order.environment,
            user=order.user,
            health=order.health,
            smoke=order.smoke,
            warm_up=order.warm_up,
            stop=order.stop,
            protocol=order.protocol,
        )
        source = str(order.source) if order.source else None
        recipe = Recipe(first, str(order.folder), source, order.shared, order.build)
        return VersionRecord(order.version, 1, version, recipe, order.hooks, self._clock.now())

    def served(self, now: Revision | None, *, failed: bool = True) -> Iterator[str]:
        """The names of versions other than `now` that have served and are still known, the latest first.

        Not `failed`: without those that Segue has gone back from by itself, and that have not served since.
        """
        left = {known.name for known in self.known.values()} - {now and version_of(now)}
        for takeover in self._journal.promoted(self.service) if left else ():
            if takeover.failed and takeover.old and not failed:
                left.discard(version_of(takeover.old))
            for name in (version_of(side) for side in (takeover.new, takeover.old) if side):
                if name in left:
                    left.remove(name)
                    yield name
            if not left:
                return

    async def forget_all_but(self, names: Iterable[str]) -> None:
        """Forget the versions that are not among `names`, and delete what they are made of."""
        wanted = set(names)
        for found in [version for version in self.known.values() if version.name not in wanted]:
            self._journal.drop_version(self.service, found.revision)
            del self.known[found.revision]
            self._whole.pop(found.revision, None)
            if found.recipe.files == found.revision:
                await self._store.delete(self.service, found.revision)
