"""The certificates that services show: read from their files, and again when these change.

Rule 1: what cannot be used never replaces what is in use. It is told once, and tried again when a file changes: who
renews a certificate writes two files, one after the other.
Rule 2: what was last whole is kept under the home, for its owner alone: a control plane that is restarted while the
files are being renewed goes on with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from segue.certificate import BadCertificate, read
from segue.core.traffic import Certificate, Tls
from segue.engine.clock import Clock
from segue.engine.folders import make, write
from segue.engine.journal import Journal
from segue.engine.keeper import Keeper
from segue.errors import Usage

LOOK_EVERY = 1.0
"""Seconds between two looks at the files."""

_State = tuple[tuple[int, int, int] | None, ...]


@dataclass(slots=True)
class _Known:
    """What is known of one pair of files: when they last were looked at, what they held when they last were whole."""

    state: _State = ()
    certificate: Certificate | None = None
    problem: str | None = None


class Certificates:
    """The certificates of all services; what was last whole lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, str], _Known] = {}

    def require(self, tls: Tls | None) -> None:
        """Raise Usage unless the files can be used as they are now."""
        if tls is not None and (problem := self._look(tls).problem):
            raise Usage(f"route.tls: {problem}", next="segue check")

    def current(self, tls: Tls | None) -> Certificate | None:
        """What the files held when they last were whole; None: no files are named, or they never were."""
        if tls is None:
            return None
        known = self._known.get((tls.cert, tls.key)) or self._look(tls)
        return known.certificate or self._kept(tls, known)

    def problem(self, tls: Tls) -> str | None:
        """Look at the files again; why they cannot be used as they are now, None: they can."""
        return self._look(tls).problem

    def keep_only(self, used: Iterable[Tls]) -> None:
        """Forget the others, also on the disk."""
        names = {self._file(tls).name for tls in used}
        for file in self._folder.glob("*.json"):
            if file.name not in names:
                file.unlink()

    def _look(self, tls: Tls) -> _Known:
        known = self._known.setdefault((tls.cert, tls.key), _Known())
        state = (_state(tls.cert), _state(tls.key))
        if state == known.state:
            return known
        known.state = state
        try:
            found = read(tls.cert, tls.key).certificate
        except BadCertificate as bad:
            known.problem = str(bad)
            return known
        known.problem = None
        if found != known.certificate:
            known.certificate = found
            make(self._folder)
            write(self._file(tls), json.dumps({"chain": found.chain, "key": found.key}))
        return known

    def _kept(self, tls: Tls, known: _Known) -> Certificate | None:
        try:
            known.certificate = Certificate(**json.loads(self._file(tls).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return known.certificate

    def _file(self, tls: Tls) -> Path:
        name = hashlib.sha256(f"{tls.cert}\0{tls.key}".encode()).hexdigest()[:16]
        return self._folder / f"{name}.json"


def _state(file: str) -> tuple[int, int, int] | None:
    """What differs when a file was written or replaced; None: it is not there."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


async def follow(keeper: Keeper, certificates: Certificates, journal: Journal, clock: Clock) -> None:
    """Have `keeper` show what the files hold, for ever; tell what cannot be used."""
    told: str | None = None
    while True:
        tls = keeper.route.tls
        if tls is None:
            await keeper.bell.rung()
            continue
        before = certificates.current(tls)
        problem = certificates.problem(tls)
        if certificates.current(tls) != before:
            journal.tell("certificate", service=keeper.service, cert=tls.cert, problem=None)
            keeper.bell.ring()
        if problem != told and problem:
            journal.tell("certificate", service=keeper.service, cert=tls.cert, problem=problem)
        told = problem
        await clock.sleep(LOOK_EVERY)
