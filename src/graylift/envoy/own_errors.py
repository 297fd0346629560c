"""Errors that Envoy answers by itself, in the form in which the clients of a path expect errors.

Called by `bootstrap.py`. It tells the protocols by their paths, since an error may come before there is a route.
"""

from __future__ import annotations

from collections.abc import Iterator

from graylift.domain.spec import ServingProtocol
from graylift.envoy.limits import NOBODY_COUNTS
from graylift.envoy.names import Json, status_filter

_OPENAI_PATHS = r"(/[^/?]+)?/v1([/?].*)?"


def mappers() -> Iterator[Json]:
    """For the listener, the first that fits wins."""
    # What the agent says to a request over its limits is in its client's form already.
    yield {
        "filter": {"response_flag_filter": {"flags": ["RL"]}},
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": "application/json",
        },
    }
    for wanted, message in (
        ({"response_flag_filter": {"flags": ["RLSE"]}}, NOBODY_COUNTS),
        (status_filter("GE", 400), "%LOCAL_REPLY_BODY%"),
    ):
        openai = {"and_filter": {"filters": [wanted, _is_openai()]}}
        yield {"filter": openai, "body_format_override": {"json_format": _error(ServingProtocol.OPENAI, message)}}
        plain = _error(ServingProtocol.OPEN_INFERENCE, message)
        yield {"filter": wanted, "body_format_override": {"json_format": plain}}


def _is_openai() -> Json:
    return {"header_filter": {"header": {"name": ":path", "string_match": {"safe_regex": {"regex": _OPENAI_PATHS}}}}}


def _error(protocol: ServingProtocol, message: str) -> Json:
    match protocol:
        case ServingProtocol.OPEN_INFERENCE:
            return {"error": message}
        case ServingProtocol.OPENAI:
            return {"error": {"message": message, "type": "gateway_error", "param": None, "code": "%RESPONSE_CODE%"}}
