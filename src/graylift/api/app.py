"""The FastAPI app: its routes put together, and errors as one kind of JSON. Called by `cli/wiring.py`."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from graylift.api import pages, pushed, releases, scores
from graylift.api.door import Door
from graylift.api.guard import Guard
from graylift.api.records import Records
from graylift.errors import ProtocolError, StoreError
from graylift.ports import Clock, Pushed, Scores

_OWN_NAMES = ("127.0.0.1", "::1", "localhost")


def create_app(store: Records, scored: Scores, pushed_to: Pushed, clock: Clock, host: str) -> Guard:
    """scored, pushed_to: where scores and pushed metrics are counted. host: the address it is served at; on loopback
    only this machine's own names are answered, elsewhere any, since nobody here knows by which names others reach it.
    """
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
    app.include_router(pages.routes(store, clock))
    app.add_exception_handler(StoreError, _unavailable)
    app.add_exception_handler(ProtocolError, _refused)
    loopback = is_loopback(host)
    return Guard(Door(app, store, clock, loopback=loopback), _OWN_NAMES if loopback else None)


def is_loopback(host: str) -> bool:
    return host in _OWN_NAMES or host.startswith("127.")


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=503, headers={"Retry-After": "1"})


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, ProtocolError) else 400
    return JSONResponse({"error": str(error)}, status_code=status)
