"""What a request names: the service, the rollout, the one that runs. What there is not is said with what there is."""

from __future__ import annotations

from segue.core.release import version_of
from segue.engine.control import ControlPlane
from segue.engine.records import RolloutRecord
from segue.engine.service import Service
from segue.errors import Refused


class Unknown(Refused):
    """What is asked for does not exist."""

    code = "unknown"


def service_of(control: ControlPlane, name: str) -> Service:
    """The service `name`. Raises Unknown."""
    if name not in control.services:
        known = ", ".join(sorted(control.services)) or "no service yet"
        raise Unknown(f"there is no service {name}: there is {known}", next="segue status")
    return control.services[name]


def rollout_of(control: ControlPlane, id: str, service: str | None = None) -> RolloutRecord:
    """The rollout `id`, or with ``latest`` the newest one (of `service`). Raises Unknown."""
    if id == "latest":
        newest = control.journal.rollouts(service, 1)
        found = newest[0] if newest else None
    else:
        found = control.journal.rollout(id)
    if found is None:
        raise Unknown("no rollout yet" if id == "latest" else f"there is no rollout {id}", next="segue history")
    return found


def service_that_runs(control: ControlPlane, record: RolloutRecord, key: str | None) -> Service:
    """The service whose running rollout `record` is. Raises Refused if it runs no more.

    A request that was answered before is let through: with its `key` the service gives the same answer again.
    """
    service = service_of(control, record.service)
    running = service.rollout
    if (running and running.id == record.id) or (key and control.journal.answered(key) == record.id):
        return service
    raise Refused(f"rollout {record.id} has ended: {_since(record, service)}", next="segue status")


def _since(record: RolloutRecord, service: Service) -> str:
    """How the rollout ended, and what is there now."""
    outcome = (record.outcome or "decided").replace("_", " ")
    if running := service.rollout:
        return f"{outcome}; {running.id} runs now"
    stable = service.record.stable
    return f"{outcome}; {version_of(stable)} serves {record.service}" if stable else outcome
