"""Profiles: held against the model when it is built, and against every request afterwards, by each runtime alike."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from graylift.domain.engine import EngineSpec, Interface, Profile, ProfileShape, Runtime, TensorSpec
from graylift.domain.spec import TensorName
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load
from graylift.engine.profiles import bounds_of, profile_for
from graylift.engine.runner import check_inputs
from graylift.errors import EngineError, InputError
from graylift.serve.model import served_model
from graylift.serve.warmup import warm
from graylift.spec.profiles import profiles_from_texts

each_runtime = pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.OPENVINO], ids=lambda r: r.value)

TWO = Interface((TensorSpec("a", "FP32", (-1, 4)), TensorSpec("b", "FP32", (-1,))), ())
SMALL = Profile((ProfileShape("a", (1, 4), (1, 4), (2, 4)), ProfileShape("b", (1,), (1,), (2,))))
LARGE = Profile((ProfileShape("a", (8, 4), (8, 4), (8, 4)), ProfileShape("b", (5,), (6,), (7,))))


def rows(smallest: int, largest: int, columns: int = 4, name: str = "x") -> Profile:
    return Profile((ProfileShape(name, (smallest, columns), (smallest, columns), (largest, columns)),))


@each_runtime
@pytest.mark.parametrize(
    ("profiles", "sentence"),
    [
        ((rows(1, 4, name="z"),), r"profile 1: the model has no input 'z'; it takes x\[N,4\]"),
        (
            (rows(1, 4), rows(1, 4, columns=5)),
            r"profile 2: dimension 1 of x\[N,4\] is 4 in the graph, the profile asks for 5..5",
        ),
        (
            (Profile((ProfileShape("x", (1,), (1,), (1,)),)),),
            r"profile 1: x\[N,4\] has 2 dimensions, the profile gives it 1",
        ),
        ((Profile(()),), r"profile 1: x\[N,4\] has dynamic dimensions and no range"),
    ],
)
def test_a_profile_that_does_not_fit_the_model_is_no_artefact(
    tmp_path: Path, runtime: Runtime, profiles: tuple[Profile, ...], sentence: str
) -> None:
    file = tiny_models.affine(tmp_path / "affine.onnx")
    with pytest.raises(EngineError, match=sentence):
        ArtefactStore(tmp_path / "artefacts").build(EngineSpec(str(file), runtime, profiles=profiles))


@each_runtime
def test_requests_outside_the_profiles_are_refused_with_the_limits_and_those_inside_answered(
    tmp_path: Path, runtime: Runtime
) -> None:
    file = tiny_models.affine(tmp_path / "affine.onnx")
    store = ArtefactStore(tmp_path / "artefacts")
    manifest = store.build(EngineSpec(str(file), runtime, profiles=(rows(2, 4),)))
    runner = load(store, manifest.digest)
    assert store.manifest(manifest.digest).profiles == (rows(2, 4),)
    for count in (2, 3, 4):
        assert runner.infer({"x": np.ones((count, 4), np.float32)})["y"].tolist() == [[3] * 4] * count
    for count in (0, 1, 5):
        limits = r"it takes x \[2,4\] to \[4,4\]"
        with pytest.raises(InputError, match=rf"got x \[{count},4\]; {limits}"):
            runner.infer({"x": np.ones((count, 4), np.float32)})


def test_all_inputs_must_fall_into_one_and_the_same_profile() -> None:
    def check(a: int, b: int) -> None:
        check_inputs(TWO, {"a": np.zeros((a, 4), np.float32), "b": np.zeros(b, np.float32)}, (SMALL, LARGE))

    check(1, 2)
    check(8, 5)
    for a, b in ((1, 5), (8, 1), (5, 3)):
        with pytest.raises(InputError, match=r"it takes a \[1,4\] to \[2,4\], b \[1\] to \[2\]; or a \[8,4\]"):
            check(a, b)


def test_a_request_gets_the_first_profile_that_holds_it() -> None:
    profiles = profiles_from_texts(["ids=1x1,1x8,1x16", "ids=1x1,8x128,32x512"])
    assert profile_for(profiles, {"ids": (1, 16)}) == 0
    assert profile_for(profiles, {"ids": (1, 17)}) == 1
    assert profile_for(profiles, {"ids": (32, 512)}) == 1
    with pytest.raises(InputError, match=re.escape("got ids [33,1]; it takes ids [1,1] to [1,16]; or ids [1,1] to")):
        profile_for(profiles, {"ids": (33, 1)})


def test_bounds_span_all_profiles() -> None:
    assert bounds_of((SMALL, LARGE)) == {"a": ((1, 8), (4, 4)), "b": ((1, 7),)}
    assert bounds_of(()) == {}


def test_a_renamed_input_is_refused_under_its_served_name_and_warmed_with_the_shapes_of_the_profile(
    tmp_path: Path,
) -> None:
    file = tiny_models.affine(tmp_path / "affine.onnx")
    store = ArtefactStore(tmp_path / "artefacts")
    manifest = store.build(EngineSpec(str(file), Runtime.ONNXRUNTIME, profiles=(rows(2, 4),)))
    names = (TensorName(served="features", own="x"),)
    model = served_model(load(store, manifest.digest), "onnxruntime", names, (), manifest.profiles)
    with pytest.raises(InputError, match=r"got features \[1,4\]; it takes features \[2,4\] to \[4,4\]"):
        model.infer({"features": np.ones((1, 4), np.float32)})
    warmed = warm(model, profiles=model.profiles)
    assert warmed.problem is None
    assert warmed.runs >= 6  # at least two of each of the three shapes
