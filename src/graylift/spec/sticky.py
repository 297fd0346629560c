"""`spec.routing.sticky` -> `Sticky`: the one thing that keeps requests together. Called by `release`."""

from __future__ import annotations

from graylift.domain.spec import ServingProtocol, Sticky, StickyBy
from graylift.spec.fields import Fields, Read
from graylift.spec.headers import header
from graylift.spec.values import choice, matching

_cookie = matching("a cookie name", r"[A-Za-z0-9_-]{1,64}", "write up to 64 letters, digits, `-` and `_`: visitor")
_body = choice({by.value: by for by in (StickyBy.USER, StickyBy.CONVERSATION)})


def read_sticky(fields: Fields, protocol: Read[ServingProtocol]) -> Sticky:
    if fields.has("cookie"):
        _alone(fields, "cookie", "header", "body")
        return Sticky(StickyBy.COOKIE, fields.read("cookie", _cookie).value)
    if fields.has("body"):
        _alone(fields, "body", "header")
        if protocol.found == (ServingProtocol.OPEN_INFERENCE,):
            why = "a body of open-inference holds tensors, and nothing that tells whose they are"
            fields.refuse("body", why, "write the name of a `header` or of a `cookie`")
        return Sticky(fields.read("body", _body).value)
    return Sticky(StickyBy.HEADER, fields.read("header", header).value)


def _alone(fields: Fields, name: str, *others: str) -> None:
    for other in others:
        fields.refuse(other, f"`{other}` has no place beside `{name}`: one thing keeps requests together", "keep one")
