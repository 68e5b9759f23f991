"""Defects that somebody could write, one line each, and that the tests must catch.

Each is a text in a file of `src/segue` and what is put in its place. `caught_by` names the test that catches it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One defect: `old` stands exactly once in `file`."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "an instance is started before its intent is written down",
        "engine/fleet.py",
        """            self._journal.put_intent(intent, member.restarts, member.checked)
            member.intent = intent
            member.instance = await self._platform.start(member.version, intent)
""",
        """            member.intent = intent
            member.instance = await self._platform.start(member.version, intent)
            self._journal.put_intent(intent, member.restarts, member.checked)
""",
    ),
    Mutant(
        "an instance is forgotten before it is stopped",
        "engine/farewell.py",
        "            self._journal.mark_intent(intent.nonce, stopping=True, parting=parting)\n",
        "            self._journal.drop_intent(intent.nonce)\n",
    ),
    Mutant(
        "an instance is stopped before the router has confirmed that it drains",
        "engine/farewell.py",
        "        await self._bell.until(lambda: self._routed(member))\n",
        "",
    ),
    Mutant(
        "an instance is stopped without the barrier",
        "engine/farewell.py",
        "                return await self._router.settled()\n",
        "                return None\n",
    ),
    Mutant(
        "an instance is stopped with requests in flight",
        "engine/farewell.py",
        "            if waited >= most or (member.in_flight == 0 and waited >= least):\n",
        "            if waited >= least:\n",
    ),
    Mutant(
        "the router is told of the services before their instances have been found",
        "engine/control.py",
        "        dead = await asyncio.gather(*(self._find(service) for service in self.services.values()))\n",
        "        for found in self.services.values():\n"
        "            found.keeper.resume(found.record.demand, found.record.demand)\n"
        "        await self._tell_router({n: t for n, s in self.services.items() if (t := s.keeper.table())})\n"
        "        dead = await asyncio.gather(*(self._find(service) for service in self.services.values()))\n",
    ),
    Mutant(
        "what runs is not adopted but started again",
        "engine/control.py",
        "                if record.intent.nonce in found\n",
        "                if record.intent.nonce in found and False\n",
    ),
    Mutant(
        "a step's failure and the turning back are two transactions",
        "engine/book.py",
        """        with self.together():
            if number:
                self._journal.end(self.record, number, outcome""",
        """        if True:
            if number:
                self._journal.end(self.record, number, outcome""",
    ),
    Mutant(
        "the decision and the demand that follows are two transactions, and the demand comes last",
        "engine/book.py",
        """        with self.together():
            if changes:
                self._journal.change_service(self.record.service, **changes)
            self._journal.set_demand(self.record.service, demand)
""",
        """        if True:
            if changes:
                self._journal.change_service(self.record.service, **changes)
""",
    ),
    Mutant(
        "a rollout that was turned back goes on after a crash",
        "engine/run.py",
        "        if self.record.turned is None:\n            try:\n                await self._go_there()",
        "        if True:\n            try:\n                await self._go_there()",
    ),
    Mutant(
        "a split of the traffic takes effect before instances cover it",
        "engine/keeper.py",
        "        if self._covered(self.demand):\n            self._shares = self.demand.shares\n",
        "        self._shares = self.demand.shares\n",
    ),
    Mutant(
        "a shift is true before the router has confirmed it",
        "engine/keeper.py",
        "self.refusal is not None or self._confirmed_shares() == dict(shares))",
        "True)",
    ),
    Mutant(
        "instances count before the router counts them",
        "engine/keeper.py",
        "        while self._told_of(version) < count or await self._counted(version) < count:\n",
        "        while not len(self.fleet.of(version)) >= count:\n",
    ),
    Mutant(
        "an instance is ready although a stranger has its port",
        "engine/fleet.py",
        "        if not await self._platform.listens(instance):\n",
        "        if False:\n",
    ),
    Mutant(
        "an instance is ready without its smoke tests",
        "engine/fleet.py",
        "        if not member.checked:\n            member.problem =",
        "        if False:\n            member.problem =",
    ),
    Mutant(
        "a request is answered before it is written down",
        "engine/beginning.py",
        "            self._journal.put_rollout(record)\n            self.remember(asker, record.id)\n",
        "            self._journal.put_rollout(record)\n",
    ),
    Mutant(
        "a version that loses instances on trial is not taken back",
        "engine/run.py",
        "        return Setback(lost) if lost else None\n",
        "        return None\n",
    ),
    Mutant(
        "the old version is not kept",
        "engine/run.py",
        "            return replace(demand, kept=release.old.revision, kept_until=until)\n",
        "            return demand\n",
    ),
    Mutant(
        "keep never ends",
        "engine/service.py",
        '                    await self.retire(Asker(ITSELF, "keep is over", if_busy="wait"))\n',
        "                    await self._clock.sleep(1.0)\n",
    ),
    Mutant(
        "after a reboot the rollout goes on",
        "engine/control.py",
        "        if restarted and running.release and running.release.old:\n",
        "        if False and running.release and running.release.old:\n",
    ),
)
