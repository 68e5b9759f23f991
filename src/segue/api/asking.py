"""The routes that change something. Each request is journalled before it is answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from segue.api.bodies import Asked, Deploy, Promote, Rollback, Scale, order
from segue.api.lookup import Unknown, rollout_of, service_of, service_that_runs
from segue.engine.control import ControlPlane
from segue.engine.orders import Answer, Asker, Busy

Wait = Annotated[float, Query(ge=0, le=86400)]
Who = Annotated[str, Header(alias="X-Segue-Who")]
Key = Annotated[str | None, Header(alias="Idempotency-Key")]
BACK, ON, JUST = Rollback(), Promote(), Asked()
"""What is asked by a request without a body."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls `path`, and the key under which the same request may come again."""

    path: str
    who: str
    key: str | None

    def asks(self, body: Asked, if_busy: Busy = "refuse") -> Asker:
        """The asker of what `body` says."""
        content = f"{self.path}\n{body.model_dump_json(exclude={'environment'})}"  # secrets are written down nowhere
        what = sha256(content.encode()).hexdigest() if self.key else None
        return Asker(self.who, body.reason, self.key, if_busy, what)


def _caller(request: Request, who: Who = "somebody", key: Key = None) -> Caller:
    return Caller(request.url.path, who, key)


By = Annotated[Caller, Depends(_caller)]


def services(app: FastAPI, control: ControlPlane) -> None:
    """What is asked of a service."""

    @app.post("/v1/services/{name}/rollouts")
    async def deploy(name: str, body: Deploy, by: By, wait: Wait = 0) -> Response:
        asker = by.asks(body, body.if_busy)
        return await _answer(control, await control.deploy(order(name, body), asker), wait)

    @app.post("/v1/services/{name}/rollback")
    async def rollback(name: str, by: By, body: Rollback = BACK, wait: Wait = 0) -> Response:
        service = service_of(control, name)
        return await _answer(control, await service.rollback(body.to, by.asks(body)), wait)

    @app.post("/v1/services/{name}/promote")
    async def promote(name: str, by: By, body: Promote = ON, wait: Wait = 0) -> Response:
        service = service_of(control, name)
        return await _answer(control, await service.promote(by.asks(body), full=body.full), wait)

    @app.post("/v1/services/{name}/scale")
    async def scale(name: str, body: Scale, by: By, wait: Wait = 0) -> Response:
        service = service_of(control, name)
        return await _answer(control, await service.scale(body.count, by.asks(body)), wait)

    @app.post("/v1/services/{name}/{act}")
    async def act(name: str, act: str, by: By, body: Asked = JUST, wait: Wait = 0) -> Response:
        service = service_of(control, name)
        acts = {
            "pause": service.pause,
            "resume": service.resume,
            "restart": service.restart,
            "retire": service.retire,
            "down": service.down,
        }
        if act not in acts:
            known = ", ".join(("rollouts", "rollback", "promote", "scale", *acts))
            raise Unknown(f"there is no request {act}: known are {known}")
        return await _answer(control, await acts[act](by.asks(body)), wait)


def rollouts(app: FastAPI, control: ControlPlane) -> None:
    """What is asked of the rollout that runs, by its id."""

    @app.post("/v1/rollouts/{id}/promote")
    async def promote(id: str, by: By, body: Promote = ON, wait: Wait = 0) -> Response:
        service = service_that_runs(control, rollout_of(control, id), by.key)
        return await _answer(control, await service.promote(by.asks(body), full=body.full), wait)

    @app.post("/v1/rollouts/{id}/pause")
    async def pause(id: str, by: By, body: Asked = JUST, wait: Wait = 0) -> Response:
        service = service_that_runs(control, rollout_of(control, id), by.key)
        return await _answer(control, await service.pause(by.asks(body)), wait)

    @app.post("/v1/rollouts/{id}/resume")
    async def resume(id: str, by: By, body: Asked = JUST, wait: Wait = 0) -> Response:
        service = service_that_runs(control, rollout_of(control, id), by.key)
        return await _answer(control, await service.resume(by.asks(body)), wait)

    @app.post("/v1/rollouts/{id}/rollback")
    async def rollback(id: str, by: By, body: Asked = JUST, wait: Wait = 0) -> Response:
        service = service_that_runs(control, rollout_of(control, id), by.key)
        return await _answer(control, await service.rollback(None, by.asks(body)), wait)


async def _answer(control: ControlPlane, answer: Answer, wait: float) -> Response:
    """The answer to a request, when the rollout is decided or `wait` seconds have passed."""
    if answer.rollout is None:
        return JSONResponse({"rollout": None, "message": answer.message})
    if wait:
        try:
            async with asyncio.timeout(wait):
                async for event in control.journal.follow(rollout=answer.rollout):
                    if event.event == "finished":
                        return JSONResponse(event.document())
        except TimeoutError:
            pass
    told = {"message": answer.message} if answer.message else {}
    return JSONResponse({"rollout": answer.rollout, **told}, 202)
