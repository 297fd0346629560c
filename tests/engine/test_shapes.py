"""Profiles against the graphs that they are for."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
import tiny_models

from graylift.engine.shapes import GraphInput, check_profiles, demand_profiles, graph_inputs
from graylift.errors import EngineError
from graylift.spec.profiles import profiles_from_texts

IDS, MASK = GraphInput("ids", ("batch", "length")), GraphInput("mask", ("batch", "length"))
IMAGE = GraphInput("x", ("", 3, 48, "?"))


def refused(inputs: tuple[GraphInput, ...], *texts: str) -> str:
    with pytest.raises(EngineError) as caught:
        check_profiles("m.onnx", inputs, profiles_from_texts(texts))
    return str(caught.value)


def test_the_inputs_of_a_graph_keep_the_names_of_their_dimensions(tmp_path: Path) -> None:
    model = onnx.load(tiny_models.transformer(tmp_path / "m.onnx"))
    assert graph_inputs(model, "m.onnx") == (IDS, MASK)


def test_an_input_without_a_rank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="declares no shape"):
        graph_inputs(onnx.load(tiny_models.without_rank(tmp_path / "m.onnx")), "m.onnx")


def test_profiles_that_fit_pass() -> None:
    check_profiles("m.onnx", (IMAGE,), profiles_from_texts(["x=1x3x48x64,1x3x48x320,8x3x48x640"]))
    demand_profiles("m.onnx", (GraphInput("x", (1, 2)),), ())


def test_dynamic_dimensions_without_a_profile_are_refused_with_one_to_copy() -> None:
    with pytest.raises(EngineError) as caught:
        demand_profiles("m.onnx", (IDS, IMAGE), ())
    said = str(caught.value)
    texts = re.findall(r"--profile (\S+)", said)
    check_profiles("m.onnx", (IDS, IMAGE), profiles_from_texts(texts))
    assert "profiles: [{ids: {min: [1, 1], opt: [8, 128], max: [32, 512]}, x: {min: [1, 3, 48, 1]" in said


def test_a_fixed_dimension_with_a_range_is_named() -> None:
    assert "dimension 2 of x[?,3,48,?] is 48 in the graph, the profile asks for 32..64" in refused(
        (IMAGE,), "x=1x3x32x64,1x3x48x320,8x3x64x640"
    )


def test_one_dimension_with_two_ranges_is_named() -> None:
    said = refused((IDS, MASK), "ids=1x8,8x128,32x512", "mask=1x8,4x128,16x512")
    assert "dimension 'batch' is one size in the graph, but 1..32 (opt 8) in 'ids' and 1..16 (opt 4) in 'mask'" in said


def test_every_problem_is_told_with_its_profile() -> None:
    said = refused(
        (IMAGE, IDS), "x=1x3x48x8,1x3x48x8,1x3x48x8", "ids=1x8,8x8,8x8", "x=1x3x48,1x3x48,1x3x48", "ids=1x8,8x8,8x8"
    )
    assert "profile 2: x[?,3,48,?] has 4 dimensions, the profile gives it 3" in said
    assert "profile 1" not in said
    said = refused((IDS,), "idx=1x8,8x8,8x8")
    assert "the model has no input 'idx'; it takes ids[batch,length]" in said
    assert "ids[batch,length] has dynamic dimensions and no range" in said
