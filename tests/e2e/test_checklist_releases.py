"""Releases of real models that the checklist decides: one that passes it whole, and one for each way to be rejected."""

from __future__ import annotations

from pathlib import Path

import pytest
from site_under_test import Site

from graylift.demo.models import default_cache
from graylift.demo.scenario import SCENARIOS
from graylift.domain.release import CheckOutcome, Phase

pytestmark = pytest.mark.real

CHECKS = ("parity", "performance", "coldStart", "boundary", "capacity", "concurrency")


def prepared(site: Site, scenario: str) -> Path:
    """The scenario's models and release files, in the site's folder."""
    chosen = next(s for s in SCENARIOS if s.name == scenario)
    return chosen.prepare(default_cache(), site.folder, lambda _: None).good.parent


def release_of(site: Site, stable: str, candidate: str, **checks: str) -> str:
    """A release file with these checks; the others are skipped. `stable` and `candidate` are YAML maps."""
    settings = ", ".join(f"{name}: {checks.get(name, '{skip: not what this is about}')}" for name in CHECKS)
    return str(
        site.write(f"""
apiVersion: graylift.dev/v1
kind: Release
metadata: {{name: tiny}}
spec:
  protocol: open-inference
  stable: {{revision: v1, model: {stable}}}
  candidate: {{revision: v2, model: {candidate}}}
  checks: {{{settings}}}
  stages: [{{weight: 5, observe: 1m}}, {{weight: 100, watch: 1m}}]
""")
    )


def rejected(site: Site, file: str, check: str) -> str:
    """Why the release of `file` was rejected, as its report says it; by this check alone, before any traffic."""
    code, output = site.call("run", file)
    assert code == 4, output
    release = site.release()
    assert release is not None
    assert release.phase is Phase.REJECTED
    assert release.checks is not None
    stopped = [result for result in release.checks if not result.lets_through]
    assert [(result.check, result.outcome) for result in stopped] == [(check, CheckOutcome.FAIL)], output
    assert release.reason == f"{check}: {stopped[0].sentence}"
    code, report = site.call("report", "tiny")
    assert code == 0
    assert stopped[0].sentence in report.replace("\\", ""), "Markdown escapes what it would read as its own"
    assert not site.pids("graylift.serve"), "no server of a rejected candidate goes on"
    return stopped[0].sentence


def test_a_new_version_of_a_real_model_passes_every_check(site: Site) -> None:
    code, output = site.call("check", str(prepared(site, "file-types") / "good.yaml"), "--json")
    assert code == 0, output
    for check in ("parity", "concurrency", "cold start", "performance", "capacity", "boundary"):
        assert f'"{check}"' in output
    assert '"FAIL"' not in output


def test_a_quantisation_that_ruins_the_model_is_rejected_for_parity(site: Site) -> None:
    folder = prepared(site, "container-numbers")
    model = "onnx: models/v3.onnx, profiles: [{x: {min: [1, 3, 48, 32], opt: [1, 3, 48, 320], max: [8, 3, 48, 640]}}]"
    file = release_of(
        site, f"{{{model}}}", f"{{{model}, precision: int8-dynamic}}", parity=f"{{samples: {folder / 'lines.npz'}}}"
    )
    why = rejected(site, file, "parity")
    assert "choices" in why
    assert "at least 99.00%" in why


def test_a_model_that_does_four_times_the_work_is_rejected_for_performance(site: Site) -> None:
    prepared(site, "file-types")
    shapes = "profiles: [{bytes: {min: [1, 2048], opt: [1, 2048], max: [32, 2048]}}]"
    file = release_of(
        site,
        f"{{onnx: models/v3.3.onnx, {shapes}}}",
        f"{{onnx: models/v3.3-batch4.onnx, {shapes}}}",
        performance="{rate: 20/s, duration: 4s, maxLatencyRatio: {p50: 1.5}}",
    )
    assert "limit 1.50x" in rejected(site, file, "performance")


def test_a_model_that_one_huge_request_fills_the_memory_with_is_rejected_for_boundary(site: Site) -> None:
    prepared(site, "file-types")
    file = release_of(site, "{onnx: models/v3.2.onnx}", "{onnx: models/v3.3.onnx}", boundary="{}")
    assert "bound its inputs by profiles" in rejected(site, file, "boundary")


def test_a_new_version_whose_output_has_another_name_is_rejected_with_the_lines_that_map_it(site: Site) -> None:
    prepared(site, "container-numbers")
    why = rejected(site, release_of(site, "{onnx: models/v3.onnx}", "{onnx: models/v4.onnx}"), "interface")
    assert "softmax_5.tmp_0" in why
    assert "outputs: {softmax_5.tmp_0: softmax_11.tmp_0}" in why
