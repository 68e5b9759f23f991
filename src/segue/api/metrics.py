"""What a Prometheus server reads of the control plane: the text format, version 0.0.4.

Counts of requests are the router's own, from its start on: they begin anew when it does, as counters may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from segue import __version__
from segue.core.release import version_of
from segue.core.traffic import Books
from segue.engine import documents
from segue.engine.control import ControlPlane
from segue.errors import RouterLost

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("steady", "rolling_out", "holding", "paused", "rolling_back", "degraded", "stopped")

Labels = Mapping[str, str]
Value = tuple[Labels, float]


async def exposition(control: ControlPlane) -> str:
    """All metrics of `control` now. Without a router there are no counts of requests."""
    services = documents.status(service for _, service in sorted(control.services.items()))["services"]
    try:
        books = {service["service"]: await control.world.evidence.books(service["service"]) for service in services}
    except RouterLost:
        books = {}
    families = [
        _family("segue_info", "gauge", "The version of Segue.", [({"version": __version__}, 1)]),
        _family("segue_router_up", "gauge", "Whether the router answers.", [({}, len(books) == len(services))]),
        _family("segue_service_state", "gauge", "1 for the state that the service is in.", _states(services)),
        _family("segue_share", "gauge", "The part of the traffic that a version is given.", _shares(services)),
        _family("segue_instances", "gauge", "Instances of a version by their state.", _instances(services)),
        _family("segue_requests_total", "counter", "Requests of users by how they ended.", _requests(books)),
        _family(
            "segue_hedged_total",
            "counter",
            "Requests that a second version was asked for because the first one did not answer.",
            [({"service": service}, one.hedged) for service, one in books.items()],
        ),
    ]
    return "".join(families)


def _states(services: Iterable[documents.Document]) -> Iterator[Value]:
    for service in services:
        for state in STATES:
            yield {"service": service["service"], "state": state}, service["state"] == state


def _shares(services: Iterable[documents.Document]) -> Iterator[Value]:
    for service in services:
        for name, version in service["versions"].items():
            yield {"service": service["service"], "version": name}, version["share"]


def _instances(services: Iterable[documents.Document]) -> Iterator[Value]:
    for service in services:
        for name, version in service["versions"].items():
            states = [instance["state"] for instance in version["instances"]]
            for state in sorted(set(states) | {"ready"}):
                yield {"service": service["service"], "version": name, "state": state}, states.count(state)


def _requests(books: Mapping[str, Books]) -> Iterator[Value]:
    """By the version that answered; what nobody answered, or another version than was meant to, has none."""
    for service, one in books.items():
        for outcome, by in (("answered", one.answered), ("failed", one.failed)):
            for revision, count in sorted(by.items()):
                version = {"version": version_of(revision), "revision": str(revision)}
                yield {"service": service, "outcome": outcome, **version}, count
        for outcome, count in (("shielded", one.shielded), ("cut", one.cut), ("unserved", one.unserved)):
            yield {"service": service, "outcome": outcome, "version": "", "revision": ""}, count


def _family(name: str, kind: str, help: str, values: Iterable[Value]) -> str:
    lines = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    lines += (f"{name}{_labels(labels)} {_number(value)}" for labels, value in values)
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _labels(labels: Labels) -> str:
    told = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{told}}}" if told else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
