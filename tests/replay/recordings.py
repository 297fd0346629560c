"""Recorded requests for the tests: made from a seed, written as people record them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from graylift.cli.main import app

BEGAN_S = 1_763_985_600.0


@dataclass(frozen=True)
class Row:
    time: float
    status: int
    latency_ms: float
    weight: float | None = None

    def cells(self) -> dict[str, Any]:
        cells = {"time": self.time, "status": self.status, "latency_ms": self.latency_ms}
        return cells if self.weight is None else cells | {"weight": self.weight}


def requests(
    seed: int,
    *,
    seconds: float = 200.0,
    rate: float = 20.0,
    errors: float = 0.005,
    slower: float = 1.0,
    weight: float | None = None,
    from_s: float = 0.0,
) -> list[Row]:
    """One arm's requests, evenly at random over the time."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(seconds * rate)
    times = np.round(BEGAN_S + from_s + np.sort(rng.uniform(0, seconds, count)), 6)
    latencies = np.round(80 * slower * rng.lognormal(0, 0.5, count), 3)
    failed = rng.random(count) < errors
    return [
        Row(float(t), 500 if bad else 200, float(ms), weight)
        for t, ms, bad in zip(times, latencies, failed, strict=True)
    ]


def csv_file(path: Path, rows: Sequence[Row], *, lines: Sequence[str] = ()) -> Path:
    """lines: further lines, as they are."""
    names = list(rows[0].cells()) if rows else ["time", "status", "latency_ms"]
    text = [",".join(names), *(",".join(map(str, row.cells().values())) for row in rows), *lines]
    path.write_text("\n".join(text) + "\n")
    return path


def told(stable: Path, candidate: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of `graylift judge`."""
    result = CliRunner().invoke(
        app, ["judge", "--stable", str(stable), "--candidate", str(candidate), "--json", *options]
    )
    return result.exit_code, json.loads(result.stdout)


def refusal(stable: Path, candidate: Path, *options: str) -> str:
    """What `graylift judge` says where it refuses with exit code 2."""
    result = CliRunner().invoke(app, ["judge", "--stable", str(stable), "--candidate", str(candidate), *options])
    assert result.exit_code == 2, result.output
    return result.stderr
