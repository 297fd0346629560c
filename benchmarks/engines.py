"""Plain ONNX Runtime, our runtimes in their precisions and PyTorch, on one machine in one run.

Run by hand: `python benchmarks/engines.py [--batches 1,8,32] [--rounds N] [--seconds S] [--threads N] [MODEL ...]`.
Each engine lives in a process of its own, for its memory and its threads; they take turns, so that what disturbs the
machine disturbs all, and of the rounds the median counts. Prints Markdown. PyTorch's row needs torch, eager on the same
weights, and exists for MiniLM and for detection: of recognition's attention nobody would write the steps of its file.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graylift.demo import containers, minilm
from graylift.demo.models import Package, PackagedFile, default_cache, fetch
from graylift.domain.engine import Precision, Runtime
from graylift.engine.artefacts import ArtefactStore, this_machine
from graylift.engine.load import load

BATCHES = (1, 8, 32)
TOKENS = 32
CALIBRATION = 64
PLAIN, TORCH = "onnxruntime as it comes", "torch eager"
PP_OCR = Package(
    "rapidocr-onnxruntime",
    "1.4.4",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    (
        PackagedFile(
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
            "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        ),
        PackagedFile(
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        ),
    ),
)
Inputs = dict[str, np.ndarray]
Infer = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A model, its inputs, as many as asked for, and how PyTorch runs it, if it does."""

    name: str
    file: Path
    inputs: Callable[[int], Inputs]
    eager: str = ""


def subjects(folder: Path) -> tuple[Subject, ...]:
    det, rec = fetch(PP_OCR, default_cache(), print_err)
    encoder = minilm.fetch_model(default_cache(), folder / "minilm.onnx", print_err)
    return (
        Subject(f"MiniLM, {TOKENS} tokens", encoder, sentences, "eager encoder"),
        Subject("PP-OCRv4 detection, 320x320", det, lambda count: {"x": walls(count)}, "eager convolutions"),
        Subject("PP-OCRv4 recognition, 48x256", rec, lambda count: {"x": numbers(count)}),
    )


def sentences(count: int) -> Inputs:
    chance = np.random.default_rng(1)
    ids = chance.integers(1000, 30000, (count, TOKENS))
    ids[:, 0], ids[:, -1] = 101, 102
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def numbers(count: int) -> np.ndarray:
    chance = np.random.default_rng(2)
    return np.stack([containers.render(containers.draw_number(chance), chance) for _ in range(count)])


def walls(count: int) -> np.ndarray:
    """Six numbers below each other."""
    lines = numbers(6 * count).reshape(count, 6, 3, 48, 256).transpose(0, 2, 1, 3, 4).reshape(count, 3, 288, 256)
    return np.pad(lines, ((0, 0), (0, 0), (16, 16), (32, 32)), mode="edge")


# ---- one engine, in its own process


def worker(kind: str, file: str, digest: str, inputs: str, threads: int) -> None:
    """Answers each line (batch, seconds) with times, each line `answer FILE` with the outputs of the first 8."""
    given = dict(np.load(inputs))
    native = {"plain": plain, "eager encoder": eager_encoder, "eager convolutions": eager_convolutions}
    infer = native[kind](file, threads) if digest == "-" else ours(file, digest)
    for line in sys.stdin:
        request = json.loads(line)
        if "answer" in request:
            np.save(request["answer"], infer({name: array[:8] for name, array in given.items()}))
            reply: Any = None
        else:
            batch = {name: array[: request["batch"]] for name, array in given.items()}
            reply = {"times_s": timed(infer, batch, request["seconds"]), "peak_mib": peak_mib()}
        print(json.dumps(reply), flush=True)


def timed(infer: Infer, batch: Inputs, seconds: float) -> list[float]:
    for _ in range(2):
        infer(batch)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        infer(batch)
        times.append(time.perf_counter() - began)
    return times


def peak_mib() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def ours(store: str, digest: str) -> Infer:
    runner = load(ArtefactStore(Path(store)), digest)
    return lambda batch: next(iter(runner.infer(batch).values()))


def plain(file: str, threads: int) -> Infer:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, dict(batch))[0]


def eager_encoder(file: str, threads: int) -> Infer:
    import torch
    from torch.nn import functional

    del file
    torch.set_num_threads(threads)
    weights, _ = fetch(minilm.PACKAGE, default_cache(), print_err)
    tensors = {name: torch.tensor(tensor) for name, tensor in minilm.tensors_from_safetensors(weights).items()}

    def both(name: str) -> tuple[Any, Any]:
        return tensors[f"{name}.weight"], tensors[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        return functional.layer_norm(x, (minilm.HIDDEN,), *both(name), 1e-12)

    @torch.inference_mode()
    def infer(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        ids, mask, kinds = (torch.from_numpy(batch[name]) for name in ("input_ids", "attention_mask", "token_type_ids"))
        x = (
            tensors["embeddings.word_embeddings.weight"][ids]
            + tensors["embeddings.token_type_embeddings.weight"][kinds]
        )
        x = norm(x + tensors["embeddings.position_embeddings.weight"][: ids.shape[1]], "embeddings.LayerNorm")
        for layer in range(minilm.LAYERS):
            name = f"encoder.layer.{layer}"
            q, k, v = (
                functional.linear(x, *both(f"{name}.attention.self.{part}"))
                .view(*ids.shape, minilm.HEADS, -1)
                .transpose(1, 2)
                for part in ("query", "key", "value")
            )
            seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :].bool())
            seen = seen.transpose(1, 2).reshape(x.shape)
            x = norm(
                functional.linear(seen, *both(f"{name}.attention.output.dense")) + x,
                f"{name}.attention.output.LayerNorm",
            )
            wide = functional.gelu(functional.linear(x, *both(f"{name}.intermediate.dense")))
            x = norm(functional.linear(wide, *both(f"{name}.output.dense")) + x, f"{name}.output.LayerNorm")
        share = mask[..., None].float()
        return functional.normalize((x * share).sum(1) / share.sum(1)).numpy()

    return infer


def eager_convolutions(file: str, threads: int) -> Infer:
    """Operator after operator, as a person's module would call them: `hardswish` where the file spells out its steps.
    A tensor is forgotten after its last reader."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    graph = onnx.load(file).graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    weights = {name: torch.tensor(array) for name, array in constants.items()}

    def convolve(node: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        named = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        top, left, bottom, right = named["pads"]
        assert (top, left) == (bottom, right)
        if node.op_type == "ConvTranspose":
            return functional.conv_transpose2d(x, weight, bias, named["strides"], (top, left))
        return functional.conv2d(x, weight, bias, named["strides"], (top, left), named["dilations"], named["group"])

    def normalise(node: Any, x: Any, scale: Any, shift: Any, mean: Any, variance: Any) -> Any:
        return functional.batch_norm(x, mean, variance, scale, shift, eps=node.attribute[0].f)

    functions: dict[str, Callable[..., Any]] = {
        "Add": lambda _, a, b: a + b,
        "BatchNormalization": normalise,
        "Concat": lambda node, *all_: torch.cat(all_, node.attribute[0].i),
        "Conv": convolve,
        "ConvTranspose": convolve,
        "Div": lambda _, a, b: a / b,
        "GlobalAveragePool": lambda _, x: functional.adaptive_avg_pool2d(x, 1),
        "HardSigmoid": lambda node, x: torch.clamp(node.attribute[0].f * x + node.attribute[1].f, 0, 1),
        "HardSwish": lambda _, x: functional.hardswish(x),
        "Mul": lambda _, a, b: a * b,
        "Relu": lambda _, x: functional.relu(x),
        "Resize": lambda node, x, *_: functional.interpolate(x, scale_factor=scales[node.output[0]]),
        "Sigmoid": lambda _, x: torch.sigmoid(x),
    }
    nodes = with_hard_swish([node for node in graph.node if node.op_type != "Constant"], constants)
    scales = {n.output[0]: constants[n.input[2]][2:].tolist() for n in nodes if n.op_type == "Resize"}
    last = {name: number for number, node in enumerate(nodes) for name in node.input if name not in weights}

    @torch.inference_mode()
    def infer(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        values = {name: torch.from_numpy(array) for name, array in batch.items()}
        for number, node in enumerate(nodes):
            given = [weights[name] if name in weights else values[name] for name in node.input if name]
            values[node.output[0]] = functions[node.op_type](node, *given)
            for name in {name for name in node.input if last.get(name) == number}:
                del values[name]
        return values[graph.output[0].name].numpy()

    return infer


def with_hard_swish(nodes: Sequence[Any], constants: Mapping[str, np.ndarray]) -> list[Any]:
    """The nodes, with one HardSwish for each x * clip(x + 3, 0, 6) / 6."""

    def value(name: str) -> float | None:
        return float(constants[name]) if name in constants and constants[name].size == 1 else None

    kept: list[Any] = []
    for node in nodes:
        steps = [*kept[-3:], node]
        if [step.op_type for step in steps] == ["Add", "Clip", "Mul", "Div"]:
            add, clip, mul, div = steps
            bounds = [value(add.input[1]), value(clip.input[1]), value(clip.input[2]), value(div.input[1])]
            if bounds == [3, 0, 6, 6] and set(mul.input) == {add.input[0], clip.output[0]}:
                kept[-3:] = [helper.make_node("HardSwish", [add.input[0]], list(node.output))]
                continue
        kept.append(node)
    return kept


# ---- all engines of a model, taking turns


class Engine:
    """A process that waits for its turn."""

    def __init__(self, name: str, arguments: Sequence[str], python: str = sys.executable) -> None:
        self.name = name
        self.times: dict[int, list[list[float]]] = {}
        self.peak_mib = 0.0
        self._process = subprocess.Popen(
            [python, __file__, "--worker", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with status {self._process.wait()}")
        return json.loads(line)

    def measure(self, batch: int, seconds: float) -> None:
        reply = self.ask(batch=batch, seconds=seconds)
        self.times.setdefault(batch, []).append(reply["times_s"])
        self.peak_mib = max(self.peak_mib, reply["peak_mib"])

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def build(subject: Subject, store: Path, runtime: Runtime, precision: Precision, threads: int, samples: Path) -> str:
    """The digest of the engine, or why there is none."""
    command = [sys.executable, "-m", "graylift.engine", "build", "--artefacts", str(store), "--onnx", str(subject.file)]
    command += ["--runtime", runtime.value, "--threads", str(threads), "--precision", precision.value]
    if precision is Precision.INT8:
        command += ["--calibration", str(samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print_err(f"{subject.name}, {runtime.value} {precision.value}: {done.stderr.strip()}")
        return ""
    return json.loads(done.stdout)["digest"]


def measure(
    subject: Subject,
    folder: Path,
    batches: Sequence[int],
    rounds: int,
    seconds: float,
    threads: int,
    torch_python: str,
) -> list[str]:
    inputs, samples, store = folder / "inputs.npz", folder / "samples.npz", folder / "artefacts"
    largest = max(8, *batches)
    everything = subject.inputs(largest + CALIBRATION)
    np.savez(inputs, **{name: array[:largest] for name, array in everything.items()})
    np.savez(samples, **{name: array[largest:] for name, array in everything.items()})
    engines = [Engine(PLAIN, ("plain", str(subject.file), "-", str(inputs), str(threads)))]
    with contextlib.ExitStack() as stack:
        stack.callback(engines[0].close)
        for runtime in (Runtime.ONNXRUNTIME, Runtime.OPENVINO):
            for precision in Precision:
                if digest := build(subject, store, runtime, precision, threads, samples):
                    arguments = ("ours", str(store), digest, str(inputs), str(threads))
                    engines.append(Engine(f"graylift {runtime.value} {precision.value}", arguments))
                    stack.callback(engines[-1].close)
        if torch_python and subject.eager:
            engines.append(
                Engine(TORCH, (subject.eager, str(subject.file), "-", str(inputs), str(threads)), torch_python)
            )
            stack.callback(engines[-1].close)
        for engine in engines:
            engine.ask(answer=str(folder / f"{engine.name}.npy"))
        for _ in range(rounds):
            for batch in batches:
                for engine in engines:
                    engine.measure(batch, seconds)
        reference = np.load(folder / f"{PLAIN}.npy")
        return [row(engine, cosine(reference, np.load(folder / f"{engine.name}.npy"))) for engine in engines]


def row(engine: Engine, close: float) -> str:
    cells = [engine.name]
    for batch, rounds in engine.times.items():
        p50, p99 = (statistics.median(float(np.quantile(times, q)) * 1e3 for times in rounds) for q in (0.5, 0.99))
        cells.append(f"{p50:.1f} / {p99:.1f}, {batch / p50 * 1e3:,.0f}/s")
    return f"| {' | '.join((*cells, f'{close:.5f}', f'{engine.peak_mib:.0f}'))} |"


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of the sample that is off most."""
    a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (one, other))
    return float((np.einsum("nd,nd->n", a, b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def python_with_torch(named: str) -> str:
    """The interpreter that has torch, if any."""
    found = subprocess.run([named, "-c", "import torch, graylift"], capture_output=True, check=False).returncode == 0
    return named if found else ""


def print_err(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="beginnings of their names; default all")
    parser.add_argument("--batches", type=lambda text: [int(size) for size in text.split(",")], default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one engine, at one batch size, in one round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch beside graylift")
    arguments = parser.parse_args()
    torch_python = python_with_torch(arguments.torch_python)
    with tempfile.TemporaryDirectory() as name:
        chosen = [
            subject
            for subject in subjects(Path(name))
            if not arguments.models or any(subject.name.lower().startswith(m.lower()) for m in arguments.models)
        ]
        load_before = os.getloadavg()[0]
        for subject in chosen:
            folder = Path(name) / str(chosen.index(subject))
            folder.mkdir()
            rows = measure(
                subject,
                folder,
                arguments.batches,
                arguments.rounds,
                arguments.seconds,
                arguments.threads,
                torch_python,
            )
            heads = (f"batch {batch}: p50 / p99 ms" for batch in arguments.batches)
            print(f"### {subject.name}\n\n| engine | {' | '.join(heads)} | least cosine | peak MiB |")
            print(f"|---|{'---|' * (len(arguments.batches) + 2)}")
            print("\n".join(rows), end="\n\n", flush=True)
    today = datetime.datetime.now(datetime.UTC).date()
    print(
        f"{today}, {this_machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {arguments.threads} "
        f"threads, median of {arguments.rounds} rounds of {arguments.seconds:g} s; load average before "
        f"{load_before:.1f}, after {os.getloadavg()[0]:.1f}. Cosine against the first row, of the worst of 8."
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        kind, file, digest, inputs, threads = sys.argv[2:]
        worker(kind, file, digest, inputs, int(threads))
    else:
        main()
