"""A service's limits in the words of Envoy's rate limit filter: what it asks the agent, and the questions read back.

Envoy asks once when a request begins, with one descriptor for each limit that concerns it, and tells once when the
request has ended, if the agent's answer was a reservation. Both say all that is needed to answer them: the agent keeps
budgets, but no table and no list of what runs, so a restart of it or a change of the table loses nobody's settlement.

Called by `routes.py` and `bootstrap.py` (the configuration) and by `gateway/limiter.py` (the questions).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, assert_never

from graylift.domain.limits import Budget, Charge, LimitRule, Reservation, Unit, WhenAway
from graylift.domain.routing import ServiceRoutes
from graylift.domain.spec import ServingProtocol
from graylift.envoy.llm import NAMESPACE
from graylift.envoy.names import AGENT, TYPE, Json

METHOD_SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
METHOD = "ShouldRateLimit"

RESERVATION = "reservation"
"""The field in which the agent's answer gives Envoy something to bring back at the request's end."""

ANSWERED_WITHIN = "0.25s"
"""The agent answers in a millisecond; it is away if it has not done so by then."""

NOBODY_COUNTS = "whoever counts this service's limits does not answer, and its release file says deny then; try again"

LONGEST_STREAM_S = 600.0
"""Until a place is free again that nobody gave back, since Envoy was killed. A longer stream loses its place."""

_HEADERS = tuple(
    f"x-ratelimit-{what}-{unit}" for unit in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)
_REPLIES = "envoy.filters.http.ratelimit"


def filters() -> Iterator[Json]:
    """Both filters of the chain. A route names in one of them what is asked; without that neither asks anything."""
    for when_away in WhenAway:
        yield {
            "name": _filter(when_away),
            "typed_config": {
                "@type": f"{TYPE}.extensions.filters.http.ratelimit.v3.RateLimit",
                "domain": "graylift",
                "timeout": ANSWERED_WITHIN,
                "failure_mode_deny": when_away is WhenAway.DENY,
                "status_on_error": {"code": "ServiceUnavailable"},
                "disable_x_envoy_ratelimited_header": True,
                "rate_limit_service": {
                    "transport_api_version": "V3",
                    "grpc_service": {"envoy_grpc": {"cluster_name": AGENT}},
                },
            },
        }


def asked(service: ServiceRoutes) -> Json:
    """By filter, what a route of the service has it ask; nothing if the service has no limits."""
    if service.limits is None:
        return {}
    rules = service.limits.rules
    asked: list[Json] = [{"actions": list(_actions(service, rule))} for rule in rules]
    if any(rule.tokens or rule.concurrent for rule in rules):
        asked.append({"apply_on_stream_done": True, "actions": list(_END)})
    config = {"@type": f"{TYPE}.extensions.filters.http.ratelimit.v3.RateLimitPerRoute", "rate_limits": asked}
    return {_filter(service.limits.when_away): config}


def hidden_headers(service: ServiceRoutes) -> Json:
    """A server's own headers of these names speak of the gateway as its client, not of ours."""
    return {} if service.limits is None else {"response_headers_to_remove": list(_HEADERS)}


@dataclass(frozen=True, slots=True)
class Question:
    """May a request go on that asks this of its budgets? `protocol` tells how its client wants to hear no."""

    protocol: ServingProtocol
    charges: tuple[Charge, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """A request with a reservation has ended. `used_tokens`: see `settled_tokens`."""

    reservation: Reservation
    used_tokens: int | None


def parse(descriptors: Sequence[Mapping[str, str]]) -> Question | Ending:
    """What Envoy says; a descriptor as its entries. ValueError if we never told it to say so."""
    try:
        if RESERVATION in descriptors[0]:
            (entries,) = descriptors
            return Ending(reservation_from_text(entries[RESERVATION]), _used_tokens(entries))
        protocols = {_rule(entries["limit"]).protocol for entries in descriptors}
        (protocol,) = protocols
        return Question(protocol, tuple(charge for entries in descriptors for charge in _charges(entries)))
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        raise ValueError(f"no descriptors of ours: {type(exc).__name__}") from exc


def text_from_reservation(reservation: Reservation) -> str | None:
    """What Envoy brings back at the end; None if there is nothing to settle then."""
    charges = [charge for charge in reservation.charges if charge.budget.unit is not Unit.REQUESTS]
    if not charges:
        return None
    return json.dumps([reservation.id, *([*_plain(charge.budget), charge.amount] for charge in charges)])


def reservation_from_text(text: str) -> Reservation:
    id, *charges = json.loads(text)  # noqa: A001 - the reservation's
    return Reservation(
        id,
        tuple(
            Charge(Budget(name, scope, Unit(unit), limit, per_s), amount)
            for name, scope, unit, limit, per_s, amount in charges
        ),
    )


def _plain(budget: Budget) -> list[object]:
    return [budget.name, budget.scope, budget.unit.value, budget.limit, budget.per_s]


def _filter(when_away: WhenAway) -> str:
    return f"limits/{when_away.value}"


def _actions(service: ServiceRoutes, rule: LimitRule) -> Iterator[Json]:
    """The entries of one rule's descriptor. A request that its label or path do not fit has no such descriptor."""
    if rule.label is not None:
        yield _only_if(rule.label[0], {"exact": rule.label[1]})
    if rule.path is not None:
        yield _only_if(":path", {"safe_regex": {"regex": _paths(service, rule.path)}})
    yield {"generic_key": {"descriptor_key": "limit", "descriptor_value": _text_from_rule(service, rule)}}
    if rule.key_header is not None:
        # Without the header it is no entry but a descriptor all the same: to leave out one's key opens no way around.
        key = {"header_name": rule.key_header, "descriptor_key": "key", "skip_if_absent": True}
        yield {"request_headers": key}
    if rule.tokens is not None:
        yield _counted("reserve", "reserve")
        yield _counted("prompt", "estimate")
        yield _counted("most", "max_tokens")


def _only_if(header: str, match: Json) -> Json:
    headers = [{"name": header, "string_match": match}]
    return {"header_value_match": {"descriptor_key": "concerns", "descriptor_value": header, "headers": headers}}


def _paths(service: ServiceRoutes, path: str) -> str:
    before = f"(/{service.service})?" if service.protocol is ServingProtocol.OPENAI else ""
    return f"{before}{re.escape(path)}([/?].*)?"


def _counted(key: str, name: str) -> Json:
    """An entry of what `llm.lua` counted under this name, if it did."""
    return _computed(key, f'int(metadata.filter_metadata["{NAMESPACE}"]["{name}"])')


def _computed(key: str, expression: str) -> Json:
    """An entry of what the expression gives; no entry where there is no such value."""
    return {
        "extension": {
            "name": "envoy.rate_limit_descriptors.expr",
            "typed_config": {
                "@type": f"{TYPE}.extensions.rate_limit_descriptors.expr.v3.Descriptor",
                "descriptor_key": key,
                "skip_if_error": True,
                "text": expression,
            },
        }
    }


_END: Sequence[Json] = (
    {
        "metadata": {
            "descriptor_key": RESERVATION,
            "metadata_key": {"key": _REPLIES, "path": [{"key": RESERVATION}]},
            "source": "DYNAMIC",
        }
    },
    _counted("used", "total_tokens"),
    _computed("status", "response.code"),
)
"""A request that was not admitted has no reservation, and so no such descriptor."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule as a descriptor carries it: its budgets without the key. `answer_tokens`: see `LimitRule`."""

    protocol: ServingProtocol
    answer_tokens: int
    budgets: tuple[Budget, ...]


def _text_from_rule(service: ServiceRoutes, rule: LimitRule) -> str:
    budgets = [_plain(budget) for budget in _budgets(service, rule)]
    return json.dumps([service.protocol.value, rule.answer_tokens, *budgets])


def _budgets(service: ServiceRoutes, rule: LimitRule) -> Iterator[Budget]:
    def budget(unit: Unit, limit: int, per_s: float) -> Budget:
        return Budget(f"{service.service}|{rule.scope}|{unit.value}/{per_s:g}", rule.scope, unit, limit, per_s)

    if rule.requests is not None:
        yield budget(Unit.REQUESTS, rule.requests.amount, rule.requests.per_s)
    if rule.tokens is not None:
        yield budget(Unit.TOKENS, rule.tokens.amount, rule.tokens.per_s)
    if rule.concurrent is not None:
        yield budget(Unit.CONCURRENT, rule.concurrent, _longest_s(service))


def _longest_s(service: ServiceRoutes) -> float:
    """No request lasts longer, retry and log line included."""
    match service.protocol:
        case ServingProtocol.OPEN_INFERENCE:
            return service.timeout_s + 10
        case ServingProtocol.OPENAI:
            return LONGEST_STREAM_S
        case _:
            assert_never(service.protocol)


@lru_cache(maxsize=1024)
def _rule(text: str) -> _Rule:
    protocol, answer_tokens, *budgets = json.loads(text)
    return _Rule(
        ServingProtocol(protocol),
        answer_tokens,
        tuple(Budget(name, scope, Unit(unit), limit, per_s) for name, scope, unit, limit, per_s in budgets),
    )


def _charges(entries: Mapping[str, str]) -> Iterator[Charge]:
    rule = _rule(entries["limit"])
    for budget in rule.budgets:
        tokens = budget.unit is Unit.TOKENS
        yield Charge(_of_key(budget, entries.get("key")), _reserve(rule, entries) if tokens else 1)


def _reserve(rule: _Rule, entries: Mapping[str, str]) -> int:
    """The tokens that a request may take. 0 of one that asks for no answer (the list of models), or whose body could
    not be read: it is charged what it turns out to have used."""
    names_no_most = "prompt" in entries and "most" not in entries
    return max(0, int(entries.get("reserve", 0))) + (rule.answer_tokens if names_no_most else 0)


def _of_key(budget: Budget, key: str | None) -> Budget:
    """The budget of one key. Keys are secrets: they leave this place as a hash only."""
    if key is None:
        return budget
    name = f"{budget.name}|{blake2b(key.encode(), digest_size=16).hexdigest()}"
    return Budget(name, budget.scope, budget.unit, budget.limit, budget.per_s)


def _used_tokens(entries: Mapping[str, Any]) -> int | None:
    """The tokens of a request that has ended; 0 of one that no model answered. None if they are not known, as of a
    stream that the client left."""
    if "used" in entries:
        return max(0, int(entries["used"]))
    failed = "status" in entries and int(entries["status"]) >= 400
    return 0 if failed else None
