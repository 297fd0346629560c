"""The model server as its users meet it: a real process, a real engine, real HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest
import tiny_models
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.real

StartServer = Callable[..., Any]
Connect = Callable[[Any], AbstractAsyncContextManager[Any]]

ROWS_OF_ONES = [[1, 1, 1, 1]]


async def raw(url: str, data: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes over a connection of their own; all that comes back until the server closes."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(data)
    await writer.drain()
    if half_close:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def settle(client: Any) -> None:
    """Until the server has read what this loop has sent before: it has gone round its own loop many times since."""
    for _ in range(20):
        await client.get("/v2/health/live")


# ---- answers


async def test_it_speaks_the_protocol_from_metadata_to_inference(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"))
    async with connect(server) as client:
        assert await client.get("/v2/health/live") == (200, {"live": True})
        assert await client.get("/v2/health/ready") == (200, {"ready": True, "live": True})
        assert (await client.get("/v2"))[1]["extensions"] == ["binary_tensor_data"]
        for path in ("/v2/models/tiny", "/v2/models/tiny/versions/v2"):
            assert await client.get(path + "/ready") == (200, {"name": "tiny", "ready": True})
            assert await client.get(path) == (
                200,
                {
                    "name": "tiny",
                    "versions": ["v2"],
                    "platform": "onnxruntime",
                    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
                    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
                },
            )
        document = {"id": "42", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4.5]}]}
        async with client.session.post(f"{client.url}/v2/models/tiny/versions/v2/infer", json=document) as answer:
            assert answer.headers["content-type"] == "application/json"
            assert await answer.json() == {
                "model_name": "tiny",
                "model_version": "v2",
                "id": "42",
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [3, 5, 7, 10]}],
            }


async def test_it_speaks_binary_tensors_both_ways(start: StartServer, connect: Connect, tmp_path: Path) -> None:
    async with connect(start(tiny_models.affine(tmp_path / "affine.onnx"))) as client:
        values = np.arange(8, dtype="<f4").reshape(2, 4)
        document = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}],
            "parameters": {"binary_data_output": True},
        }
        head = json.dumps(document).encode()
        async with client.session.post(
            f"{client.url}/v2/models/tiny/infer",
            data=head + values.tobytes(),
            headers={"Inference-Header-Content-Length": str(len(head))},
        ) as answer:
            assert answer.headers["content-type"] == "application/octet-stream"
            length = int(answer.headers["Inference-Header-Content-Length"])
            body = await answer.read()
        assert json.loads(body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 32}
        assert (np.frombuffer(body[length:], "<f4") == (values * 2 + 1).ravel()).all()


async def test_strings_go_in_and_come_out(start: StartServer, connect: Connect, tmp_path: Path) -> None:
    async with connect(start(tiny_models.identity(tmp_path / "identity.onnx", "BYTES"))) as client:
        status, answer = await client.infer("x", "BYTES", [["", "日本"]])
        assert (status, answer["outputs"][0]["data"]) == (200, ["", "日本"])


async def test_renamed_tensors_are_served_under_the_names_that_clients_use(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(
        tiny_models.sum_and_difference(tmp_path / "model.onnx"),
        "--input", "left=a", "--input", "a=b", "--output", "total=sum",
    )  # fmt: skip
    async with connect(server) as client:
        described = (await client.get("/v2/models/tiny"))[1]
        assert [spec["name"] for spec in described["inputs"]] == ["left", "a"]
        assert [spec["name"] for spec in described["outputs"]] == ["total", "difference"]
        tensor = {"datatype": "FP32", "shape": [1]}
        inputs = [{"name": "left", "data": [3], **tensor}, {"name": "a", "data": [1], **tensor}]
        async with client.session.post(f"{client.url}/v2/models/tiny/infer", json={"inputs": inputs}) as answer:
            outputs = (await answer.json())["outputs"]
        assert {output["name"]: output["data"] for output in outputs} == {"total": [4], "difference": [2]}
        assert await client.infer("b", "FP32", [1]) == (
            400, {"error": "the model has no input 'b'; it takes left: FP32[?], a: FP32[?]"}
        )  # fmt: skip


async def test_many_clients_at_once_each_get_their_own_answer(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    async with connect(start(tiny_models.affine(tmp_path / "affine.onnx"), "--contexts", "2")) as client:

        async def one(value: int) -> None:
            status, answer = await client.infer("x", "FP32", [[value] * 4] * (1 + value % 3))
            assert status == 200
            assert answer["outputs"][0]["data"] == [2 * value + 1] * 4 * (1 + value % 3)

        await asyncio.gather(*(one(value) for value in range(200)))


# ---- refusals


async def test_what_is_wrong_is_said_and_the_next_request_is_served(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"), "--max-body", "4096")
    async with connect(server) as client:

        async def asked(method: str, path: str, data: bytes | None = None, **headers: str) -> tuple[int, str]:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            async with client.session.request(method, client.url + path, data=data, headers=names) as answer:
                return answer.status, (await answer.json())["error"]

        infer = "/v2/models/tiny/infer"
        for method, path, data, headers, status, sentence in (
            ("GET", infer, None, {}, 405, "POST a request"),
            ("PUT", infer, b"{}", {}, 405, "POST a request"),
            ("POST", "/v2/health/live", b"", {}, 405, "GET it"),
            ("GET", "/", None, {}, 404, "/v2/models/tiny/infer"),
            ("GET", "/v2/models/tiny/stats", None, {}, 404, "/v2/models/tiny/infer"),
            ("POST", "/v2/models/other/infer", b"{}", {}, 404, "this server serves 'tiny', version 'v2'"),
            ("POST", "/v2/models/tiny/versions/v1/infer", b"{}", {}, 404, "this server serves 'tiny', version 'v2'"),
            ("GET", "/v2/models/tiny/versions", None, {}, 404, "no such model here"),
            ("POST", infer, b"", {}, 400, "the body is empty"),
            ("POST", infer, b"\x00\xff", {}, 400, "not JSON"),
            ("POST", infer, b"{}", {"Inference_Header_Content_Length": "x"}, 400, "must be the number of bytes"),
            ("POST", infer, b"{}", {"Inference_Header_Content_Length": "9"}, 400, "is 9, but the body has 2 bytes"),
            ("POST", infer, b"{}", {"Content_Encoding": "gzip"}, 415, "the body is compressed"),
            ("POST", infer, b" " * 5000, {}, 413, "the body has 5000 bytes; this server takes up to 4096"),
        ):  # fmt: skip
            got_status, got_sentence = await asked(method, path, data, **headers)
            assert (got_status, sentence in got_sentence) == (status, True), (method, path, got_status, got_sentence)

        x = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 1, 1, 1]}
        unknown = json.dumps({"inputs": [x], "outputs": [{"name": "z"}]}).encode()
        assert await asked("POST", infer, unknown) == (400, "outputs: the model has no output 'z'; it has y")
        assert (await client.infer("x", "FP64", ROWS_OF_ONES))[1] == {"error": "input 'x': expected FP32, got FP64"}
        # any content type will do
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            async with client.session.post(
                client.url + infer, data=json.dumps({"inputs": [x]}), headers={"content-type": kind}
            ) as answer:
                assert answer.status == 200
        async with client.session.head(f"{client.url}/v2/health/ready") as answer:
            assert answer.status == 200
        async with client.session.head(client.url + infer) as answer:
            assert (answer.status, answer.headers["allow"]) == (405, "POST")


async def test_an_oversized_body_is_refused_before_it_is_sent(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"), "--max-body", "4096")
    async with connect(server) as client:
        request = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\n"
        announced = request + b"Content-Length: 1000000000000\r\nExpect: 100-continue\r\n\r\n"
        answer = await raw(client.url, announced)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer

        piece = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
        answer = await raw(client.url, request + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 3 + b"0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"more than 4096 bytes" in answer
        assert (await client.infer("x", "FP32", ROWS_OF_ONES))[0] == 200


async def test_a_client_that_leaves_within_its_body_disturbs_nobody(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"))
    async with connect(server) as client:
        address = urlsplit(client.url)
        for reset in (False, True):
            with socket.create_connection((address.hostname, address.port)) as connection:
                connection.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{")
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert (await raw(client.url, b"POST /v2 HTTP/9\r\n\r\n")).startswith(b"HTTP/1.1 400")
        assert (await client.infer("x", "FP32", ROWS_OF_ONES))[0] == 200
        assert await server.stopped() == 0
    assert "Traceback" not in server.log


async def test_what_the_model_cannot_compute_is_a_422_without_its_values_and_is_logged(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.lookup(tmp_path / "lookup.onnx"))
    async with connect(server) as client:
        for _ in range(20):
            status, answer = await client.infer("id", "INT64", [987654])
            assert status == 422
            assert "inference failed in Gather node 'embedding'" in answer["error"]
            assert "987654" not in answer["error"]
        assert (await client.infer("id", "INT64", [1]))[1]["outputs"][0]["data"] == [2, 3]
        assert await client.get("/v2/health/ready") == (200, {"ready": True, "live": True})
    assert re.findall(r"Gather.*\((\d+) so far\)", server.log) == ["1", "10"]
    assert "987654" not in server.log


# ---- turns


async def test_a_full_line_refuses_and_who_waits_is_served(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.slow(tmp_path / "slow.onnx"), "--max-queue", "2")
    async with connect(server) as client:
        requests = [asyncio.create_task(client.infer("rounds", "INT64", [100_000])) for _ in range(8)]
        results = await asyncio.gather(*requests)
        assert sorted(status for status, _ in results) == [200] * 3 + [503] * 5
        assert [a for status, a in results if status == 503] == [
            {"error": "the model is busy and 2 requests wait already, as many as may (--max-queue); try again later"}
        ] * 5
        assert (await client.infer("rounds", "INT64", [1]))[0] == 200


async def test_health_is_answered_while_an_inference_runs(start: StartServer, connect: Connect, tmp_path: Path) -> None:
    server = start(tiny_models.slow(tmp_path / "slow.onnx"))
    async with connect(server) as client:
        running = asyncio.create_task(client.infer("rounds", "INT64", [300_000]))
        answered = 0
        while not running.done():
            assert (await client.get("/v2/health/ready"))[0] == 200
            answered += 1
        assert (await running)[0] == 200
        assert answered > 10


async def test_who_left_before_its_turn_is_not_computed(start: StartServer, connect: Connect, tmp_path: Path) -> None:
    server = start(tiny_models.slow(tmp_path / "slow.onnx"), "--max-queue", "2")
    async with connect(server) as client:
        first = asyncio.create_task(client.infer("rounds", "INT64", [300_000]))
        await settle(client)
        waiting = [asyncio.create_task(client.infer("rounds", "INT64", [10**12])) for _ in range(2)]
        await settle(client)
        assert (await client.infer("rounds", "INT64", [1]))[0] == 503
        for task in waiting:
            task.cancel()
        assert (await first)[0] == 200
        assert (await client.infer("rounds", "INT64", [1]))[0] == 200  # 10**12 rounds would take weeks


# ---- life


async def test_it_is_live_before_it_is_ready_and_ready_only_after_warm_up(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"))
    async with connect(server):
        pass
    assert await server.stopped() == 0
    words = re.findall(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO (\w+)", server.log, re.MULTILINE)
    assert [word for word in words if word != "quick"] == ["start", "loaded", "warmed", "ready", "drain", "exit"]


async def test_a_model_that_fails_on_zeros_gets_ready_and_says_so(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.lookup(tmp_path / "lookup.onnx", rows=0))
    async with connect(server) as client:
        assert (await client.infer("id", "INT64", []))[0] == 200
    assert "not fully (0 runs), it fails on zeros: inference failed in Gather node" in server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_what_runs_and_waits_finish(
    start: StartServer, connect: Connect, tmp_path: Path, number: signal.Signals
) -> None:
    server = start(tiny_models.slow(tmp_path / "slow.onnx"), "--max-queue", "2")
    async with connect(server) as client:
        requests = [asyncio.create_task(client.infer("rounds", "INT64", [100_000])) for _ in range(3)]
        await settle(client)
        server.process.send_signal(number)
        await server.until_logged("drain")
        server.process.send_signal(number)  # told twice, it still finishes
        assert [status for status, _ in await asyncio.gather(*requests)] == [200] * 3
        assert await server.ended() == 0
    assert f"drain: {number.name}, 1 running, 2 waiting" in server.log


async def test_clients_that_never_stop_see_no_broken_answer_when_it_ends(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"))
    async with connect(server) as client:
        answered = 0

        async def hammer() -> str:
            nonlocal answered
            while True:
                try:
                    status, _ = await client.infer("x", "FP32", ROWS_OF_ONES)
                except OSError as exc:
                    return type(exc).__name__
                assert status == 200
                answered += 1

        hammers = [asyncio.create_task(hammer()) for _ in range(8)]
        while answered < 100:
            await asyncio.sleep(0.01)
        assert await server.stopped() == 0
        assert set(await asyncio.gather(*hammers)) == {"ClientConnectorError"}  # refused at the door, never in between


async def test_a_server_may_be_told_to_end_with_whoever_started_it(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"))
    command = [*server.process.args, "--end-with-stdin"]
    starter = f"import subprocess, sys, time; subprocess.Popen({command!r}, stdin=subprocess.PIPE); time.sleep(60)"
    parent = type(server)([sys.executable, "-c", starter], tmp_path / "with_parent.log")
    async with connect(parent) as client:
        assert (await client.infer("x", "FP32", ROWS_OF_ONES))[0] == 200
        parent.process.kill()
        parent.process.wait()
        while "INFO exit" not in parent.log:
            await asyncio.sleep(0.01)
    assert "drain: stdin closed" in parent.log


async def test_a_signal_while_it_loads_ends_it(start: StartServer, tmp_path: Path) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"))
    await server.until_logged("start:")
    assert await server.stopped() == 0
    assert server.log.splitlines()[-1].endswith("INFO exit")


async def test_what_outlasts_the_drain_is_cut_off(start: StartServer, connect: Connect, tmp_path: Path) -> None:
    server = start(tiny_models.slow(tmp_path / "slow.onnx"), "--drain-timeout", "0.2", "--max-queue", "0")
    async with connect(server) as client:
        endless = asyncio.create_task(client.infer("rounds", "INT64", [10**12]))
        await settle(client)
        assert await server.stopped() == 0
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await endless
    assert "1 requests were still open after 0.2 s and are cut off" in server.log


async def test_an_engine_that_cannot_be_loaded_ends_it_with_one_clear_last_line(
    start: StartServer, tmp_path: Path, artefacts: Path
) -> None:
    model = tiny_models.affine(tmp_path / "affine.onnx")
    wrong_name = start(model, "--input", "served=other")
    assert await wrong_name.ended() == 3
    assert wrong_name.log.splitlines()[-1].endswith("--input served=other: the model has no input 'other'; it has x")
    (engine,) = artefacts.glob("*/engine.onnx")
    command = list(wrong_name.process.args)
    engine.write_bytes(b"damaged")
    server = type(wrong_name)(command, tmp_path / "damaged.log")
    assert await server.ended() == 3
    assert "is damaged: its bytes have digest" in server.log.splitlines()[-1]


async def test_a_port_that_is_taken_ends_it_with_a_clear_line(start: StartServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start(tiny_models.affine(tmp_path / "affine.onnx"), "--port", str(port))
        assert await server.ended() == 4
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in server.log.splitlines()[-1]


@pytest.mark.parametrize(
    "options",
    [("--port", "65536"), ("--contexts", "0"), ("--max-queue", "-1"), ("--input", "x"), ("--drain-timeout", "nan")],
)
async def test_a_wrong_option_ends_it_with_the_usage(
    start: StartServer, tmp_path: Path, options: tuple[str, str]
) -> None:
    server = start(tiny_models.affine(tmp_path / "affine.onnx"), *options)
    assert await server.ended() == 2
    assert f"argument {options[0]}: expected" in server.log


# ---- batching


async def test_many_at_once_share_runs_and_each_gets_its_own_answer_though_some_are_poisonous(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(
        tiny_models.lookup(tmp_path / "lookup.onnx", rows=50), "--max-batch", "8", "--max-queue-delay", "0.05"
    )
    async with connect(server) as client:
        assert "batching: up to 8 rows a run, 50 ms for company" in server.log
        results = await asyncio.gather(*(client.infer("id", "INT64", [number]) for number in range(60)))
    for number, (status, document) in enumerate(results):
        if number < 50:
            assert (status, document["outputs"][0]["data"]) == (200, [2 * number, 2 * number + 1])
        else:
            assert status >= 400


async def test_a_model_whose_first_dimension_is_fixed_is_served_without_batching_and_says_so(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.slow(tmp_path / "slow.onnx"), "--max-batch", "8")
    async with connect(server) as client:
        assert "batching: off, each request runs alone: input rounds: INT64[1] has no dynamic first" in server.log
        assert (await client.infer("rounds", "INT64", [3]))[0] == 200


# ---- metrics


async def test_a_scrape_tells_answers_failures_batches_and_where_the_time_went(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.lookup(tmp_path / "lookup.onnx", rows=4), "--max-batch", "8")
    async with connect(server) as client:
        for number in (0, 1, 99):
            await client.infer("id", "INT64", [number])
        await client.infer("nothing", "INT64", [0])
        async with client.session.get(client.url + "/metrics") as answer:
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            families = {
                sample.name: sample
                for family in text_string_to_metric_families(await answer.text())
                for sample in family.samples
                if sample.labels.get("reason") in (None, "OTHER")
            }
    assert families["nv_inference_request_success"].value == 2
    assert families["nv_inference_request_failure"].value >= 1
    assert families["nv_inference_exec_count"].value == 3
    assert families["graylift_compute_seconds_count"].value == 3
    assert families["graylift_server_memory_peak_bytes"].value >= families["graylift_server_memory_bytes"].value > 0
    assert families["graylift_batch_rows_sum"].labels == {"model": "tiny", "version": "v2"}
    assert (families["graylift_contexts"].value, families["graylift_batch_rows_max"].value) == (1, 8)
    engine = families["graylift_engine_info"].labels
    assert (engine["runtime"], engine["revision"]) == ("onnxruntime", f"tiny.v2.{engine['engine'][:12]}")


async def test_the_parts_of_a_request_add_up_to_it(start: StartServer, connect: Connect, tmp_path: Path) -> None:
    async with connect(start(tiny_models.slow(tmp_path / "slow.onnx"))) as client:
        assert (await client.infer("rounds", "INT64", [300_000]))[0] == 200
        async with client.session.get(client.url + "/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
            seen = {sample.name: sample.value for family in families for sample in family.samples}
    parts = ("parse", "queue", "compute_input", "compute", "compute_output", "handover", "render")
    total = sum(seen[f"graylift_{part}_seconds_sum"] for part in parts)
    assert 0.5 * seen["graylift_request_seconds_sum"] < total <= seen["graylift_request_seconds_sum"]
    assert seen["graylift_compute_seconds_sum"] > total / 2  # and this model's time is the engine's


# ---- faults


async def test_idle_connections_and_readers_who_do_not_read_hold_up_nobody(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.identity(tmp_path / "identity.onnx", "FP32"))
    async with connect(server) as client:
        address = urlsplit(client.url)
        idle = [await asyncio.open_connection(address.hostname, address.port) for _ in range(400)]
        # Answers of some megabytes that nobody takes: they fill what the kernel holds, and then the server's memory.
        document = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 200_000], "data": [0.123456] * 200_000}]}
        ).encode()
        head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(document)}\r\n\r\n".encode()
        slow = [await asyncio.open_connection(address.hostname, address.port, limit=1) for _ in range(4)]
        for _, writer in slow:
            writer.write(head + document)
            await writer.drain()
        for number in range(20):
            status, answer = await client.infer("x", "FP32", [[number]])
            assert (status, answer["outputs"][0]["data"]) == (200, [number])
        for _, writer in (*idle, *slow):
            writer.transport.abort()
        assert (await client.get("/v2/health/ready"))[0] == 200
    assert await server.stopped() == 0


async def test_a_server_measures_what_pays_and_says_why(start: StartServer, connect: Connect, tmp_path: Path) -> None:
    server = start(
        tiny_models.affine(tmp_path / "affine.onnx"),
        "--contexts", "auto", "--max-batch", "auto", "--latency-target", "0.1",
    )  # fmt: skip
    async with connect(server) as client:
        assert (await client.infer("x", "FP32", [[1, 1, 1, 1]]))[0] == 200
    chosen = re.search(r"batching: up to (\d+) rows a run, 0 ms for company: (.*), and two such runs", server.log)
    assert chosen is not None
    assert int(chosen[1]) > 1, "this model's rows cost next to nothing"
    assert re.search(r"contexts: [12] \(1: [\d,]+ rows/s", server.log)


async def test_what_cannot_be_measured_is_served_row_by_row(
    start: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start(tiny_models.lookup(tmp_path / "lookup.onnx", rows=0), "--contexts", "auto", "--max-batch", "auto")
    async with connect(server) as client:
        assert (await client.infer("id", "INT64", []))[0] == 200
    assert "batching: off, each request runs alone" in server.log
    assert "contexts: 1, since more could not be tried with made-up inputs" in server.log
