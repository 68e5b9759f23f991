"""Making one step true: wait until it is, or until something speaks against going on.

Nothing here starts, stops or routes: the keeper does, once the step's demand is written down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any, TypeVar

from segue.core import quantities
from segue.core.demand import Demand
from segue.core.release import NOTHING, Revision
from segue.core.steps import Check, Hold, Judge, Proof, Run, Scale, Shift, Silence
from segue.core.verdict import Basis, Judgement, Verdict
from segue.engine.book import Book
from segue.engine.clock import Clock
from segue.engine.deciding import Decided, Leaving, Question, Wait, decide
from segue.engine.keeper import AT_ONCE, Keeper
from segue.engine.records import RolloutRecord
from segue.engine.setback import Setback
from segue.engine.watch import Watch
from segue.errors import RouterRefused

T = TypeVar("T")

SHIFT_SECONDS, CHECK_SECONDS = 30.0, 120.0
"""How long a shift and the smoke tests may take before the step has failed."""

OFTEN, SELDOM, LONG = 1.0, 5.0, timedelta(minutes=1)
"""Seconds between two words about a judgement, at first and once it has lasted long."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a rollout needs done that is neither an instance nor traffic.

    `prepare` makes the new version's folder; `hook` runs a hook and returns its exit status and last output.
    """

    prepare: Callable[[RolloutRecord], Awaitable[None]]
    hook: Callable[[RolloutRecord, str], Awaitable[tuple[int, Sequence[str]]]]


class Performer:
    """Makes steps true. `against` says what speaks against going on, if anything does; on a way back, nothing."""

    def __init__(
        self,
        keeper: Keeper,
        watch: Watch,
        clock: Clock,
        work: Work,
        book: Book,
        against: Callable[[], Setback | None],
    ) -> None:
        self._keeper, self._watch, self._clock, self._work = keeper, watch, clock, work
        self._book, self._against = book, against

    async def perform(self, number: int, before: Demand, began: datetime) -> Judgement | None:
        """Return when the `number`-th step, begun at `began`, is true; what was judged or said. Raises Setback."""
        keeper = self._keeper
        match self._book.record.steps[number - 1]:
            case Run(hook):
                await self._hook(hook)
            case Scale(version, count) if count > before.count(version):
                patience = self._patience(version) * ceil((count - before.count(version)) / AT_ONCE)
                await self.until(keeper.scaled_up(version, count), patience, version)
            case Scale(version, count):
                await self.until(keeper.scaled_down(version, count))
            case Check(version):
                await self.until(keeper.checked(version), CHECK_SECONDS, version)
            case Shift(shares):
                await self.until(keeper.shifted(dict(shares)), SHIFT_SECONDS)
            case Judge(until):
                return await self._judge(until, number, began)
            case Hold(question):
                return await self._ask(number, question)
        return None

    async def until(
        self,
        true: Awaitable[T],
        limit: float | None = None,
        starting: Revision | None = None,
        late: str | None = None,
    ) -> T:
        """What `true` returns. Raises Setback when it is `late`, or when something speaks against going on.

        Where both come at once, what speaks against it counts.
        """
        wanted = asyncio.ensure_future(true)
        waits: list[asyncio.Future[Any]] = [
            wanted,
            asyncio.ensure_future(self._keeper.bell.until(lambda: self._against() is not None)),
        ]
        if limit is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep(limit)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if wanted.done() and (wanted.exception() or self._against() is None):
                return wanted.result()
        except RouterRefused as refusal:
            raise Setback(refusal.message) from refusal
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        raise await self._explained(
            self._against() or (Setback(late) if late else self._late(limit, starting)), starting
        )

    def _late(self, limit: float | None, starting: Revision | None) -> Setback:
        why = "; ".join(self._keeper.fleet.problems(starting)) if starting else "the router did not confirm it"
        return Setback(f"not done within {limit or 0:g} s: {why or 'no reason known'}")

    async def _explained(self, setback: Setback, starting: Revision | None) -> Setback:
        if starting is not None and not setback.log and not setback.person:
            setback.log = await self._keeper.fleet.last_lines(starting)
        return setback

    def _patience(self, version: Revision) -> float:
        health = self._keeper.version(version).health
        return (health.deadline + health.min_ready).total_seconds()

    # Judging

    async def _judge(self, until: Silence | Proof, number: int, began: datetime) -> Judgement:
        person = self._book.record.person
        if person.asked is not None and person.step == number:  # it was undecided before a restart
            return await self._ask(number, person.asked)
        if isinstance(until, Proof):
            self._watch.prove(number, until.gate)
        said = await self.until(self._verdict(until, number, began))
        if isinstance(said, Question):
            return await self._ask(number, said.text)
        if isinstance(said, Leaving):
            raise Setback(said.reason)
        if said.alarm:
            raise Setback(said.reason, judgement=said)
        return said

    async def _verdict(self, until: Silence | Proof, number: int, began: datetime) -> Decided:
        while True:
            wait = self._wait(until, began)
            if wait.left <= timedelta(0):
                await self._watch.look()
                wait = self._wait(until, began)
            said = decide(wait, self._watch, self._book.record.judging)
            if self._book.record.person.full:
                return self._passed()
            if said is not None:
                self._watch.said(number)
                return said
            left = max(0.0, wait.left.total_seconds())
            text = self._so_far(until, left)
            waited = round(wait.waited.total_seconds(), 3)
            self._book.tell("judging", step=number, text=text, heard=self._watch.heard, waited=waited)
            pause = OFTEN if wait.waited < LONG else SELDOM
            await self._clock.sleep(min(pause, left) if left else OFTEN)

    def _wait(self, until: Silence | Proof, began: datetime) -> Wait:
        new, old, demand = self._book.record.new, self._book.record.old, self._keeper.demand
        shares = (demand.share(version) if version else NOTHING for version in (new, old))
        return Wait(until, self._watch.watched(began), *shares)

    def _so_far(self, until: Silence | Proof, left: float) -> str:
        if isinstance(until, Silence):
            return f"{left:.0f} s left; {self._watch.silence().reason}"
        return f"at most {left:.0f} s left; {self._watch.proof().reason}"

    # Asking

    async def _ask(self, number: int, question: str) -> Judgement:
        """Return when a person let it pass. Raises Setback when nobody did in time."""
        book = self._book
        if not book.record.person.full and book.record.person.passed < number:
            within = book.record.answered_within
            left = min(book.ask(number, question) + within - self._clock.now(), within)

            def passed() -> bool:
                return book.record.person.full or book.record.person.passed >= number

            nobody = f"nobody answered within {quantities.clock(within.total_seconds())}: {question}"
            await self.until(self._keeper.bell.until(passed), max(0.0, left.total_seconds()), late=nobody)
        return self._passed()

    def _passed(self) -> Judgement:
        who = self._book.record.person.who or "somebody"
        return Judgement(Verdict.PASS, Basis.PERSON, f"{who} let it pass")

    async def _hook(self, hook: str) -> None:
        """A hook is never interrupted: what it has begun, it ends."""
        if hook == "after":
            self._book.seal(hook)
        self._book.tell_once("hook", hook=hook, state="began")
        status, output = await self._work.hook(self._book.record, hook)
        self._book.tell_once("hook", hook=hook, state="ended", status=status)
        if status != 0:
            raise Setback(f"the {hook} hook exited with status {status}", tuple(output))
