"""What a journal must say: after each of its writes, after a crash, and when everything has come to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segue.core.steps import Scale, Shift
from segue.core.traffic import Traffic
from segue.engine.control import ControlPlane
from segue.engine.journal import Journal
from segue.engine.records import RolloutRecord
from segue.engine.service import Service
from segue.ports import Instance
from segue.testing.calls import Began
from segue.testing.chaos import StormyWorld
from segue.testing.scenes import Deployment
from segue.testing.witness import Witness

EXITS = {"promoted": (0,), "stopped": (0,), "rolled_back": (1, 7), "superseded": (7,), "failed": (5,)}


class Inquest:
    """Compares what the journals of a scene say with what its world saw."""

    def __init__(self, world: StormyWorld, witness: Witness) -> None:
        self.rebooted = False
        self.outcomes: list[str] = []
        self._world, self._witness = world, witness
        self._must_fall: dict[str, str] = {}

    # As it is written

    def attend(self, journal: Journal) -> None:
        """Look at what a control plane finds in `journal`, and at what it writes from now on."""
        self._found(journal)
        end, put = journal.end, journal.put_rollout

        def ended(rollout: RolloutRecord, number: int, outcome: str, verdict: dict[str, Any] | None) -> None:
            end(rollout, number, outcome, verdict)
            self._world.record.say(f"      .. step {number} {rollout.steps[number - 1]}: {outcome}")
            if outcome == "done":
                self._step(rollout.steps[number - 1])

        def written(rollout: RolloutRecord) -> None:
            put(rollout)
            if rollout.decided and not rollout.ended:
                self._decided(journal, rollout)

        journal.end, journal.put_rollout = ended, written  # type: ignore[method-assign]

    def _found(self, journal: Journal) -> None:
        """What a crash may never leave behind."""
        for service in journal.services():
            record = journal.unfinished(service.name)
            if record is None or record.decided is not None:
                continue
            failed = [step for step in journal.steps(record.id) if step.outcome in ("failed", "cut short")]
            if failed and record.turned is None:
                self._witness.accuse("a step has failed, and the rollout has not turned back")
            if record.release and service.stable == record.new:
                self._witness.accuse(f"{record.new} serves, and its rollout is not decided")
            if self.rebooted and record.release and record.release.old:
                self._must_fall[record.id] = "the machine restarted"
        self.rebooted = False

    def _step(self, step: object) -> None:
        """A step that is done must be true of the world."""
        match step:
            case Shift(shares) if dict(self._world.router.shares("shop")) != dict(shares):
                self._witness.accuse(f"{step} is done, and the router does not know it")
            case Scale(version, count) if self._routed(version) < count and version not in self._witness.troubled:
                self._witness.accuse(f"{step} is done, and the router knows {self._routed(version)}")

    def _routed(self, version: str) -> int:
        table = self._world.router.table.services.get("shop")
        backends = [backend for backend in (table.backends if table else ()) if backend.revision == version]
        return sum(end.state is Traffic.READY for backend in backends for end in backend.endpoints)

    def _decided(self, journal: Journal, record: RolloutRecord) -> None:
        service, release = journal.service(record.service), record.release
        if service is None or release is None:
            return
        serves = record.new if record.outcome == "promoted" else record.old
        if service.stable != serves:
            self._witness.accuse(f"{record.outcome}, and {service.stable} serves, not {serves}")
        keep = record.outcome == "promoted" and release.old and release.strategy.keep
        if keep and release.old and service.demand.kept != release.old.revision:
            self._witness.accuse(f"{release.old.revision} was to be kept")

    def died(self, instance: Instance, service: Service) -> None:
        """`instance` is about to end by itself: a version that is tried out and needs it must be taken back."""
        running, version, demand = service.rollout, instance.intent.revision, service.keeper.demand
        self._witness.trouble(version)
        if (
            running is None
            or running.trial != version
            or running.turned
            or not self._world.router.shares("shop").get(version)
        ):
            return
        platform = self._world.platform
        others = [i for i in platform.running if i.intent.revision == version and i != instance]
        if sum(platform.healthy(i.intent.address) for i in others) < min(
            demand.count(version), demand.needed(version)
        ):
            self._must_fall[running.id] = f"{instance.id} ended while it was needed"

    def _addresses(self) -> set[str]:
        table = self._world.router.table.services.get("shop")
        ends = [end for backend in (table.backends if table else ()) for end in backend.endpoints]
        return {end.address for end in ends if end.state is Traffic.READY}

    # How one ended

    def judge(self, record: RolloutRecord | None, deployment: Deployment) -> None:
        """Whether the rollout of `deployment` ended as it had to."""
        if record is None:
            self._witness.accuse("a rollout that was answered is not known any more")
            return
        self._world.record.say(f"      .. {record.new}: {record.outcome} {record.exit}: {record.reason}")
        expected = None
        if deployment.never:
            expected = "rolled_back" if self._world.storm.harmless and not deployment.words else None
            if record.outcome == "promoted":
                self._witness.accuse(f"{record.new} is promoted, which never was ready")
        elif deployment.sound and self._world.storm.harmless:
            expected = "promoted"
        if deployment.hook and deployment.hook.status and record.outcome == "promoted":
            self._witness.accuse(f"{record.new} is promoted, and its hook failed")
        if expected and record.outcome != expected:
            self._witness.accuse(f"{record.new} is {record.outcome} ({record.reason}), and had to be {expected}")

    # When everything has come to its end

    def endless(self, plane: ControlPlane) -> None:
        """Nothing comes to its end any more."""
        service = plane.services["shop"]
        members = [(member.id, member.state.value, member.problem) for member in service.keeper.fleet.members]
        running = service.runner and service.runner.record
        state = f"{running.kind} {running.outcome} {running.way}" if running else "no rollout"
        self._witness.accuse(
            f"it never ends: {state}, {dict(service.keeper.demand.counts)} demanded, there: {members}"
        )

    def hold(self, plane: ControlPlane, answers: Mapping[str, str | None]) -> None:
        """Whether the world, the journal and what was said agree."""
        for problem in (*self._rollouts(plane), *self._fleet(plane), *self._requests(plane, answers)):
            self._witness.accuse(problem)

    def _rollouts(self, plane: ControlPlane) -> list[str]:
        found, journal = [], plane.journal
        for record in journal.rollouts("shop"):
            name = f"{record.kind} of {record.new}"
            self.outcomes.append(record.outcome or "none")
            if record.ended is None or record.exit not in EXITS.get(record.outcome or "", ()):
                found.append(f"{name} ended {record.outcome} with {record.exit}")
            if (record.outcome == "rolled_back" and record.exit == 7) != (
                record.basis == "person" and record.outcome == "rolled_back"
            ):
                found.append(f"{name} was rolled back with {record.exit} on the basis of {record.basis}")
            events = [e.body["outcome"] for e in journal.events(rollout=record.id) if e.event == "finished"]
            if events != [record.outcome]:
                found.append(f"{name} was {record.outcome}, and clients were told {events}")
            if (
                record.outcome == "promoted"
                and record.id in self._must_fall
                and "late" not in self._world.storm.struck
            ):
                found.append(f"{name} was promoted although {self._must_fall[record.id]}")
        return found

    def _fleet(self, plane: ControlPlane) -> list[str]:
        service, journal = plane.services.get("shop"), plane.journal
        running = {instance.intent.nonce: instance for instance in self._world.platform.running}
        known = {record.intent.nonce for record in journal.intents("shop")}
        if service is None:
            return [f"nobody knows {sorted(running)}"] if running else []
        found, record, demand = [], service.record, service.keeper.demand
        if unknown := sorted(running[nonce].id for nonce in running.keys() - known):
            found.append(f"nobody knows {unknown}")
        if known - running.keys():
            found.append(f"the journal knows {sorted(known - running.keys())}, which do not run")
        if record.demand != demand:
            found.append(f"the journal demands {record.demand}, the keeper {demand}")
        if dict(self._world.router.shares("shop")) != dict(demand.shares):
            found.append(f"the router splits {dict(self._world.router.shares('shop'))}, not {dict(demand.shares)}")
        if {i.intent.address for i in running.values()} != self._addresses():
            found.append("the router does not give to those that run")
        if record.degraded is None:
            alone = {record.stable: 1} if record.stable else {}
            if dict(demand.shares) != alone or set(demand.counts) != set(alone):
                found.append(
                    f"{record.stable} is to serve alone, not {dict(demand.counts)} with {dict(demand.shares)}"
                )
            if {version: demand.sizes.get(version) for version in demand.counts} != dict(demand.counts):
                found.append(f"{dict(demand.counts)} instances at rest, and not {dict(demand.sizes)}")
        return found

    def _requests(self, plane: ControlPlane, answers: Mapping[str, str | None]) -> list[str]:
        deploys = [r for r in plane.journal.rollouts("shop") if r.kind == "deploy"]
        found = [f"{len(deploys)} deployments for {len(answers)} requests"] if len(deploys) > len(answers) else []
        hooks = [
            call.command for call in self._world.record.calls if isinstance(call, Began) and "before " in call.command
        ]
        return found + [f"{hook} ran twice" for hook in sorted(set(hooks)) if hooks.count(hook) > 1]
