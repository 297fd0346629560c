"""`POST /v1/scores`: somebody's measure of answers, by the id of their requests. Called by `app`.

A list is taken item by item: one that is wrong does not spoil the others, and each is told what became of it.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graylift.api import bodies
from graylift.api.records import Records
from graylift.domain.scores import Score, Scored, ScoreFate
from graylift.errors import ProtocolError
from graylift.ports import Scores

MOST = 1_000
"""Scores in one request."""

_STATUS = {ScoreFate.COUNTED: 200, ScoreFate.REPEATED: 200, ScoreFate.UNKNOWN: 404, ScoreFate.REFUSED: 422}
_EXAMPLE = '{"request_id": "...", "name": "helpful", "value": 0.8}'


class ScoreBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    request_id: Annotated[str, Field(min_length=1, max_length=100)]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    value: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def routes(store: Records, into: Scores) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/scores")
    async def scores(request: Request) -> JSONResponse:
        given = await bodies.read_json(request)
        items: list[Any] = cast("list[Any]", given) if isinstance(given, list) else [given]
        if not 0 < len(items) <= MOST:
            raise ProtocolError(f"expected 1 to {MOST:,} scores, got {len(items):,}: send them in portions", 413)
        read = [_read(item) for item in items]
        known = await asyncio.to_thread(judged_names, store)
        told = iter(await into.score([one for one in read if isinstance(one, Score)], known))
        fates = [next(told) if isinstance(one, Score) else one for one in read]
        answers = [_answer(item, fate) for item, fate in zip(items, fates, strict=True)]
        if isinstance(given, list):
            return JSONResponse({"counted": sum(f.fate is ScoreFate.COUNTED for f in fates), "scores": answers})
        return JSONResponse(answers[0], status_code=_STATUS[fates[0].fate])

    return router


def judged_names(store: Records) -> dict[str, tuple[str, ...]]:
    """The names of the scores that are judged now, by service."""
    return {
        tracked.service.name: tuple(c.score for c in tracked.release.spec.judge.checks if c.score is not None)
        for tracked in store.snapshot().services
        if tracked.release is not None and not tracked.release.phase.is_final
    }


def _read(item: Any) -> Score | Scored:
    try:
        body = ScoreBody.model_validate(item)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        return Scored(ScoreFate.REFUSED, f"{place}: {first['msg']}; expected {_EXAMPLE}, the value from 0 to 1")
    return Score(body.request_id, body.name, body.value)


def _answer(item: Any, fate: Scored) -> dict[str, Any]:
    said = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    named = {key: said[key] for key in ("request_id", "name") if key in said}
    return {**named, "status": fate.fate.value} | ({} if fate.why is None else {"reason": fate.why})
