"""What the router is told of a version that is being tried out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from segue.core.release import BlueGreen, Canary, Experiment, Revision
from segue.core.traffic import Preview, ServiceTable, Sticky, is_loopback
from segue.engine.records import RolloutRecord

PATIENCE = timedelta(seconds=1)
"""The least time that the shield waits for an answer of the version on trial alone."""

AT_LEAST = 64
"""Requests at a time that an instance of the old version may always be given in place of the version on trial."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A version on trial; see `ServiceTable`. `busy`: how many requests at a time an old instance has as a rule.

    `paths`: those that are told apart; None: they are being learned.
    """

    revision: Revision
    patience: timedelta = PATIENCE
    busy: int = 0
    sticky: Sticky | None = None
    preview: Preview | None = None
    experiment: Experiment | None = None
    paths: tuple[str, ...] | None = None

    def of(self, rollout: RolloutRecord, token: Callable[[], str]) -> Trial:
        """The trial with what the strategy of `rollout` asks for. `token`: what a preview off loopback demands."""
        strategy = rollout.release and rollout.release.strategy
        if isinstance(strategy, Canary):
            return replace(self, sticky=_sticky(strategy.sticky))
        if isinstance(strategy, Experiment):
            return replace(self, sticky=_sticky(strategy.sticky), experiment=strategy)
        listen = strategy.preview if isinstance(strategy, BlueGreen) and rollout.turned is None else None
        secret = token() if listen and not is_loopback(listen) else None
        return replace(self, preview=Preview(listen, self.revision, secret) if listen else None)

    def told(self, table: ServiceTable, others: int, usual: int) -> ServiceTable:
        """`table` with the trial in it, where the other versions have `others` ready instances, as a rule `usual`.

        At full strength they may answer all that this version fails; else each as much at a time as it has itself.
        Where there is none of them, what fails is repeated by this version's own instances: nobody is to be spared.
        """
        known = {backend.revision for backend in table.backends}
        given = any(backend.share for backend in table.backends if backend.revision == self.revision)
        return replace(
            table,
            trial=self.revision,
            patience=self.patience,
            sticky=self.sticky,
            experiment=self.experiment,
            preview=self.preview if self.preview and self.preview.revision in known else None,
            replays=others * max(AT_LEAST, self.busy) if 0 < others < usual else None,
            paths=self.paths or (),
            # Of who takes part in an experiment some requests are written for another end.
            learning=self.paths is None and not (self.experiment and given),
        )


def _sticky(setting: str) -> Sticky | None:
    """``none``, ``cookie`` or ``header:NAME`` as the router is told it."""
    kind, _, header = setting.partition(":")
    return {"cookie": Sticky(), "header": Sticky(header)}.get(kind)
