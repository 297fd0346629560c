"""The model server against the raw engine, plain FastAPI and other model servers, on one machine in one run.

Run by hand: `python benchmarks/server.py [--rounds N] [--seconds S] [--pytriton PYTHON] [--mlserver PYTHON]
[--bentoml PYTHON]`; the last three are Pythons that have that package, and rows without one are left out. Needs `wrk`.

No-op: y = 2x + 1 on 16 numbers as JSON; the server on one core, wrk on the other. MiniLM: 32 tokens as binary tensors
(JSON for FastAPI), 32 clients; all cores for everybody. Subjects take turns, so that what disturbs the machine disturbs
all, and of the rounds the median counts. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import itertools
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graylift.bench.load import LoadPlan, PreparedRequest, load
from graylift.demo import minilm
from graylift.demo.models import default_cache
from graylift.domain.engine import EngineSpec, Runtime
from graylift.engine.artefacts import ArtefactStore, this_machine
from graylift.engine.load import load as load_engine
from graylift.serve.measuring import throughput

PEERS = Path(__file__).parent / "peers"
TOKENS = 32
NOOP_CLIENTS = (8, 64)
MINILM_CLIENTS = 32
SHARE = 0.7
"""Of the load at saturation, at which latency is measured."""


@dataclass(frozen=True)
class Subject:
    """A started server, and one request to it."""

    name: str
    url: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    for peer in ("pytriton", "mlserver", "bentoml"):
        parser.add_argument(f"--{peer}", type=Path, metavar="PYTHON")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("this benchmark loads with wrk: install it (Debian: apt-get install wrk)")
    print(f"{this_machine()}, {os.cpu_count()} cores; {datetime.datetime.now(datetime.UTC):%Y-%m-%d}\n")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        noop(Path(folder), stack, given)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        encoder(Path(folder), stack, given)


# ---- no-op: what the server itself costs


def noop(folder: Path, stack: contextlib.ExitStack, given: argparse.Namespace) -> None:
    model = twice(folder / "twice.onnx")
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 16], "data": list(range(16))}
    body = json.dumps({"inputs": [tensor]}).encode()
    path, json_type = "/v2/models/m/infer", {"Content-Type": "application/json"}
    server, client = ("taskset", "-c", "0"), ("taskset", "-c", "1")
    port = itertools.count(18500, 10)

    def started(name: str, command: Sequence[str], at: int, **extra: str) -> Subject:
        subject = Subject(name, f"http://127.0.0.1:{at}", path, json_type, body)
        return running(stack, folder, subject, (*server, *command), extra)

    at = next(port)
    subjects = [started("graylift serve", ours(model, folder, at), at)]
    at = next(port)
    subjects.append(started("FastAPI, one by one", (sys.executable, str(PEERS / "fastapi_app.py"), str(at)), at))
    if given.pytriton:
        at = next(port)
        command = (str(given.pytriton), str(PEERS / "pytriton_app.py"), str(at))
        subjects.append(started("PyTriton's Triton", command, at, PYTRITON_NO_TENSORSTORE="1"))
    if given.mlserver:
        at = next(port)
        settings = mlserver_settings(folder / "mlserver", at)
        subjects.append(started("MLServer", (str(given.mlserver.with_name("mlserver")), "start", str(settings)), at))
    if given.bentoml:
        at = next(port)
        command = (str(given.bentoml), "-m", "bentoml", "serve", "bentoml_service:Twice", "--port", str(at))
        subject = Subject("BentoML", f"http://127.0.0.1:{at}", "/infer", json_type,
                          json.dumps({"x": [list(range(16))]}).encode())  # fmt: skip
        subjects.append(running(stack, folder, subject, (*server, *command), {"PYTHONPATH": str(PEERS)}))
    rates = in_turns(
        {
            (s.name, clients): wrk_of(s, folder, client, clients, given.seconds)
            for s in subjects
            for clients in NOOP_CLIENTS
        },
        given.rounds,
    )
    print(f"y = 2x + 1, JSON, server on one core, {given.rounds} rounds\n")
    print("| server | 8 clients, requests/s | 64 clients, requests/s | CPU of the core, us a request | of graylift |")
    print("|---|---:|---:|---:|---:|")
    first = rates[subjects[0].name, 64]
    for subject in subjects:
        eight, many = (rates[subject.name, clients] for clients in NOOP_CLIENTS)
        print(f"| {subject.name} | {eight:,.0f} | {many:,.0f} | {1e6 / many:,.0f} | {many / first:.2f} |", flush=True)
    print()


def twice(file: Path) -> Path:
    """x: FP32[?,16] -> y = 2x + 1."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 16]) for name in "xy")
    constants = [numpy_helper.from_array(np.float32([n]), name) for n, name in ((2, "two"), (1, "one"))]
    nodes = [helper.make_node("Mul", ["x", "two"], ["z"]), helper.make_node("Add", ["z", "one"], ["y"])]
    graph = helper.make_graph(nodes, "twice", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


def mlserver_settings(folder: Path, port: int) -> Path:
    folder.mkdir()
    shutil.copy(PEERS / "mlserver_model.py", folder)
    model = {"name": "m", "implementation": "mlserver_model.Twice", "max_batch_size": 64, "max_batch_time": 0.0005}
    own = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "parallel_workers": 0, "debug": False}
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "settings.json").write_text(json.dumps(own))
    return folder


# ---- MiniLM: how near to the engine's own speed


def encoder(folder: Path, stack: contextlib.ExitStack, given: argparse.Namespace) -> None:
    model = minilm.fetch_model(default_cache(), folder / "minilm.onnx", lambda text: print(text, file=sys.stderr))
    ids = np.full((1, TOKENS), 2023, np.int64)
    ids[0, 0], ids[0, -1] = 101, 102
    row = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    described = [{"name": name, "datatype": "INT64", "shape": [1, TOKENS]} for name in row]
    as_json = json.dumps({"inputs": [{**d, "data": row[d["name"]].ravel().tolist()} for d in described]}).encode()
    head = json.dumps(
        {
            "inputs": [{**d, "parameters": {"binary_data_size": TOKENS * 8}} for d in described],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    binary = head + b"".join(row[d["name"]].tobytes() for d in described)
    binary_headers = {"Inference-Header-Content-Length": str(len(head))}
    path = "/v2/models/m/infer"
    profile = [word for name in row for word in ("--profile", f"{name}=1x1,1x{TOKENS},64x512")]
    batched = running(
        stack, folder, Subject("graylift serve, binary", "http://127.0.0.1:18600", path, binary_headers, binary),
        ours(model, folder, 18600, *profile),
    )  # fmt: skip
    plain = running(
        stack, folder, Subject("FastAPI, one by one", "http://127.0.0.1:18610", path,
                               {"Content-Type": "application/json"}, as_json),
        (sys.executable, str(PEERS / "fastapi_app.py"), "18610", str(model)),
    )  # fmt: skip
    chosen = gauges(batched.url)
    rows, contexts = int(chosen["graylift_batch_rows_max"]), int(chosen["graylift_contexts"])
    store = ArtefactStore(folder / "state" / "artefacts")
    digest = store.build(EngineSpec(str(model), Runtime.ONNXRUNTIME)).digest
    engine = load_engine(store, digest, contexts)
    raw = f"the engine in a loop, {rows} rows, {contexts} contexts"
    work: dict[str, Callable[[], float]] = {raw: lambda: throughput(engine, row, rows, contexts).rows_per_s}
    work |= {s.name: wrk_of(s, folder, (), MINILM_CLIENTS, given.seconds) for s in (batched, plain)}
    rates = in_turns(work, given.rounds)
    print(f"MiniLM, {TOKENS} tokens, {MINILM_CLIENTS} clients, all cores, {given.rounds} rounds\n")
    print("| | rows/s at saturation | of the engine | p50 and p99 at 70 % of its own saturation, ms |")
    print("|---|---:|---:|---:|")
    print(f"| {raw} | {rates[raw]:,.0f} | 1.00 | |")
    for subject in (batched, plain):
        rate = rates[subject.name]
        latency = at_rate(subject, SHARE * rate, 2 * given.seconds)
        print(f"| {subject.name} | {rate:,.0f} | {rate / rates[raw]:.2f} | {latency} |", flush=True)
    print()
    where(batched.url)


def at_rate(subject: Subject, rate_per_s: float, seconds: float) -> str:
    request = PreparedRequest(subject.path, subject.headers, subject.body)
    report = asyncio.run(load(LoadPlan(subject.url, rate_per_s, seconds), itertools.repeat(request)))
    if report.errors or report.shed:
        return f"not measurable: {report.errors}, {report.shed} shed"
    (answers,) = report.revisions
    return f"{answers.latency.quantile(0.5) * 1e3:,.1f}, {answers.latency.quantile(0.99) * 1e3:,.1f}"


def where(url: str) -> None:
    """The means of the server's own histograms: where a request's time went, over all of the run."""
    seen = gauges(url)
    print("| where a request's time goes | mean, ms |")
    print("|---|---:|")
    for part in ("parse", "queue", "compute_input", "compute", "compute_output", "handover", "render", "request"):
        name = f"graylift_{part}_seconds"
        print(f"| `{name}` | {seen[name + '_sum'] / seen[name + '_count'] * 1e3:.3f} |")
    print(f"\nmean batch: {seen['nv_inference_count'] / seen['nv_inference_exec_count']:.1f} rows")


# ---- starting, loading, reading


def ours(model: Path, folder: Path, port: int, *options: str) -> tuple[str, ...]:
    command = (sys.executable, "-m", "graylift", "serve", str(model), "--name", "m", "--port", str(port))
    return (*command, "--state", str(folder / "state"), *options)


def running(
    stack: contextlib.ExitStack, folder: Path, subject: Subject, command: Sequence[str], extra: Mapping[str, str] = {}
) -> Subject:
    """The subject, once it answers its request; ended with the stack."""
    log = (folder / (plain_name(subject) + ".log")).open("wb")
    stack.callback(log.close)
    process = subprocess.Popen(
        command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **extra}, start_new_session=True
    )
    stack.callback(ended, process)
    ends = time.monotonic() + 120
    while not answers(subject):
        if process.poll() is not None or time.monotonic() > ends:
            sys.exit(f"{subject.name} does not answer:\n{Path(log.name).read_text(errors='replace')[-3000:]}")
        time.sleep(0.2)
    return subject


def plain_name(subject: Subject) -> str:
    return re.sub(r"\W+", "-", subject.name)


def ended(process: subprocess.Popen[bytes]) -> None:
    """With what it started: some servers are many processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(subject: Subject) -> bool:
    request = urllib.request.Request(subject.url + subject.path, subject.body, dict(subject.headers))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def in_turns(work: Mapping[object, Callable[[], float]], rounds: int) -> dict[object, float]:
    """The median of each."""
    seen: dict[object, list[float]] = {key: [] for key in work}
    for _ in range(rounds):
        for key, measure in work.items():
            seen[key].append(measure())
    return {key: statistics.median(values) for key, values in seen.items()}


def wrk_of(subject: Subject, folder: Path, pinned: Sequence[str], clients: int, seconds: float) -> Callable[[], float]:
    """Requests a second that were answered with 200. Others end the benchmark."""
    name = plain_name(subject)
    body, script = folder / f"{name}.body", folder / f"{name}.lua"
    body.write_bytes(subject.body)
    headers = "".join(f'wrk.headers["{key}"] = "{value}"\n' for key, value in subject.headers.items())
    script.write_text(f'wrk.method = "POST"\n{headers}wrk.body = io.open("{body}", "rb"):read("*a")\n')
    command = (*pinned, "wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script),
               subject.url + subject.path)  # fmt: skip

    def measured() -> float:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in said or "Socket errors" in said:
            print(f"{subject.name}: {said}", file=sys.stderr)
        found = re.search(r"Requests/sec:\s+([\d.]+)", said)
        assert found is not None, said
        return float(found[1])

    return measured


def gauges(url: str) -> dict[str, float]:
    """Samples without labels of their own, by name."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.split("{")[0]: float(line.rpartition(" ")[2]) for line in lines if line and line[0] != "#"}


if __name__ == "__main__":
    main()
