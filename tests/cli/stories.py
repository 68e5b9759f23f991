"""Rollouts as the control plane tells them: the events of a good one, a refused one, a held one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

BEGAN = datetime(2025, 3, 1, 12, 0, 0, tzinfo=UTC)
PLAN = [
    "v2.1: 1 instance",
    "check v2.1",
    "traffic: v1.1 50%, v2.1 50%",
    "judge for 5 s",
    "v1.1: 1 instance",
    "v2.1: 2 instances",
    "check v2.1",
    "traffic: v2.1 100%",
    "judge for 5 s",
    "v1.1: 0 instances",
]


class Story:
    """Events one after the other, a tenth of a second apart."""

    def __init__(self, service: str = "shop", rollout: str = "r1") -> None:
        self.service, self.rollout = service, rollout
        self.events: list[dict[str, Any]] = []

    def tell(self, event: str, **body: Any) -> Story:
        """Add an event."""
        seq = len(self.events) + 1
        at = (BEGAN + timedelta(seconds=seq / 10)).isoformat()
        self.events.append(
            {"seq": seq, "at": at, "event": event, "service": self.service, "rollout": self.rollout, **body}
        )
        return self

    def step(self, number: int, text: str, outcome: str = "done", **more: Any) -> Story:
        """A step that begins and ends."""
        self.tell("began", step=number, of=len(PLAN), text=text, demand={})
        return self.tell("ended", step=number, of=len(PLAN), text=text, outcome=outcome, **{"seconds": 1.2, **more})

    def accepted(self) -> Story:
        """The beginning of every deploy here."""
        self.tell("accepted", kind="deploy", strategy="rolling", **{"from": "v1", "to": "v2"}, who="ann", reason=None)
        self.tell("preparing", text="copying 120 files")
        return self.tell("planned", steps=PLAN, peak=3, notes=["v1 and v2 share the database"])


def promoted() -> Story:
    """A rolling deploy that goes well."""
    story = Story().accepted()
    for number, text in enumerate(PLAN, 1):
        story.tell("began", step=number, of=len(PLAN), text=text, demand={})
        if text.startswith("v2.1"):
            story.tell("instance", instance=f"shop-v2.1-{number}", state="ready", pid=1, address="127.0.0.1:1")
        if text.startswith("traffic"):
            shares = {"v2.1": 1.0} if "100%" in text else {"v1.1": 0.5, "v2.1": 0.5}
            story.tell("traffic", shares=shares, confirmed_ms=2.4)
        if text.startswith("judge"):
            story.tell("judging", step=number, text="3 of 5 s; v2: 120 attempts, 0 failed; v1: 360, 0 failed")
        story.tell(
            "ended", step=number, of=len(PLAN), text=text, outcome="done", seconds=0.5, verdict=None, detail=None
        )
    return story.tell(
        "finished", outcome="promoted", basis="evidence", reason="no alarm", exit=0, seconds=12.3, log=[]
    )


def refused() -> Story:
    """A deploy whose new version does not start."""
    story = Story().accepted()
    why = "shop-v2.1-1 exited with status 1"
    story.tell("instance", instance="shop-v2.1-1", state="stopped", detail="exited with status 1")
    story.step(1, PLAN[0], "failed", detail=why)
    story.tell("turned_back", reason=why, steps=["v1.1: 2 instances", "traffic: v1.1 100%", "v2.1: 0 instances"])
    for number, text in enumerate(["v1.1: 2 instances", "traffic: v1.1 100%", "v2.1: 0 instances"], 1):
        story.tell("began", step=number, of=3, text=text, demand={})
        story.tell("ended", step=number, of=3, text=text, outcome="done", seconds=0.1, verdict=None, detail=None)
    log = ["Traceback (most recent call last):", "ModuleNotFoundError: No module named 'shopp'"]
    return story.tell("finished", outcome="failed", basis="health", reason=why, exit=1, seconds=1.9, log=log)


def retired(status: int = 0) -> Story:
    """The end of a keep, with an `after` hook that ends with `status`."""
    hook = "run the after hook"
    story = Story(rollout="r2")
    story.tell("accepted", kind="retire", strategy="retire", **{"from": "v1", "to": "v2"}, who="ann", reason=None)
    story.tell("planned", steps=["v1.1: 0 instances", hook], peak=2, notes=[])
    story.tell("began", step=2, of=2, text=hook, demand={}).tell("hook", hook="after", state="began")
    story.tell("hook", hook="after", state="ended", status=status)
    story.tell("ended", step=2, of=2, text=hook, outcome="done", seconds=0.1, verdict=None, detail=None)
    why = "v1 is no longer kept"
    return story.tell("finished", outcome="promoted", basis="health", reason=why, exit=0, seconds=0.008, log=[])


HOLD = "approve the switch to v2.1"


def held() -> Story:
    """A deploy that asks a person."""
    story = Story().accepted().step(1, PLAN[0])
    story.tell("began", step=2, of=len(PLAN), text=f"hold: {HOLD}", demand={})
    return story.tell("holding", step=2, text=HOLD, until="2025-03-02T12:00:00+00:00")


def approved() -> Story:
    """A deploy that asked a person, who let it go on."""
    story = held().tell("went_on", text="ann promoted it")
    return story.tell("finished", outcome="promoted", basis="health", reason="asked", exit=0, seconds=9.0, log=[])


def status() -> dict[str, Any]:
    """A status document: shop in keep, api while it rolls."""
    ready = {"state": "ready", "pid": 4711, "restarts": 0, "since": BEGAN.isoformat()}
    return {
        "schema": 1,
        "services": [
            {
                "service": "shop",
                "state": "steady",
                "stable": "v2",
                "candidate": None,
                "previous": {"version": "v1", "kept_until": "2025-03-01T12:10:00+00:00"},
                "route": {"listen": "0.0.0.0:8080", "hosts": ["*"], "path": "/"},
                "versions": {
                    "v2": {
                        "revision": "v2.1",
                        "share": 1.0,
                        "size": 2,
                        "instances": [
                            {"id": f"shop-v2.1-{n}", "address": f"127.0.0.1:2000{n}", **ready} for n in (1, 2)
                        ],
                    },
                    "v1": {
                        "revision": "v1.1",
                        "share": 0.0,
                        "size": 2,
                        "instances": [{"id": "shop-v1.1-1", "address": "127.0.0.1:20009", **ready}],
                    },
                },
                "rollout": None,
            },
            {
                "service": "api",
                "state": "rolling_out",
                "stable": "v7",
                "candidate": "v8",
                "previous": None,
                "route": {"listen": "0.0.0.0:8080", "hosts": ["api.example.com"], "path": "/v1"},
                "versions": {"v7": {"revision": "v7.1", "share": 1.0, "size": 1, "instances": []}},
                "rollout": {
                    "id": "r9",
                    "strategy": "canary",
                    "from": "v7",
                    "to": "v8",
                    "state": "rolling_out",
                    "step": 4,
                    "of": 11,
                    "hold": None,
                    "basis": None,
                },
            },
        ],
    }
