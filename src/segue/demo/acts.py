"""What the tour shows, as data: the builds of the shop, and the acts."""

from __future__ import annotations

from dataclasses import dataclass

from segue.testing.apps import WSGI

OLD, NEW = "0.10.2", "0.10.4"

CRASHES = """\
raise RuntimeError("the settings of the database are missing")
"""

ANSWERS_500 = (
    WSGI
    + """

@app.after_request
def break_all_but_the_health_check(response):
    from flask import request

    if not request.path.startswith("/status/"):
        response.status_code = 500
    return response
"""
)


@dataclass(frozen=True, slots=True)
class Build:
    """A release of the shop: the httpbin it runs, and the module that gunicorn is given."""

    httpbin: str
    wsgi: str = WSGI


@dataclass(frozen=True, slots=True)
class Act:
    """One command, what stands in the shop's folder before it, and how it must end.

    `serves`: the version that has all of the traffic afterwards.
    """

    title: str
    strategy: str
    command: tuple[str, ...]
    build: Build | None
    exit: int
    outcome: str
    serves: str


def _deploy(title: str, version: str, strategy: str, build: Build, serves: str) -> Act:
    command = ("deploy", "--version", version, "--strategy", strategy)
    refused = version != serves
    return Act(title, strategy, command, build, int(refused), "refused" if refused else "promoted", serves)


LAUNCH = Act("The first launch", "launch", ("deploy", "--version", OLD), Build(OLD), 0, "promoted", OLD)

ACTS = (
    _deploy("A new version, one instance at a time", NEW, "rolling", Build(NEW), NEW),
    _deploy("Back to the old one, all users at once", OLD, "blue_green", Build(OLD), OLD),
    _deploy("A build that crashes at its start", "crashes", "rolling", Build(NEW, CRASHES), OLD),
    _deploy("The same build, the other way", "crashes", "blue_green", Build(NEW, CRASHES), OLD),
    _deploy("A build that is healthy and answers 500", "answers-500", "rolling", Build(NEW, ANSWERS_500), OLD),
    _deploy("The same build, the other way", "answers-500", "blue_green", Build(NEW, ANSWERS_500), OLD),
    _deploy("The new version again, all users at once", NEW, "blue_green", Build(NEW), NEW),
    Act("Somebody does not like it", "in keep", ("rollback",), None, 0, "rolled back", OLD),
)
"""What is shown under load, in this order, after `LAUNCH`."""

MANIFEST = """\
service: shop
replicas: 2
route: {{listen: "127.0.0.1:{port}"}}
run:
  process:
    source: .
    command: ./serve {{port}}{user}
health: {{path: /status/200, every: 200ms, deadline: 10s}}
strategy:
  use: rolling
  rolling: {{first_judge: 1500ms, judge: 1s}}
  blue_green: {{judge: 1500ms, keep: 10m}}
"""
