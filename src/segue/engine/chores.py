"""What a service needs done on this machine that is neither an instance nor traffic: copies, hooks, checks."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from segue.core.release import Share, version_of
from segue.core.sources import About
from segue.core.traffic import VersionId, version_id
from segue.core.version import Version
from segue.engine.catalog import Catalog
from segue.engine.journal import Journal
from segue.engine.records import RolloutRecord
from segue.engine.versions import VersionStore
from segue.ports import Commands

CHECKS = "checks"
"""The folder for what health and smoke commands write."""
LONGEST = 1024 * 1024
"""Bytes that one version's checks may have written before that is begun anew."""

TIMED_OUT, UNKNOWN = 124, 125
"""Exit statuses for a command that was killed after its time, and for one whose end nobody saw."""


class Chores:
    """The chores of the service whose versions `catalog` knows; outputs are kept in `folder`."""

    def __init__(
        self, folder: Path, catalog: Catalog, *, commands: Commands, store: VersionStore, journal: Journal
    ) -> None:
        self._folder, self._catalog = folder, catalog
        self._commands, self._store, self._journal = commands, store, journal

    async def prepare(self, rollout: RolloutRecord) -> None:
        """Make the folder of the version that `rollout` brings. Raises StartFailed."""
        if rollout.release is None or rollout.new is None:
            return
        known = self._catalog.known[rollout.new]
        recipe, service = known.recipe, rollout.service
        folder = await self._store.prepare(
            service,
            recipe.files,
            source=Path(recipe.source) if recipe.source else None,
            folder=Path(recipe.folder),
            shared=recipe.shared,
            build=recipe.build,
            environment=self._catalog.version(rollout.new).environment,
            user=known.version.user,
            on_progress=lambda text: self._journal.tell("preparing", service=service, rollout=rollout.id, text=text),
        )
        self._catalog.put(replace(known, version=replace(known.version, folder=folder)))

    async def hook(self, rollout: RolloutRecord, hook: str) -> tuple[int, Sequence[str]]:
        """Run a hook of `rollout`, at most once: its exit status and the last lines of its output."""
        assert rollout.new is not None
        hooks, version = self._catalog.known[rollout.new].hooks, self._catalog.version(rollout.new)
        log = self._log("hooks", rollout.id, f"{hook}.log")
        ended = await self._commands(
            hooks.command(hook),
            folder=version.folder,
            environment={**version.environment, **_told(rollout, hook)},
            user=version.user,
            timeout=timedelta(seconds=hooks.timeout),
            log=log,
            status=log.with_suffix(".status"),
        )
        lines = log.read_text(errors="replace").splitlines()[-20:] if log.exists() else []
        if ended.timed_out:
            return TIMED_OUT, [*lines, f"timed out after {hooks.timeout:g} s"]
        return (UNKNOWN if ended.status is None else ended.status), lines

    async def check(self, version: Version, command: str, seconds: float) -> tuple[int, str]:
        """Run a health or smoke command, at most `seconds`: its exit status and its output."""
        log = self._log(CHECKS, f"{version_id(version.service, version.revision)}.log")
        before = _shortened(log)
        ended = await self._commands(
            command,
            folder=version.folder,
            environment=version.environment,
            user=version.user,
            timeout=timedelta(seconds=seconds),
            log=log,
        )
        output = log.read_bytes()[before:].decode(errors="replace") if log.exists() else ""
        return (TIMED_OUT if ended.status is None else ended.status), output

    def about(self, rollout: RolloutRecord, share: Share) -> About:
        """What a source of evidence is told: the new version of `rollout` has `share` of the traffic."""
        assert rollout.new is not None
        version = self._catalog.version(rollout.new)
        return About(
            service=rollout.service,
            rollout=rollout.id,
            new=rollout.new,
            old=rollout.old,
            folder=version.folder,
            environment=version.environment,
            user=version.user,
            told={**_named(rollout), "SEGUE_SHARE": f"{float(share):g}"},
            outputs=self._log("evidence", "of").parent,
        )

    def _log(self, *names: str) -> Path:
        log = self._folder.joinpath(*names)
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return log


def forget_checks(folder: Path, known: Collection[VersionId]) -> None:
    """Remove from `folder` what the checks wrote of all versions but those `known`."""
    for log in (folder / CHECKS).glob("*.log"):
        if log.stem not in known:
            log.unlink(missing_ok=True)


def _shortened(log: Path) -> int:
    """The bytes of `log`, which is begun anew once it has grown long: a check may run twice a second for years."""
    size = log.stat().st_size if log.exists() else 0
    if size <= LONGEST:
        return size
    os.truncate(log, 0)
    return 0


def _told(rollout: RolloutRecord, hook: str) -> dict[str, str]:
    """What a hook is told of the rollout, in its environment."""
    return {**_named(rollout), "SEGUE_HOOK": hook, "SEGUE_ATTEMPT": "1"}


def _named(rollout: RolloutRecord) -> dict[str, str]:
    """What every command is told of the rollout that it is run for."""
    return {
        "SEGUE_SERVICE": rollout.service,
        "SEGUE_FROM": version_of(rollout.old) if rollout.old else "",
        "SEGUE_TO": version_of(rollout.new) if rollout.new else "",
        "SEGUE_ROLLOUT": rollout.id,
    }
