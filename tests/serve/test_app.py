"""One request against the application itself: what a real client can hardly be made to do at the right moment."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from graylift.domain.engine import Interface, TensorSpec
from graylift.domain.spec import TensorName
from graylift.errors import EngineError
from graylift.protocols.datatypes import Tensor
from graylift.serve.app import App
from graylift.serve.batcher import Batcher
from graylift.serve.connection import ON_LEFT
from graylift.serve.inference import Inference, Stage
from graylift.serve.metrics import Metrics
from graylift.serve.model import served_model
from graylift.serve.shapes import MOST, ShapeCounts

INTERFACE = Interface((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),))
DOCUMENT = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}).encode()


class Echo:
    """A runner that gives back what it gets, and counts."""

    interface = INTERFACE

    def __init__(self) -> None:
        self.runs = 0

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.runs += 1
        return {"y": inputs["x"]}

    def close(self) -> None:
        pass


class Exchange:
    """One request and its answer, as the HTTP server would hand them over."""

    def __init__(self, app: App, path: str = "/v2/models/tiny/infer", method: str = "POST", **headers: str) -> None:
        self._incoming: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self.sent: list[Mapping[str, Any]] = []
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self._scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": pairs}
        self.task = asyncio.ensure_future(app(self._scope, self._incoming.get, self._send))

    async def _send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)

    def body(self, data: bytes, *, more: bool = False) -> Exchange:
        self._incoming.put_nowait({"type": "http.request", "body": data, "more_body": more})
        return self

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})
        if ON_LEFT in self._scope:
            self._scope[ON_LEFT]()

    async def answer(self) -> tuple[int, Any]:
        await self.task
        return self.sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in self.sent[1:]))

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


@pytest.fixture
def echo() -> Echo:
    return Echo()


class Gate:
    """A context that is kept busy until the test opens it."""

    def __init__(self, batcher: Batcher) -> None:
        self._open = threading.Event()
        self.job = batcher.join(self._wait, {})
        assert self.job.runs

    def _wait(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._open.wait(10)
        return {}

    async def open(self) -> None:
        self._open.set()
        await self.job.answer


@pytest.fixture
async def batcher() -> AsyncIterator[Batcher]:
    with ThreadPoolExecutor(1) as pool:
        yield Batcher(pool, contexts=1, max_waiting=1, metrics=Metrics("tiny", "v2"))


@pytest.fixture
async def inference(echo: Echo, batcher: Batcher) -> Inference:
    inference = Inference("tiny", "v2", batcher, Metrics("tiny", "v2"))
    inference.model = served_model(echo, "fake", (), ())
    inference.stage = Stage.READY
    return inference


@pytest.fixture
async def app(inference: Inference) -> App:
    return App(inference, max_body_bytes=1000, body_timeout_s=0.01)


async def test_a_body_in_pieces_is_put_together(app: App) -> None:
    exchange = Exchange(app).body(DOCUMENT[:5], more=True).body(DOCUMENT[5:], more=True).body(b"")
    status, document = await exchange.answer()
    assert (status, document["outputs"][0]["data"]) == (200, [1])


async def test_a_body_that_never_ends_is_given_up(app: App) -> None:
    exchange = Exchange(app).body(DOCUMENT[:5], more=True)
    while not exchange.sent:
        await asyncio.sleep(0)
    exchange.leave()
    assert await exchange.answer() == (408, {"error": "the body did not end within 0.01 s (5 bytes came)"})
    assert exchange.headers[b"connection"] == b"close"


async def test_a_body_that_grows_too_long_is_refused_and_what_follows_is_dropped(app: App) -> None:
    exchange = Exchange(app).body(b" " * 999, more=True)
    for _ in range(5):
        exchange.body(b" " * 999, more=True)
    exchange.body(b"")
    assert (await exchange.answer())[0] == 413
    assert exchange.headers[b"connection"] == b"close"


@pytest.mark.parametrize("more", [False, True])
async def test_who_leaves_within_the_body_gets_no_answer(app: App, echo: Echo, more: bool) -> None:
    exchange = Exchange(app)
    if more:
        exchange.body(DOCUMENT[:5], more=True)
    exchange.leave()
    await exchange.task
    assert (exchange.sent, echo.runs) == ([], 0)


async def test_who_leaves_while_waiting_frees_its_place(app: App, echo: Echo, batcher: Batcher) -> None:
    gate = Gate(batcher)
    waiting = Exchange(app).body(DOCUMENT)
    while batcher.waiting == 0:
        await asyncio.sleep(0)
    refused = Exchange(app).body(DOCUMENT)
    assert (await refused.answer())[0] == 503
    assert refused.headers[b"retry-after"] == b"1"
    waiting.leave()
    await waiting.task
    assert (batcher.running, batcher.waiting, echo.runs, waiting.sent) == (1, 0, 0, [])
    await gate.open()
    assert (await Exchange(app).body(DOCUMENT).answer())[0] == 200
    assert (batcher.running, echo.runs) == (0, 1)


async def test_a_cancelled_request_holds_nothing(app: App, echo: Echo, batcher: Batcher) -> None:
    gate = Gate(batcher)
    waiting = Exchange(app).body(DOCUMENT)
    while batcher.waiting == 0:
        await asyncio.sleep(0)
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting.task
    assert (batcher.running, batcher.waiting, echo.runs) == (1, 0, 0)
    await gate.open()


async def test_what_does_not_fit_the_model_is_refused_before_it_waits(app: App, batcher: Batcher) -> None:
    gate = Gate(batcher)
    wrong = json.dumps({"inputs": [{"name": "z", "datatype": "FP32", "shape": [1], "data": [1]}]}).encode()
    assert (await Exchange(app).body(wrong).answer())[0] == 400
    await gate.open()


async def test_before_it_is_ready_it_says_so_at_every_place(app: App, inference: Inference, echo: Echo) -> None:
    model, inference.stage, inference.model = inference.model, Stage.STARTING, None
    assert await Exchange(app, "/v2/health/live", "GET").answer() == (200, {"live": True})
    assert await Exchange(app, "/v2/health/ready", "GET").answer() == (503, {"ready": False, "live": True})
    assert await Exchange(app, "/v2/models/tiny/ready", "GET").answer() == (503, {"name": "tiny", "ready": False})
    assert await Exchange(app, "/v2/models/tiny", "GET").answer() == (503, {"error": "the model is still loading"})
    assert await Exchange(app).body(DOCUMENT).answer() == (503, {"error": "the model is not ready yet"})
    inference.model = model
    assert (await Exchange(app, "/v2/models/tiny", "GET").answer())[0] == 200
    assert (await Exchange(app).body(DOCUMENT).answer())[0] == 503
    assert echo.runs == 0


async def test_while_it_drains_it_answers_and_asks_for_no_more(app: App, inference: Inference) -> None:
    inference.stage = Stage.DRAINING
    assert (await Exchange(app, "/v2/health/ready", "GET").answer())[0] == 503
    exchange = Exchange(app).body(DOCUMENT)
    assert (await exchange.answer())[0] == 200
    assert exchange.headers[b"connection"] == b"close"


async def test_a_long_path_is_not_repeated_in_full(app: App) -> None:
    for path in ("/x" * 10_000, "/v2/models/" + "x" * 10_000):
        status, document = await Exchange(app, path, "GET").answer()
        assert status == 404
        assert len(document["error"]) < 300


@pytest.mark.parametrize(
    ("inputs", "outputs", "sentence"),
    [
        ([TensorName("a", "z")], [], "--input a=z: the model has no input 'z'; it has x"),
        ([], [TensorName("a", "x")], "--output a=x: the model has no output 'x'; it has y"),
    ],
)
def test_a_renaming_that_does_not_fit_is_refused(
    inputs: list[TensorName], outputs: list[TensorName], sentence: str
) -> None:
    with pytest.raises(EngineError, match=sentence):
        served_model(Echo(), "fake", inputs, outputs)


def test_two_tensors_are_not_served_under_one_name() -> None:
    runner = Echo()
    runner.interface = Interface((TensorSpec("a", "FP32", ()), TensorSpec("b", "FP32", ())), INTERFACE.outputs)
    with pytest.raises(EngineError, match="two inputs would be served under one name: b, b"):
        served_model(runner, "fake", [TensorName("b", "a")], [])
    swapped = served_model(runner, "fake", [TensorName("b", "a"), TensorName("a", "b")], [])
    assert [spec.name for spec in swapped.interface.inputs] == ["b", "a"]
    assert swapped.own_inputs == {"b": "a", "a": "b"}


def test_a_served_model_gives_each_tensor_to_its_own_name(echo: Echo) -> None:
    model = served_model(echo, "fake", [TensorName("in", "x")], [TensorName("out", "y")])
    assert model.infer({"in": np.float32([5])})["out"].tolist() == [5]


async def test_the_shapes_of_answered_requests_are_counted_under_the_models_own_names(
    app: App, inference: Inference
) -> None:
    inference.model = served_model(Echo(), "fake", (TensorName("served", "x"),), ())
    body = DOCUMENT.replace(b'"x"', b'"served"')
    for _ in range(2):
        assert (await Exchange(app).body(body).answer())[0] == 200
    assert (await Exchange(app).body(DOCUMENT).answer())[0] == 400
    answer = await Exchange(app, path="/v2/models/tiny/shapes", method="GET").body(b"").answer()
    assert answer == (200, {"shapes": [{"inputs": {"x": [1]}, "count": 2}], "others": 0})


def test_shapes_beyond_those_that_are_told_apart_are_counted_together() -> None:
    counts = ShapeCounts()
    for size in (*range(MOST + 5), 3):
        counts.add({"x": np.zeros((size,))}, {"x": "own"})
    document = json.loads(counts.document())
    assert (len(document["shapes"]), document["others"]) == (MOST, 5)
    assert document["shapes"][0] == {"inputs": {"own": [3]}, "count": 2}
