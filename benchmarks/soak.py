"""A model server under steady load for a long time: its memory stays flat, and nobody gets an error.

Run by hand: `python benchmarks/soak.py [--minutes M] [--share S] [--clients N] [MODEL.onnx]`; without a model, 2x + 1
on 16 numbers. Finds the load that the server takes, then asks for `share` of it (open loop), and prints a line of
memory, latency and errors for each tenth of the time. Exit status 1 if a request failed, or if the memory at the end is
more than 5 % above that of the first tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from server import Subject, gauges, ours, running, twice

from graylift.bench.load import LoadPlan, PreparedRequest, load
from graylift.bench.saturation import saturate
from graylift.protocols.datatypes import DTYPES

PORT = 18700
PARTS = 10
GROWTH = 1.05
_MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--clients", type=int, default=32)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        subject = started(given.model or twice(folder / "twice.onnx"), folder, stack)
        return asyncio.run(soak(subject, given.minutes * 60, given.share, given.clients))


def started(model: Path, folder: Path, stack: contextlib.ExitStack) -> Subject:
    """Serves `model`; its request is one row of zeros, dynamic sizes beyond the first are 32."""
    tensors: list[dict[str, object]] = []
    for value in onnx.load(model, load_external_data=False).graph.input:
        described = value.type.tensor_type
        datatype = {1: "FP32", 6: "INT32", 7: "INT64"}[described.elem_type]
        shape = [1, *(dim.dim_value or 32 for dim in described.shape.dim[1:])]
        zeros = np.zeros(shape, DTYPES[datatype]).ravel().tolist()
        tensors.append({"name": value.name, "datatype": datatype, "shape": shape, "data": zeros})
    body = json.dumps({"inputs": tensors}).encode()
    subject = Subject("soaked", f"http://127.0.0.1:{PORT}", "/v2/models/m/infer", {}, body)
    return running(stack, folder, subject, ours(model, folder, PORT))


async def soak(subject: Subject, seconds: float, share: float, clients: int) -> int:
    requests = itertools.repeat(PreparedRequest(subject.path, subject.headers, subject.body))
    most = await saturate(subject.url, requests, in_flight=clients, duration_s=5)
    rate = share * most.answers / most.elapsed_s
    print(f"{rate:,.0f} requests/s, {share:.0%} of what {clients} clients get, for {seconds / 60:g} minutes\n")
    print("| minutes | answers | failed | p50, ms | p99, ms | memory, MiB |")
    print("|---:|---:|---:|---:|---:|---:|")
    failed, memory = most.failed, list[float]()
    for part in range(PARTS):
        report = await load(LoadPlan(subject.url, rate, seconds / PARTS, seed=part, max_in_flight=4096), requests)
        (answers,) = report.revisions
        bad = report.shed + report.abandoned + sum(count for _, count in report.errors)
        bad += sum(count for status, count in answers.statuses if status != 200)
        failed += bad
        memory.append((await asyncio.to_thread(gauges, subject.url))["graylift_server_memory_bytes"] / _MIB)
        p50, p99 = (answers.latency.quantile(q) * 1e3 for q in (0.5, 0.99))
        ends = (part + 1) * seconds / PARTS / 60
        good = sum(count for _, count in answers.statuses)
        print(f"| {ends:.1f} | {good:,} | {bad} | {p50:.1f} | {p99:.1f} | {memory[-1]:.1f} |", flush=True)
    grew = memory[-1] / memory[0]
    print(f"\n{failed} failed; memory at the end {grew:.3f} of that after the first tenth (limit {GROWTH})")
    return int(failed > 0 or grew > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
