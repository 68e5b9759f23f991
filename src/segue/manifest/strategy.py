"""The strategies that a manifest may name, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import model_validator

from segue.core import release
from segue.manifest import values
from segue.manifest.kinds import Count, Duration, Kind, Section
from segue.manifest.values import Wrong

STRATEGIES = ("rolling", "in_place", "blue_green")
HOW = f"one of {', '.join(STRATEGIES)}, or a mapping with options"

LATER = (
    *("route.tls", "route.protocol", "route.idle", "route.max_body", "route.proxies", "run.container", "run.ssh"),
    *("warm_up", "hooks.after", "strategy.canary", "strategy.experiment", "strategy.blue_green.preview"),
    *("strategy.blue_green.approve", "judge", "evidence", "notify", "approve_within", "on_cancel"),
)
"""Keys of Segue's manifest that this version does not support yet."""


class Rolling(Section):
    """The options of `rolling`."""

    batch: Count = 1
    surge: Count = 1
    first_judge: Duration = timedelta(seconds=30)
    judge: Duration = timedelta(seconds=5)
    keep: Duration = timedelta(0)

    def core(self) -> release.Rolling:
        """The strategy with these options."""
        return release.Rolling(self.batch, self.surge, self.first_judge, self.judge, self.keep)


class InPlace(Section):
    """The options of `in_place`."""

    batch: Count = 1
    first_judge: Duration = timedelta(seconds=30)
    judge: Duration = timedelta(seconds=5)

    def core(self) -> release.InPlace:
        """The strategy with these options."""
        return release.InPlace(self.batch, self.first_judge, self.judge)


class BlueGreen(Section):
    """The options of `blue_green`."""

    judge: Duration = timedelta(seconds=60)
    keep: Duration = timedelta(minutes=10)

    def core(self) -> release.BlueGreen:
        """The strategy with these options."""
        return release.BlueGreen(self.judge, self.keep)


def _strategy_name(value: object) -> str:
    name = values.text(value)
    if f"strategy.{name}" in LATER:
        raise Wrong(f"the strategy `{name}` is not in this version of Segue yet")
    if name not in STRATEGIES:
        raise Wrong(f"unknown strategy {values.shown(name)}", nearest=values.nearest(name, STRATEGIES))
    return name


StrategyName = Annotated[str, Kind(_strategy_name, f"one of {', '.join(STRATEGIES)}")]
Chosen = release.Rolling | release.InPlace | release.BlueGreen


class Strategy(Section):
    """How a rollout goes. A name stands for a mapping with that name in `use`; one strategy alone is the one used."""

    use: StrategyName = "rolling"
    rolling: Rolling | None = None
    in_place: InPlace | None = None
    blue_green: BlueGreen | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"use": value}
        if not isinstance(value, Mapping) or "use" in value:
            return value
        named = [name for name in value if name in STRATEGIES]
        if not value:
            raise Wrong("no strategy is named", expected=f"one of {', '.join(STRATEGIES)}")
        if len(named) > 1:
            raise Wrong(
                "it is not said which strategy to use", expected=f"`use: {named[0]}` beside {', '.join(named)}"
            )
        return {"use": named[0], **value} if named else value

    def core(self, name: str | None = None) -> Chosen:
        """The strategy `name`, else the one in `use`, with the options given for it. Raises Wrong."""
        match _strategy_name(name or self.use):
            case "in_place":
                return (self.in_place or InPlace()).core()
            case "blue_green":
                return (self.blue_green or BlueGreen()).core()
        return (self.rolling or Rolling()).core()
