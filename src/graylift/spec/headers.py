"""Names and values of request headers, as a release file may use them. Called by `release`, `limits` and `shadow`."""

from __future__ import annotations

from graylift.spec.document import Node
from graylift.spec.fields import Wrong
from graylift.spec.values import matching

_token = matching(
    "a header name", r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", "write the name of a request header: x-user-id"
)
header_value = matching(
    "a header value", r"[\x21-\x7e](?:[\x20-\x7e]{0,1022}[\x21-\x7e])?", "write printable ASCII, without spaces around"
)


def header(node: Node) -> str:
    """Names of headers do not depend on case; the lower one is theirs in HTTP/2."""
    name = _token(node).lower()
    if name == "host" or name.startswith("x-graylift-"):
        raise Wrong(node.place, f"`{name}` is read or written by the gateway itself", "choose a header of your own")
    return name
