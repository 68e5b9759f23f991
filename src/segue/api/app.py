"""The routes, those that only look in full. An error is `{"error": {"code", "exit", "message", "next"}}`."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from segue import __version__
from segue.api import asking
from segue.api.bodies import Deploy, Shutdown, order
from segue.api.explaining import explanation
from segue.api.lookup import Unknown, rollout_of, service_of
from segue.api.metrics import MEDIA_TYPE, exposition
from segue.engine import documents, people
from segue.engine.control import ControlPlane
from segue.engine.plans import UNKNOWN, preview
from segue.engine.records import Event
from segue.engine.usual import Meter
from segue.errors import DiskFull, Refused, SegueError, StartFailed, Usage

STATUS = {2: 400, 4: 409}
"""HTTP status by exit status; everything else is 500."""

Traffic = Annotated[float, Query(ge=0, le=1e9)]
After = Annotated[int, Query(ge=0, lt=2**63)]
Replay = Annotated[list[str] | None, Query(max_length=50)]
_SEQ = re.compile("[0-9]{1,18}")


def make(control: ControlPlane, stop: Callable[[bool], None]) -> FastAPI:
    """The API of `control`; `stop` ends the process, with everything or without."""
    app = FastAPI(title="Segue", version=__version__, docs_url=None, redoc_url=None)
    _errors(app)
    _reading(app, control, Meter(control))
    _rollouts(app, control)
    asking.services(app, control)
    asking.rollouts(app, control)

    @app.post("/v1/shutdown", status_code=202)
    async def shutdown(body: Shutdown) -> dict[str, Any]:
        stop(body.all)
        return {}

    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(SegueError)
    async def ours(_: Request, error: SegueError) -> JSONResponse:
        return JSONResponse({"error": error.document()}, _status(error))

    @app.exception_handler(DiskFull)
    async def unwritten(_: Request, error: DiskFull) -> JSONResponse:
        refused = Refused(f"nothing was done, for it cannot be written down: {error.strerror}", next="segue doctor")
        return JSONResponse({"error": refused.document()}, _status(refused))

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": Usage(_complaint(error.errors()[0])).document()}, 400)

    @app.exception_handler(HTTPException)
    async def nothing(request: Request, error: HTTPException) -> JSONResponse:
        told = f"{request.method} {request.url.path}: {error.detail.lower()}"
        return JSONResponse({"error": Usage(told).document()}, error.status_code, error.headers)


def _complaint(error: Mapping[str, Any]) -> str:
    """What is wrong with a request, as its author would say it."""
    place, said = error["loc"], error["msg"]
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']}"
    if place == ("body",):
        return "the body has to be a JSON object, sent with the header Content-Type: application/json"
    return f"{' '.join(map(str, place[:1]))}, {'.'.join(map(str, place[1:]))}: {said[:1].lower()}{said[1:]}"


def _status(error: SegueError) -> int:
    if isinstance(error, Unknown):
        return 404
    if isinstance(error, StartFailed):  # the source that was named cannot be read: there is nothing to start
        return 422
    return STATUS.get(error.exit, 500)


def _reading(app: FastAPI, control: ControlPlane, meter: Meter) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        return {"ok": True, "version": __version__, "pid": control.pid, "home": str(control.home)}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(await exposition(control), media_type=MEDIA_TYPE)

    @app.get("/v1/services")
    async def services() -> dict[str, Any]:
        return documents.status(found for _, found in sorted(control.services.items()))

    @app.get("/v1/services/{name}")
    async def one(name: str) -> dict[str, Any]:
        return documents.service_status(service_of(control, name))

    @app.post("/v1/services/{name}/plan")
    async def plan(name: str, body: Deploy, traffic: Traffic | None = None) -> dict[str, Any]:
        service = control.services.get(name)
        usual = await meter.usual(name, service.record.stable) if service and service.record.stable else UNKNOWN
        return preview(service, order(name, body), replace(usual, told=traffic))

    @app.get("/v1/services/{name}/logs")
    async def logs(
        name: str,
        version: str | None = None,
        instance: str | None = None,
        lines: Annotated[int, Query(ge=0, le=100_000)] = 100,
        follow: bool = False,
    ) -> Response:
        service_of(control, name)
        text = control.logs(name, version=version, instance=instance, lines=lines, follow=follow)
        return StreamingResponse(text, media_type="text/plain")

    @app.get("/v1/events")
    async def events(request: Request, after: After | None = None, service: str | None = None) -> Response:
        said = request.headers.get("last-event-id", "")
        known = int(said) if _SEQ.fullmatch(said) else control.journal.last_seq()
        first = after if after is not None else known
        found = control.journal.follow(first, service=service)
        if "text/event-stream" in request.headers.get("accept", ""):
            return StreamingResponse(_sse(found), media_type="text/event-stream")
        return StreamingResponse(_lines(found), media_type="application/x-ndjson")


def _rollouts(app: FastAPI, control: ControlPlane) -> None:
    @app.get("/v1/rollouts")
    async def rollouts(
        service: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 20
    ) -> dict[str, Any]:
        found = control.journal.rollouts(service, limit)
        return {"rollouts": [documents.rollout(record) for record in found]}

    @app.get("/v1/rollouts/{id}")
    async def rollout(id: str, service: str | None = None) -> dict[str, Any]:
        record = rollout_of(control, id, service)
        steps = [documents.step(step) for step in control.journal.steps(record.id)]
        return {**documents.rollout(record), "steps": steps}

    @app.get("/v1/rollouts/{id}/report")
    async def report(id: str, service: str | None = None) -> dict[str, Any]:
        record = rollout_of(control, id, service)
        await control.look(record)
        return documents.report(control.journal, record, control.world.clock.now())

    @app.get("/v1/rollouts/{id}/explain")
    async def explain(id: str, service: str | None = None, replay: Replay = None) -> dict[str, Any]:
        return await explanation(control, rollout_of(control, id, service), replay or [])

    @app.get("/v1/rollouts/{id}/experiment")
    async def experiment(id: str, service: str | None = None) -> dict[str, Any]:
        record = rollout_of(control, id, service)
        await control.look(record)
        return people.shown(control.journal, record, control.world.clock.now())

    @app.get("/v1/rollouts/{id}/events")
    async def events(id: str, after: After = 0, service: str | None = None) -> Response:
        record = rollout_of(control, id, service)
        found = _until_finished(control.journal.follow(after, rollout=record.id))
        return StreamingResponse(_lines(found), media_type="application/x-ndjson")


async def _until_finished(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    async for event in events:
        yield event
        if event.event == "finished":
            return


async def _lines(events: AsyncIterator[Event]) -> AsyncIterator[str]:
    async for event in events:
        yield json.dumps(event.document()) + "\n"


async def _sse(events: AsyncIterator[Event]) -> AsyncIterator[str]:
    async for event in events:
        yield f"id: {event.seq}\nevent: {event.event}\ndata: {json.dumps(event.document())}\n\n"
