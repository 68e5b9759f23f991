"""The routes that change something. Each request is journalled before it is answered."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import FastAPI, Header, Query
from fastapi.responses import JSONResponse
from starlette.responses import Response

from segue.api.bodies import Asked, Deploy, Promote, Rollback, Scale, order
from segue.api.lookup import Unknown, rollout_of, service_of, service_that_runs
from segue.engine.control import ControlPlane
from segue.engine.orders import Answer, Asker

Wait = Annotated[float, Query(ge=0, le=86400)]
Who = Annotated[str, Header(alias="X-Segue-Who")]
Key = Annotated[str | None, Header(alias="Idempotency-Key")]


def services(app: FastAPI, control: ControlPlane) -> None:
    """What is asked of a service."""

    @app.post("/v1/services/{name}/rollouts")
    async def deploy(name: str, body: Deploy, who: Who = "somebody", key: Key = None, wait: Wait = 0) -> Response:
        asker = Asker(who, body.reason, key, body.if_busy)
        return await _answer(control, await control.deploy(order(name, body), asker), wait)

    @app.post("/v1/services/{name}/rollback")
    async def rollback(name: str, body: Rollback, who: Who = "somebody", key: Key = None, wait: Wait = 0) -> Response:
        service = service_of(control, name)
        return await _answer(control, await service.rollback(body.to, Asker(who, body.reason, key)), wait)

    @app.post("/v1/services/{name}/promote")
    async def promote(name: str, body: Promote, who: Who = "somebody", key: Key = None, wait: Wait = 0) -> Response:
        service = service_of(control, name)
        return await _answer(control, await service.promote(Asker(who, body.reason, key), full=body.full), wait)

    @app.post("/v1/services/{name}/scale")
    async def scale(name: str, body: Scale, who: Who = "somebody", key: Key = None, wait: Wait = 0) -> Response:
        service = service_of(control, name)
        return await _answer(control, await service.scale(body.count, Asker(who, body.reason, key)), wait)

    @app.post("/v1/services/{name}/{act}")
    async def act(
        name: str, act: str, body: Asked, who: Who = "somebody", key: Key = None, wait: Wait = 0
    ) -> Response:
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
        return await _answer(control, await acts[act](Asker(who, body.reason, key)), wait)


def rollouts(app: FastAPI, control: ControlPlane) -> None:
    """What is asked of the rollout that runs, by its id."""

    @app.post("/v1/rollouts/{id}/promote")
    async def promote(id: str, body: Promote, who: Who = "somebody", key: Key = None, wait: Wait = 0) -> Response:
        service = service_that_runs(control, rollout_of(control, id), key)
        return await _answer(control, await service.promote(Asker(who, body.reason, key), full=body.full), wait)

    @app.post("/v1/rollouts/{id}/pause")
    async def pause(id: str, body: Asked, who: Who = "somebody", key: Key = None, wait: Wait = 0) -> Response:
        service = service_that_runs(control, rollout_of(control, id), key)
        return await _answer(control, await service.pause(Asker(who, body.reason, key)), wait)

    @app.post("/v1/rollouts/{id}/resume")
    async def resume(id: str, body: Asked, who: Who = "somebody", key: Key = None, wait: Wait = 0) -> Response:
        service = service_that_runs(control, rollout_of(control, id), key)
        return await _answer(control, await service.resume(Asker(who, body.reason, key)), wait)

    @app.post("/v1/rollouts/{id}/rollback")
    async def rollback(id: str, body: Asked, who: Who = "somebody", key: Key = None, wait: Wait = 0) -> Response:
        service = service_that_runs(control, rollout_of(control, id), key)
        return await _answer(control, await service.rollback(None, Asker(who, body.reason, key)), wait)


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
