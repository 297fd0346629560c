"""The pages for people: services, releases, one release live, its report; and the metrics for machines. Called by
`app`.

Each page is whole without a script: what a browser gets first is what is so now. The script keeps it so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from graylift.api.board import plots_section, release_sections, services_sections, templates
from graylift.api.door import COOKIE, LOGIN, secret_of
from graylift.api.exposition import CONTENT_TYPE, Exposition
from graylift.api.guard import REPORT_POLICY
from graylift.api.records import Records
from graylift.api.stream import Broadcast
from graylift.errors import ProtocolError
from graylift.ports import Clock
from graylift.report import render_html

_STATIC = {
    "graylift.css": "text/css; charset=utf-8",
    "graylift.js": "text/javascript; charset=utf-8",
    "favicon.svg": "image/svg+xml",
}
_PLOTS_EVERY = 5
"""Plots are drawn anew each so many seconds: they are most of a page, and a second hardly shows in them."""


def routes(records: Records, clock: Clock) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    static = {name: files("graylift.api").joinpath("static", name).read_bytes() for name in _STATIC}
    broadcasts: dict[str, Broadcast] = {}
    exposition = Exposition(records, clock)

    @router.get("/")
    async def services() -> HTMLResponse:
        sections = await asyncio.to_thread(services_sections, records, clock.now())
        return _page("services", sections, "/live/services")

    @router.get("/releases")
    async def releases(service: str | None = None) -> HTMLResponse:
        newest = await asyncio.to_thread(records.releases, service)
        return _page("releases", {}, None, releases=newest, service=service, now=clock.now())

    @router.get("/releases/{release_id}")
    async def release(release_id: str) -> HTMLResponse:
        try:
            found = await asyncio.to_thread(records.release, release_id)
            sections = await asyncio.to_thread(_Release(records, release_id, clock).sections)
        except KeyError:
            raise _unknown(release_id) from None
        return _page("release", sections, f"/live/releases/{found.id}", release=found)

    @router.get("/releases/{release_id}/report")
    async def report(release_id: str) -> HTMLResponse:
        try:
            history = await asyncio.to_thread(records.history, release_id)
        except KeyError:
            raise _unknown(release_id) from None
        html = await asyncio.to_thread(render_html, history.release, history.events, history.reports)
        return HTMLResponse(html, headers={"Content-Security-Policy": REPORT_POLICY})

    @router.get("/live/services")
    async def live_services() -> StreamingResponse:
        return _stream(broadcasts.setdefault("", Broadcast(lambda: services_sections(records, clock.now()))))

    @router.get("/live/releases/{release_id}")
    async def live_release(release_id: str) -> StreamingResponse:
        try:
            await asyncio.to_thread(records.release, release_id)
        except KeyError:
            raise _unknown(release_id) from None
        return _stream(broadcasts.setdefault(release_id, Broadcast(_Release(records, release_id, clock).sections)))

    @router.get(LOGIN)
    async def login() -> HTMLResponse:
        return _page("login", {}, None)

    @router.post(LOGIN)
    async def logged_in(request: Request) -> Response:
        # Who comes here with a token was let in by the door.
        answer = Response(status_code=204)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, secret_of(request), httponly=True, samesite="strict", secure=secure)
        return answer

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(await asyncio.to_thread(exposition.text), headers={"Content-Type": CONTENT_TYPE})

    @router.get("/static/{name}")
    async def resource(name: str) -> Response:
        if name not in static:
            raise ProtocolError(f"there is no {name!r} here", 404)
        return Response(static[name], media_type=_STATIC[name], headers={"Cache-Control": "no-cache"})

    return router


class _Release:
    """The sections of one release, with plots that are drawn less often than the rest."""

    def __init__(self, records: Records, release_id: str, clock: Clock) -> None:
        self._records = records
        self._id = release_id
        self._clock = clock
        self._plots: str | None = None
        self._drawn_s = 0.0

    def sections(self) -> Mapping[str, str]:
        now = self._clock.now()
        if self._plots is None or not 0 <= now - self._drawn_s < _PLOTS_EVERY:
            self._plots, self._drawn_s = plots_section(self._records, self._id, now), now
        return {**release_sections(self._records, self._id, now), "plots": self._plots}


def _page(name: str, sections: Mapping[str, str], stream: str | None, **values: object) -> HTMLResponse:
    html = templates.get_template(f"{name}.html.j2").render(
        sections=sections, control=sections.get("control"), stream=stream, **values
    )
    return HTMLResponse(html)


def _stream(broadcast: Broadcast) -> StreamingResponse:
    return StreamingResponse(broadcast.events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _unknown(release_id: str) -> ProtocolError:
    return ProtocolError(f"there is no release {release_id[:80]!r}; /releases names them", 404)
