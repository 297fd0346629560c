"""The page: what is stored is what it says, whatever is in it, and everybody who looks gets what changed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest
from stored_releases import NOW, a_release, keep

from graylift.adapters.sql_store import SqlStore
from graylift.api import stream
from graylift.api.board import plots_section, release_sections, services_sections
from graylift.api.steering import buttons
from graylift.api.stream import Broadcast
from graylift.domain.release import CommandKind, Event, Phase, Service, StageRecord
from graylift.domain.weights import Weights
from graylift.errors import StoreError
from graylift.testing import samples


def test_a_release_is_shown_as_it_is_stored(store: SqlStore) -> None:
    keep(store, a_release(), Event(NOW, "file-type", "file-type-1", "PROGRESSING", "stage 1 of 3 (5 %)", "ana"))
    sections = release_sections(store, "file-type-1", NOW)
    assert "PROGRESSING" in sections["head"]
    assert "observed 3.0 s of 5.0 s" in sections["track"]
    assert "0.1 % against 0.1 %" in sections["verdicts"]
    assert "inputs and outputs match" in sections["checks"]
    assert "by ana" in sections["events"]
    assert "a controller is at work" in sections["control"]
    assert "95 %" in services_sections(store, NOW)["services"]
    assert "no controller" in services_sections(store, NOW + 1e10)["control"]


def test_a_script_in_a_reason_stays_a_text(store: SqlStore) -> None:
    script = "<script>alert(1)</script>"
    keep(
        store,
        a_release(reason=script),
        Event(NOW, "file-type", "file-type-1", "PAUSED", script, '"><img src=x onerror=alert(1)>'),
    )
    sections = release_sections(store, "file-type-1", NOW)
    every = "".join([*sections.values(), plots_section(store, "file-type-1", NOW)])
    assert "<script" not in every
    assert "<img" not in every
    assert "&lt;script&gt;" in sections["head"]


def test_a_release_that_is_not_there_is_a_key_error(store: SqlStore) -> None:
    with pytest.raises(KeyError):
        release_sections(store, "nothing-7", NOW)


@pytest.mark.parametrize(
    ("phase", "useful"),
    [
        (Phase.CHECKING, {CommandKind.ABORT}),
        (Phase.PROGRESSING, {CommandKind.PROMOTE, CommandKind.PAUSE, CommandKind.ABORT}),
        (Phase.PAUSED, {CommandKind.PROMOTE, CommandKind.RESUME, CommandKind.ABORT}),
        (Phase.PROMOTED, set[CommandKind]()),
        (Phase.ROLLED_BACK, {CommandKind.RETRY}),
    ],
)
def test_only_commands_that_would_do_something_have_a_live_button(phase: Phase, useful: set[CommandKind]) -> None:
    release = a_release(phase)
    service = Service("file-type", release.spec.protocol, release.spec.routing, releases=1)
    offered = buttons(service, release, NOW)
    assert {button.kind for button in offered if button.why_not is None} == useful
    assert all(button.why_not for button in offered if button.kind not in useful)


def test_the_buttons_of_an_older_release_are_gone(store: SqlStore) -> None:
    keep(store, a_release(Phase.ROLLED_BACK))
    keep(store, replace(a_release(), id="file-type-2"))
    assert "data-command" not in release_sections(store, "file-type-1", NOW)["steer"]
    assert "data-command" in release_sections(store, "file-type-2", NOW)["steer"]


def test_what_was_judged_is_still_shown_when_there_is_nothing_left_to_compare(store: SqlStore) -> None:
    told = samples.verdict(sentence="0.2 % against 0.3 %; shown to be within 5pp")
    passed = StageRecord(1, Weights(5000), NOW - 9, NOW - 2, 7.0, 90, 90, (told,), "passed")
    watched = replace(a_release(Phase.PROMOTED), stage=2, done=(passed,))
    keep(store, watched)
    sections = release_sections(store, "file-type-1", NOW)
    assert "shown to be within 5pp" in sections["verdicts"]
    assert ">100 %<" in sections["arms"]


async def news(events: AsyncIterator[bytes]) -> Mapping[str, str]:
    async with asyncio.timeout(10):
        text = (await anext(events)).decode()
    return json.loads(text.partition("data: ")[2])


async def test_who_comes_gets_everything_and_then_only_what_changed() -> None:
    page = {"head": "one", "track": "same"}
    broadcast = Broadcast(lambda: dict(page), every_s=0.01)
    first, second = broadcast.events(), broadcast.events()
    assert await news(first) == {"head": "one", "track": "same"}
    page["head"] = "two"
    assert await news(first) == {"head": "two"}
    assert await news(second) == {"head": "two", "track": "same"}
    await first.aclose()
    await second.aclose()


async def test_fifty_lookers_cost_one_making() -> None:
    made = 0

    def make() -> Mapping[str, str]:
        nonlocal made
        made += 1
        return {"head": "same"}

    broadcast = Broadcast(make, every_s=3600)
    lookers = [broadcast.events() for _ in range(50)]
    assert await asyncio.gather(*map(news, lookers)) == [{"head": "same"}] * 50
    assert made == 1
    for looker in lookers:
        await looker.aclose()


async def test_a_store_that_is_away_keeps_the_page_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SILENCE_S", 0.05)
    tries = 0

    def make() -> Mapping[str, str]:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise StoreError("the disk is full")
        return {"head": "again"}

    events = Broadcast(make, every_s=0.03).events()
    heard = b""
    until = time.monotonic() + 10
    while b"again" not in heard and time.monotonic() < until:
        heard += await anext(events)
    assert heard.startswith(b": still here")
    assert b"again" in heard
    await events.aclose()


async def test_nothing_is_made_when_nobody_looks() -> None:
    broadcast = Broadcast(lambda: {"head": "one"}, every_s=0.01)
    events = broadcast.events()
    await news(events)
    await events.aclose()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "broadcast"]
