"""What a user gets wrong, and what the command says: nothing half-done, the cure in words, the right exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest
import tiny_models
from site_under_test import Site, release_text

from graylift.domain.release import Phase

pytestmark = pytest.mark.real

V1 = "revision: v1, model: {onnx: v1.onnx}"


def test_three_mistakes_are_shown_at_once_with_their_places(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx")
    text = release_text(V1, "revision: v2, model: {onnx: v1.onnx, runtime: tensorflow}")
    text = text.replace("weight: 50", "weight: 10").replace("watch: 2s", "wacht: 2s")
    code, output = site.call("run", str(site.write(text)))
    assert code == 2
    for place in (":8:", ":16:", ":17:"):
        assert f"release.yaml{place}" in output, output
    assert "mistakes; nothing was started" in output
    assert not site.state.exists()


def test_a_file_that_is_no_onnx_is_rejected_before_anything_is_served(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx")
    (site.folder / "v2.onnx").write_bytes(b"this is no model")
    code, output = site.call("run", str(site.write(release_text(V1, "revision: v2, model: {onnx: v2.onnx}"))))
    assert code == 4, output
    assert "REJECTED" in output
    assert "v2.onnx" in output


def test_a_missing_onnx_file_is_a_mistake_in_the_release_file(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx")
    code, output = site.call("validate", str(site.write(release_text(V1, "revision: v2, model: {onnx: gone.onnx}"))))
    assert code == 2
    assert "gone.onnx" in output


def test_other_tensor_names_are_rejected_with_the_lines_that_map_them_and_mapped_they_pass(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx")
    tiny_models.identity(site.folder / "v2.onnx", "FP32")
    tiny_models.sum_and_difference(site.folder / "v3.onnx")
    code, output = site.call("run", str(site.write(release_text(V1, "revision: v3, model: {onnx: v3.onnx}"))))
    assert code == 4, output
    for name in ("x", "y", "sum", "difference"):
        assert name in output


async def test_a_port_that_is_taken_is_named_with_the_cure(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx")
    file = site.write(release_text(V1, "revision: v2, model: {onnx: v1.onnx}"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", site.port))
        other.listen()
        code, output = await site.tell("run", str(file))
    assert code == 1, output
    assert str(site.port) in output
    assert "--listen" in output


async def test_a_second_release_of_a_service_is_refused_naming_the_first(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx")
    tiny_models.affine(site.folder / "v2.onnx", scale=5)
    first = site.write(release_text(V1, "revision: v2, model: {onnx: v2.onnx}"), "first.yaml")
    second = site.write(release_text(V1, "revision: v3, model: {onnx: v1.onnx}"), "second.yaml")
    site.start("run", str(first))
    await site.until_phase(Phase.PROGRESSING)
    code, output = await site.tell("run", str(second))
    assert code == 2
    assert "tiny-1 is PROGRESSING" in output
    code, output = await site.tell("abort", "tiny")
    assert code == 0, output


async def test_a_candidate_that_is_never_ready_is_rejected_with_its_last_words(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx")
    tiny_models.affine(site.folder / "v2.onnx", scale=5)
    file = site.write(release_text(V1, "revision: v2, readyWithin: 3s, model: {onnx: v2.onnx}"))
    run = site.start("run", str(file))
    while not (candidate := site.pids("tiny.v2")):
        await asyncio.sleep(0.01)
    os.kill(candidate[0], signal.SIGSTOP)
    assert await run.end() == 4, run.output()
    assert "v2 was not ready within 3 s" in run.output()
