"""`graylift judge` on recorded streams: their first token, their pace, and what somebody thought of their answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import BEGAN_S, told

RULES = """\
apiVersion: graylift.dev/v1
kind: Release
metadata: {name: chat}
spec:
  protocol: openai
  stable: {revision: v1, model: {endpoint: "http://10.0.0.7:8000"}}
  candidate: {revision: v2, model: {endpoint: "http://10.0.0.8:8000"}}
  stages:
    - {weight: 50, observe: 10m}
    - {weight: 100, watch: 30m}
  judge:
    metrics:
      - {name: errors, rollbackIfWorse: 2pp, promoteIfWithin: 5pp}
      - {name: ttft, quantile: 0.95, rollbackIfWorse: 1.20x, promoteIfWithin: 1.50x}
      - {name: tpot, quantile: 0.95, rollbackIfWorse: 1.20x, promoteIfWithin: 1.50x}
      - {name: helpful, rollbackIfWorse: -0.02, promoteIfWithin: -0.05}
"""


def streams(
    path: Path, seed: int, *, pace: float = 1.0, first: float = 1.0, helpful: float = 0.8, wrong: object = None
) -> Path:
    """One arm at 20 requests a second for 200 s; every fifth answer has a score. wrong: put for one score."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for time in np.sort(rng.uniform(0, 200, 4_000)).tolist():
        ttft, tpot = 200 * first * rng.lognormal(0, 0.5), 20 * pace * rng.lognormal(0, 0.2)
        tokens = int(rng.integers(10, 200))
        row = {
            "time": BEGAN_S + round(time, 6),
            "status": 200,
            "latency_ms": ttft + tpot * (tokens - 1),
            "ttft_ms": ttft,
            "tpot_ms": tpot,
            "output_tokens": tokens,
        }
        if rng.random() < 0.2:
            row["helpful"] = float(np.clip(rng.normal(helpful, 0.15), 0, 1))
        rows.append(row)
    if wrong is not None:
        rows[100]["helpful"] = wrong
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture
def rules(tmp_path: Path) -> str:
    (tmp_path / "release.yaml").write_text(RULES)
    return str(tmp_path / "release.yaml")


@pytest.fixture
def stable(tmp_path: Path) -> Path:
    return streams(tmp_path / "stable.jsonl", 1)


def test_equal_streams_pass_in_every_metric_and_their_length_is_told(stable: Path, tmp_path: Path, rules: str) -> None:
    code, document = told(stable, streams(tmp_path / "c.jsonl", 2), "--spec", rules)
    assert code == 0
    assert {one["name"]: one["verdict"] for one in document["metrics"]} == dict.fromkeys(
        ("errors", "ttft p95", "tpot p95", "helpful"), "PASS"
    )
    *others, length = document["notes"]
    assert others == ["the column `latency_ms` is not judged; errors, ttft p95, tpot p95, helpful are"]
    assert "output tokens on average, 1.0" in length


@pytest.mark.parametrize(
    ("change", "guilty", "said"),
    [
        ({"pace": 2.0}, "tpot p95", "p95 time per output token"),
        ({"first": 2.0}, "ttft p95", "p95 time to first token"),
        ({"helpful": 0.7}, "helpful", "mean helpful"),
    ],
)
def test_what_is_worse_is_found_under_its_own_name(
    stable: Path, tmp_path: Path, rules: str, change: dict[str, float], guilty: str, said: str
) -> None:
    code, document = told(stable, streams(tmp_path / "c.jsonl", 2, **change), "--spec", rules)
    assert code == 3
    (found,) = (one for one in document["metrics"] if one["verdict"] == "FAIL")
    assert found["name"] == guilty
    assert found["sentence"].startswith(said)
    assert " streams, " in found["sentence"] or " scores, " in found["sentence"]


@pytest.mark.parametrize("wrong", [1.5, -0.1])
def test_what_is_no_score_spoils_its_interval_and_is_told(
    stable: Path, tmp_path: Path, rules: str, wrong: float
) -> None:
    code, document = told(stable, streams(tmp_path / "c.jsonl", 2, wrong=wrong), "--spec", rules)
    assert code == 0
    assert any("1 rows have a `helpful` that is no score from 0 to 1" in note for note in document["notes"])


def test_a_recording_without_the_scores_that_are_asked_for_cannot_pass(
    stable: Path, tmp_path: Path, rules: str
) -> None:
    bare = tmp_path / "bare.jsonl"
    rows = map(json.loads, streams(tmp_path / "c.jsonl", 2).read_text().splitlines())
    bare.write_text("\n".join(json.dumps({name: row[name] for name in row if name != "helpful"}) for row in rows))
    code, document = told(stable, bare, "--spec", rules)
    assert code == 5
    assert [one["verdict"] for one in document["metrics"]] == ["PASS", "PASS", "PASS", "INCONCLUSIVE"]
    assert "no measured `helpful`" in document["metrics"][-1]["sentence"]
