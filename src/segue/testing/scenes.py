"""Scenes that a seed draws: versions good and bad, how they come, what persons say meanwhile, what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from math import inf
from random import Random
from typing import Any

from segue.core.release import BlueGreen, Canary, Experiment, Goal, How, InPlace, Rolling
from segue.core.version import Health, Stop
from segue.engine.orders import Order
from segue.engine.records import Hooks, Judging
from segue.testing.chaos import KINDS
from segue.testing.fakes import Behaviour, Script
from segue.testing.plane import an_order

NEVER = (
    Behaviour(fails="there is no such command", log=("boom",)),
    Behaviour(ready=inf, exits=0.02, log=("boom",)),
    Behaviour(smoke="GET / answered 500, not 200"),
    Behaviour(stranger=True),
)
"""What an instance does that may never be given a request."""

BRIEFLY = (Behaviour(exits=0.7), Behaviour(exits=1.5), Behaviour(exits=4.0))
"""What an instance does that ends while it is tried out, or a little later."""

WORDS = ("pause", "resume", "promote", "promote --full", "rollback", "scale", "restart", "retire", "down")


@dataclass(frozen=True, slots=True)
class Word:
    """What a person says `after` so many seconds; `number` is what a scale asks for."""

    after: float
    what: str
    number: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment: the `order`, how its instances behave, which part of its requests fails, and what is said.

    `never`: no instance of it may be given a request. `wait`: seconds until the next one is asked for; None: until
    it has ended. `hook`: what its hook does.
    """

    order: Order
    behaviours: tuple[Behaviour, ...] = (Behaviour(),)
    never: bool = False
    failing: float = 0.0
    words: tuple[Word, ...] = ()
    wait: float | None = None
    hook: Script | None = None

    @property
    def sound(self) -> bool:
        """Whether it must be promoted, if nothing else happens."""
        good = self.behaviours == (Behaviour(),) and not self.failing and (self.hook is None or not self.hook.status)
        how = self.order.strategy
        asks = isinstance(how, Experiment) or getattr(how, "approve", "") == "manual"
        return good and not self.words and self.wait is None and not asks


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a seed decides before the curtain rises; what goes wrong is drawn as it goes on."""

    deployments: tuple[Deployment, ...]
    rate: float
    odds: float
    kinds: tuple[str, ...]


def drawn(rng: Random) -> Scene:
    """The scene of a seed."""
    replicas = rng.choice((1, 2, 2, 3, 4))
    number = rng.choice((2, 2, 2, 3, 4))
    deployments = [_launch(rng, replicas), *(_update(rng, f"v{n}", replicas) for n in range(2, number + 1))]
    kinds = tuple(rng.sample(KINDS, rng.randint(1, 4)))
    odds = rng.choice((0, 0.003, 0.01, 0.03))
    return Scene(tuple(deployments), rng.choice((0.0, 5.0, 200.0)), odds, kinds)


def _launch(rng: Random, replicas: int) -> Deployment:
    return Deployment(_order(rng, "v1", replicas, Rolling()))


def _update(rng: Random, version: str, replicas: int) -> Deployment:
    how = _strategy(rng)
    if isinstance(how, InPlace) and replicas <= how.batch:
        replicas = how.batch + 1
    hook = Script(status=rng.choice((0, 0, 1)), seconds=rng.choice((0.0, 1.0))) if rng.random() < 0.15 else None
    order = _order(rng, version, replicas, how)
    if hook is not None:
        order = replace(order, hooks=Hooks(before=f"before {version}"))
    plain = Deployment(order, hook=hook, wait=rng.uniform(0.1, 4) if rng.random() < 0.1 else None)
    if rng.random() < 0.3:
        words = [Word(rng.uniform(0, 8), rng.choice(WORDS), rng.randint(1, 4)) for _ in range(rng.randint(1, 3))]
        plain = replace(plain, words=tuple(words))
    return _behaving(rng, plain)


def _behaving(rng: Random, plain: Deployment) -> Deployment:
    chance = rng.random()
    if chance < 0.15:
        return replace(plain, behaviours=(rng.choice(NEVER),), never=True)
    if chance < 0.35:
        broken = rng.choice(BRIEFLY)
        return replace(plain, behaviours=(Behaviour(),) * rng.randint(0, 1) + (broken, Behaviour()))
    if chance < 0.45:
        return replace(plain, failing=rng.choice((0.02, 0.6)))
    if chance < 0.55:
        return replace(plain, behaviours=(Behaviour(ready=rng.uniform(0, 0.6), ends=rng.uniform(0, 3)),))
    return plain


def _strategy(rng: Random) -> How:
    first, judge = timedelta(seconds=rng.choice((0, 1, 2))), timedelta(seconds=rng.choice((0, 1)))
    keep, approve = timedelta(seconds=rng.choice((0, 0, 3, 8))), rng.choice(("auto", "auto", "auto", "manual"))
    batch = rng.randint(1, 2)
    ladder = (Fraction(1, rng.choice((2, 3, 10))), Fraction(1))
    canary = {"least": judge, "most": timedelta(seconds=rng.choice((2, 4))), "keep": keep, "approve": approve}
    found: tuple[How, ...] = (
        Rolling(first_judge=first, judge=judge, batch=batch, surge=rng.randint(1, 2)),
        Rolling(first_judge=first, judge=judge, batch=batch, surge=rng.randint(1, 2), keep=keep),
        InPlace(first_judge=first, judge=judge, batch=batch),
        BlueGreen(judge=first, keep=keep, approve=approve),  # type: ignore[arg-type]
        Canary(ladder, holdback=Fraction(rng.randint(0, 1), 20), capacity=rng.choice(_CAPACITY), **canary),  # type: ignore[arg-type]
        Experiment(Goal("/thanks"), Fraction(1, rng.choice((2, 4))), most=timedelta(seconds=30), keep=keep),
    )
    return rng.choice(found)


_CAPACITY = ("proportional", "full")


def _order(rng: Random, version: str, replicas: int, how: How) -> Order:
    wanted: dict[str, Any] = {
        "health": Health(command="health {url}", every=timedelta(seconds=rng.choice((1, 4))), healthy=1),
        "stop": Stop(
            drain=timedelta(seconds=20), grace=timedelta(seconds=2), spread=timedelta(seconds=rng.choice((0, 0, 3)))
        ),
        "judging": Judging(undecided=rng.choice(("continue", "hold")), approve_within=timedelta(seconds=30)),
        "manifest": "a-manifest",
    }
    return an_order(version, replicas=replicas, strategy=how, **wanted)
