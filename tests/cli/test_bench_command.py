"""`graylift bench` on small real models, real servers: bounded, honest about failures, and nothing left running."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import tiny_models
from calling import Shell

pytestmark = pytest.mark.real


def test_two_engines_are_measured_in_turn_with_ratios(shell: Shell) -> None:
    first = tiny_models.affine(shell.folder / "v1.onnx")
    digest = shell.call("build", tiny_models.affine(shell.folder / "v2.onnx", scale=3.0), "--json").json["digest"]
    said = shell.call("bench", first, digest[:12], "--rate", "40/s", "--duration", "2s", "--json")

    assert said.code in (0, 1), said.err  # 1 where other work makes the generator late, and then it says so
    answer = said.json
    assert answer["loop"] == "open"
    assert [target["target"] for target in answer["targets"]] == [str(first), digest[:12]]
    for target in answer["targets"]:
        assert target["answers"] > 40
        assert target["failed"] == 0
        assert 0 < target["latencyMs"]["p50"] <= target["latencyMs"]["p99"]
    assert set(answer["ratios"]) == {"p50", "p90", "p99"}
    p50 = answer["ratios"]["p50"]
    assert p50["low"] <= p50["value"] <= p50["high"]
    assert shell.processes() == []


def test_a_closed_loop_asks_real_samples_and_tells_a_person(shell: Shell) -> None:
    model = tiny_models.lookup(shell.folder / "lookup.onnx", rows=4)
    np.savez(shell.folder / "samples.npz", id=np.array([2, 3], np.int64))
    said = shell.call("bench", model, "--concurrency", "2", "--duration", "1s", "--samples", "samples.npz")

    assert said.code == 0, said.out + said.err
    for shown in ("p50", "p99", "answers/s", "closed loop, 2 at once"):
        assert shown in said.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("v1.onnx", "--rate", "5/s", "--concurrency", "2"), "name one of them"),
        (("v1.onnx", "--rate", "fast"), "--rate fast: write a rate"),
        (("v1.onnx", "--duration", "2h"), "--duration is from 1s to 1h, not 2h"),
        (("http://127.0.0.1:9",), "say which with --name"),
        (("http://127.0.0.1:9/v2", "--name", "m"), "is no endpoint: write http://HOST:PORT"),
        (("missing.onnx",), "missing.onnx does not exist"),
        (("v1.onnx", "other.onnx", "--duration", "1s"), "other.onnx does not answer what v1.onnx answers"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_cure(shell: Shell, arguments: tuple[str, ...], why: str) -> None:
    tiny_models.affine(shell.folder / "v1.onnx")
    tiny_models.lookup(shell.folder / "other.onnx")
    said = shell.call("bench", *arguments)

    assert said.code == 2, said.err
    assert why in said.err
    assert shell.processes() == []


def test_an_endpoint_that_is_away_is_our_failure_not_a_number(shell: Shell) -> None:
    said = shell.call("bench", "http://127.0.0.1:9", "--name", "m", "--duration", "1s")

    assert said.code == 1
    assert "does not answer GET http://127.0.0.1:9/v2/models/m" in said.err


def test_ctrl_c_ends_the_servers_too(shell: Shell) -> None:
    model = tiny_models.affine(shell.folder / "v1.onnx")
    benching = shell.start("bench", model, "--duration", "60s", "--rate", "5/s")
    assert benching.stdout is not None
    while "measuring" not in (line := benching.stdout.readline()):
        assert line or benching.poll() is None, "it measures before it ends"
    assert any("graylift.serve" in line for line in shell.processes())
    benching.send_signal(signal.SIGINT)
    _, err = benching.communicate(timeout=30)

    assert benching.returncode == 130, err
    assert shell.processes() == []
