"""Who comes in: each request's token, as a bearer or in the cookie of a page, the rank it needs, and how large its body
may be.

While the store holds no token, loopback is open and beyond it everything is refused. Once it holds one, be it revoked,
every request needs one: revoking the last token opens nothing. As plain ASGI behind `guard`, so that nobody unknown has
a body read or a stream opened. A token is never logged.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graylift.domain.access import Rank, Token, token_of
from graylift.errors import StoreError
from graylift.ports import Clock

MAX_BYTES = 4 * 1024 * 1024
"""Of any body; most routes take less."""
GUESSES, PER_S = 10, 60.0
"""So many wrong tokens from one address in so many seconds; then none from there is looked at for a while."""
_MOST_ADDRESSES = 1_000
COOKIE = "graylift-token"
"""Set when somebody logs in on the page: out of reach of scripts, and not sent for other sites."""
LOGIN = "/login"

_READS = ("GET", "HEAD")

_log = logging.getLogger(__name__)


class Tokens(Protocol):
    def tokens(self) -> Sequence[Token]:
        """All there ever were, revoked ones too. Blocks; StoreError."""
        ...


class Door:
    """ASGI middleware. `scope["state"]["user"]` is the name of who asks; absent where nobody must say."""

    def __init__(self, app: ASGIApp, tokens: Tokens, clock: Clock, *, loopback: bool) -> None:
        self._app = app
        self._tokens = tokens
        self._clock = clock
        self._loopback = loopback
        self._guesses: OrderedDict[str, deque[float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal = await self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)

    async def _refusal(self, request: Request) -> Response | None:
        try:
            tokens = await asyncio.to_thread(self._tokens.tokens)
        except StoreError as error:
            return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})
        announced = request.headers.get("content-length", "0")
        if not announced.isdigit() or int(announced) > MAX_BYTES:
            return _refused(request, 413, f"a body has up to {MAX_BYTES:,} bytes here", "unknown")
        if not tokens and self._loopback:
            return None
        address = request.client.host if request.client else ""
        if self._guesses_too_much(address):
            answer = _refused(request, 429, "too many wrong tokens came from this address: wait a minute", "unknown")
            answer.headers["Retry-After"] = str(int(PER_S))
            return answer
        if request.method in _READS and (request.url.path == LOGIN or request.url.path.startswith("/static/")):
            return None
        secret = secret_of(request)
        token = token_of(secret, tokens)
        if token is None or not token.is_good(self._clock.now()):
            if secret:
                self._count(address)
            if request.method in _READS and "text/html" in request.headers.get("accept", ""):
                return RedirectResponse(LOGIN, 303)
            why = "a good token is needed, as Authorization: Bearer TOKEN; `graylift token create` makes one"
            answer = _refused(request, 401, why, "unknown" if token is None else token.name)
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        needed = Rank.VIEWER if request.method in _READS or request.url.path == LOGIN else Rank.OPERATOR
        if not token.rank.covers(needed):
            why = f"{token.name} is a {token.rank.value}, and this takes an {needed.value}"
            return _refused(request, 403, why, token.name)
        request.state.user = token.name
        return None

    def _guesses_too_much(self, address: str) -> bool:
        wrong = self._guesses.get(address)
        while wrong and wrong[0] < time.monotonic() - PER_S:
            wrong.popleft()
        return wrong is not None and len(wrong) >= GUESSES

    def _count(self, address: str) -> None:
        self._guesses.setdefault(address, deque(maxlen=GUESSES)).append(time.monotonic())
        self._guesses.move_to_end(address)
        if len(self._guesses) > _MOST_ADDRESSES:
            self._guesses.popitem(last=False)


def secret_of(request: Request) -> str:
    """The token that comes with a request; empty if none does."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else request.cookies.get(COOKIE, "")


def new_secret() -> str:
    return "graylift_" + secrets.token_urlsafe(32)


def _refused(request: Request, status: int, why: str, who: str) -> JSONResponse:
    address = request.client.host if request.client else "unknown"
    _log.warning("refused %s %.200r by %s from %s: %s", request.method, request.url.path, who, address, why)
    return JSONResponse({"error": why}, status)


def _bounded(receive: Receive) -> Receive:
    """A body that does not announce its length ends, for whoever reads it, when it grows too large."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return message if taken <= MAX_BYTES else {"type": "http.disconnect"}

    return bounded
