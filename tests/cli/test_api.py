"""The routes that answer a hold, and the order that a manifest becomes. The control plane here only remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import pytest

from segue.api.app import make
from segue.api.asking import Caller
from segue.api.bodies import Deploy, order
from segue.core import release, version
from segue.core.release import Revision
from segue.engine.control import ControlPlane
from segue.engine.orders import Answer, Asker, Order
from segue.engine.records import Event, Hooks, Judging, RolloutRecord
from segue.errors import DiskFull, Refused
from segue.judge.settings import Margin, Settings
from segue.manifest.load import parse

NOW = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)


def a_rollout(id: str, **more: Any) -> RolloutRecord:
    """A rollout of shop to v2."""
    known = {"kind": "deploy", "strategy": "canary", "who": "ann", "asked": None, "started": NOW}
    return RolloutRecord(id, "shop", old=Revision("v1.1"), new=Revision("v2.1"), **(known | more))


@dataclass
class Shop:
    """A service that remembers what it was asked."""

    rollout: RolloutRecord | None = None
    record: Any = field(default_factory=lambda: StableRecord(Revision("v2.1")))
    asked: list[tuple[str, Asker, Any]] = field(default_factory=list)
    message: str | None = None

    def _answer(self, act: str, asker: Asker, more: Any = None) -> Answer:
        self.asked.append((act, asker, more))
        if self.rollout is None and asker.key is None:
            raise Refused("no rollout of shop runs", next="segue status")
        return Answer("r1", self.message)

    async def promote(self, asker: Asker, *, full: bool = False) -> Answer:
        return self._answer("promote", asker, full)

    async def pause(self, asker: Asker) -> Answer:
        return self._answer("pause", asker)

    async def resume(self, asker: Asker) -> Answer:
        return self._answer("resume", asker)

    async def rollback(self, to: str | None, asker: Asker) -> Answer:
        return self._answer("rollback", asker, to)

    async def restart(self, asker: Asker) -> Answer:
        return self._answer("restart", asker)

    retire = down = restart


@dataclass(frozen=True)
class StableRecord:
    """What is read of a service's record here."""

    stable: Revision | None


@dataclass
class Control:
    """The services, the rollouts, the requests that were answered, and the events that come."""

    shop: Shop = field(default_factory=Shop)
    rollouts: dict[str, RolloutRecord] = field(default_factory=lambda: {"r1": a_rollout("r1")})
    requests: dict[str, str] = field(default_factory=dict)
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.services, self.journal = {"shop": self.shop}, self

    def rollout(self, id: str) -> RolloutRecord | None:
        return self.rollouts.get(id)

    def answered(self, key: str) -> str | None:
        return self.requests.get(key)

    async def follow(self, after: int = 0, *, rollout: str) -> AsyncIterator[Event]:
        while True:
            yield await self.events.get()

    async def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        """The answer to a request."""
        app = make(cast(ControlPlane, self), lambda everything: None)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://segue") as client:
            return await client.post(path, json=body or {}, headers=headers)


@pytest.fixture
def control() -> Control:
    """A control plane on which r1 of shop runs."""
    return Control(Shop(a_rollout("r1")))


ASKS = [("promote", False), ("pause", None), ("resume", None), ("rollback", None)]


@pytest.mark.parametrize(("act", "more"), ASKS)
@pytest.mark.parametrize("of", ["services/shop", "rollouts/r1"])
async def test_the_service_is_asked_with_who_why_and_the_key(
    of: str, act: str, more: object, control: Control
) -> None:
    headers = {"X-Segue-Who": "bob", "Idempotency-Key": "k1"}
    answer = await control.post(f"/v1/{of}/{act}", {"reason": "it is fine"}, **headers)
    assert (answer.status_code, answer.json()) == (202, {"rollout": "r1"})
    ((asked, asker, told),) = control.shop.asked
    assert (asked, replace(asker, what=None), told) == (act, Asker("bob", "it is fine", "k1"), more)


async def test_a_request_is_the_same_again_if_it_asks_for_the_same(control: Control) -> None:
    for path, body in [("promote", {}), ("promote", {}), ("promote", {"full": True}), ("pause", {})]:
        await control.post(f"/v1/services/shop/{path}", body, **{"Idempotency-Key": "k1"})
    first, again, *others = (asker.what for _, asker, _ in control.shop.asked)
    assert first == again and len({first, *others}) == 3


def test_what_tells_a_deployment_from_another_is_no_hint_of_its_secrets() -> None:
    caller = Caller("/v1/services/shop/rollouts", "bob", "k1")

    def what(version: str, secret: str) -> str | None:
        return caller.asks(Deploy(manifest={}, folder="/x", version=version, environment={"KEY": secret})).what

    assert what("v1", "s1") == what("v1", "s2") != what("v2", "s1")


@pytest.mark.parametrize("of", ["services/shop", "rollouts/r1"])
async def test_promote_may_be_to_the_end(of: str, control: Control) -> None:
    await control.post(f"/v1/{of}/promote", {"full": True})
    assert control.shop.asked == [("promote", Asker(), True)]


async def test_what_the_service_says_is_passed_on(control: Control) -> None:
    control.shop.message = "shop is paused already"
    answer = await control.post("/v1/services/shop/pause")
    assert answer.json() == {"rollout": "r1", "message": "shop is paused already"}


@pytest.mark.parametrize("act", [act for act, _ in ASKS])
async def test_a_rollout_that_has_ended_is_refused_with_what_is_there_now(act: str, control: Control) -> None:
    control.rollouts["r0"] = a_rollout("r0", outcome="rolled_back", decided=NOW)
    answer = await control.post(f"/v1/rollouts/r0/{act}")
    assert answer.status_code == 409
    assert answer.json()["error"] == {
        "code": "refused",
        "exit": 4,
        "message": "rollout r0 has ended: rolled back; r1 runs now",
        "next": "segue status",
    }
    control.shop.rollout = None
    error = (await control.post(f"/v1/rollouts/r0/{act}")).json()["error"]
    assert error["message"] == "rollout r0 has ended: rolled back; v2 serves shop"
    assert control.shop.asked == []


async def test_the_same_request_again_is_answered_again_also_after_the_end(control: Control) -> None:
    control.shop.rollout = None
    control.requests["k1"] = "r1"
    answer = await control.post("/v1/rollouts/r1/promote", **{"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json()["rollout"]) == (202, "r1")
    assert (await control.post("/v1/rollouts/r1/promote", **{"Idempotency-Key": "k2"})).status_code == 409


async def test_what_is_not_known_is_404(control: Control) -> None:
    for path in ("rollouts/r9/promote", "services/web/promote", "services/shop/prmote"):
        answer = await control.post(f"/v1/{path}")
        assert (answer.status_code, answer.json()["error"]["exit"]) == (404, 4), path
    assert "promote" in answer.json()["error"]["message"]


async def test_what_cannot_be_written_down_is_refused(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unwritten(_: Asker) -> Answer:
        raise DiskFull(28, "the disk is full")

    monkeypatch.setattr(control.shop, "pause", unwritten)
    answer = await control.post("/v1/rollouts/r1/pause")
    assert (answer.status_code, answer.json()["error"]["exit"]) == (409, 4)
    assert answer.json()["error"]["message"].endswith("it cannot be written down: the disk is full")


@pytest.mark.parametrize("act", [act for act, _ in ASKS])
async def test_where_nothing_has_to_be_said_a_body_may_be_left_out(act: str, control: Control) -> None:
    app = make(cast(ControlPlane, control), lambda everything: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://segue") as client:
        assert (await client.post(f"/v1/services/shop/{act}")).status_code == 202
    assert [asked for asked, _, _ in control.shop.asked] == [act]


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b'{"count": 3}', "text/plain", "the body has to be a JSON object, sent with the header Content-Type"),
        (b"[]", "application/json", "the body has to be a JSON object"),
        (b"{count", "application/json", "the body is not JSON: "),
        (b'{"count": "x"}', "application/json", "body, count: input should be a valid integer"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_in_words(
    content: bytes, kind: str, said: str, control: Control
) -> None:
    app = make(cast(ControlPlane, control), lambda everything: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://segue") as client:
        answer = await client.post("/v1/services/shop/scale", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(said)


async def test_unknown_keys_are_refused(control: Control) -> None:
    answer = await control.post("/v1/rollouts/r1/promote", {"ful": True})
    assert (answer.status_code, answer.json()["error"]["exit"]) == (400, 2)


async def test_promote_waits_until_the_rollout_is_decided(control: Control) -> None:
    body = {"outcome": "promoted", "exit": 0}
    for event in ("went_on", "finished"):
        control.events.put_nowait(Event(7, NOW, event, "shop", "r1", body))
    answer = await control.post("/v1/services/shop/promote?wait=60")
    assert answer.status_code == 200
    assert (answer.json()["event"], answer.json()["outcome"], answer.json()["rollout"]) == (
        "finished",
        "promoted",
        "r1",
    )


async def test_promote_waits_no_longer_than_it_is_told(control: Control) -> None:
    answer = await control.post("/v1/services/shop/promote?wait=0.01")
    assert (answer.status_code, answer.json()) == (202, {"rollout": "r1"})


# The order


def ordered(text: str, strategy: str | None = None) -> Order:
    """The order that a manifest becomes on its way through the API."""
    manifest = parse(f"service: shop\nrun: {{process: {{command: ./serve, user: root}}}}\n{text}").manifest
    return order("shop", Deploy(manifest=manifest.document(), folder="/srv/shop", version="v2", strategy=strategy))


def test_a_bare_manifest_is_an_order_with_the_defaults_of_the_engine() -> None:
    bare = ordered("")
    assert (bare.warm_up, bare.hooks, bare.judging) == (None, Hooks(), Judging())
    assert ordered("", "canary").strategy == release.Canary()


def test_everything_about_judging_reaches_the_order() -> None:
    told = ordered(
        """
warm_up: {requests: 5, paths: [/a, /b]}
hooks: {before: a, on_rollback: b, after: c, timeout: 1m}
strategy: {canary: {judge: 2m}}
judge:
  false_alarm: 2%
  alarm: {ratio: 1.2, errors: 1%, latency: 10%}
  settle: 3s
  low_traffic: hold
  undecided: rollback
evidence: [{logs: {match: ERROR}}, {logs: {match: ^Traceback}}]
approve_within: 2h
"""
    )
    assert told.warm_up == version.WarmUp(5, ("/a", "/b"))
    assert told.hooks == Hooks("a", "b", "c", 60.0)
    assert told.strategy == release.Canary(most=timedelta(minutes=2))
    assert told.judging == Judging(
        settings=Settings(0.02, Margin(1.2, 0.01, 0.1)),
        settle=timedelta(seconds=3),
        low_traffic="hold",
        undecided="rollback",
        logs=("ERROR", "^Traceback"),
        approve_within=timedelta(hours=2),
    )
