"""What needs an NVIDIA GPU: memory and streams, and engines that run. Skipped where there is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from graylift.domain.engine import EngineSpec, Precision, Runtime
from graylift.engine import cuda
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load
from graylift.engine.runner import Runner
from graylift.errors import EngineError, InputError
from graylift.protocols.datatypes import Tensor
from graylift.spec.profiles import profiles_from_texts

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.devices(), reason="needs an NVIDIA GPU")]

RUNTIMES = [Runtime.TENSORRT, Runtime.TENSORRT_RTX]
PROFILES = profiles_from_texts([
    "ids=1x8,1x16,4x64", "mask=1x8,1x16,4x64",
    "ids=4x64,8x128,32x256", "mask=4x64,8x128,32x256",
])  # fmt: skip


def test_a_gpu_is_described_by_name_capability_and_driver() -> None:
    gpu = cuda.devices()[0]
    assert gpu.name
    assert float(gpu.compute_capability) >= 5.0
    assert float(gpu.driver) >= 11.0


def test_what_is_copied_in_comes_out_again_on_several_threads() -> None:
    device = cuda.Device()

    def round_trip(seed: int) -> bool:
        device.enter()
        stream, memory = cuda.Stream(), cuda.Memory()
        given = np.random.default_rng(seed).normal(size=(seed + 1, 1000)).astype(np.float32)
        got = np.empty_like(given)
        address = memory.hold(given.nbytes)
        stream.copy_in(given, address)
        stream.copy_out(address, got)
        stream.wait()
        memory.free()
        stream.close()
        return address % 256 == 0 and bool((given == got).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(round_trip, range(32)))
    device.close()


def test_memory_keeps_its_block_while_that_is_large_enough() -> None:
    device, memory = cuda.Device(), cuda.Memory()
    first = memory.hold(1000)
    assert memory.hold(10) == first
    assert memory.size_bytes == 1000
    memory.hold(10_000)
    assert memory.size_bytes == 10_000
    memory.free()
    assert memory.hold(0) > 0  # an empty tensor has an address, too
    memory.free()
    device.close()


def test_more_memory_than_there_is_is_refused() -> None:
    device = cuda.Device()
    with pytest.raises(EngineError, match="the GPU refused cuMemAlloc_v2: out of memory"):
        cuda.Memory().hold(2**50)
    device.close()


def loaded(runtime: Runtime, folder: Path, precision: Precision, contexts: int) -> Runner:
    """Skips where the runtime is not installed or this GPU is not one of its own."""
    file = tiny_models.transformer(folder / "transformer.onnx")
    store = ArtefactStore(folder / "artefacts")
    try:
        manifest = store.build(EngineSpec(str(file), runtime, precision=precision, profiles=PROFILES))
        return load(store, manifest.digest, contexts)
    except EngineError as error:
        if "cannot be imported" in str(error) or "this machine's GPU is" in str(error):
            pytest.skip(str(error))
        raise


def request(batch: int, length: int) -> dict[str, Tensor]:
    ids = np.random.default_rng(batch * length).integers(0, 100, (batch, length))
    mask = np.ones_like(ids)
    mask[:, length // 2 :] = 0
    return {"ids": ids, "mask": mask}


@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.FP32, 1e-3), (Precision.FP16, 0.03)])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_engine_answers_as_the_cpu_does_in_every_profile(
    tmp_path: Path, runtime: Runtime, precision: Precision, tolerance: float
) -> None:
    runner = loaded(runtime, tmp_path, precision, contexts=1)
    reference = ArtefactStore(tmp_path / "reference")
    spec = EngineSpec(str(tmp_path / "transformer.onnx"), Runtime.ONNXRUNTIME)
    on_cpu = load(reference, reference.build(spec).digest)
    for shape in ((1, 8), (4, 64), (32, 256), (1, 9)):
        expected, given = (r.infer(request(*shape))["y"] for r in (on_cpu, runner))
        assert np.abs(expected - given).max() < tolerance
    with pytest.raises(InputError, match="the engine is built for ids"):
        runner.infer(request(33, 256))
    runner.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_several_contexts_answer_at_once_without_mixing_requests(tmp_path: Path, runtime: Runtime) -> None:
    runner = loaded(runtime, tmp_path, Precision.FP32, contexts=3)
    shapes = [(1 + n % 4, 8 + n) for n in range(24)]
    alone = [runner.infer(request(*shape))["y"] for shape in shapes]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda shape: runner.infer(request(*shape))["y"], shapes))
    for one, other in zip(alone, together, strict=True):
        assert np.allclose(one, other, atol=1e-5)
    runner.close()
