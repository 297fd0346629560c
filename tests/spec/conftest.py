"""A release file that uses every field, and what the tests do with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from graylift.domain.spec import ReleaseSpec
from graylift.errors import SpecError
from graylift.spec import parse
from graylift.spec.problems import Problem

GOOD = """\
apiVersion: graylift.dev/v1
kind: Release
metadata: {name: file-type}
spec:
  protocol: open-inference
  stable:
    revision: v1
    model: {onnx: models/v1.onnx}
  candidate:
    revision: v2
    readyWithin: 30s
    model:
      onnx: models/v2.onnx
      runtime: onnxruntime
      threads: 2
      inputs: {bytes: x, length: n}
      outputs: {label: y}
  routing:
    sticky: {header: X-User-Id}
    match:
      - {header: x-tenant, exact: internal, to: candidate}
    timeout: 10s
  stages:
    - {weight: 1, observe: 10m, minRequests: 500, promoteIfWithin: {errors: 6pp}}
    - {weight: 20, observe: 1h, approval: required}
    - {weight: 100, watch: 30m}
  judge:
    falseRollback: 2%
    falsePromotion: 10%
    metrics:
      - {name: errors, rollbackIfWorse: 0.5pp, promoteIfWithin: 1pp}
      - {name: latency, quantile: 0.99, rollbackIfWorse: 1.10x, promoteIfWithin: 1.20x}
  onFailure: pause
"""


@pytest.fixture(scope="session")
def good() -> str:
    return GOOD


@pytest.fixture
def read() -> Callable[[str], ReleaseSpec]:
    return lambda text: parse(text, "release.yaml", Path("/base"))


@pytest.fixture
def problems_of(read: Callable[[str], ReleaseSpec]) -> Callable[[str], list[Problem]]:
    def problems(text: str) -> list[Problem]:
        with pytest.raises(SpecError) as caught:
            read(text)
        found = [problem for problem in caught.value.problems if isinstance(problem, Problem)]
        assert len(found) == len(caught.value.problems)
        return found

    return problems
