"""What Segue's router can be told of one service, each thing that costs something once: tables for `features.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from segue.core.release import Revision
from segue.core.traffic import (
    Backend,
    Certificate,
    Endpoint,
    InstanceId,
    Route,
    ServiceTable,
    Sticky,
    Tls,
    Traffic,
)

TARGET = 0.95
OLD, NEW = Revision("v1.1"), Revision("v2.1")
TRIAL = Fraction(3, 10)
USER = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
"""An identity below the share of the version on trial."""

Places = Sequence[str]
Make = Callable[[str, Places], ServiceTable]


@dataclass(frozen=True)
class Feature:
    """One row. `make`: the table, of where users connect and where two instances are. `fields`: of requests."""

    name: str
    make: Make
    fields: tuple[str, ...] = ()
    target: float | None = None
    tls: bool = False


def _version(revision: Revision, share: Fraction, places: Places) -> Backend:
    endpoints = (Endpoint(InstanceId(f"shop-{revision}-{n}"), p, Traffic.READY) for n, p in enumerate(places, 1))
    return Backend(revision, share, tuple(endpoints))


def steady(listen: str, places: Places) -> ServiceTable:
    """One version serves."""
    return ServiceTable("shop", Route(listen=listen), (_version(OLD, Fraction(1), places),))


def rollout(listen: str, places: Places, sticky: Sticky | None = None) -> ServiceTable:
    """A version is on trial, and the shield stands before it."""
    backends = _version(OLD, 1 - TRIAL, places[:1]), _version(NEW, TRIAL, places[1:])
    return ServiceTable("shop", Route(listen=listen), backends, trial=NEW, sticky=sticky)


def _logged(share: Fraction) -> Make:
    def make(listen: str, places: Places) -> ServiceTable:
        table = steady(listen, places)
        return replace(table, route=replace(table.route, access_log=share))

    return make


def _unshielded(listen: str, places: Places) -> ServiceTable:
    table = rollout(listen, places)
    return replace(table, route=replace(table.route, shield=False))


def _secure(certificate: Certificate) -> Make:
    def make(listen: str, places: Places) -> ServiceTable:
        table = steady(listen, places)
        route = replace(table.route, tls=Tls("cert.pem", "key.pem"))
        return replace(table, route=route, certificate=certificate)

    return make


def every_feature(certificate: Certificate) -> list[Feature]:
    """All of them, the one with a target first."""
    cookie, header = Sticky(), Sticky("X-User-Id")
    known, named = (f"Cookie: segue-shop={USER}",), (f"X-User-Id: {USER}",)
    return [
        Feature("one version, steady", steady, target=TARGET),
        Feature("one version, access log of 10 %", _logged(Fraction(1, 10))),
        Feature("one version, access log of all", _logged(Fraction(1))),
        Feature("one version, TLS (÷ bare with TLS)", _secure(certificate), tls=True),
        Feature("a rollout at 30 %, shield off", _unshielded),
        Feature("a rollout at 30 %, shield on", rollout),
        Feature("  sticky by cookie, a known user", lambda at, places: rollout(at, places, cookie), known),
        Feature("  sticky by cookie, a new user each time", lambda at, places: rollout(at, places, cookie)),
        Feature("  sticky by header", lambda at, places: rollout(at, places, header), named),
    ]
