"""The settings of engines and of pre-release checks: what they mean, and what is said of a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from graylift.domain.engine import Precision, Profile, ProfileShape
from graylift.domain.spec import (
    BoundaryCheck,
    CapacityCheck,
    ChecksSpec,
    ColdStartCheck,
    ConcurrencyCheck,
    OnnxModel,
    ParityCheck,
    PerformanceCheck,
    ReleaseSpec,
    Skip,
)
from graylift.errors import SpecError
from graylift.spec import load
from graylift.spec.problems import Place, Problem

Reader = Callable[[str], ReleaseSpec]

TEXT = """\
apiVersion: graylift.dev/v1
kind: Release
metadata: {name: sentences}
spec:
  protocol: open-inference
  stable: {revision: v1, model: {onnx: v1.onnx}}
  candidate:
    revision: v2
    model:
      onnx: v2.onnx
      precision: int8
      calibration: data.npz
      profiles:
        - {mask: {min: [1, 8], opt: [8, 128], max: [32, 512]}, ids: {min: [1, 8], opt: [8, 128], max: [32, 512]}}
        - {mask: {min: [1, 1], opt: [1, 1], max: [1, 4]}, ids: {min: [1, 1], opt: [1, 1], max: [1, 4]}}
  checks:
    parity: {samples: samples.npz, maxRelativeError: 0.01, minTop1Agreement: 0.98, minStableAgreement: 0.9}
    performance: {rate: 50/s, duration: 30s, maxLatencyRatio: {p99.9: 1.20, p50: 1.10}, minThroughputRatio: 0.95}
    coldStart: {maxFirstRequestRatio: 2.5}
    boundary: {skip: no room for it}
    capacity: {minFreeMemory: 10%}
    concurrency: {contexts: 8}
  stages:
    - {weight: 1, observe: 10m}
    - {weight: 100, watch: 30m}
"""


def without_checks(text: str) -> str:
    return text[: text.index("  checks:")] + text[text.index("  stages:") :]


def test_every_check_means_what_the_reference_says(read: Reader) -> None:
    assert read(TEXT).checks == ChecksSpec(
        parity=ParityCheck("/base/samples.npz", 0.01, 0.98, 0.9),
        performance=PerformanceCheck(50.0, 30.0, ((0.5, 1.10), (0.999, 1.20)), 0.95),
        cold_start=ColdStartCheck(2.5),
        boundary=Skip("no room for it"),
        capacity=CapacityCheck(0.1),
        concurrency=ConcurrencyCheck(8),
    )


def test_a_file_that_says_nothing_of_checks_gets_all_of_them(read: Reader) -> None:
    checks = read(without_checks(TEXT)).checks
    assert checks == ChecksSpec()
    assert checks.boundary == BoundaryCheck()


def test_an_engine_is_asked_for_precision_profiles_and_calibration(read: Reader) -> None:
    shapes = ((1, 8), (8, 128), (32, 512)), ((1, 1), (1, 1), (1, 4))
    assert read(TEXT).candidate.model == OnnxModel(
        "/base/v2.onnx",
        precision=Precision.INT8,
        profiles=tuple(Profile((ProfileShape("ids", *three), ProfileShape("mask", *three))) for three in shapes),
        calibration="/base/data.npz",
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("maxRelativeError: 0.01", "maxRelativeError: 0.02"),
        ("contexts: 8", "contexts: 9"),
        ("skip: no room for it", ""),
        ("max: [1, 4]}, ids", "max: [1, 5]}, ids"),
        ("      precision: int8\n      calibration: data.npz\n", "      precision: fp16\n"),
        ("      precision: int8\n", "      precision: int8\n      settings: {provider: cuda}\n"),
    ],
)
def test_what_is_asked_of_engine_and_checks_changes_the_digest(read: Reader, old: str, new: str) -> None:
    assert old in TEXT
    assert read(TEXT.replace(old, new, 1)).digest != read(TEXT).digest


MISTAKES = [
    # what is written there now, what instead, which part of it is marked, what is said of it
    ("precision: int8\n", "precision: fp8\n", "fp8", "known here: fp32, fp16, bf16"),
    ("      calibration: data.npz\n", "", "int8\n", "add `calibration`"),
    ("precision: int8\n", "precision: fp16\n", "calibration", "no meaning at fp16: only int8"),
    ("min: [1, 8], opt: [8, 128]", "min: [1, 8], opt: [8]", "{min: [1, 8], opt: [8]", "different numbers of dim"),
    ("min: [1, 8], opt: [8, 128]", "min: [9, 8], opt: [8, 128]", "{min: [9", "must ascend from at least 1: min 9"),
    ("min: [1, 8], opt: [8, 128]", "min: [0, 8], opt: [8, 128]", "0, 8]", "whole number from 1"),
    ("min: [1, 8], opt: [8, 128]", "min: 1, opt: [8, 128]", "1, opt", "write sizes, one for each dimension: [1, 8]"),
    ("min: [1, 8], opt: [8, 128]", "min: [1, 8], opt: [8, 128], best: [8]", "best", "known here: min, opt, max"),
    ("min: [1, 8], opt", "opt", "mask: {opt", "`min` is missing"),
    (
        "        - {mask: {min: [1, 1], opt: [1, 1], max: [1, 4]}, ids",
        "        - {ids",
        "{ids",
        "about ids, and the first",
    ),
    ("precision: int8\n", "precision: int8\n      settings: {povider: cuda}\n", "povider", "did you mean `provider`?"),
    ("precision: int8\n", "precision: int8\n      settings: {provider: gpu}\n", "gpu}", "write cpu, cuda or openvino"),
    ("precision: int8\n", "precision: int8\n      settings: [cuda]\n", "[cuda]", "is a mapping, not a list"),
    (
        "precision: int8\n",
        "precision: int8\n      runtime: openvino\n      settings: {workspace: 4GiB}\n",
        "workspace",
        "that runtime has none",
    ),
    ("samples: samples.npz", "sample: samples.npz", "sample: s", "did you mean `samples`?"),
    ("maxRelativeError: 0.01", "maxRelativeError: 1%", "1%", "not a plain number"),
    ("minTop1Agreement: 0.98", "minTop1Agreement: 98", "98", "write a share from 0 to 1"),
    ("rate: 50/s", "rate: 50", "50, duration", "write a rate for each second or minute"),
    ("rate: 50/s", "rate: 0/s", "0/s", "from 0.1/s"),
    ("duration: 30s", "duration: 30", "30, max", "with a unit"),
    ("p99.9: 1.20", "p99.9: 1.20x", "1.20x", "not a plain number"),
    ("p99.9: 1.20", "99: 1.20", "99: 1", 'write it in quotes: "99"'),
    ("p99.9: 1.20", "p100: 1.20", "p100", "write p50, p99, p99.9"),
    ("p99.9: 1.20", "p50.0: 1.20", "p50.0", "write p50, p99, p99.9"),
    ("maxFirstRequestRatio: 2.5", "maxFirstRequestRatio: 0.5", "0.5", "from 1 to 1000"),
    ("skip: no room for it", "skip: no", "no}", 'write it in quotes: "no"'),
    ("skip: no room for it", "skip: ", "}\n    capacity", "nothing is written here"),
    ("{contexts: 8}", "{contexts: 8, skip: slow}", "contexts: 8", "no meaning for a check that is skipped"),
    ("{contexts: 8}", "{contexts: 1}", "1}", "from 2 to 64"),
    ("{contexts: 8}", "off", "off", "`spec.checks.concurrency` is a mapping, not a single value"),
    ("minFreeMemory: 10%", "minFreeMemory: 0.1", "0.1", "write a percentage"),
    ("    boundary:", "    bounds:", "bounds", "did you mean `boundary`?"),
]


@pytest.mark.parametrize(("old", "new", "marked", "said"), MISTAKES)
def test_a_mistake_is_reported_once_at_its_place_with_the_cure(
    problems_of: Callable[[str], list[Problem]], old: str, new: str, marked: str, said: str
) -> None:
    assert old in TEXT
    changed = TEXT.replace(old, new, 1)
    (problem,) = problems_of(changed)
    place = problem.place
    assert place is not None
    start = changed.index(new) if new else 0
    before = changed[: changed.index(marked, max(0, start - 30))]
    expected = Place(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
    assert (place.line, place.column) == (expected.line, expected.column), str(problem)
    assert said in str(problem)


def test_mistakes_in_several_checks_and_in_the_model_are_shown_together(
    problems_of: Callable[[str], list[Problem]],
) -> None:
    text = TEXT.replace("contexts: 8", "contexts: 1").replace("rate: 50/s", "rate: 50").replace("int8", "fp16")
    assert len(problems_of(text.replace("[1, 8]", "[1, a]"))) == 5


def test_settings_of_a_runtime_are_read_as_they_are_written_and_ordered_by_name(read: Reader) -> None:
    settings = "runtime: tensorrt\n      settings: {workspace: 4GiB, optimizationLevel: 3, versionCompatible: true}\n"
    model = read(TEXT.replace("precision: int8\n      calibration: data.npz\n", settings)).candidate.model
    assert isinstance(model, OnnxModel)
    assert model.settings == (("optimizationLevel", "3"), ("versionCompatible", "true"), ("workspace", "4GiB"))


def test_settings_of_an_engine_have_no_place_beside_an_endpoint(
    problems_of: Callable[[str], list[Problem]],
) -> None:
    problems = problems_of(TEXT.replace("      onnx: v2.onnx", "      endpoint: http://10.0.0.7:8000"))
    assert [problem.what.split("`")[1] for problem in problems] == ["precision", "calibration", "profiles"]


def test_samples_and_calibration_that_are_not_there_are_reported_at_their_lines(tmp_path: Path) -> None:
    for name in ("v1.onnx", "v2.onnx"):
        (tmp_path / name).touch()
    file = tmp_path / "release.yaml"
    file.write_text(TEXT, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load(file)
    assert [str(problem).split(" cannot be read")[0] for problem in caught.value.problems] == [
        f"{file}:12:20: {tmp_path / 'data.npz'}",
        f"{file}:17:23: {tmp_path / 'samples.npz'}",
    ]
