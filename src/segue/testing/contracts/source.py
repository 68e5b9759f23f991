"""The contract of the source port: what everything that is asked about a version, and the fake, keeps.

A test module makes a subclass of `SourceContract` with a fixture `stand`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from datetime import timedelta
from enum import Enum, auto
from typing import Any, TypeVar

from segue.core.sources import About, Nothing, Values, Word
from segue.ports import Source

T = TypeVar("T")

TIMEOUT = timedelta(seconds=1)
"""The time that each source under test is given."""
PATIENCE = 20.0
"""Seconds that a source may take more than its time on a busy machine."""


class Says(Enum):
    """What is behind a source."""

    WELL = auto()
    """It speaks for the new version."""

    ILL = auto()
    """It speaks against it."""

    NONSENSE = auto()
    """It answers, and nothing that can be used."""

    NOBODY = auto()
    """Nobody is there."""

    LATE = auto()
    """It does not answer within the time."""


class Stand(ABC):
    """One kind of source under test, and what it asks."""

    @property
    @abstractmethod
    def about(self) -> About:
        """Whom it is asked about: v2.1 in place of v1.1 of shop."""

    @abstractmethod
    def source(self, says: Says) -> Source:
        """A source behind which there is that."""

    @abstractmethod
    def run(self, story: Coroutine[Any, Any, T]) -> T:
        """The result of `story` in an event loop."""


class SourceContract:
    """The suite."""

    def test_what_speaks_for_a_version_is_told_from_what_speaks_against_it(self, stand: Stand) -> None:
        async def story() -> None:
            well = await stand.source(Says.WELL).ask(stand.about)
            ill = await stand.source(Says.ILL).ask(stand.about)
            assert isinstance(well, Values | Word) and type(ill) is type(well)
            assert ill != well

        stand.run(story())

    def test_what_goes_wrong_is_an_answer_with_its_reason_and_never_raised(self, stand: Stand) -> None:
        async def story() -> None:
            for says in (Says.NONSENSE, Says.NOBODY):
                answer = await stand.source(says).ask(stand.about)
                assert isinstance(answer, Nothing) and answer.why.strip(), says

        stand.run(story())

    def test_who_does_not_answer_is_waited_for_no_longer_than_the_time(self, stand: Stand) -> None:
        async def story() -> None:
            loop = asyncio.get_running_loop()
            began = loop.time()
            answer = await stand.source(Says.LATE).ask(stand.about)
            took = loop.time() - began
            assert isinstance(answer, Nothing) and "within 1 s" in answer.why
            assert TIMEOUT.total_seconds() * 0.9 <= took <= TIMEOUT.total_seconds() + PATIENCE

        stand.run(story())

    def test_asked_again_it_says_the_same_and_asking_can_be_given_up(self, stand: Stand) -> None:
        async def story() -> None:
            source = stand.source(Says.ILL)
            assert await source.ask(stand.about) == await source.ask(stand.about)
            late = asyncio.ensure_future(stand.source(Says.LATE).ask(stand.about))
            await asyncio.sleep(0.01)
            late.cancel()
            assert isinstance((await asyncio.gather(late, return_exceptions=True))[0], asyncio.CancelledError)
            assert not isinstance(await stand.source(Says.ILL).ask(stand.about), Nothing)

        stand.run(story())
