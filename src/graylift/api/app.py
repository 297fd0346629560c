"""The FastAPI app: its routes put together, and errors as one kind of JSON. Called by `cli/wiring.py`."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from graylift.api import pushed, releases, scores
from graylift.errors import ProtocolError, StoreError
from graylift.ports import Clock, Pushed, ReleaseStore, Scores


def create_app(store: ReleaseStore, scored: Scores, pushed_to: Pushed, clock: Clock) -> FastAPI:
    """scored, pushed_to: where scores and pushed metrics are counted"""
    app = FastAPI(
        title="Graylift",
        version=version("graylift"),
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.include_router(releases.routes(store, clock))
    app.include_router(scores.routes(store, scored))
    app.include_router(pushed.routes(pushed_to))
    app.add_exception_handler(StoreError, _unavailable)
    app.add_exception_handler(ProtocolError, _refused)
    return app


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=503, headers={"Retry-After": "1"})


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, ProtocolError) else 400
    return JSONResponse({"error": str(error)}, status_code=status)
