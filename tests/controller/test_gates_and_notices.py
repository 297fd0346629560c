"""Whole releases that other systems are asked about and told of, in virtual time, with a real store and real HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from release_scene import GOOD_WAY, STAGES, Scene

from graylift.adapters.http_gates import HttpGates, answer_from
from graylift.adapters.notifier import OutsideNotifier
from graylift.adapters.posts import Posts
from graylift.adapters.sql_outbox import SqlOutbox
from graylift.adapters.sql_store import SqlStore
from graylift.controller import Controller
from graylift.controller.courier import Courier
from graylift.controller.troubles import Troubles
from graylift.domain.notices import Gate, GateAnswer, GateState, Notice, Question, Secret, Slack, Webhook
from graylift.domain.release import Phase
from graylift.errors import NotTold
from graylift.ports import Change
from graylift.testing.conformance_store import a_lease, a_release, a_tracked, an_event
from graylift.testing.fakes import FakeClock
from graylift.testing.samples import release_spec

KEY = "the key of this test"
GATE = Gate("window", "http://gate.test/")
GATED = release_spec(stages=(STAGES[0], replace(STAGES[1], confirm=(GATE,)), STAGES[2]))


class FakeGates:
    def __init__(self, state: GateState, reason: str = "") -> None:
        self.state, self.reason, self.asked = state, reason, list[Question]()

    async def ask(self, gate: Gate, question: Question) -> GateAnswer:
        self.asked.append(question)
        return GateAnswer(gate.name, self.state, self.reason)


class GatedScene(Scene):
    def __init__(self, gates: FakeGates) -> None:
        super().__init__()
        self.controller = Controller(
            store=self.store,
            router=self.router,
            evidence=self.evidence,
            deployer=self.deployer,
            checklist=self.checklist,
            clock=self.clock,
            holder="gated",
            gates=gates,
        )


@pytest.mark.parametrize("state", [GateState.WAIT, GateState.AWAY])
async def test_a_gate_that_waits_or_is_away_holds_is_told_once_and_lets_go(state: GateState) -> None:
    gates = FakeGates(state, "frozen until nine")
    scene = GatedScene(gates)
    scene.starts(GATED)
    await scene.until(Phase.PROGRESSING)
    await scene.seconds(60)
    assert (scene.release.phase, scene.release.stage) == (Phase.PROGRESSING, 0)
    assert "gate window" in scene.release.reason
    assert "frozen until nine" in scene.release.reason
    assert len(scene.events("GATE")) == 1
    assert 4 <= len(gates.asked) <= 8, "every ten seconds"
    gates.state = GateState.GO
    await scene.until(Phase.PROMOTED)
    assert scene.stages() == GOOD_WAY
    assert [event.text for event in scene.events("GATE")][1:] == ["window says go: frozen until nine"]


async def test_a_gate_that_says_stop_takes_the_release_back() -> None:
    scene = GatedScene(FakeGates(GateState.STOP, "incident 7"))
    scene.starts(GATED)
    release = await scene.until(Phase.ROLLED_BACK)
    assert release.reason.startswith("gate window says stop: incident 7")


@pytest.mark.parametrize("body", [b"", b"go", b'"go"', b'{"answer": "yes"}', b'{"answer": ["go"]}', b"[" * 9999])
def test_an_unclear_answer_is_no_consent(body: bytes) -> None:
    assert answer_from("window", body).state is GateState.AWAY


class Receiver:
    def __init__(self) -> None:
        self.status, self.url = 200, ""
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status, text='{"answer": "go"}')

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made, app = Receiver(), web.Application()
    app.router.add_post("/{any:.*}", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


@pytest.fixture
async def posts() -> AsyncIterator[Posts]:
    made = Posts()
    yield made
    await made.close()


async def sent(courier: Courier) -> None:
    await asyncio.wait([sending.task for sending in courier._sending.values()])


async def test_events_are_told_in_order_signed_and_once_though_the_teller_dies(
    receiver: Receiver,
    posts: Posts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("GRAYLIFT_SECRET_KEY", KEY)
    monkeypatch.setenv("GRAYLIFT_SECRET_URL", receiver.url + "/T0P")
    hook = Webhook(Secret("GRAYLIFT_SECRET_URL"), Secret("GRAYLIFT_SECRET_KEY"), ("stage",))
    release = replace(a_release(), spec=replace(a_release().spec, notify=(hook,)))
    store = SqlStore(f"sqlite:///{tmp_path / 'state.db'}")
    clock, outbox = FakeClock(1_800_000_000.0), SqlOutbox(store)
    lease = a_lease(store)
    events = tuple(an_event(text) for text in ("first", "second"))
    store.commit(lease, Change((a_tracked(release=release),), events=events))

    def new_courier() -> Courier:
        return Courier(outbox, OutsideNotifier(posts), clock, troubles, lambda: None)

    troubles = Troubles()
    courier = new_courier()
    receiver.status = 503
    await courier.look(lease, (), clock.now())
    await sent(courier)
    await courier.look(lease, (), clock.now())
    assert len(receiver.got) == 1, "it waits before it tries again"
    receiver.status = 200
    clock.pass_time(1.0)
    await courier.look(lease, (), clock.now())
    await sent(courier)  # told, and killed before that is noted
    courier = new_courier()
    for _ in range(2):
        await courier.look(lease, (), clock.now())
        await sent(courier)
    await courier.close(lease)
    assert [body["text"] for body in receiver.bodies()] == ["first", "first", "first", "second"]
    assert len({headers["idempotency-key"] for headers, _ in receiver.got}) == 2
    assert outbox.waiting() == []
    for headers, body in receiver.got:
        signed = f"{headers['x-graylift-timestamp']}.".encode() + body
        expected = hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()
        assert headers["x-graylift-signature"] == f"sha256={expected}"
    store.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (KEY, "T0P"):
        assert secret.encode() not in written
        assert secret not in caplog.text


async def test_a_failure_names_no_secret(posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
    notice = Notice(1, 0, Slack(Secret("GRAYLIFT_SECRET_S")), "a-1", "a", "v2", "v1", 1.0, "PROMOTED", "t", "ann")
    for url in ("http://127.0.0.1:1/T0P", "T0P", "ftp://h/T0P"):
        monkeypatch.setenv("GRAYLIFT_SECRET_S", url)
        with pytest.raises(NotTold) as caught:
            await OutsideNotifier(posts).tell(notice)
        assert "T0P" not in str(caught.value)


async def test_a_real_gate_goes_on_its_word_and_is_away_without(receiver: Receiver, posts: Posts) -> None:
    question = Question("a-1", "a", "v2", "v1", 1, "20 %", ())
    gate = Gate("window", receiver.url, 5.0)
    assert (await HttpGates(posts).ask(gate, question)).state is GateState.GO
    receiver.status = 302
    assert (await HttpGates(posts).ask(gate, question)).state is GateState.AWAY
