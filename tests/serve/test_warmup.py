"""Warm-up: what it runs, when it stops, and that a model it cannot warm is no reason to fail."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.engine import Interface, TensorSpec
from graylift.engine.runner import check_inputs
from graylift.errors import EngineError
from graylift.protocols.datatypes import DTYPES, Tensor
from graylift.serve.warmup import made_up_inputs, warm

ANY_BATCH = Interface((TensorSpec("x", "FP32", (-1, 4)),), ())
ONE_BATCH = Interface((TensorSpec("x", "FP32", (1, -1)),), ())


class FakeRunner:
    """Takes the given durations, the last one for ever; fails for shapes smaller than `smallest`."""

    def __init__(self, interface: Interface, durations: list[float], smallest: int = 1) -> None:
        self.interface = interface
        self.shapes: list[tuple[int, ...]] = []
        self.now = 0.0
        self._durations = durations
        self._smallest = smallest

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shape = inputs["x"].shape
        self.shapes.append(shape)
        if min(shape) < self._smallest:
            raise EngineError("too small")
        self.now += self._durations[min(len(self.shapes), len(self._durations)) - 1]
        return {}

    def close(self) -> None:
        pass


def test_it_runs_until_two_times_in_a_row_agree_first_with_a_larger_batch() -> None:
    runner = FakeRunner(ANY_BATCH, [5.0, 0.5, 0.1, 0.1, 0.8, 0.7])
    warmed = warm(runner, lambda: runner.now)
    assert runner.shapes == [(1, 4)] + [(8, 4)] * 3 + [(1, 4)] * 2
    assert (warmed.runs, warmed.first_s, warmed.problem) == (6, 5.0, None)


def test_a_fixed_batch_is_not_enlarged() -> None:
    runner = FakeRunner(ONE_BATCH, [0.1])
    warm(runner, lambda: runner.now)
    assert runner.shapes == [(1, 1)] * 3


def test_times_that_never_settle_end_at_the_cap() -> None:
    runner = FakeRunner(ONE_BATCH, [0.1 * 2**i for i in range(40)])
    assert warm(runner, lambda: runner.now).runs <= 11


def test_a_very_slow_model_is_run_a_few_times_only() -> None:
    runner = FakeRunner(ANY_BATCH, [60.0])
    assert warm(runner, lambda: runner.now).runs <= 3


def test_a_model_that_needs_larger_dimensions_is_warmed_with_those() -> None:
    runner = FakeRunner(Interface((TensorSpec("x", "FP32", (64, -1)),), ()), [0.1], smallest=32)
    warmed = warm(runner, lambda: runner.now)
    assert warmed.problem is None
    assert set(runner.shapes) == {(64, 1), (64, 64)}


def test_a_model_that_fails_on_zeros_is_tried_and_reported() -> None:
    runner = FakeRunner(ONE_BATCH, [0.1], smallest=1000)
    warmed = warm(runner, lambda: runner.now)
    assert (warmed.runs, warmed.problem) == (0, "too small")
    assert len(runner.shapes) == 2


@given(
    st.lists(st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(-1, 3), max_size=3)), max_size=4),
    st.integers(1, 8),
    st.integers(1, 64),
)
def test_made_up_inputs_always_fit_the_interface(specs: list[tuple[str, list[int]]], batch: int, size: int) -> None:
    interface = Interface(tuple(TensorSpec(f"t{i}", d, tuple(s)) for i, (d, s) in enumerate(specs)), ())
    inputs = made_up_inputs(interface, batch, size)
    check_inputs(interface, inputs)
    assert all(element == b"" for tensor in inputs.values() if tensor.dtype == np.object_ for element in tensor.flat)
