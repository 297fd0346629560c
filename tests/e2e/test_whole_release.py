"""Whole releases as a user runs them: the command, the real Envoy, real model servers, real traffic."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess

import pytest
import tiny_models
from site_under_test import GRAYLIFT, STAGES, Site, failures, free_port, lookup_requests, release_text

from graylift.domain.release import Phase

pytestmark = pytest.mark.real


async def test_a_good_candidate_gets_all_of_the_traffic_and_no_client_notices(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx", scale=2)
    tiny_models.affine(site.folder / "v2.onnx", scale=3)
    file = site.write(release_text("revision: v1, model: {onnx: v1.onnx}", "revision: v2, model: {onnx: v2.onnx}"))

    run = site.start("run", str(file))
    async with site.traffic() as reports:
        release = await site.until(lambda release: release.phase.is_final)
        assert await run.end() == 0, run.output()

    assert release.phase is Phase.PROMOTED, release.reason
    assert [str(done.weights) for done in release.done] == ["20 %", "50 %", "100 %"]
    assert failures(reports[0]) == 0
    answered = {r.revision.split(".")[1]: r.answers for r in reports[0].revisions if r.revision}
    assert set(answered) == {"v1", "v2"}
    assert "PROMOTED" in run.output()
    async with asyncio.timeout(30):  # the old stable was told to end, and drains; the new one serves on
        while len(site.pids("graylift.serve")) != 1:
            await asyncio.sleep(0.1)

    code, text = await site.tell("report", "tiny")
    assert code == 0
    assert "PROMOTED" in text
    html = site.folder / "report.html"
    code, text = await site.tell("report", "tiny", "--format", "html", "--out", str(html))
    assert code == 0, text
    assert "<svg" in html.read_text()
    code, text = await site.tell("report", "tiny-1", "--format", "json")
    assert json.loads(text)["schema"] == "graylift.dev/report/v1"
    code, text = await site.tell("status", "--json")
    assert json.loads(text)["services"][0]["phase"] == "PROMOTED"


async def test_a_candidate_that_fails_on_some_inputs_is_rolled_back_and_its_clients_are_answered_by_stable(
    site: Site,
) -> None:
    tiny_models.lookup(site.folder / "v1.onnx", rows=10)
    tiny_models.lookup(site.folder / "v2.onnx", rows=7)
    file = site.write(release_text("revision: v1, model: {onnx: v1.onnx}", "revision: v2, model: {onnx: v2.onnx}"))

    run = site.start("run", str(file))
    async with site.traffic(lookup_requests(range(10))) as reports:
        assert await run.end() == 3, run.output()

    release = site.release()
    assert release is not None
    assert release.phase is Phase.ROLLED_BACK
    assert "errors" in release.reason
    assert "HTTP 422" in (await site.tell("report", "tiny"))[1]
    assert failures(reports[0]) == 0, "a retry on stable must have saved every client"


async def test_an_endpoint_that_somebody_else_runs_can_be_the_candidate(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx")
    file = site.write(
        release_text("revision: v1, model: {onnx: v1.onnx}", "revision: v2, model: {onnx: v1.onnx}"), "first.yaml"
    )
    run = site.start("run", str(file))
    async with site.traffic():
        assert await run.end() == 0, run.output()

    other = Site(site.folder / "other", free_port())
    other.folder.mkdir()
    try:
        tiny_models.affine(other.folder / "v1.onnx")
        again = other.write(file.read_text())
        theirs = other.start("run", str(again))
        async with other.traffic():
            assert await theirs.end() == 0, theirs.output()
            # Theirs is a gateway with a server behind it: an endpoint like any other.
            file = site.write(
                release_text(
                    "revision: v2, model: {onnx: v1.onnx}", f'revision: v3, model: {{endpoint: "{other.url}"}}'
                )
            )
            run = site.start("run", str(file))
            async with site.traffic() as reports:
                assert await run.end() == 0, run.output()
        assert failures(reports[0]) == 0
    finally:
        other.close()


async def test_approve_pause_resume_and_abort_steer_a_release_that_somebody_else_runs(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx")
    stages = STAGES.replace("observe: 2s, promote", "observe: 2s, approval: required, promote")
    # The watch must outlast the start of an `abort` on a busy machine.
    stages = stages.replace("watch: 2s", "watch: 60s")
    v1, v2 = "revision: v1, model: {onnx: v1.onnx}", "revision: v2, model: {onnx: v1.onnx}"
    file = site.write(release_text(v1, v2, stages=stages))
    up = site.start("up")
    run = site.start("run", str(file))
    async with site.traffic():
        await site.until(lambda release: "waiting for approval" in release.reason)
        code, text = await site.tell("pause", "tiny", "--reason", "lunch")
        assert (code, "PAUSED" in text) == (0, True), text
        code, text = await site.tell("resume", "tiny")
        assert code == 0, text
        code, text = await site.tell("resume", "nobody")
        assert code == 2
        assert "there is no service or release called 'nobody'; services here: tiny" in text
        code, text = await site.tell("approve", "tiny", "-r", "looks right")
        assert (code, "approved" in text) == (0, True), text
        await site.until_phase(Phase.PROMOTING)
        code, text = await site.tell("abort", "tiny", "-r", "second thoughts")
        assert code == 0, text
        assert "ROLLED_BACK" in text
        assert await run.end() == 3, run.output()
        code, text = await site.tell("retry", "tiny")
        assert code == 0, text
        assert "tiny-2" in text
        await site.until(lambda release: release.id == "tiny-2" and release.phase is Phase.PROGRESSING)
    code, text = await site.tell("events", "tiny", "--json")
    told = [json.loads(line) for line in text.splitlines()]
    assert any("second thoughts" in event["text"] for event in told)
    assert up.kill(15) == 0, up.output()
    code, text = await site.tell("status")
    assert "controller away" in text
    code, text = await site.tell("abort", "tiny")
    assert (code, "ROLLED_BACK" in text) == (0, True), text


async def test_on_a_terminal_one_picture_is_drawn_in_place_and_ctrl_c_says_how_to_go_on(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx")
    tiny_models.affine(site.folder / "v2.onnx", scale=3)
    file = site.write(release_text("revision: v1, model: {onnx: v1.onnx}", "revision: v2, model: {onnx: v2.onnx}"))
    ours, theirs = os.openpty()
    run = subprocess.Popen(
        [*GRAYLIFT, "run", str(file), f"--state={site.state}", f"--listen=127.0.0.1:{site.port}"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"},
    )
    os.close(theirs)
    reading = asyncio.create_task(asyncio.to_thread(_all_of, ours))
    await site.until_phase(Phase.PROGRESSING)
    await asyncio.sleep(1)
    run.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(run.wait, 30) == 130
    shown = await reading
    assert "\x1b[1A\x1b[2K" in shown, "drawn over, not printed again and again"
    assert "\x1b[?25h" in shown, "the cursor is there again"
    assert "● 20 %" in shown
    assert "go on:      graylift run" in shown
    assert (await site.tell("abort", "tiny"))[0] == 0


def _all_of(terminal: int) -> str:
    """What is written to a terminal until nobody has it open any more."""
    parts: list[bytes] = []
    with contextlib.suppress(OSError):  # the end, as Linux tells it
        while part := os.read(terminal, 65536):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()
