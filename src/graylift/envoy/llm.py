"""The filter for language models: `llm.lua`, where it is attached, and what it writes for the log.

`bootstrap.py` lays it in for nobody, `routes.py` attaches it where clients speak openai, `access_log.py` reads what it
wrote. The rate limit service may read it too: of a request `stream`, `reserve` (tokens: the prompt, estimated, and the
most that may be answered) and `max_tokens`; of its answer `total_tokens`, which grows while a stream runs.
"""

from __future__ import annotations

import pkgutil

from graylift.envoy.names import TYPE, Json

NAMESPACE = "graylift.llm"
"""Of the dynamic metadata."""

KEY_HEADER = "x-graylift-key"
"""What keeps a conversation together where it stands in the body, as a hash. It reaches no server, and is believed of
no client."""

FILTER = "llm"

_LUA = f"{TYPE}.extensions.filters.http.lua.v3"


def llm_filter() -> Json:
    """For the listener. It does nothing where no route attaches it."""
    source = pkgutil.get_data("graylift.envoy", "llm.lua")
    assert source is not None
    return {
        "name": FILTER,
        "disabled": True,
        "typed_config": {"@type": f"{_LUA}.Lua", "source_codes": {FILTER: {"inline_string": source.decode()}}},
    }


def attached(sticky: str | None = None) -> Json:
    """For a route. sticky: what of the body keeps requests together, `user` or `conversation`."""
    context = {} if sticky is None else {"filter_context": {"sticky": sticky}}
    config = {"@type": f"{_LUA}.LuaPerRoute", "name": FILTER, **context}
    return {FILTER: {"@type": f"{TYPE}.config.route.v3.FilterConfig", "config": config}}
