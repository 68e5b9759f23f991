"""The contract of the platform port: what every adapter, and the fake, keeps.

A test module makes a subclass of `PlatformContract` with a fixture `stand`. The suite waits on the clock of the
loop that the stand runs it in, so a fake may run it in virtual time.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from enum import Enum, auto
from typing import Any, TypeVar

import pytest

from segue.core.traffic import InstanceId, copied
from segue.core.version import Version
from segue.errors import StartFailed
from segue.ports import Instance, Platform

T = TypeVar("T")

ONE, TWO = InstanceId("shop-v1.1-1"), InstanceId("shop-v1.1-2")
GRACE, NO_GRACE = timedelta(seconds=10), timedelta(0)
PATIENCE = 20.0
"""Seconds that a condition may take to become true."""


class Does(Enum):
    """What an instance of a version does once it is started."""

    SERVE = auto()
    """It writes the lines ``one``, ``two`` and ``three``, listens at its address, and ends when it is told to."""

    IGNORE = auto()
    """The same, but it does not end when it is told to."""

    END = auto()
    """It ends by itself, with status 3."""

    HIDE = auto()
    """It runs, and listens nowhere."""

    NOTHING = auto()
    """It cannot be started."""


class Stand(ABC):
    """One platform under test, and the world it starts its instances in."""

    @property
    @abstractmethod
    def platform(self) -> Platform:
        """The platform."""

    @abstractmethod
    def version(self, does: Does) -> Version:
        """A version whose instances do that. One platform is asked for one kind of version only."""

    @abstractmethod
    def restarted(self) -> Platform:
        """The platform of a control plane that was started after the first one was killed, in the same world."""

    @abstractmethod
    def run(self, story: Coroutine[Any, Any, T]) -> T:
        """The result of `story` in an event loop."""


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when `condition` is true; AssertionError if that takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while not await condition():
        assert loop.time() < deadline, "it never became true"
        await asyncio.sleep(0.01)


async def _begin(stand: Stand, does: Does, name: InstanceId = ONE) -> Instance:
    version = stand.version(does)
    return await stand.platform.start(version, await stand.platform.place(version, name))


async def _lines(platform: Platform, lines: int) -> list[str]:
    return [line async for line in platform.logs(ONE, lines=lines, follow=False)]


class PlatformContract:
    """The suite."""

    def test_an_instance_that_was_started_is_found_until_it_is_stopped(self, stand: Stand) -> None:
        async def story() -> None:
            instance = await _begin(stand, Does.SERVE)
            assert instance.id == ONE
            assert await stand.platform.find([instance.intent]) == [instance]
            await until(lambda: stand.platform.listens(instance))
            assert await stand.platform.stop(instance, "TERM", GRACE)
            assert await stand.platform.find([instance.intent]) == []
            assert not await stand.platform.listens(instance)

        stand.run(story())

    def test_every_start_has_an_address_and_a_nonce_of_its_own(self, stand: Stand) -> None:
        async def story() -> None:
            version = stand.version(Does.SERVE)
            intents = [await stand.platform.place(version, name) for name in (ONE, ONE, TWO)]
            assert len({intent.address for intent in intents}) == len({intent.nonce for intent in intents}) == 3
            assert [intent.instance for intent in intents] == [ONE, ONE, TWO]

        stand.run(story())

    def test_placing_an_instance_starts_nothing(self, stand: Stand) -> None:
        async def story() -> None:
            intent = await stand.platform.place(stand.version(Does.SERVE), ONE)
            assert await stand.platform.find([intent]) == []

        stand.run(story())

    def test_an_intent_is_started_once_only(self, stand: Stand) -> None:
        async def story() -> None:
            instance = await _begin(stand, Does.SERVE)
            with pytest.raises(StartFailed):
                await stand.platform.start(stand.version(Does.SERVE), instance.intent)
            assert await stand.platform.find([instance.intent]) == [instance]
            await stand.platform.stop(instance, "TERM", GRACE)
            with pytest.raises(StartFailed):
                await stand.platform.start(stand.version(Does.SERVE), instance.intent)

        stand.run(story())

    def test_an_intent_that_was_not_found_can_never_be_started(self, stand: Stand) -> None:
        async def story() -> None:
            version = stand.version(Does.SERVE)
            intent = await stand.platform.place(version, ONE)
            assert await stand.restarted().find([intent]) == []
            with pytest.raises(StartFailed):
                await stand.platform.start(version, intent)
            assert await stand.platform.find([intent]) == []

        stand.run(story())

    def test_what_cannot_be_started_says_why_and_is_not_found(self, stand: Stand) -> None:
        async def story() -> None:
            version = stand.version(Does.NOTHING)
            intent = await stand.platform.place(version, ONE)
            with pytest.raises(StartFailed) as failure:
                await stand.platform.start(version, intent)
            assert failure.value.message
            assert await stand.platform.find([intent]) == []

        stand.run(story())

    def test_the_end_of_an_instance_is_told_with_its_status(self, stand: Stand) -> None:
        async def story() -> None:
            instance = await _begin(stand, Does.END)
            async with asyncio.timeout(PATIENCE):
                assert await stand.platform.gone(instance) == 3
                assert await stand.platform.gone(instance) == 3
            assert await stand.platform.find([instance.intent]) == []

        stand.run(story())

    def test_an_instance_that_runs_is_not_gone(self, stand: Stand) -> None:
        async def story() -> None:
            instance = await _begin(stand, Does.SERVE)
            waiting = asyncio.ensure_future(stand.platform.gone(instance))
            await until(lambda: stand.platform.listens(instance))
            assert not waiting.done()
            await stand.platform.stop(instance, "TERM", GRACE)
            async with asyncio.timeout(PATIENCE):
                await waiting

        stand.run(story())

    def test_an_instance_that_listens_nowhere_does_not_listen(self, stand: Stand) -> None:
        async def story() -> None:
            instance = await _begin(stand, Does.HIDE)
            assert not await stand.platform.listens(instance)
            await stand.platform.stop(instance, "TERM", NO_GRACE)

        stand.run(story())

    def test_an_instance_that_does_not_end_is_killed_after_the_grace(self, stand: Stand) -> None:
        async def story() -> None:
            instance = await _begin(stand, Does.IGNORE)
            await until(lambda: stand.platform.listens(instance))
            assert not await stand.platform.stop(instance, "TERM", timedelta(milliseconds=200))
            assert await stand.platform.find([instance.intent]) == []

        stand.run(story())

    def test_an_instance_is_killed_at_once_where_there_is_no_grace(self, stand: Stand) -> None:
        async def story() -> None:
            instance = await _begin(stand, Does.SERVE)
            assert not await stand.platform.stop(instance, "TERM", NO_GRACE)
            assert await stand.platform.find([instance.intent]) == []

        stand.run(story())

    def test_stopping_twice_is_stopping_once(self, stand: Stand) -> None:
        async def story() -> None:
            instance = await _begin(stand, Does.SERVE)
            await until(lambda: stand.platform.listens(instance))
            assert await stand.platform.stop(instance, "TERM", GRACE)
            assert await stand.platform.stop(instance, "TERM", NO_GRACE)
            assert await stand.restarted().stop(instance, "TERM", GRACE)

        stand.run(story())

    def test_an_instance_that_has_ended_is_stopped_without_a_kill(self, stand: Stand) -> None:
        async def story() -> None:
            instance = await _begin(stand, Does.END)
            async with asyncio.timeout(PATIENCE):
                await stand.platform.gone(instance)
            assert await stand.platform.stop(instance, "TERM", GRACE)

        stand.run(story())

    def test_instances_outlive_the_control_plane_and_are_adopted(self, stand: Stand) -> None:
        async def story() -> None:
            instance = await _begin(stand, Does.SERVE)
            after = stand.restarted()
            assert await after.find([instance.intent]) == [instance]
            await until(lambda: after.listens(instance))
            waiting = asyncio.ensure_future(after.gone(instance))
            assert await after.stop(instance, "TERM", GRACE)
            async with asyncio.timeout(PATIENCE):
                await waiting
            assert await after.find([instance.intent]) == []

        stand.run(story())

    def test_what_nobody_knows_of_is_ended_and_what_is_known_goes_on(self, stand: Stand) -> None:
        async def story() -> None:
            known, other = await _begin(stand, Does.SERVE), await _begin(stand, Does.SERVE)
            await until(lambda: stand.platform.listens(other))
            after = stand.restarted()
            assert await after.end_others([known.intent], GRACE) == 1
            assert await after.find([known.intent, other.intent]) == [known]
            assert await after.end_others([known.intent], GRACE) == 0
            assert await after.end_others([], GRACE) == 1

        stand.run(story())

    def test_the_last_lines_of_the_log_are_read_over_restarts_of_the_instance(self, stand: Stand) -> None:
        async def story() -> None:
            assert await _lines(stand.platform, 5) == []
            for _ in range(2):
                instance = await _begin(stand, Does.SERVE)
                await until(lambda instance=instance: stand.platform.listens(instance))  # type: ignore[misc]
                await stand.platform.stop(instance, "TERM", GRACE)
            assert await _lines(stand.platform, 2) == ["two", "three"]
            assert await _lines(stand.platform, 4) == ["three", "one", "two", "three"]
            assert await _lines(stand.restarted(), 99) == ["one", "two", "three"] * 2
            assert await _lines(stand.platform, 0) == []

        stand.run(story())

    def test_the_log_goes_with_the_version_that_wrote_it(self, stand: Stand) -> None:
        async def story() -> None:
            instance = await _begin(stand, Does.SERVE)
            await until(lambda: stand.platform.listens(instance))
            await stand.platform.stop(instance, "TERM", GRACE)
            await stand.platform.tend([copied(ONE)])
            assert await _lines(stand.platform, 5) == ["one", "two", "three"]
            await stand.platform.tend([])
            assert await _lines(stand.platform, 5) == []

        stand.run(story())

    def test_a_log_that_is_followed_tells_what_comes(self, stand: Stand) -> None:
        async def story() -> None:
            told: list[str] = []

            async def follow() -> None:
                async for line in stand.platform.logs(ONE, lines=10, follow=True):
                    told.append(line)

            async def all_told() -> bool:
                return told == ["one", "two", "three"]

            following = asyncio.ensure_future(follow())
            instance = await _begin(stand, Does.SERVE)
            await until(all_told)
            following.cancel()
            await stand.platform.stop(instance, "TERM", GRACE)

        stand.run(story())
