"""How the requests that an instance was given have ended, as Envoy's logs have it.

What they say was measured, for HTTP/1.1 and HTTP/2 users (decision 0026): an answer that broke off has one of the
flags `_BROKEN`, one that was never begun the status 0 besides. Every WebSocket that ends from the instance's side has
one; whether it had said goodbye is told by a log of its own, which a listener of an earlier Segue does not have.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from segue.core.traffic import Backend, Ends, InstanceId, Traffic
from segue.routers.envoy.goodbyes import GOODBYE
from segue.routers.envoy.loggers import YES
from segue.routers.envoy.names import ATTEMPT, CODE, SAFE, RouteName, attempt_tag, cluster_name, parse_tag

_COUNTED = re.compile(rf"^{ATTEMPT}\.route\.(?P<route>.*)\.version\.(?P<tag>.*)\.code\.{CODE}\.flags\.(?P<flags>.*)$")
_UPGRADED = re.compile(r"^attempt\.websocket\.version\.(?P<tag>.*)\.flags\.(?P<flags>.*)$")
_BROKEN = {"UC", "UR", "UPE"}
_UNREACHED = "UF"
_SWITCHED = 101


def draining(service: str, backends: Iterable[Backend]) -> list[str]:
    """What tags the attempts on those instances of `service` that drain."""
    return [
        attempt_tag(cluster_name(service, backend.revision), endpoint.instance)
        for backend in backends
        for endpoint in backend.endpoints
        if endpoint.state is Traffic.DRAINING
    ]


def pattern(tags: Collection[str]) -> str:
    """Finds what is counted with these tags, on any version's routes."""
    these = "|".join(map(re.escape, tags))
    return rf"^attempt\.(n\.route\..*|last\.n\..*|websocket)\.version\.({these})\.(code|flags)\."


def ends(values: Mapping[str, int]) -> dict[InstanceId, Ends]:
    """How what is counted in `values` ended, by instance."""
    found: defaultdict[InstanceId, Counter[str]] = defaultdict(Counter)
    for name, number in values.items():
        for instance, how, many in _entries(name, number):
            found[instance][how] += many
    return {instance: Ends(**{how: max(0, n) for how, n in counts.items()}) for instance, counts in found.items()}


def _entries(name: str, number: int) -> Iterator[tuple[InstanceId, str, int]]:
    """What one counter adds to the fields of `Ends`, by instance."""
    if upgraded := _UPGRADED.match(name):
        flags = set(upgraded["flags"].split(","))
        if flags & _BROKEN:  # the log of attempts has it as closed
            _, instance = parse_tag(upgraded["tag"])
            yield instance, "closed", -number
            yield instance, "whole" if GOODBYE in flags else "cut", number
    elif (counted := _COUNTED.match(name)) and (how := _how(counted)):
        yield parse_tag(counted["tag"])[1], how, number


def _how(counted: re.Match[str]) -> str | None:
    """The field of `Ends` that an attempt belongs to; None: it never reached the instance, or counts elsewhere."""
    flags, code, route = set(counted["flags"].split(",")), int(counted["code"]), RouteName.parse(counted["route"])
    if _UNREACHED in flags or counted["rest"] not in (None, YES):
        return None
    if not flags & _BROKEN:
        return "whole"
    if code == _SWITCHED:
        return "closed"
    return "repeated" if code == 0 and route is not None and route.kind in SAFE else "cut"
