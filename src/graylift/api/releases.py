"""Services, releases and what a person tells a release: the store, read, and commands appended to it.

A command is not carried out here: whoever holds the lease does that, and the answer says what came of it. Called by
`app`.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_jsonable_python

from graylift.api import steering
from graylift.api.records import Records
from graylift.domain.release import Command, CommandKind, Release
from graylift.errors import ProtocolError
from graylift.ports import Clock, Handled, Tracked

BY = "api"
"""Who commands through this API, in the events, where nobody must say who they are."""


class CommandBody(BaseModel):
    """What may be told to a release that there is. START needs a release file, so it belongs to `graylift run`.

    id: chosen by the caller, who may send the same command again with it: it is carried out once
    """

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(min_length=8, max_length=64, pattern="^[A-Za-z0-9-]+$")] | None = None
    command: CommandKind
    reason: Annotated[str, Field(max_length=1000)] = ""


def routes(store: Records, clock: Clock) -> APIRouter:
    router = APIRouter(prefix="/v1")

    async def release_of(release_id: str) -> Release:
        try:
            return await asyncio.to_thread(store.release, release_id)
        except KeyError:
            raise ProtocolError(f"there is no release {release_id!r}; GET /v1/services names them", 404) from None

    @router.get("/services")
    async def services() -> dict[str, Any]:
        snapshot = await asyncio.to_thread(store.snapshot)
        return {"services": [_service(tracked) for tracked in snapshot.services]}

    @router.get("/releases/{release_id}")
    async def release(release_id: str) -> JSONResponse:
        return JSONResponse(to_jsonable_python(await release_of(release_id), inf_nan_mode="null"))

    @router.post("/releases/{release_id}/commands")
    async def command(release_id: str, body: CommandBody, request: Request) -> JSONResponse:
        if body.command is CommandKind.START:
            raise ProtocolError("a release is started from its file: graylift run FILE", 422)
        release = await release_of(release_id)
        newest = {t.release.id for t in (await asyncio.to_thread(store.snapshot)).services if t.release is not None}
        if release.id not in newest:
            raise ProtocolError(
                f"{release.id} is not the newest release of {release.service} and takes no command", 409
            )
        by: str = getattr(request.state, "user", BY)
        command = Command(body.id or uuid.uuid4().hex, release.service, body.command, by, body.reason, clock.now())
        return _outcome(command.id, await steering.put(store, command))

    @router.get("/commands/{command_id}")
    async def outcome(command_id: str) -> JSONResponse:
        try:
            return _outcome(command_id, await asyncio.to_thread(store.outcome, command_id))
        except KeyError:
            raise ProtocolError(f"no command {command_id[:80]!r} was given", 404) from None

    return router


def _outcome(command_id: str, handled: Handled | None) -> JSONResponse:
    """What came of a command: done, refused (409) with the cure, or nothing yet (202)."""
    if handled is None:
        text = "nobody has handled it yet: a controller does when there is one (graylift up starts one)"
        return JSONResponse({"id": command_id, "status": "waiting", "text": text}, status_code=202)
    status = "refused" if handled.refused else "done"
    answer = {"id": command_id, "status": status, "text": handled.text}
    return JSONResponse(answer, status_code=409 if handled.refused else 200)


def _service(tracked: Tracked) -> dict[str, Any]:
    stable, release = tracked.service.stable, tracked.release
    return {
        "service": tracked.service.name,
        "stable": None if stable is None else stable.id,
        "release": None if release is None else release.id,
        "phase": None if release is None else release.phase.value,
        "reason": None if release is None else release.reason,
    }
