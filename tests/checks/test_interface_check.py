"""Clients of stable are served by the candidate as they are, or no user ever meets it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from graylift.checks.build import Built
from graylift.checks.interface import check_interface
from graylift.checks.workplace import Workplace
from graylift.domain.engine import Interface, Manifest, Runtime, TensorSpec
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.revision import Revision, RunningEndpoint, ServedEngine
from graylift.domain.spec import EndpointModel, OnnxModel, RevisionSpec, TensorName
from graylift.protocols.open_inference import model_metadata
from graylift.testing.conformance_store import a_spec

X = TensorSpec("x", "FP32", (-1, 4))
LABEL = TensorSpec("label", "INT64", (-1,))
SCORE = TensorSpec("score", "FP32", (-1, 7))
BOTH = Interface((X,), (LABEL, SCORE))


def built(
    name: str, interface: Interface = BOTH, inputs: tuple[TensorName, ...] = (), outputs: tuple[TensorName, ...] = ()
) -> Built:
    manifest = Manifest(
        "a" * 64, Runtime.ONNXRUNTIME, ((f"{name}.onnx", "b" * 64),), (), (), "a machine", interface, 10, 0.1, 0.0
    )
    spec = RevisionSpec(name, OnnxModel(f"/models/{name}.onnx", inputs=inputs, outputs=outputs))
    return Built(spec, Revision("file-type", name, "c" * 64, ServedEngine("a" * 64), 60.0), manifest)


def at(url: str) -> Built:
    spec = RevisionSpec("v2", EndpointModel(url))
    return Built(spec, Revision("file-type", "v2", "d" * 64, RunningEndpoint(url), 60.0), None)


async def compared(
    candidate: Interface | Built, stable: Interface = BOTH, inputs: tuple[TensorName, ...] = ()
) -> CheckResult:
    side = built("v2", candidate, inputs) if isinstance(candidate, Interface) else candidate
    nowhere = Workplace(Path("/nowhere"), Path("/nowhere"))
    return await check_interface(a_spec("file-type"), built("v1", stable), side, nowhere)


async def test_equal_interfaces_pass_and_the_sentence_shows_them() -> None:
    result = await compared(BOTH)
    assert result == CheckResult(
        "interface",
        CheckOutcome.PASS,
        "v2 serves what v1 serves: x: FP32[?,4] -> label: INT64[?], score: FP32[?,7]",
        (
            "v1 inputs x: FP32[?,4]",
            "v1 outputs label: INT64[?], score: FP32[?,7]",
            "v2 inputs x: FP32[?,4]",
            "v2 outputs label: INT64[?], score: FP32[?,7]",
        ),
    )


async def test_the_order_of_tensors_does_not_matter() -> None:
    assert (await compared(Interface((X,), (SCORE, LABEL)))).lets_through


@pytest.mark.parametrize(
    ("stable", "candidate", "fits"),
    [
        ((-1, 4), (-1, 4), True),
        ((1, 4), (-1, 4), True),
        ((-1, 4), (1, 4), False),
        ((1, 4), (1, 5), False),
        ((-1, 4), (-1, 4, 1), False),
        ((), (), True),
    ],
)
async def test_a_shape_fits_if_the_candidate_takes_all_that_stable_takes(
    stable: tuple[int, ...], candidate: tuple[int, ...], fits: bool
) -> None:
    result = await compared(
        Interface((replace(X, shape=candidate),), (LABEL,)), Interface((replace(X, shape=stable),), (LABEL,))
    )
    assert result.lets_through is fits


async def test_every_difference_is_told_at_once() -> None:
    result = await compared(
        Interface((replace(X, shape=(8, 4)), TensorSpec("mask", "BOOL", (-1,))), (replace(LABEL, datatype="INT32"),))
    )
    assert result.sentence == (
        "v2 does not serve what v1 serves: input x: FP32[?,4] is FP32[8,4] in v2; input mask: BOOL[?] is new; "
        "output label: INT64[?] is INT32[?] in v2; output score: FP32[?,7] is missing"
    )


async def test_a_mere_renaming_is_shown_as_it_must_be_written() -> None:
    result = await compared(Interface((replace(X, name="495"),), (replace(LABEL, name="out:0"), SCORE)))
    assert not result.lets_through
    assert result.sentence.endswith(
        "If these are the same under other names, write in candidate.model: "
        'inputs: {x: "495"} and outputs: {label: "out:0"}'
    )


async def test_where_it_is_not_plain_which_tensor_is_which_nothing_is_proposed() -> None:
    twins = Interface((X,), (replace(SCORE, name="a"), replace(SCORE, name="b")))
    result = await compared(replace(twins, outputs=(replace(SCORE, name="c"), replace(SCORE, name="d"))), twins)
    assert "output a: FP32[?,7] is missing" in result.sentence
    assert "candidate.model" not in result.sentence


async def test_a_renaming_that_the_file_has_makes_them_equal() -> None:
    assert (
        await compared(Interface((replace(X, name="own"),), BOTH.outputs), inputs=(TensorName("x", "own"),))
    ).lets_through


async def test_a_renaming_of_a_tensor_that_is_not_there_lists_what_is() -> None:
    result = await compared(BOTH, inputs=(TensorName("x", "images"),))
    assert not result.lets_through
    assert result.sentence == (
        "the release file serves v2's input 'images' as 'x', but the model has no such input; it has x: FP32[?,4]"
    )


async def test_a_renaming_onto_a_name_that_is_taken_is_refused() -> None:
    side = built("v2", BOTH, outputs=(TensorName("score", "label"),))
    assert "two outputs under one name: score, score" in (await compared(side)).sentence


names = st.lists(st.text("abc.:/ 0'\"", min_size=1, max_size=4), min_size=1, max_size=3, unique=True)


@settings(deadline=None)  # the cores are shared
@given(stable=names, candidate=names, data=st.data())
async def test_whatever_is_proposed_makes_them_equal(
    stable: list[str], candidate: list[str], data: st.DataObject
) -> None:
    def tensors(of: list[str]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, data.draw(st.sampled_from(["FP32", "INT64"])), (-1,)) for name in of)

    ours, theirs = Interface((X,), tensors(stable)), Interface((X,), tensors(candidate))
    first = data.draw(st.sampled_from(candidate))
    written = data.draw(st.sampled_from([(), (TensorName("renamed", first),)]))
    result = await compared(built("v2", theirs, outputs=written), ours)
    proposed = re.search(r"candidate\.model: (outputs: .*)$", result.sentence)
    if proposed is not None:
        renamings = tuple(TensorName(s, o) for s, o in yaml.safe_load(proposed[1])["outputs"].items())
        assert (await compared(built("v2", theirs, outputs=renamings), ours)).lets_through


# A candidate that somebody else runs.

Serve = Callable[[web.Response], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve(answer)` starts a server that answers so for the model `file-type`, and returns its URL."""
    runners: list[web.AppRunner] = []

    async def start(answer: web.Response) -> str:
        async def describe(_: web.Request) -> web.Response:
            return answer

        app = web.Application()
        app.router.add_get("/v2/models/file-type", describe)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_an_endpoint_is_asked_for_its_interface(serve: Serve) -> None:
    url = await serve(web.Response(body=model_metadata("file-type", "2", "triton", BOTH)))
    assert (await compared(at(url))).lets_through


async def test_an_endpoint_that_differs_is_told_so_without_lines_it_could_not_have(serve: Serve) -> None:
    other = Interface((replace(X, name="y"),), BOTH.outputs)
    result = await compared(at(await serve(web.Response(body=model_metadata("file-type", "2", "triton", other)))))
    assert result.sentence == (
        "v2 does not serve what v1 serves: input x: FP32[?,4] is missing; input y: FP32[?,4] is new"
    )


async def test_an_endpoint_that_is_away_says_where_and_why() -> None:
    result = await compared(at("http://127.0.0.1:1"))
    assert not result.lets_through
    assert result.sentence == (
        "v2's server is away: GET http://127.0.0.1:1/v2/models/file-type: Connection refused; start it, then retry"
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (web.Response(status=404), "v2's server has no model 'file-type'"),
        (web.Response(status=500), "/v2/models/file-type answered 500"),
        (web.Response(body=b"<html>"), "in a way the Open Inference Protocol does not know"),
        (web.Response(body=b'{"inputs": [{"name": "x"}], "outputs": []}'), "at inputs.0.datatype: Field required"),
    ],
)
async def test_an_endpoint_that_does_not_describe_its_model_fails(
    serve: Serve, answer: web.Response, said: str
) -> None:
    result = await compared(at(await serve(answer)))
    assert not result.lets_through
    assert said in result.sentence
