"""Services, releases and what a person tells a release: the store, read, and commands appended to it.

A command is not carried out here: whoever holds the lease does that. Called by `app`.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_jsonable_python

from graylift.domain.release import Command, CommandKind, Release
from graylift.errors import ProtocolError
from graylift.ports import Clock, ReleaseStore, Tracked

BY = "api"
"""Who commands through this API, in the events; who that is, whoever lets them reach it must know."""


class CommandBody(BaseModel):
    """What may be told to a release that there is. START needs a release file, so it belongs to `graylift run`."""

    model_config = ConfigDict(extra="forbid")

    command: CommandKind
    reason: Annotated[str, Field(max_length=1000)] = ""


def routes(store: ReleaseStore, clock: Clock) -> APIRouter:
    router = APIRouter(prefix="/v1")

    async def release_of(release_id: str) -> Release:
        try:
            return (await asyncio.to_thread(store.history, release_id)).release
        except KeyError:
            raise ProtocolError(f"there is no release {release_id!r}; GET /v1/services names them", 404) from None

    @router.get("/services")
    async def services() -> dict[str, Any]:
        snapshot = await asyncio.to_thread(store.snapshot)
        return {"services": [_service(tracked) for tracked in snapshot.services]}

    @router.get("/releases/{release_id}")
    async def release(release_id: str) -> JSONResponse:
        return JSONResponse(to_jsonable_python(await release_of(release_id), inf_nan_mode="null"))

    @router.post("/releases/{release_id}/commands", status_code=202)
    async def command(release_id: str, body: CommandBody, response: Response) -> dict[str, str]:
        if body.command is CommandKind.START:
            raise ProtocolError("a release is started from its file: graylift run FILE", 422)
        release = await release_of(release_id)
        newest = {t.release.id for t in (await asyncio.to_thread(store.snapshot)).services if t.release is not None}
        if release.id not in newest:
            raise ProtocolError(
                f"{release.id} is not the newest release of {release.service} and takes no command", 409
            )
        command = Command(uuid.uuid4().hex, release.service, body.command, BY, body.reason, clock.now())
        await asyncio.to_thread(store.append, command)
        response.headers["Location"] = f"/v1/releases/{release.id}"
        return {"command_id": command.id, "status": "accepted"}

    return router


def _service(tracked: Tracked) -> dict[str, Any]:
    stable, release = tracked.service.stable, tracked.release
    return {
        "service": tracked.service.name,
        "stable": None if stable is None else stable.id,
        "release": None if release is None else release.id,
        "phase": None if release is None else release.phase.value,
        "reason": None if release is None else release.reason,
    }
