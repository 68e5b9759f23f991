"""A journal that was restored from its copy does not know what was started since: nothing of that is left running."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from segue.core.release import Rolling
from segue.engine.control import ControlPlane
from segue.engine.database import KEPT_DAMAGED
from segue.engine.orders import Asker
from segue.testing.plane import Lab, an_order, deployed, status

LONG = Rolling(first_judge=timedelta(hours=1), judge=timedelta(hours=1))


def test_instances_that_a_restored_journal_does_not_know_are_ended(room: Path) -> None:
    lab = Lab(room)

    async def first(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=2))
        await plane.deploy(an_order("v2", replicas=2, strategy=LONG), Asker())
        await asyncio.sleep(60)

    async def second(plane: ControlPlane) -> None:
        await asyncio.sleep(60)
        [shop] = status(plane)["services"]
        assert (shop["stable"], shop["rollout"], set(shop["versions"])) == ("v1", None, {"v1"})
        assert [i["state"] for i in shop["versions"]["v1"]["instances"]] == ["ready", "ready"]
        notes = [event.body["text"] for event in plane.journal.events(0) if event.event == "note"]
        assert "1 instances that the restored journal does not know were ended" in notes

    lab.run(first)
    assert _made(room) == {"v1.1", "v2.1"}
    assert sorted(instance.intent.revision for instance in lab.world.platform.running) == ["v1.1", "v1.1", "v2.1"]
    _damage(room / "journal" / "journal.db")
    lab.run(second)
    assert sorted(instance.intent.revision for instance in lab.world.platform.running) == ["v1.1", "v1.1"]
    assert _made(room) == {"v1.1"}


def test_of_damaged_journals_the_newest_are_kept(room: Path) -> None:
    lab = Lab(room)
    lab.run(lambda plane: deployed(plane, an_order("v1", replicas=1)))

    async def found(plane: ControlPlane) -> set[str]:
        return {path.name for path in (room / "journal").glob("journal.damaged-*.db")}

    kept: list[set[str]] = []
    for _ in range(KEPT_DAMAGED + 2):
        lab.clock.set(timedelta(hours=1))
        _damage(room / "journal" / "journal.db")
        kept.append(lab.run(found))
    assert [len(names) for names in kept] == [1, 2, 3, 3, 3]
    assert kept[-1] - kept[-2] and kept[-2] - kept[-1]


def test_what_is_deployed_when_the_disk_has_room_again_is_not_refused(room: Path) -> None:
    lab = Lab(room)

    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1", replicas=1))
        plane.journal._db._free_reserve()  # the disk was full at the end of a rollout
        assert (await deployed(plane, an_order("v2", replicas=1))).outcome == "promoted"
        assert (room / "journal" / "reserve").exists()

    lab.run(scene)


def _made(home: Path) -> set[str]:
    return {path.name for path in (home / "versions" / "shop").iterdir()}


def _damage(journal: Path) -> None:
    for path in journal.parent.glob("journal.db-*"):
        path.unlink()
    journal.write_bytes(b"\xff" * journal.stat().st_size)
