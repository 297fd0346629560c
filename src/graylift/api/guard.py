"""What every request must be before anything reads it, and what every answer carries.

A control plane on loopback is in reach of every page that a browser on this machine has open: such a page may send
requests here, and may point a name of its own at 127.0.0.1. So the Host must be one of ours, a body must be of a type
that a foreign page cannot send without asking first (which nothing here allows), and no page may frame ours. As plain
ASGI, since it stands before long streams, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
"""A report is one file with its style inside; it runs nothing."""

_HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
_READS = frozenset({"GET", "HEAD"})
_FORMS = frozenset({"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""What a form on a foreign page can send without asking."""


class Guard:
    """ASGI middleware. hosts: the names (without port) by which this API may be called; None: by any."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None) -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (wrong := self._objection(scope)) is not None:
            await _refuse(send, *wrong)
            return
        await self._app(scope, receive, _adding_headers(send))

    def _objection(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = _name_of(headers.get(b"host", ""))
        if self._hosts is not None and host not in self._hosts:
            return 421, f"this API is called {' or '.join(sorted(self._hosts))}, not {host[:80]!r}"
        if scope["method"] in _READS:
            return None
        if headers.get(b"sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "a page of another site may not give commands"
        if headers.get(b"content-type", "").partition(";")[0].strip().lower() in _FORMS:
            return 415, "expected a body of JSON, and a Content-Type that says so: application/json"
        return None


def _adding_headers(send: Send) -> Send:
    """With the headers that every answer carries, where an answer does not set its own."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message["headers"]}
            added = [(name, value) for name, value in _HEADERS.items() if name not in own]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return told


def _name_of(host: str) -> str:
    """The host without its port; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps({"error": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *_HEADERS.items()]})
    await send({"type": "http.response.body", "body": body})
