"""The reference of the release file and the parser say the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import indent

import pytest

from graylift.domain.engine import Packing, Precision, Runtime
from graylift.domain.spec import ChecksSpec, Metric, ReleaseSpec, ShadowJudge
from graylift.spec import defaults
from graylift.spec.fields import Shape
from graylift.spec.shapes import MODEL, OTLP, PROMETHEUS, ROOT, SHAPES

PAGE = (Path(__file__).parents[2] / "docs" / "release-file.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
_SECTION = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
SECTIONS = {title.replace("`", ""): body for title, body in _SECTION.findall(PAGE)}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.path)
def test_the_reference_lists_exactly_the_fields_that_are_read(shape: Shape) -> None:
    section = SECTIONS["The file" if shape is ROOT else shape.path]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(shape.fields)


def test_the_reference_names_everything_that_is_not_supported_yet() -> None:
    for shape in SHAPES:
        for name in shape.later:
            assert f"`{name}`" in SECTIONS["Not yet"]


def test_the_reference_names_every_runtime_and_precision() -> None:
    rows = SECTIONS["spec.stable.model, spec.candidate.model"]
    for member in (*Runtime, *Precision, *Packing):
        assert f"`{member.value}`" in rows


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_reference_are_read(example: str, read: Callable[[str], ReleaseSpec]) -> None:
    assert read(example).stages[-1].is_watch


def test_the_full_example_uses_every_field_and_writes_the_defaults_out(read: Callable[[str], ReleaseSpec]) -> None:
    full = EXAMPLES[1]
    of_language_models = {name for name in MODEL.fields if f"{name}:" in EXAMPLES[2] and f"{name}:" not in full}
    assert of_language_models == {"gguf", "chatTemplate", "contextLength", "maxStreams"}
    for shape in SHAPES:
        if "prometheus" in shape.path or "otlp" in shape.path:
            continue
        # These stand in the place of others.
        others = (["endpoint"], ["cookie", "body"], ["prometheus", "otlp"])
        missing = [name for name in shape.fields if f"{name}:" not in full and name not in of_language_models]
        assert missing in ([], *others)
    spec = read(full)
    assert replace(spec.judge, shadow=None) == read(EXAMPLES[0]).judge
    assert spec.judge.checks == defaults.CHECKS
    assert spec.judge.shadow is not None
    assert replace(spec.judge.shadow, agreement=None) == ShadowJudge()


def test_the_reference_writes_out_what_is_judged_of_streams(read: Callable[[str], ReleaseSpec]) -> None:
    metrics, _ = re.findall(r"```\n(metrics:\n.*?)```", SECTIONS["spec.judge.metrics[]"], re.DOTALL)
    openai = re.sub(r"\{onnx: [^}]*\}", "{endpoint: http://10.0.0.7:8000}", EXAMPLES[0]).replace(
        "protocol: open-inference", "protocol: openai"
    )
    assert read(openai).judge.checks == defaults.STREAM_CHECKS
    assert read(f"{openai}  judge:\n{indent(metrics, ' ' * 4)}").judge == read(openai).judge


def test_the_reference_shows_every_field_of_what_is_counted_elsewhere(read: Callable[[str], ReleaseSpec]) -> None:
    _, metrics = re.findall(r"```\n(metrics:\n.*?)```", SECTIONS["spec.judge.metrics[]"], re.DOTALL)
    checks = read(f"{EXAMPLES[0]}  judge:\n{indent(metrics, ' ' * 4)}").judge.checks
    assert [check.metric for check in checks] == [Metric.ERRORS, Metric.SHARE, Metric.SHARE, Metric.SHARE]
    for shape in (PROMETHEUS, OTLP):
        assert [name for name in shape.fields if f"{name}: " not in metrics] == []


def test_the_reference_says_the_defaults_of_the_checks(read: Callable[[str], ReleaseSpec]) -> None:
    """Each `default` column, written into a release file, gives what leaving it out gives."""
    lines: list[str] = []
    for title, body in SECTIONS.items():
        if title.startswith("spec.checks."):
            rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", body, re.MULTILINE)
            lines.append(f"    {title.removeprefix('spec.checks.')}: {{{', '.join(map(': '.join, rows))}}}\n")
    written = EXAMPLES[0].replace("  stages:", "  checks:\n" + "".join(lines) + "  stages:")
    assert read(written).checks == ChecksSpec()
    assert "maxFirstRequestRatio: 3" in written
