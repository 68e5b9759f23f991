"""What Prometheus has measured of both versions, by a query that the manifest gives.

It is asked for one instant, the present (`/api/v1/query`), for both versions at once. A query has to come to one
number: several series are none, for nobody but who wrote the query knows whether to add them or to take the worst.
"""

from __future__ import annotations

import asyncio
import json
from math import isfinite
from typing import Any

from segue.core.release import Revision, version_of
from segue.core.sources import About, Metric, Nothing, Values, filled, shortened
from segue.evidence.web import Reply, Unanswered, get


class Prometheus:
    """Asks for `metric`."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    async def ask(self, about: About) -> Values | Nothing:
        """The metric of the new version, and, where it is compared, of the old one at the same moment."""
        versions = [about.new] if self._metric.worse is None or about.old is None else [about.new, about.old]
        found = await asyncio.gather(*(self._value(about, version) for version in versions))
        if silent := [one for one in found if isinstance(one, Nothing)]:
            return silent[0]
        return Values(*(one for one in found if isinstance(one, float)))

    async def _value(self, about: About, revision: Revision) -> float | Nothing:
        metric = self._metric
        query = {"query": filled(metric.query, about.service, revision)}
        url = f"{metric.url.rstrip('/')}/api/v1/query"
        try:
            reply = await get(url, about, metric.timeout, query=query, authorization=metric.authorization)
            return number(reply, version_of(revision))
        except Unanswered as exc:
            return Nothing(str(exc))


def number(reply: Reply, version: str) -> float:
    """The one number in what Prometheus said of `version`. Raises Unanswered."""
    try:
        document = json.loads(reply.body)
        if document["status"] != "success":
            raise Unanswered(f"Prometheus refused it: {shortened(str(document['error']), 200)}")
        kind, result = document["data"]["resultType"], document["data"]["result"]
        return _number(kind, result, version)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as exc:
        raise Unanswered(f"it was answered with status {reply.status}, and not as Prometheus answers") from exc


def _number(kind: str, result: Any, version: str) -> float:
    if kind == "vector":
        if len(result) != 1:
            many = f"{len(result)} series of {version} where there must be one: sum() them, or take the max()"
            raise Unanswered(many if result else f"there is no series of {version}")
        value = float(result[0]["value"][1])
    elif kind == "scalar":
        value = float(result[1])
    else:
        raise Unanswered(f"it comes to a {kind} and not to a number")
    if not isfinite(value):
        raise Unanswered(f"of {version} it is {value:+}, which is no number to compare")
    return value
