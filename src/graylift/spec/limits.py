"""`spec.routing.limits` -> `Limits`: what clients may ask, and what happens while nobody can say whether they do.

Called by `release`.
"""

from __future__ import annotations

from graylift.domain.limits import LimitRule, Limits, WhenAway
from graylift.domain.spec import ServingProtocol
from graylift.spec import defaults
from graylift.spec.fields import Fields, Read, Wrong
from graylift.spec.headers import header, header_value
from graylift.spec.shapes import LIMIT, LIMIT_KEY, LIMIT_LABEL
from graylift.spec.values import choice, integer, matching, quota

MOST_CONCURRENT = 10_000

_path = matching(
    "a path", r"(?:/[A-Za-z0-9._~-]+)+", "write a path that begins with `/`, without a query: /v1/embeddings"
)
_concurrent = integer(1, MOST_CONCURRENT)
_answer_tokens = integer(1, 1_000_000)
_when_away = choice({member.value: member for member in WhenAway})


def read_limits(fields: Fields, protocol: Read[ServingProtocol]) -> Limits | None:
    """None if the file names none. Both fields stand together: neither answer to an absence is right for everybody."""
    if not fields.has("limits"):
        fields.refuse(
            "whenLimiterAway", "there are no `limits`, so nobody is asked for them", "delete it, or add `limits`"
        )
        return None
    rules = fields.each("limits", LIMIT, lambda limit: _read_rule(limit, protocol))
    when_away = fields.read("whenLimiterAway", _when_away)
    known: dict[tuple[str, str], Read[LimitRule]] = {}
    for rule in rules.value:
        for text in (text for found in rule.found for text in _texts(found)):
            other = known.setdefault(text, rule)
            if other is not rule:
                what = f"line {other.place.line} has the limit of {text[1]} for {text[0]} already"
                fields.problems.add(rule.place, what, "delete one of the two")
    return Limits(tuple(rule.value for rule in rules.value), when_away.value)


def _read_rule(fields: Fields, protocol: Read[ServingProtocol]) -> LimitRule:
    key = fields.nested_or(None, "key", LIMIT_KEY, lambda key: key.read("header", header).value)
    label = fields.nested_or(
        None,
        "label",
        LIMIT_LABEL,
        lambda label: (label.read("header", header).value, label.read("exact", header_value).value),
    )
    path = fields.read_or(None, "path", _path)
    requests = fields.read_or(None, "requests", quota)
    tokens = fields.read_or(None, "tokens", quota)
    concurrent = fields.read_or(None, "concurrent", _concurrent)
    answer_tokens = fields.read_or(defaults.ANSWER_TOKENS, "answerTokens", _answer_tokens)
    if not fields.has("tokens"):
        fields.refuse("answerTokens", "this limit counts no `tokens`", "delete it, or add `tokens`: 60000/m")
    if protocol.found and protocol.value is not ServingProtocol.OPENAI:
        fields.refuse("tokens", "only a service of `protocol: openai` counts tokens", "limit its `requests`")
    if not any(fields.has(name) for name in ("requests", "tokens", "concurrent")):
        raise Wrong(fields.place, "this limit limits nothing", "add one of: requests: 100/s, concurrent: 20")
    return LimitRule(
        key.value, label.value, path.value, requests.value, tokens.value, concurrent.value, answer_tokens.value
    )


def _texts(rule: LimitRule) -> list[tuple[str, str]]:
    """(whom, how much) of each budget that a rule opens; two equal ones would be one budget, charged twice."""
    amounts = (
        None if rule.requests is None else f"requests in 1{str(rule.requests)[-1]}",
        None if rule.tokens is None else f"tokens in 1{str(rule.tokens)[-1]}",
        None if rule.concurrent is None else "concurrent requests",
    )
    return [(rule.scope, amount) for amount in amounts if amount is not None]
