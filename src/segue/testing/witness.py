"""A witness of all that happens in a world where anything may go wrong.

Rule 1: it judges by what the world saw, not by what the control plane believes.
Rule 2: what it finds ends the scene at once, for what comes after a broken promise says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil

from segue.core.demand import Demand
from segue.core.traffic import Backend, InstanceId, RoutingTable
from segue.ports import Instance
from segue.testing.calls import Call, Confirmed, Exited, Seen, Settled, Start, Stop
from segue.testing.chaos import StormyWorld, backends, given, ready


class Witness:
    """Sees every event and finds what breaks a promise of the first chapter of the design.

    `demand`: what the control plane is to make true now. `known`: the nonces that its journal holds.
    `doomed`: versions none of whose instances may ever be given a request.
    """

    def __init__(self, world: StormyWorld, demand: Callable[[], Demand], known: Callable[[], set[str]]) -> None:
        self.found: list[str] = []
        self.doomed: set[str] = set()
        self._world, self._demand, self._known = world, demand, known
        self._followed = [RoutingTable()]  # what some worker may still follow, the last confirmed at the end
        self._ever: set[str] = set()
        self._idle: set[InstanceId] = set()
        self._ended: set[str] = set()
        self.troubled: set[str] = set()

    def accuse(self, what: str) -> None:
        """A promise is broken."""
        self.found.append(what)
        self._world.record.say(f"      ** {what}")
        self._world.storm.calm()
        asyncio.get_running_loop().crash()  # type: ignore[attr-defined]

    def trouble(self, revision: str) -> None:
        """`revision` may lack instances, and not by anything that the control plane did."""
        self.troubled.add(revision)

    def see(self, call: Call) -> None:
        """Judge what happened."""
        self.troubled |= {instance.intent.revision for instance in self._sick()}
        match call:
            case Confirmed(table):
                self._confirmed(table)
            case Settled():
                self._followed = self._followed[-1:]
            case Seen(instance, in_flight):
                (self._idle.discard if in_flight or self._reached(instance) else self._idle.add)(instance)
            case Exited(instance):
                self._ended.add(instance.intent.nonce)
                self.troubled.add(instance.intent.revision)
            case Start(intent) if intent.nonce not in self._known():
                self.accuse(f"{intent.instance} is started and not written down")
            case Stop(instance) if instance in self._world.platform.running:
                self._stopped(instance)

    def _sick(self) -> list[Instance]:
        platform = self._world.platform
        return [instance for instance in platform.running if instance.id in platform.sick] if platform.sick else []

    def _reached(self, instance: InstanceId) -> bool:
        return any(end.instance == instance for table in self._followed for end in given(table))

    def _stopped(self, instance: Instance) -> None:
        address = instance.intent.address
        if instance.intent.nonce not in self._known():
            self.accuse(f"{instance.id} is stopped and not written down any more")
        if instance.intent.nonce in self._ended or address not in self._ever:
            return
        if any(end.address == address for table in self._followed for end in given(table)):
            self.accuse(f"{instance.id} was stopped while a worker could still give it requests")
        elif instance.id not in self._idle:
            self.accuse(f"{instance.id} was stopped with requests in flight, or without looking")

    def _confirmed(self, table: RoutingTable) -> None:
        before = {b.revision: b for b in backends(self._followed[-1])}
        self._followed.append(table)
        self._ever |= {end.address for end in given(table)}
        self._idle -= {end.instance for end in given(table)}
        for backend in backends(table):
            self._covered(backend, before.get(backend.revision))
        served = [end for b in before.values() if b.share for end in ready(b)]
        nobody = not any(b.share for b in backends(table))
        if nobody and self._demand().shares and any(self._world.platform.healthy(end.address) for end in served):
            self.accuse("nobody is served, although somebody is to be")

    def _serves(self) -> bool:
        """Whether anybody could be served now: where nothing is ready, no split is better than another."""
        return any(ready(backend) for backend in backends(self._followed[-1]))

    def _covered(self, backend: Backend, before: Backend | None) -> None:
        """Whether what `backend` is given is carried by instances that are really there and well."""
        version, demand, well = backend.revision, self._demand(), ready(backend)
        had, share = (ready(before), before.share) if before else ([], 0)
        if well and version in self.doomed:
            self.accuse(f"{version} is not to be given anything, and is called ready")
        if not backend.share:
            return
        size = demand.sizes.get(version, demand.count(version))
        needed = min(demand.count(version), ceil(backend.share * size * (1 - demand.slack)))
        if backend.share > share and len(well) < needed and self._serves():
            self.accuse(f"{version} is given {backend.share} with {len(well)} of {needed} instances")
        elif len(well) < min(needed, len(had)) and version not in self.troubled:
            self.accuse(f"{version} keeps {backend.share} with {len(well)} of {needed} instances")
        elif not well and any(self._world.platform.healthy(end.address) for end in had):
            self.accuse(f"{version} keeps {backend.share} without the instances that are there")
