"""What a client is told of its limits: the headers of every answer, and the body of a refusal.

The headers are OpenAI's, which its clients read: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`; a refusal
has `retry-after` too, or says that no waiting helps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import ceil
from typing import assert_never

from graylift.domain.limits import Admission, Quota, Standing, Unit
from graylift.domain.spec import ServingProtocol


def headers(admission: Admission) -> Iterator[tuple[str, str]]:
    """(name, value). Where several budgets count the same, the one that is nearest to its end speaks."""
    for unit in (Unit.REQUESTS, Unit.TOKENS):
        standings = [one for one in admission.standings if one.charge.budget.unit is unit]
        if standings:
            least = min(standings, key=lambda one: one.remaining / one.charge.budget.limit)
            yield f"x-ratelimit-limit-{unit.value}", str(least.charge.budget.limit)
            yield f"x-ratelimit-remaining-{unit.value}", str(least.remaining)
            yield f"x-ratelimit-reset-{unit.value}", _duration(least.full_s)
    if not admission.is_granted:
        yield "content-type", "application/json"
        if admission.retry_after_s is None:
            yield "x-should-retry", "false"
        else:
            yield "retry-after", str(admission.retry_after_s)


def refusal(admission: Admission, protocol: ServingProtocol) -> bytes:
    """The body of the 429, in the form in which clients of the protocol expect errors."""
    refused = max(
        (one for one in admission.standings if one.is_refusal),
        key=lambda one: float("inf") if one.wait_s is None else one.wait_s,
    )
    message = _sentence(refused, admission.retry_after_s)
    match protocol:
        case ServingProtocol.OPENAI:
            kind = refused.charge.budget.unit.value
            error = {"message": message, "type": kind, "param": None, "code": "rate_limit_exceeded"}
            return json.dumps({"error": error}).encode()
        case ServingProtocol.OPEN_INFERENCE:
            return json.dumps({"error": message}).encode()
        case _:
            assert_never(protocol)


def _sentence(refused: Standing, retry_after_s: int | None) -> str:
    budget, amount = refused.charge.budget, refused.charge.amount
    if budget.unit is Unit.CONCURRENT:
        limit = f"{budget.limit} requests at once for {budget.scope}"
        return f"over the limit of {limit}: try again in {retry_after_s} s"
    limit = f"{budget.unit.value} {Quota(budget.limit, budget.per_s)} for {budget.scope}"
    if retry_after_s is None:
        return f"over the limit of {limit}: this request may take {amount:,}. Lower max_tokens, or shorten the prompt"
    return f"over the limit of {limit}: {amount:,} asked, {refused.remaining:,} left; try again in {retry_after_s} s"


def _duration(seconds: float) -> str:
    """As OpenAI writes it: 17ms, 1s, 6m0s."""
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    minutes, rest = divmod(ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
