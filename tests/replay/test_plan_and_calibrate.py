"""`graylift plan` and `graylift calibrate` as people type them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import BEGAN_S, csv_file, requests
from typer.testing import CliRunner

from graylift.cli.main import app

RELEASE = """\
apiVersion: graylift.dev/v1
kind: Release
metadata: {name: file-type}
spec:
  protocol: open-inference
  stable: {revision: v1, model: {onnx: nowhere/v1.onnx}}
  candidate: {revision: v2, model: {onnx: nowhere/v2.onnx}}
  stages:
    - {weight: 1, observe: 10m}
    - {weight: 20, observe: 1h}
    - {weight: 100, watch: 30m}
"""


@pytest.fixture
def release(tmp_path: Path) -> Path:
    path = tmp_path / "release.yaml"
    path.write_text(RELEASE)
    return path


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_a_plan_covers_each_stage_before_the_watch_and_is_the_same_each_time(release: Path) -> None:
    first, second = (run("plan", str(release), "--rate", "40/s", "--json") for _ in range(2))
    assert first.exit_code == 0
    assert first.stdout == second.stdout
    document = json.loads(first.stdout)
    assert [stage["weight"] for stage in document["stages"]] == [1.0, 20.0]
    assert all(stage["seconds"] >= 600 for stage in document["stages"])
    assert document["seconds"] == sum(stage["seconds"] for stage in document["stages"])
    assert document["warnings"] == []


def test_a_stage_that_takes_days_is_warned_of_with_what_would_help(release: Path) -> None:
    result = run("plan", str(release), "--rate", "30/m", "--json")
    warning = json.loads(result.stdout)["warnings"][0]
    assert warning.startswith("latency p99 within 2.00x at 1 % of 0.5 requests/s: this needs ")
    assert "start at " in warning
    assert "warning: " + warning in run("plan", str(release), "--rate", "30/m").stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rate", "40"), "write requests of both arms together"),
        (("--rate", "0/s"), "write requests of both arms together"),
        (("--rate", "40/s", "--errors", "1"), "write a percentage"),
        (("--rate", "40/s", "--latency", "20ms"), "write quantiles"),
        (("--rate", "40/s", "--latency", "p50=20"), "whole numbers with a unit"),
        (("--rate", "40/s", "--latency", "p50=20ms,p99=10ms"), "that rise"),
    ],
)
def test_traffic_that_is_none_is_refused_with_the_cure(release: Path, options: tuple[str, ...], said: str) -> None:
    result = run("plan", str(release), *options)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An hour of three replicas that wander by 6 %."""
    rng = np.random.default_rng(3)
    rows = []
    for name in "abc":
        own = 0.0
        for minute in range(60):
            own = 0.8 * own + 0.6 * rng.normal(0, 0.06)
            times = BEGAN_S + 60 * minute + rng.uniform(0, 60, 600)
            rows += [(t, 80 * math.exp(own + rng.normal(0, 0.5)), name) for t in times]
    path = tmp_path_factory.mktemp("replicas") / "production.csv"
    lines = (f"{t:.6f},200,{ms:.3f},{name}" for t, ms, name in sorted(rows))
    path.write_text("time,status,latency_ms,replica\n" + "\n".join(lines) + "\n")
    return path


def test_margins_below_the_noise_floor_are_refused_and_wider_ones_offered(release: Path, replicas: Path) -> None:
    result = run("calibrate", "--file", str(replicas), "--spec", str(release), "--json")
    assert result.exit_code == 2
    median = json.loads(result.stdout)["metrics"][0]
    assert median["name"] == "latency p50"
    assert median["wander"] == pytest.approx(0.06, rel=0.3)
    assert median["too_narrow"]
    assert median["replicas_compared"]
    said = run("calibrate", "--file", str(replicas), "--spec", str(release)).stdout
    assert f"Write rollbackIfWorse: {math.ceil(median['floor'] * 100) / 100:.2f}x" in said


def test_margins_above_the_floor_are_accepted(replicas: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.yaml"
    wide.write_text(
        RELEASE + "  judge: {metrics: [{name: latency, quantile: 0.5, rollbackIfWorse: 2x, promoteIfWithin: 3x}]}\n"
    )
    result = run("calibrate", "--file", str(replicas), "--spec", str(wide))
    assert result.exit_code == 0
    assert "2.00x is wide enough" in result.stdout


def test_without_a_release_file_it_only_tells(replicas: Path) -> None:
    result = run("calibrate", "--file", str(replicas))
    assert result.exit_code == 0
    assert "no rollback margin below" in result.stdout


def test_files_are_replicas_and_too_little_says_so(tmp_path: Path) -> None:
    files = [csv_file(tmp_path / f"{name}.csv", requests(name, seconds=20)) for name in (1, 2)]
    result = run("calibrate", "--file", str(files[0]), "--file", str(files[1]))
    assert result.exit_code == 0
    assert "latency p50: not known: it takes 8 blocks" in result.stdout


def test_it_takes_one_source(tmp_path: Path) -> None:
    assert run("calibrate").exit_code == 2
    assert "nothing was released in" in run("calibrate", "--service", "x", "--state", str(tmp_path / "none")).stderr
