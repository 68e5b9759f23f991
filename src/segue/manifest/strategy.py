"""The strategies that a manifest may name, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import create_model, model_validator

from segue.core import release
from segue.manifest import values
from segue.manifest.amounts import part_text
from segue.manifest.kinds import (
    Approval,
    Capacity,
    Count,
    Duration,
    HeaderName,
    Kind,
    Known,
    Listen,
    Many,
    Rest,
    RoutePath,
    Section,
    Share,
    SomeTime,
    Statuses,
    Sticky,
    Text,
)
from segue.manifest.values import Wrong

STRATEGIES = ("rolling", "in_place", "blue_green", "canary", "experiment")
HOW = f"one of {', '.join(STRATEGIES)}, or a mapping with options"

LATER = ("route.proxies", "run.container", "run.ssh", "notify")
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

    preview: Listen | None = None
    approve: Approval = "auto"
    judge: Duration = timedelta(seconds=60)
    keep: Duration = timedelta(minutes=10)

    def core(self) -> release.BlueGreen:
        """The strategy with these options."""
        return release.BlueGreen(self.judge, self.keep, self.preview, self.approve)


_LEAST = timedelta(seconds=30)


class Proof(Section):
    """How long each step of a canary is judged. A duration stands for a mapping with that `most`."""

    least: Duration = _LEAST
    most: SomeTime = timedelta(minutes=30)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """With a short `most` alone, `least` is no longer than that."""
        if isinstance(value, (Proof, list)):
            return value
        told = value if isinstance(value, Mapping) else {"most": value}
        if "least" not in told:
            with suppress(Wrong):  # what is wrong with `most` is told at its own place
                least = min(_LEAST, values.duration(told.get("most", _LEAST)))
                return {"least": values.duration_text(least), **told}
        return told

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.least > self.most:
            most = values.duration_text(self.most)
            raise Wrong(
                f"it is longer than `most`, which is {most}", expected=f"a duration up to {most}", at=("least",)
            )
        return self


_LADDER = "a list of shares that grow up to 100%, such as [10%, 30%, 100%]"


class Canary(Section):
    """The options of `canary`."""

    steps: Annotated[tuple[Share, ...], Many(_LADDER)] = (Fraction(1, 10), Fraction(3, 10), Fraction(1))
    judge: Annotated[Proof, Many("a duration such as 2m, or a mapping (least, most)")] = Proof()
    holdback: Rest = Fraction(1, 20)
    approve: Approval = "auto"
    sticky: Sticky = "none"
    capacity: Capacity = "proportional"
    keep: Duration = timedelta(minutes=10)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.steps:
            raise Wrong("no step is named", expected=_LADDER, at=("steps",))
        before = Fraction(0)
        for number, share in enumerate(self.steps):
            if share <= before:
                least = part_text(before)
                raise Wrong(
                    f"the steps do not grow: {part_text(share)} comes after {least}",
                    expected=f"a share above {least}" if before < 1 else "100% once, as the last step",
                    at=("steps", number),
                )
            before = share
        if before < 1:
            raise Wrong(
                f"the last step is {part_text(before)}: the new version would never get everybody",
                expected=_LADDER,
                nearest=f"[{', '.join(map(part_text, self.steps))}, 100%]",
                at=("steps",),
            )
        return self

    def core(self) -> release.Canary:
        """The strategy with these options."""
        return release.Canary(
            self.steps,
            self.judge.least,
            self.judge.most,
            self.holdback,
            self.approve,
            self.sticky,
            self.capacity,
            self.keep,
        )


_VALUES = "a list of texts such as [KR, JP]"


class _Who(Section):
    """Who takes part in an experiment."""

    header: HeaderName

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not getattr(self, "in"):
            raise Wrong("nobody would take part", expected=_VALUES, at=("in",))
        return self

    def core(self) -> release.Who:
        """Those who take part."""
        return release.Who(self.header, getattr(self, "in"))


# A field of a class cannot be called `in`.
Who = create_model("Who", __base__=_Who, **{"in": (Annotated[tuple[Text, ...], Many(_VALUES)], ...)})  # type: ignore[call-overload]


class Goal(Section):
    """What users of the better version reach more often."""

    path: RoutePath | None = None
    status: Statuses | None = None
    header: HeaderName | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.path is None and self.status is None and self.header is None:
            raise Wrong("no goal is named", expected="a path, a status or a header, such as {path: /thanks}")
        return self

    def core(self) -> release.Goal:
        """The goal."""
        return release.Goal(self.path, self.status, self.header)


class Experiment(Section):
    """The options of `experiment`."""

    share: Share = Fraction(1, 2)
    sticky: Known = "cookie"
    who: Who | None = None  # type: ignore[valid-type]
    goal: Goal
    most: SomeTime = timedelta(days=14)
    keep: Duration = timedelta(minutes=10)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.share >= 1:
            raise Wrong("nobody would be left to compare with", expected="a share below 100%", at=("share",))
        return self

    def core(self) -> release.Experiment:
        """The strategy with these options."""
        who = self.who.core() if self.who else None
        return release.Experiment(self.goal.core(), self.share, self.sticky, who, self.most, self.keep)


def _strategy_name(value: object) -> str:
    name = values.text(value)
    if name not in STRATEGIES:
        raise Wrong(f"unknown strategy {values.shown(name)}", nearest=values.nearest(name, STRATEGIES))
    return name


StrategyName = Annotated[str, Kind(_strategy_name, f"one of {', '.join(STRATEGIES)}")]


_GOAL = "`strategy: {experiment: {goal: {path: /thanks}}}`, with a goal of yours"


class Strategy(Section):
    """How a rollout goes. A name stands for a mapping with that name in `use`; one strategy alone is the one used."""

    use: StrategyName = "rolling"
    rolling: Rolling | None = None
    in_place: InPlace | None = None
    blue_green: BlueGreen | None = None
    canary: Canary | None = None
    experiment: Experiment | None = None

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

    @model_validator(mode="after")
    def _possible(self) -> Self:
        self.core()
        return self

    def core(self, name: str | None = None) -> release.How:
        """The strategy `name`, else the one in `use`, with the options given for it. Raises Wrong."""
        match _strategy_name(name or self.use):
            case "in_place":
                return (self.in_place or InPlace()).core()
            case "blue_green":
                return (self.blue_green or BlueGreen()).core()
            case "canary":
                return (self.canary or Canary()).core()
            case "experiment":
                if self.experiment is None:
                    raise Wrong("an experiment needs a goal", expected=_GOAL)
                return self.experiment.core()
        return (self.rolling or Rolling()).core()
