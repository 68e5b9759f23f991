"""What the tour shows, as data: two services, and the acts of each."""

from __future__ import annotations

from dataclasses import dataclass

from segue.demo.builds import (
    ANSWERS_500,
    CRASHES,
    DIES,
    HANGS,
    LOGS_TRACEBACKS,
    NEW,
    OLD,
    REFUSES_FILES,
    STOCK,
    Build,
    stock,
)


@dataclass(frozen=True, slots=True)
class Act:
    """One command, what stands in the service's folder before it, and how it must end. `how`: by which strategy.

    `serves`: the version that has all of the traffic afterwards. `because`: what the reason says (a regular
    expression). `reached`: how many instances of the new version there were at most; None: as many as it takes.
    """

    how: str
    title: str
    command: tuple[str, ...]
    build: Build | None
    exit: int
    outcome: str
    serves: str
    because: str = ""
    reached: int | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """A service, how it is launched, and the acts that are played under load. `path`: what users ask for."""

    service: str
    replicas: int
    tells: str
    manifest: str
    path: str
    launch: Act
    acts: tuple[Act, ...]


def _deploy(
    strategy: str, title: str, version: str, build: Build, serves: str, because: str = "", reached: int | None = None
) -> Act:
    command = ("deploy", "--version", version, "--strategy", strategy)
    refused = version != serves
    outcome = "refused" if refused else "promoted"
    return Act(strategy.replace("_", "/"), title, command, build, int(refused), outcome, serves, because, reached)


def _launch(title: str, version: str, build: Build) -> Act:
    return Act("launch", title, ("deploy", "--version", version), build, 0, "promoted", version)


def _canary(title: str, version: str, build: Build, because: str) -> Act:
    return _deploy("canary", title, version, build, NEW, because, reached=1)


EXITED, FAILS = "it exited with status", "failed each of its last|attempts on .* failed"
GONE = "instances? that .*share needs (are|is not) ready"

SHOP = Scene(
    service="shop",
    replicas=2,
    tells="The shop is httpbin under gunicorn, 2 instances",
    path="/get",
    launch=_launch("the first version", OLD, Build(OLD)),
    acts=(
        _deploy("rolling", "a new version", NEW, Build(NEW), NEW),
        _deploy("blue_green", "back to the old one", OLD, Build(OLD), OLD),
        _deploy("rolling", "it crashes at its start", "crashes", Build(NEW, CRASHES), OLD, EXITED),
        _deploy("blue_green", "the same build", "crashes", Build(NEW, CRASHES), OLD, EXITED),
        _deploy("rolling", "it is healthy, answers 500", "answers-500", Build(NEW, ANSWERS_500), OLD, FAILS, 1),
        _deploy("blue_green", "the same build", "answers-500", Build(NEW, ANSWERS_500), OLD, FAILS),
        _deploy("blue_green", "the new version again", NEW, Build(NEW), NEW),
        Act("rollback", "somebody does not like it", ("rollback",), None, 0, "rolled back", OLD),
        _deploy("canary", "the new one, 10, 30, 100 %", NEW, Build(NEW), NEW),
        _canary("it answers 500", "answers-500", Build(NEW, ANSWERS_500), FAILS),
        _canary("it hangs", "hangs", Build(NEW, HANGS), f"{FAILS}|{GONE}"),
        _canary("it refuses connections", "refuses", Build(files=REFUSES_FILES), f"{FAILS}|{GONE}"),
        _canary("it dies after 10 s", "dies", Build(NEW, DIES), GONE),
    ),
    manifest="""\
service: shop
replicas: $replicas
route: {listen: "127.0.0.1:$port"}
run:
  process:
    source: .
    command: ./serve {port}$user
health: {path: /status/200, every: 200ms, deadline: 10s}
stop: {grace: 3s}
judge:  # users, proxy and instances share one machine's cores: what is slow by that is not held against a version
  settle: 1s
  undecided: continue
  alarm: {latency: 100%}
  promote: {first: {latency: 200%}, then: {latency: 200%}}
strategy:
  use: rolling
  rolling: {first_judge: 1500ms, judge: 1s}
  blue_green: {judge: 1500ms, keep: 10m}
  canary: {steps: [10%, 30%, 100%], judge: {least: 5s, most: 90s}}
""",
)

STOCKROOM = Scene(
    service="stock",
    replicas=10,
    tells="The stock is a tiny application, 10 instances; an error in its log is evidence",
    path="/",
    launch=_launch("ten instances", "v1", stock(STOCK)),
    acts=(
        _deploy(
            "rolling",
            "1 of 10 logs errors",
            "v2",
            stock(LOGS_TRACEBACKS),
            "v1",
            r"stock-v2\.1-1 wrote .*: KeyError",
            reached=1,
        ),
    ),
    manifest="""\
service: stock
replicas: $replicas
route: {listen: "127.0.0.1:$port"}
run:
  process:
    source: .
    command: '$python -S main.py {port} {version}'$user
health: {path: /healthz, deadline: 10s}
evidence:
  - logs: {match: Error}
strategy:
  rolling: {first_judge: 10s, judge: 1s}
""",
)

SCENES = (SHOP, STOCKROOM)
"""Played in this order; each under load, after its launch."""
