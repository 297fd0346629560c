"""Programs of PyTorch as engines to compare with. Where there is no PyTorch, that is said with the cure."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models

from graylift.domain.engine import EngineSpec, Precision, Runtime
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load
from graylift.errors import EngineError, InputError, NotComputable
from graylift.spec.profiles import profiles_from_texts

HERE = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HERE, reason="PyTorch is not installed")


def program(file: Path) -> Path:
    """ids, mask: INT64[?,?] -> {"logits": FP32[?,?,3], "count": INT64[?]}, ids from a table of 10."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table = torch.nn.Embedding(10, 4)
            self.head = torch.nn.Linear(4, 3)

        def forward(self, ids: Any, mask: Any) -> dict[str, Any]:
            return {"logits": self.head(self.table(ids)) * mask[..., None].float(), "count": mask.sum(1)}

    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    given = tuple(torch.zeros(2, 5, dtype=torch.int64) for _ in range(2))
    sizes = {name: {0: batch, 1: length} for name in ("ids", "mask")}
    torch.export.save(torch.export.export(Model().eval(), given, dynamic_shapes=sizes), file)
    return file


@pytest.mark.skipif(HERE, reason="PyTorch is installed")
def test_without_pytorch_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"whatever")
    with pytest.raises(EngineError, match=r"the runtime pytorch cannot be imported .* pip install torch"):
        ArtefactStore(tmp_path / "store").build(EngineSpec(str(tmp_path / "model.pt2"), Runtime.PYTORCH))


@needs_torch
def test_a_program_becomes_an_engine_under_the_names_that_its_authors_gave(tmp_path: Path) -> None:
    store, spec = ArtefactStore(tmp_path / "store"), EngineSpec(str(program(tmp_path / "m.pt2")), Runtime.PYTORCH)
    manifest = store.build(spec)
    assert list(map(str, manifest.interface.inputs)) == ["ids: INT64[?,?]", "mask: INT64[?,?]"]
    assert list(map(str, manifest.interface.outputs)) == ["logits: FP32[?,?,3]", "count: INT64[?]"]
    assert "aten.linear.default" in {layer.kind for layer in store.inspect(manifest.digest).layers}
    assert store.build(spec) == manifest
    assert store.build(replace(spec, threads=2)).digest != manifest.digest

    runner = load(store, manifest.digest, contexts=4)

    def ask(length: int) -> bool:
        ids = np.full((2, length), length % 10)
        answer = runner.infer({"mask": np.ones_like(ids), "ids": ids})
        row = answer["logits"][0, 0]
        return answer["count"].tolist() == [length] * 2 and bool(np.isclose(answer["logits"], row).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(1, 50)))


@needs_torch
def test_what_the_program_cannot_take_is_the_requests_fault_and_tells_nothing_of_it(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path / "store")
    runner = load(store, store.build(EngineSpec(str(program(tmp_path / "m.pt2")), Runtime.PYTORCH)).digest)
    ids = np.full((1, 3), 7_777)
    with pytest.raises(NotComputable) as caught:
        runner.infer({"ids": ids, "mask": np.ones_like(ids)})
    assert "7777" not in str(caught.value)
    with pytest.raises(NotComputable):
        runner.infer({"ids": np.ones((1, 3), np.int64), "mask": np.ones((1, 4), np.int64)})
    with pytest.raises(InputError, match="input 'mask' is missing"):
        runner.infer({"ids": ids})
    read_only = np.ones((1, 3), np.int64)
    read_only.flags.writeable = False
    assert runner.infer({"ids": read_only[:, ::-1], "mask": read_only})["count"].tolist() == [3]


@needs_torch
def test_what_it_does_not_do_is_refused_with_what_to_do(tmp_path: Path) -> None:
    store, spec = ArtefactStore(tmp_path / "store"), EngineSpec(str(program(tmp_path / "m.pt2")), Runtime.PYTORCH)
    onnx = tiny_models.affine(tmp_path / "affine.onnx")
    for asked, said in (
        (replace(spec, onnx=str(onnx)), r"affine\.onnx is no program that PyTorch .* write it with torch\.export"),
        (replace(spec, precision=Precision.FP16), "does not lower it to fp16"),
        (replace(spec, profiles=profiles_from_texts(["ids=1x1,1x1,1x1"])), "for no profiles"),
        (replace(spec, settings=(("provider", "cuda"),)), "pytorch has no setting 'provider'; it has none"),
        (replace(spec, onnx=str(tmp_path / "away.pt2")), "away.pt2"),
    ):
        with pytest.raises(EngineError, match=said):
            store.build(asked)
    assert not list((tmp_path / "store").glob("*/manifest.json"))
