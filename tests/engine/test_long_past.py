"""What is done often costs the same with a long past: SQLite's own steps and changes are counted, not time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from segue.core.demand import Demand
from segue.core.release import Release, Revision, Rolling, Side
from segue.core.traffic import InstanceId, Route
from segue.engine.journal import Journal
from segue.engine.records import Event, RolloutRecord, ServiceRecord
from segue.ports import Intent
from segue.testing.clock import VirtualClock

SHORT, LONG = 30, 1000
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def journal(folder: Path, rollouts: int) -> Journal:
    """A journal with so many rollouts of one service, which have ended."""
    made = Journal(folder, VirtualClock())
    made.put_service(ServiceRecord("shop", Route(), Demand(), Revision(f"v{rollouts - 1}.1")))
    with made.transaction():
        for number in range(rollouts):
            made.put_rollout(rollout(number))
            for _ in range(5):
                made.tell("note", service="shop", rollout=f"r{number}", text="something happened")
    return made


def rollout(number: int, *, ended: bool = True) -> RolloutRecord:
    at = NOON + timedelta(minutes=number)
    new, old = Revision(f"v{number}.1"), Revision(f"v{number - 1}.1")
    return RolloutRecord(
        id=f"r{number}",
        service="shop",
        kind="deploy",
        strategy="rolling",
        old=old,
        new=new,
        who="somebody",
        asked=None,
        started=at,
        release=Release(Side(new, 1), Side(old, 1), Rolling()),
        decided=at if ended else None,
        ended=at if ended else None,
        outcome="promoted" if ended else None,
    )


QUESTIONS: dict[str, Callable[[Journal], object]] = {
    "which rollout runs": lambda journal: journal.unfinished("shop"),
    "the newest rollouts of a service": lambda journal: journal.rollouts("shop", 20),
    "the newest rollouts": lambda journal: journal.rollouts(None, 20),
    "what served last": lambda journal: next(journal.promoted("shop")),
    "how the last one was": lambda journal: next(journal.past("shop")),
    "what happened in a rollout": lambda journal: journal.events(rollout="r3"),
    "the steps of a rollout": lambda journal: journal.steps("r3"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_takes_no_longer_after_many_rollouts(question: str, tmp_path: Path) -> None:
    short, long = (journal(tmp_path / str(number), number) for number in (SHORT, LONG))
    ask = QUESTIONS[question]
    assert _steps(long, ask) <= 2 * _steps(short, ask)


def _steps(journal: Journal, ask: Callable[[Journal], object]) -> int:
    """How many times SQLite has done ten things for it."""
    seen = [0]

    def step() -> int:
        seen[0] += 1
        return 0

    journal._db._db.set_progress_handler(step, 10)
    ask(journal)
    return seen[0] + 1


def test_who_asks_for_a_service_again_is_not_told_from_the_disk_but_as_it_is(tmp_path: Path) -> None:
    made = journal(tmp_path, 1)
    first = made.service("shop")
    assert made.service("shop") is first
    made.change_service("shop", degraded="the way back failed")
    assert (found := made.service("shop")) and found.degraded
    made.set_demand("shop", Demand({Revision("v1.1"): 3}))
    assert (found := made.service("shop")) and found.demand.count(Revision("v1.1")) == 3


def test_a_change_of_a_service_that_is_taken_back_was_never_there(tmp_path: Path) -> None:
    made = journal(tmp_path, 1)
    with pytest.raises(RuntimeError), made.transaction():
        made.change_service("shop", degraded="for a moment")
        assert (found := made.service("shop")) and found.degraded
        raise RuntimeError
    assert (found := made.service("shop")) and found.degraded is None


# The copy


def test_the_copy_is_brought_up_to_date_by_what_is_new_alone(tmp_path: Path) -> None:
    changes = []
    for number in (SHORT, LONG):
        made = journal(tmp_path / str(number), number)
        made.copy(f"r{number - 1}")
        before = made._db._db.total_changes
        made.put_rollout(rollout(number))
        made.copy(f"r{number}")
        changes.append(made._db._db.total_changes - before)
        made.close()
    assert changes[1] == changes[0]


def test_the_copy_holds_all_that_the_journal_holds(tmp_path: Path) -> None:
    made = journal(tmp_path, 5)
    made.copy("r4")
    made.put_rollout(rollout(5, ended=False))
    made.put_rollout(rollout(6))
    made.copy("r6")
    made.put_rollout(rollout(5))
    made.close()
    made = Journal(tmp_path, VirtualClock())
    made.put_rollout(rollout(7))
    made.put_rollout(rollout(8))
    made.copy("r8")  # r7 was never copied: that control plane was killed
    there = [record.id for record in made.rollouts()]
    made.close()
    for file in tmp_path.glob("journal.db*"):
        file.unlink()
    mended = Journal(tmp_path, VirtualClock())
    assert mended.restored
    assert [record.id for record in mended.rollouts()] == there
    assert mended.unfinished("shop") is None
    assert mended.service("shop") is not None


def test_a_request_is_known_for_a_week(tmp_path: Path) -> None:
    clock = VirtualClock()
    made = Journal(tmp_path, clock)
    made.put_request("first", "r1")
    clock.pass_by(6 * 24 * 3600)
    made.put_request("second", "r2")
    assert (made.answered("first"), made.answered("second")) == ("r1", "r2")
    clock.pass_by(2 * 24 * 3600)
    made.put_request("third", "r3")
    assert (made.answered("first"), made.answered("second")) == (None, "r2")


def test_a_copy_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    made = journal(tmp_path, 5)
    (tmp_path / "journal.copy.db").write_bytes(b"not a database " * 1000)
    for _ in range(2):
        made.copy("r4")
    made.close()
    (tmp_path / "journal.db").unlink()
    assert len(Journal(tmp_path, VirtualClock()).rollouts()) == 5


# What is waited for


def test_what_is_found_out_again_is_not_waited_for_and_all_else_is(tmp_path: Path) -> None:
    made = Journal(tmp_path, VirtualClock())
    said: list[str] = []
    made._db._db.set_trace_callback(said.append)
    made.put_intent(Intent("shop", InstanceId("shop-v1.1-1"), Revision("v1.1"), "nonce", "127.0.0.1:1"), 0, False)
    made.mark_intent("nonce", stopping=True)
    assert not any("synchronous" in statement for statement in said)
    made.mark_intent("nonce", checked=True)
    made.drop_intent("nonce")
    levels = [statement.rpartition("=")[2] for statement in said if "synchronous" in statement]
    assert levels == ["NORMAL", "FULL"] * 2
    with made.transaction():
        made.drop_intent("another")
    assert made._db._db.execute("PRAGMA main.synchronous").fetchone()[0] == 2
    assert made.intents("shop") == []


# Those who follow


def test_who_follows_one_rollout_is_not_woken_by_another(tmp_path: Path) -> None:
    made, clock = journal(tmp_path, 1), VirtualClock()
    asked: list[str | None] = []
    events = made.events

    def counted(after: int = 0, **of: str | None) -> list[Event]:
        asked.append(of["rollout"])
        return events(after, **of)

    made.events = counted  # type: ignore[method-assign]

    async def first(rollout: str) -> str:
        async for event in made.follow(made.last_seq(), rollout=rollout):
            return str(event.body["text"])
        raise AssertionError

    async def scene() -> None:
        followers = {name: asyncio.create_task(first(name)) for name in ("mine", "another")}
        await clock.idle()
        asked.clear()
        for number in range(10):
            made.tell("note", service="shop", rollout="another", text=str(number))
            await clock.idle()
        assert await followers["another"] == "0"
        assert asked == ["another"]
        made.tell("note", service="shop", rollout="mine", text="at last")
        assert await followers["mine"] == "at last"

    clock.run(scene())


def test_more_events_than_are_read_at_a_time_are_followed_without_waiting(tmp_path: Path) -> None:
    made, clock = journal(tmp_path, 1), VirtualClock()
    with made.transaction():
        for _ in range(2500):
            made.tell("note", service="shop", rollout="long", text="so it goes")

    async def scene() -> None:
        seen = 0
        async for _ in made.follow(rollout="long"):
            seen += 1
            if seen == 2500:
                return

    clock.run(scene())
