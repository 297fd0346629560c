"""The release files that the demo writes, and its traffic against a server that speaks the protocol."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import astuple
from pathlib import Path

import numpy as np
import orjson
import pytest
from aiohttp import web

from graylift.demo.models import default_cache
from graylift.demo.scenario import SCENARIOS, Prepared, Scenario
from graylift.domain.spec import OnnxModel
from graylift.protocols.language import Finish
from graylift.protocols.open_inference import body_from_outputs, request_from_body
from graylift.protocols.openai import Heading, chat_chunks
from graylift.protocols.sse import DONE, event
from graylift.spec.loading import load

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("demo")]

FILE_TYPES, CONTAINER_NUMBERS, LLM = SCENARIOS


@pytest.fixture(params=SCENARIOS, ids=lambda scenario: scenario.name)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    return request.param


@pytest.fixture
def prepared(scenario: Scenario, request: pytest.FixtureRequest) -> Prepared:
    return request.getfixturevalue(scenario.name.replace("-", "_"))


def test_every_release_file_is_accepted_and_says_what_it_is_about(scenario: Scenario, prepared: Prepared) -> None:
    for path in astuple(prepared):
        assert load(path).service == scenario.service
        assert path.read_text().startswith("# ")


def test_the_later_releases_begin_where_the_good_one_ends(prepared: Prepared) -> None:
    promoted = load(prepared.good).candidate
    for path in (prepared.bad, prepared.slow, prepared.same):
        assert load(path).stable == promoted
    again = load(prepared.same).candidate
    assert again.name != promoted.name
    assert again.model == promoted.model


def test_clients_use_one_output_name_whatever_the_models_call_it(container_numbers: Prepared) -> None:
    spec = load(container_numbers.good)
    names = [model.outputs for model in (spec.stable.model, spec.candidate.model) if isinstance(model, OnnxModel)]
    assert [[(name.served, name.own) for name in each] for each in names] == [
        [("text", "softmax_5.tmp_0")],
        [("text", "softmax_11.tmp_0")],
    ]


def test_a_release_fits_into_a_demo_at_the_rate_it_was_tuned_for(scenario: Scenario, prepared: Prepared) -> None:
    stages = load(prepared.good).stages
    # Before them, a language model is checked for a minute or more.
    assert (35 if scenario is LLM else 55) <= sum(stage.observe_s for stage in stages) <= 75
    for stage in stages[:-1]:
        expected = scenario.rate_per_s * float(stage.weights.percent) / 100 * stage.observe_s
        assert stage.min_requests < 0.8 * expected, "chance must not keep a stage waiting for its requests"


def test_preparing_again_writes_the_same(file_types: Prepared, tmp_path: Path) -> None:
    again = FILE_TYPES.prepare(default_cache(), tmp_path, lambda _: None)
    for before, after in zip(astuple(file_types), astuple(again), strict=True):
        assert before.read_bytes() == after.read_bytes()
    for model in (file_types.good.parent / "models").iterdir():
        assert model.read_bytes() == (again.good.parent / "models" / model.name).read_bytes()


@asynccontextmanager
async def speaking(users: set[str]) -> AsyncIterator[str]:
    """A server that answers every inference request with constant tensors, as two revisions in turn."""
    revisions = itertools.cycle(("v1", "v1", "v2"))

    async def infer(request: web.Request) -> web.Response:
        users.add(request.headers["x-user-id"])
        asked = request_from_body(await request.read(), int(request.headers["Inference-Header-Content-Length"]))
        (tensor,) = asked.inputs.values()
        assert tensor.shape[0] == 1
        width = {"file-type": (214,), "container-number": (32, 6625)}[request.match_info["service"]]
        output = np.zeros((1, *width), np.float32)
        assert asked.outputs is not None
        body = body_from_outputs(asked, {asked.outputs[0].name: output}, model="m", version="1")
        headers = {"Inference-Header-Content-Length": str(body.json_length), "x-graylift-revision": next(revisions)}
        return web.Response(body=body.data, headers=headers)

    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v2/models/{service}/infer", infer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def traffic(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "graylift.demo.traffic", *arguments, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )


@pytest.mark.parametrize("scenario", [FILE_TYPES, CONTAINER_NUMBERS], ids=lambda scenario: scenario.name)
async def test_traffic_runs_to_its_end_and_reports_each_revision_with_its_score(
    scenario: Scenario, prepared: Prepared
) -> None:
    users: set[str] = set()
    async with speaking(users) as url:
        process = await traffic(
            "--scenario", scenario.name, "--folder", str(prepared.good.parent), "--url", url, "--rate", "40",
            "--seconds", "1.5",
        )  # fmt: skip
        output, _ = await process.communicate()
    report = orjson.loads(output)
    assert process.returncode == 0
    assert report["sent"] == sum(revision["answers"] for revision in report["revisions"]) > 20
    assert [revision["revision"] for revision in report["revisions"]] == ["v1", "v2"]
    assert all(0 <= revision["score"] <= 1 for revision in report["revisions"])
    assert len(users) > 20


async def test_chats_are_reported_by_their_first_token_their_pace_and_why_they_ended(llm: Prepared) -> None:
    async def write(request: web.Request) -> web.StreamResponse:
        assert (await request.json())["stream"] is True
        answer = web.StreamResponse(headers={"content-type": "text/event-stream", "x-graylift-revision": "q8"})
        await answer.prepare(request)
        first, chunk = chat_chunks(Heading("1", "assistant", 0, "fp"), usage=False)
        broken = request.headers["x-user-id"].endswith("7")
        events = [first, *(chunk("word ", None) for _ in range(3)), chunk("", Finish.STOP), DONE]
        for data in events[: 3 if broken else None]:
            await answer.write(event(data))
        return answer

    app = web.Application()
    app.router.add_post("/v1/chat/completions", write)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        process = await traffic(
            "--scenario", "llm", "--folder", str(llm.good.parent), "--url", url, "--rate", "60", "--seconds", "1.5"
        )
        output, _ = await process.communicate()
    finally:
        await runner.cleanup()
    report = orjson.loads(output)
    (revision,) = report["revisions"]
    streams = revision["streams"]
    assert streams["finishes"] == {"stop": revision["answers"]}
    assert streams["tokens"] == 3 * revision["answers"]
    assert 0 < streams["first_token_ms"]["p50"] < 1000
    assert report["errors"] == {"broken stream": report["sent"] - revision["answers"]}
    assert report["errors"]["broken stream"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_traffic_at_once_with_its_report(file_types: Prepared, number: signal.Signals) -> None:
    users: set[str] = set()
    async with speaking(users) as url:
        process = await traffic("--folder", str(file_types.good.parent), "--url", url, "--seconds", "3600")
        while not users:
            await asyncio.sleep(0.05)
        process.send_signal(number)
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert orjson.loads(output)["not_due"] > 0


async def test_traffic_from_a_folder_that_was_not_prepared_says_so(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "graylift.demo.traffic", "--folder", str(tmp_path), "--url", "http://127.0.0.1:1",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, told = await process.communicate()
    assert process.returncode == 2
    assert b"samples.npz" in told
    assert b"Traceback" not in told
