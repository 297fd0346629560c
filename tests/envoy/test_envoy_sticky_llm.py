"""Visitors, users and conversations on the real Envoy: where each stays can be foretold or is at least for good."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest
from envoy_lab import Answer, Gateway, ModelServer, openai_routes, routes, table
from openai_lab import LanguageModel
from xxhash import xxh64_intdigest

from graylift.domain.routing import RoutingTable, ServiceRoutes
from graylift.domain.spec import Sticky, StickyBy
from graylift.domain.weights import TOTAL

pytestmark = pytest.mark.real
Start: TypeAlias = Callable[[RoutingTable], Awaitable[Gateway]]

WEIGHTS = (100, 1_000, 3_000, 6_000, 10_000)


def foretold(value: str, weight: int, salt: str = "m-1") -> bool:
    """Is it the candidate's?"""
    return xxh64_intdigest(f"{salt}:{value}".encode()) % TOTAL < weight


async def test_a_visitor_is_where_its_cookie_says_from_the_first_request_on(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    def at(weight: int) -> ServiceRoutes:
        return routes(stable, candidate, weight, sticky=Sticky(StickyBy.COOKIE, "visitor"))

    one, two = await start(table(1, at(WEIGHTS[0]))), await start(table(1, at(WEIGHTS[0])))
    cookies: dict[str, bool] = {}
    for version, weight in enumerate(WEIGHTS, start=2):
        await one.apply(table(version, at(weight)))
        await two.apply(table(version, at(weight)))
        for cookie, was_candidates in cookies.items():
            # Among others, behind one whose name ends alike, and at the other gateway.
            for gateway, sent in ((one, f"a=b; visitor={cookie}; c=d"), (two, f"xvisitor=1; visitor={cookie}")):
                answer = await gateway.ask(cookie=sent)
                assert "set-cookie" not in answer.headers
                is_candidates = answer.revision == candidate.revision_id
                assert is_candidates == foretold(cookie, weight)
                assert is_candidates or not was_candidates, "somebody moved back"
            cookies[cookie] = is_candidates
        for _ in range(40):
            first = await one.ask(cookie="other=1")
            name, cookie = first.headers["set-cookie"].partition(";")[0].split("=")
            assert name == "visitor"
            cookies[cookie] = first.revision == candidate.revision_id
            assert cookies[cookie] == foretold(cookie, weight)
    assert len(cookies) == 40 * len(WEIGHTS)


async def says(gateway: Gateway, body: dict[str, Any], **headers: str) -> Answer:
    data = json.dumps({"model": "m", **body}).encode()
    return await gateway.ask("/v1/chat/completions", data, content_type="application/json", **headers)


def conversation(first: str, *, turns: int = 1, instruction: str = "Be kind.") -> dict[str, Any]:
    messages = [{"role": "system", "content": instruction}]
    for turn in range(turns):
        messages.append({"role": "user", "content": first if turn == 0 else f"And then {turn}?"})
        messages.append({"role": "assistant", "content": "So it was."})
    return {"messages": messages[:-1]}


@pytest.mark.parametrize(
    ("by", "requests_of"),
    [
        (StickyBy.USER, lambda name: [{"messages": [], "user": name}, {"user": name, "messages": [{"user": "no"}]}]),
        (
            StickyBy.CONVERSATION,
            lambda name: [conversation(name), conversation(name, turns=4, instruction="It is noon.")],
        ),
    ],
)
async def test_who_is_told_by_the_body_stays_where_it_is_while_weights_rise(
    start: Start,
    old: LanguageModel,
    new: LanguageModel,
    by: StickyBy,
    requests_of: Callable[[str], list[dict[str, Any]]],
) -> None:
    def at(weight: int) -> ServiceRoutes:
        return openai_routes(old, new, weight, sticky=Sticky(by))

    one, two = await start(table(1, at(WEIGHTS[0]))), await start(table(1, at(WEIGHTS[0])))
    names = [f'"{n}" é' * (n + 1) for n in range(40)]
    were: set[str] = set()
    for version, weight in enumerate(WEIGHTS, start=2):
        await one.apply(table(version, at(weight)))
        await two.apply(table(version, at(weight)))
        now: set[str] = set()
        for name in names:
            asked = requests_of(name)
            seen = {
                (await says(gateway, body, x_graylift_key=f"mine-{number}")).revision
                for gateway in (one, two)
                for number, body in enumerate(asked)
            }
            assert len(seen) == 1, "a client may not choose, and all of one name go one way"
            if seen == {new.revision_id}:
                now.add(name)
        assert were <= now, "somebody moved back"
        assert 0 < len(now) < len(names) or weight in (WEIGHTS[0], TOTAL)
        were = now
    assert len(were) == len(names)
    assert not any("x-graylift-key" in headers for server in (old, new) for headers in server.seen)


@pytest.mark.parametrize(
    ("by", "body"),
    [
        (StickyBy.CONVERSATION, {"messages": [{"role": "system", "content": "Be kind."}]}),
        (StickyBy.CONVERSATION, {"messages": [{"role": "user", "content": None}]}),
        (StickyBy.CONVERSATION, {"messages": "Say"}),
        (StickyBy.USER, {"messages": []}),
        (StickyBy.USER, {"messages": [], "user": None}),
        (StickyBy.USER, {"messages": [], "user": ""}),
    ],
)
async def test_a_body_that_does_not_tell_is_drawn_anew_each_time(
    start: Start, old: LanguageModel, new: LanguageModel, by: StickyBy, body: dict[str, Any]
) -> None:
    gateway = await start(table(1, openai_routes(old, new, 5_000, sticky=Sticky(by))))
    assert len({(await says(gateway, body)).revision for _ in range(60)}) == 2  # alike by chance: once in 5e17 runs


async def test_the_conversations_of_many_users_split_as_the_weight_says(
    start: Start, old: LanguageModel, new: LanguageModel
) -> None:
    gateway = await start(table(1, openai_routes(old, new, 2_000, sticky=Sticky(StickyBy.CONVERSATION))))
    answers = [await says(gateway, conversation(f"question {n}")) for n in range(1_500)]
    share = sum(answer.revision == new.revision_id for answer in answers) / len(answers)
    assert abs(share - 0.2) < 0.05  # five standard deviations
