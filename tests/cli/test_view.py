"""What a terminal shows of a release: rates of the newest seconds, the track of its stages, its verdicts and events."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from graylift.cli.live import PlainScreen
from graylift.cli.view import View, line_from_event, line_from_view, render, track, view_from
from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.histogram import Histogram, bin_of
from graylift.domain.judgement import Ruling
from graylift.domain.release import Event, Phase, Release, StageRecord
from graylift.domain.weights import Role, Weights
from graylift.testing.samples import judgement, release_spec, revision, verdict

SPEC = release_spec()
RELEASE = Release(
    "file-type-1",
    SPEC,
    Phase.PROGRESSING,
    "observed 3 s of 10 s",
    stage=1,
    entered_s=100.0,
    observed_s=3.0,
    stage_table=4,
    approved=False,
    salt="file-type-1",
    created_s=90.0,
    stable=revision("v1"),
    candidate=revision("v2"),
    judgement=judgement(),
)


def window(role: Role, requests: int, failed: int = 0, label: str | None = None) -> Window:
    latency = Histogram(((bin_of(0.010), requests - failed),)) if requests > failed else Histogram()
    of = revision("v1" if role is Role.STABLE else "v2").id
    return Window("file-type", "s", role, of, label, requests=requests, failed=failed, latency=latency)


def report(start_s: float, *windows: Window, gateway: str = "a") -> IntervalReport:
    return IntervalReport(gateway, int(start_s), start_s, 1.0, 4, windows)


def drawn(view: View, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(view, now=120.0))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in text.splitlines())
    return text


def test_rates_are_of_the_newest_five_seconds_and_of_requests_drawn_by_weight() -> None:
    reports = [
        report(1.0, window(Role.STABLE, 5000)),
        *(
            report(
                10.0 + i, window(Role.STABLE, 80, 8), window(Role.CANDIDATE, 20), window(Role.CANDIDATE, 99, label="x")
            )
            for i in range(5)
        ),
    ]
    view = view_from(RELEASE, Weights(2000), reports, ())
    assert (view.stable.requests_per_s, view.stable.failed_share) == (80.0, 0.1)
    assert (view.candidate.requests_per_s, view.candidate.failed_share) == (20.0, 0.0)
    assert view.candidate.latency.quantile(0.5) == pytest.approx(0.010, rel=0.01)


def test_streams_show_their_first_token_and_pace_and_other_services_no_such_column() -> None:
    answers = window(Role.STABLE, 10)
    stream = replace(answers, ttft=Histogram(((bin_of(0.2), 10),)), tpot=Histogram(((bin_of(0.02), 9),)))
    streaming = view_from(RELEASE, Weights(0), [report(10.0, stream)], ())
    assert streaming.stable.ttft.quantile(0.95) == pytest.approx(0.2, rel=0.01)
    assert "ttft p95" in drawn(streaming)
    assert "ttft p95 200 ms, 19.9 ms/token" in line_from_view(streaming)
    plain = view_from(RELEASE, Weights(0), [report(10.0, answers)], ())
    assert "ttft" not in drawn(plain) + line_from_view(plain)


def test_gateways_side_by_side_add_up() -> None:
    reports = [report(10.0 + i, window(Role.STABLE, 10), gateway=name) for i in range(5) for name in ("a", "b")]
    assert view_from(RELEASE, Weights(0), reports, ()).stable.requests_per_s == 20.0


@pytest.mark.parametrize("width", [60, 100, 200])
def test_the_picture_shows_where_it_stands_and_why_on_any_width(width: int) -> None:
    text = drawn(
        view_from(RELEASE, Weights(500), (), (Event(100.0, "file-type", RELEASE.id, "STARTING", "begun"),)), width
    )
    for shown in ("PROGRESSING", "observed 3 s of 10 s", "errors", "PASS", "begun", "STARTING"):
        assert shown in text


def test_an_arm_without_requests_shows_dashes_not_zeros() -> None:
    assert "–" in drawn(view_from(RELEASE, Weights(500), (), ()))


def test_the_track_marks_what_passed_what_runs_and_what_was_lost() -> None:
    assert track(RELEASE).plain.startswith("✓ 5 % ── ● 50 %")
    left = StageRecord(1, Weights(5000), 0.0, 1.0, 1.0, 10, 10, (verdict(ruling=Ruling.FAIL),), "worse")
    lost = replace(RELEASE, phase=Phase.ROLLED_BACK, done=(left,))
    assert "✗ 50 %" in track(lost).plain
    assert track(replace(RELEASE, phase=Phase.PROMOTED)).plain.count("✓") == len(SPEC.stages)
    assert "✓" not in track(replace(RELEASE, phase=Phase.CHECKING, stage=0)).plain


def test_plain_lines_tell_each_event_once() -> None:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    screen = PlainScreen(console)
    events = tuple(Event(float(i), "file-type", RELEASE.id, "VERDICT", f"fact {i}") for i in range(3))
    for known in range(4):
        screen.show(view_from(RELEASE, Weights(500), (), events[:known]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert [text.count(f"fact {i}") for i in range(3)] == [1, 1, 1]


def test_a_person_is_named_once() -> None:
    assert line_from_event(Event(0.0, "s", None, "PAUSED", "paused by ann", "ann")).count("ann") == 1
    assert line_from_event(Event(0.0, "s", None, "APPROVED", "stage 1 is approved", "ann")).endswith("(by ann)")
