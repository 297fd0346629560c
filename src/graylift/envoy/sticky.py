"""What keeps requests together on one arm, as Envoy's hash policies: exact shares, and nobody moves back as they grow.

The pick is `xxh64(salt:value) % total`, whatever the value is taken from. Called by `routes.py`.

A cookie is an identity that the client gets from us, not the arm it is on: pinned to an arm, it would keep its users
there while the share around them grew. Envoy's own cookie policy knows no salt and makes its cookie only after it has
chosen, so the first request and the second could go different ways. Here the first is hashed by its request id, and
that is what its answer sets as the cookie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from graylift.domain.spec import Sticky, StickyBy
from graylift.envoy.llm import KEY_HEADER
from graylift.envoy.names import Json


@dataclass(frozen=True, slots=True)
class Way:
    """One route's worth of it.

    policy:  by what its requests are hashed; what has none of it is drawn anew each time
    only:    the header that a request must have for it, None: it takes every request
    answers: headers that its answers get
    """

    policy: Json
    only: Json | None = None
    answers: tuple[Json, ...] = ()


def ways(sticky: Sticky, salt: str) -> Iterator[Way]:
    """In the order in which they are to be looked at."""
    match sticky.by:
        case StickyBy.HEADER:
            assert sticky.name is not None, "the table has been refused otherwise"
            yield Way(_hashed(sticky.name, "^(.*)$", salt))
        case StickyBy.COOKIE:
            # The last one of that name, and no other whose name ends like it.
            one = rf"(?:.*; *)?{sticky.name}=([^; ]+).*"
            present = {"name": "cookie", "string_match": {"safe_regex": {"regex": one}}}
            yield Way(_hashed("cookie", f"^{one}$", salt), only=present)
            # Without an end: it lasts as long as the browser, and costs nobody a banner.
            cookie = f"{sticky.name}=%REQ(X-REQUEST-ID)%; Path=/; HttpOnly; SameSite=Lax"
            set_cookie = {"header": {"key": "set-cookie", "value": cookie}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}
            yield Way(_hashed("x-request-id", "^(.*)$", salt), answers=(set_cookie,))
        case StickyBy.USER | StickyBy.CONVERSATION:
            yield Way(_hashed(KEY_HEADER, "^(.*)$", salt))
        case _:
            assert_never(sticky.by)


def in_body(sticky: Sticky | None) -> str | None:
    """What of the body `llm.lua` has to look for."""
    return sticky.by.value if sticky is not None and sticky.is_in_body else None


def _hashed(header: str, pattern: str, salt: str) -> Json:
    salted = {"pattern": {"regex": pattern}, "substitution": f"{salt}:\\1"}
    return {"header": {"header_name": header, "regex_rewrite": salted}}
