"""The contract of the evidence port: what every adapter that counts a router's requests, and the fake, keeps.

A test module makes a subclass of `EvidenceContract` with a fixture `stand`. Counts may lag: the suite waits for
them, on the clock of the loop that the stand runs it in, so a fake may run it in virtual time.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeVar

from segue.core.paths import OTHERS
from segue.core.release import ALL, Experiment, Goal, Revision
from segue.core.traffic import Books, InstanceId, Sample
from segue.ports import Evidence

T = TypeVar("T")

OLD, NEW = Revision("v1.1"), Revision("v2.1")
HALVES = {OLD: Fraction(1, 2), NEW: Fraction(1, 2)}
PATIENCE = 20.0
"""Seconds that counts may take to become right."""


class Stand(ABC):
    """One source of evidence under test, and the service ``shop`` whose requests it counts."""

    @property
    @abstractmethod
    def evidence(self) -> Evidence:
        """The source of evidence."""

    @abstractmethod
    async def route(
        self,
        shares: Mapping[Revision, Fraction],
        *,
        trial: Revision | None = None,
        instances: int = 1,
        experiment: Experiment | None = None,
        paths: tuple[str, ...] = (),
        learning: bool = False,
    ) -> None:
        """Split the traffic so. A version in `trial` stands behind the shield. Each has so many `instances`."""

    @abstractmethod
    async def fail(self, *names: Revision | InstanceId) -> None:
        """Let these versions, or single instances, answer every request with 500, the others with 200."""

    @abstractmethod
    async def request(self, count: int, path: str = "/") -> None:
        """Let a user send so many requests that are safe to repeat; return when they have been answered."""

    @abstractmethod
    def run(self, story: Coroutine[Any, Any, T]) -> T:
        """The result of `story` in an event loop."""


def instance(revision: Revision, number: int) -> InstanceId:
    """The `number`-th instance of a version, from 1."""
    return InstanceId(f"shop-{revision}-{number}")


async def until(condition: Callable[[], Awaitable[bool]], what: Callable[[], Awaitable[object]]) -> None:
    """Return when `condition` is true; AssertionError with `what` was seen if that takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while not await condition():
        assert loop.time() < deadline, await what()
        await asyncio.sleep(0.05)


async def _told(news: Callable[[], Awaitable[Sequence[T]]], count: int) -> list[T]:
    """All that was told, once there is so much of it."""
    seen: list[T] = []

    async def enough() -> bool:
        seen.extend(await news())
        return len(seen) >= count

    async def found() -> object:
        return seen

    await until(enough, found)
    return seen


def balanced(books: Books) -> bool:
    """Whether every request is in exactly one column."""
    columns = sum(books.answered.values()) + sum(books.failed.values())
    return books.total == columns + books.shielded + books.cut + books.unserved


async def _counted(stand: Stand, attempts: int, total: int) -> tuple[Mapping[Revision, Sample], Books]:
    """Sample and books once so many attempts and requests have been counted."""

    async def counts() -> tuple[Mapping[Revision, Sample], Books]:
        return await stand.evidence.sample("shop"), await stand.evidence.books("shop")

    async def complete() -> bool:
        samples, books = await counts()
        return sum(sample.attempts for sample in samples.values()) == attempts and books.total == total

    await until(complete, counts)
    return await counts()


def _numbers(samples: Mapping[Revision, Sample]) -> dict[Revision, tuple[int, int]]:
    """Attempts and failures of each version that had any."""
    return {revision: (s.attempts, s.failures) for revision, s in samples.items() if s.attempts}


def _positive(counts: Mapping[Revision, int]) -> dict[Revision, int]:
    return {revision: count for revision, count in counts.items() if count}


class EvidenceContract:
    """The suite."""

    def test_without_a_request_there_is_nothing(self, stand: Stand) -> None:
        async def story() -> None:
            await stand.route({OLD: ALL})
            assert _numbers(await stand.evidence.sample("shop")) == {}
            assert (await stand.evidence.books("shop")).total == 0

        stand.run(story())

    def test_every_request_is_counted_once(self, stand: Stand) -> None:
        async def story() -> None:
            await stand.route({OLD: ALL})
            await stand.request(30)
            samples, books = await _counted(stand, 30, 30)
            assert _numbers(samples) == {OLD: (30, 0)}
            assert _positive(books.answered) == {OLD: 30} and balanced(books)

        stand.run(story())

    def test_attempts_and_answers_are_counted_by_version(self, stand: Stand) -> None:
        async def story() -> None:
            await stand.route(HALVES)
            await stand.request(60)
            samples, books = await _counted(stand, 60, 60)
            assert set(_numbers(samples)) == {OLD, NEW}
            assert _positive(books.answered) == {revision: s.attempts for revision, s in samples.items()}
            assert balanced(books)

        stand.run(story())

    def test_failures_are_told_from_answers(self, stand: Stand) -> None:
        async def story() -> None:
            await stand.route({OLD: ALL})
            await stand.request(10)
            await stand.fail(OLD)
            await stand.request(20)
            samples, books = await _counted(stand, 30, 30)
            assert _numbers(samples) == {OLD: (30, 20)}
            assert (_positive(books.answered), _positive(books.failed)) == ({OLD: 10}, {OLD: 20})
            assert balanced(books)

        stand.run(story())

    def test_what_the_shield_caught_is_a_failure_of_the_new_version_and_no_traffic_of_the_old_one(
        self, stand: Stand
    ) -> None:
        async def story() -> None:
            await stand.route(HALVES, trial=NEW)
            await stand.fail(NEW)
            await stand.request(60)
            samples, books = await _counted(stand, 60, 60)
            tried, failed = _numbers(samples)[NEW]
            assert tried == failed == books.shielded > 0
            assert _numbers(samples)[OLD] == (60 - tried, 0)
            assert _positive(books.answered) == {OLD: 60 - tried} and not _positive(books.failed)
            assert balanced(books)

        stand.run(story())

    def test_counts_go_on_when_the_traffic_is_shifted(self, stand: Stand) -> None:
        async def story() -> None:
            for number, share in enumerate((Fraction(0), Fraction(1, 2), Fraction(1)), 1):
                await stand.route({OLD: 1 - share, NEW: share})
                await stand.request(20)
                samples, books = await _counted(stand, 20 * number, 20 * number)
                assert balanced(books)
            assert min(sample.attempts for sample in samples.values()) >= 20

        stand.run(story())

    def test_a_bad_instance_is_named_among_good_ones(self, stand: Stand) -> None:
        async def story() -> None:
            bad, good = instance(NEW, 2), [instance(OLD, 1), instance(OLD, 2), instance(NEW, 1)]
            await stand.route(HALVES, trial=NEW, instances=2)
            await stand.fail(bad)
            await stand.request(80)
            samples, _ = await _counted(stand, 80, 80)
            found = await stand.evidence.instances("shop")
            assert found[bad].attempts == found[bad].failures > 0
            assert all(found[name].attempts > 0 == found[name].failures for name in good)
            for revision, sample in samples.items():
                parts = [found[instance(revision, number)] for number in (1, 2)]
                assert sum(part.attempts for part in parts) == sample.attempts
                assert sum(part.failures for part in parts) == sample.failures

        stand.run(story())

    def test_an_instance_that_got_nothing_has_nothing(self, stand: Stand) -> None:
        async def story() -> None:
            await stand.route({OLD: ALL, NEW: Fraction(0)})
            await stand.request(10)
            await _counted(stand, 10, 10)
            found = await stand.evidence.instances("shop")
            assert {name: sample.attempts for name, sample in found.items()} == {
                instance(OLD, 1): 10,
                instance(NEW, 1): 0,
            }
            assert await stand.evidence.instances("other") == {}

        stand.run(story())

    def test_the_histogram_holds_every_attempt_that_was_answered(self, stand: Stand) -> None:
        async def story() -> None:
            await stand.route({OLD: ALL})
            await stand.request(25)

            async def found() -> object:
                return (await stand.evidence.sample("shop")).get(OLD)

            async def whole() -> bool:
                sample = (await stand.evidence.sample("shop")).get(OLD, Sample())
                return sum(sample.latency_us.values()) == 25

            await until(whole, found)

        stand.run(story())

    def test_where_nobody_is_served_the_requests_are_in_the_books_and_on_no_version(self, stand: Stand) -> None:
        async def story() -> None:
            await stand.route({})
            await stand.request(10)
            samples, books = await _counted(stand, 0, 10)
            assert _numbers(samples) == {}
            assert books.unserved == 10 and balanced(books)

        stand.run(story())

    def test_another_service_has_no_part_in_it(self, stand: Stand) -> None:
        async def story() -> None:
            await stand.route({OLD: ALL})
            await stand.request(10)
            await _counted(stand, 10, 10)
            assert _numbers(await stand.evidence.sample("other")) == {}
            assert (await stand.evidence.books("other")).total == 0

        stand.run(story())

    def test_who_takes_part_in_an_experiment_is_told_of_once(self, stand: Stand) -> None:
        async def story() -> None:
            await stand.route({OLD: ALL})
            await stand.request(3)
            evidence = stand.evidence
            assert await evidence.visits("shop") == ()
            await stand.route(HALVES, trial=NEW, experiment=Experiment(Goal("/")))
            for _ in range(20):
                await stand.request(1)

            seen = await _told(lambda: evidence.visits("shop"), 20)
            assert len(seen) == len({visit.user for visit in seen}) == 20
            assert {visit.version for visit in seen} == {OLD, NEW}
            assert {(visit.path, visit.status) for visit in seen} == {("/", 200)}
            assert not await evidence.visits("shop") and not await evidence.visits("other")
            await stand.route({NEW: ALL})
            await stand.request(3)
            assert await evidence.visits("shop") == ()

        stand.run(story())

    def test_paths_are_told_while_they_are_learned_and_each_once(self, stand: Stand) -> None:
        async def story() -> None:
            evidence = stand.evidence
            await stand.route({OLD: ALL, NEW: Fraction(0)}, trial=NEW)
            await stand.request(3, "/cart/7?secret=1")
            assert await evidence.paths("shop") == ()
            await stand.route({OLD: ALL, NEW: Fraction(0)}, trial=NEW, learning=True)
            await stand.request(20, "/cart/7?secret=1")

            assert set(await _told(lambda: evidence.paths("shop"), 20)) == {"/cart/7"}
            assert not await evidence.paths("other")
            await stand.route(HALVES, trial=NEW, paths=("/cart",))
            await stand.request(3, "/cart")
            assert await evidence.paths("shop") == ()

        stand.run(story())

    def test_what_comes_for_a_path_is_counted_by_itself_too(self, stand: Stand) -> None:
        async def story() -> None:
            evidence = stand.evidence
            await stand.route(HALVES, trial=NEW, paths=("/cart/big", "/cart"))
            await stand.fail(NEW)
            for path in ("/cart", "/cart/7", "/cart/big/7", "/carts", "/"):
                await stand.request(20, path)
            samples, books = await _counted(stand, 100, 100)
            assert balanced(books)
            apart = [sample.parts for sample in samples.values()]
            assert {path: sum(parts[path].attempts for parts in apart) for path in apart[0]} == {
                "/cart/big": 20,
                "/cart": 40,
                OTHERS: 40,
            }
            for revision, sample in samples.items():
                assert sum(part.attempts for part in sample.parts.values()) == sample.attempts
                for part in sample.parts.values():
                    assert part.failures == (part.attempts if revision == NEW else 0)

            async def timed() -> bool:
                parts = [
                    part for sample in (await evidence.sample("shop")).values() for part in sample.parts.values()
                ]
                return all(sum(part.latency_us.values()) == part.attempts for part in parts)

            await until(timed, lambda: evidence.sample("shop"))

        stand.run(story())
