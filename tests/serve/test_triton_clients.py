"""Triton's own client libraries, unchanged, against the server: HTTP and gRPC say the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import grpc
import grpc.aio
import numpy as np
import pytest
import tiny_models
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from tritonclient.utils import InferenceServerException

from graylift.protos import health_pb2

pytestmark = pytest.mark.real

StartServer = Callable[..., Any]

LABELS = '{model="tiny",version="v2"}'


async def grpc_address(server: Any) -> str:
    """Where it listens for gRPC, once its model is ready."""
    await server.until_logged("ready: ")
    found = re.search(r"gRPC: on (\S+:\d+)", server.log)
    assert found is not None
    return found[1]


async def until_it_runs(server: Any, *, waiting: int = 0) -> None:
    """Until its context is at work and so many wait."""
    wanted = {f"graylift_contexts_in_use{LABELS} 1.0", f"nv_inference_pending_request_count{LABELS} {waiting}.0"}
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{await server.url()}/metrics") as answer:
                if wanted <= set((await answer.text()).splitlines()):
                    return


@pytest.fixture(params=["http", "grpc"])
async def speak(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """speak(server) -> (module, client) of one of the two libraries."""
    clients: list[Any] = []

    async def connected(server: Any) -> tuple[Any, Any]:
        if request.param == "http":
            await server.until_logged("ready: ")
            module: Any = triton_http
            client = triton_http.InferenceServerClient(urlsplit(await server.url()).netloc)
        else:
            module = triton_grpc
            client = triton_grpc.InferenceServerClient(await grpc_address(server))
        clients.append(client)
        return module, client

    yield connected
    for client in clients:
        await client.close()


def given(module: Any, name: str, datatype: str, tensor: Any) -> Any:
    one = module.InferInput(name, list(tensor.shape), datatype)
    one.set_data_from_numpy(tensor)
    return one


async def test_it_finds_the_model_and_gets_its_own_rows_back(start: StartServer, speak: Any, tmp_path: Path) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"), "--grpc-port", "0", "--max-batch", "8")
    module, client = await speak(server)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("tiny", "v2")
    described = await client.get_model_metadata("tiny")
    shape = described["inputs"][0]["shape"] if isinstance(described, dict) else described.inputs[0].shape
    assert list(shape) == [-1, 4]

    async def ask(number: int) -> None:
        x = np.full((1 + number % 3, 4), number, np.float32)
        answer = await client.infer("tiny", [given(module, "x", "FP32", x)], request_id=str(number))
        assert (answer.as_numpy("y") == 2 * x + 1).all()

    await asyncio.gather(*map(ask, range(40)))


@pytest.mark.parametrize("datatype", ["BYTES", "FP16", "BOOL", "UINT8", "INT64", "FP64"])
async def test_every_kind_of_tensor_goes_in_and_out(
    start: StartServer, speak: Any, tmp_path: Path, datatype: str
) -> None:
    server = start(tiny_models.identity(tmp_path / "identity.onnx", datatype), "--grpc-port", "0")
    module, client = await speak(server)
    if datatype == "BYTES":
        tensor: Any = np.array([["", "日本".encode()]], dtype=np.object_)
    else:
        kind = {"FP16": "f2", "BOOL": "?", "UINT8": "u1", "INT64": "i8", "FP64": "f8"}[datatype]
        tensor = np.array([[0, 1, 1]], dtype=kind)
    answer = await client.infer("tiny", [given(module, "x", datatype, tensor)])
    expected = [[b"", "日本".encode()]] if datatype == "BYTES" else tensor.tolist()
    assert answer.as_numpy("y").tolist() == expected


async def test_what_is_wrong_is_said_with_the_same_words(start: StartServer, speak: Any, tmp_path: Path) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"), "--grpc-port", "0")
    module, client = await speak(server)
    x = given(module, "x", "FP32", np.zeros((1, 4), np.float32))
    for name, inputs, options, said in (
        ("other", [x], {}, "no such model here"),
        ("tiny", [given(module, "z", "FP32", np.zeros(1, np.float32))], {}, "the model has no input 'z'"),
        ("tiny", [given(module, "x", "FP64", np.zeros((1, 4)))], {}, "expected FP32, got FP64"),
        ("tiny", [given(module, "x", "FP32", np.zeros((1, 3), np.float32))], {}, "expected shape"),
        ("tiny", [x], {"priority": 9}, "priority must be 1"),
        ("tiny", [x], {"outputs": [module.InferRequestedOutput("z")]}, "the model has no output 'z'; it has y"),
    ):
        with pytest.raises(InferenceServerException, match=said):
            await client.infer(name, inputs, **options)
    assert (await client.infer("tiny", [x])).as_numpy("y").tolist() == [[1, 1, 1, 1]]


async def test_whose_time_is_up_before_its_turn_is_told_so_and_costs_nothing(
    start: StartServer, speak: Any, tmp_path: Path
) -> None:
    server = start(tiny_models.slow(tmp_path / "slow.onnx"), "--grpc-port", "0")
    module, client = await speak(server)
    first = asyncio.create_task(client.infer("tiny", [given(module, "rounds", "INT64", np.array([300_000]))]))
    await until_it_runs(server)
    for_weeks = given(module, "rounds", "INT64", np.array([10**12]))
    with pytest.raises(InferenceServerException, match="its turn did not come within the 20 ms that it gave"):
        await client.infer("tiny", [for_weeks], timeout=20_000)
    await first
    answer = await client.infer("tiny", [given(module, "rounds", "INT64", np.array([1]))], timeout=10**7)
    assert answer.get_response() is not None


async def test_a_call_whose_own_deadline_is_over_leaves_the_queue(start: StartServer, tmp_path: Path) -> None:
    server = start(tiny_models.slow(tmp_path / "slow.onnx"), "--grpc-port", "0")
    async with triton_grpc.InferenceServerClient(await grpc_address(server)) as client:
        first = asyncio.create_task(client.infer("tiny", [given(triton_grpc, "rounds", "INT64", np.array([300_000]))]))
        await until_it_runs(server)
        for_weeks = given(triton_grpc, "rounds", "INT64", np.array([10**12]))
        with pytest.raises(InferenceServerException, match=r"DEADLINE_EXCEEDED|Deadline"):
            await client.infer("tiny", [for_weeks], client_timeout=0.02)
        await first
        await client.infer("tiny", [given(triton_grpc, "rounds", "INT64", np.array([1]))])  # else this waits for weeks


async def test_the_standard_health_service_says_when_it_is_ready(start: StartServer, tmp_path: Path) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"), "--grpc-port", "0")
    async with grpc.aio.insecure_channel(await grpc_address(server)) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        for service in ("", "inference.GRPCInferenceService"):
            answer = await check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError, match="no service 'other' here"):
            await check(health_pb2.HealthCheckRequest(service="other"))


async def test_a_signal_lets_running_calls_finish(start: StartServer, tmp_path: Path) -> None:
    server = start(tiny_models.slow(tmp_path / "slow.onnx"), "--grpc-port", "0")
    async with triton_grpc.InferenceServerClient(await grpc_address(server)) as client:
        rounds = given(triton_grpc, "rounds", "INT64", np.array([100_000]))
        calls = [asyncio.create_task(client.infer("tiny", [rounds])) for _ in range(3)]
        await until_it_runs(server, waiting=2)
        await asyncio.gather(asyncio.create_task(server.stopped()), *calls)
    assert "drain: SIGTERM" in server.log
