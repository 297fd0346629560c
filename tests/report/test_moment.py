"""A release as it stands: what is shown live must be what the stored release and the newest reports say."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.histogram import Histogram, bin_of
from graylift.domain.judgement import Ruling
from graylift.domain.release import Phase, Release
from graylift.domain.spec import Margin, MarginKind, Stage
from graylift.domain.weights import NONE, Role, Weights
from graylift.report.gauge import WIDTH, gauge_from
from graylift.report.moment import Place, moment_from, track_of
from graylift.testing import samples

STAGES = (Stage(Weights(500), 10.0, min_requests=50, approval_required=True), *samples.STAGES[1:])


def release(phase: Phase = Phase.PROGRESSING, stage: int = 0) -> Release:
    return Release(
        id="file-type-1",
        spec=samples.release_spec(stages=STAGES),
        phase=phase,
        reason="because",
        stage=stage,
        entered_s=100.0,
        observed_s=5.0,
        stage_table=1,
        approved=False,
        salt="file-type-1",
        created_s=90.0,
        stable=samples.revision("v1"),
        candidate=samples.revision("v2"),
        judgement=samples.judgement(Ruling.PASS, candidate_n=20),
    )


def report(start_s: float, *, gateway: str = "g1", requests: int = 10, failed: int = 0) -> IntervalReport:
    window = Window(
        "file-type",
        "file-type-1/0",
        Role.CANDIDATE,
        samples.revision("v2").id,
        None,
        requests=requests,
        failed=failed,
        latency=Histogram(((bin_of(0.1), requests - failed),)),
        ttft=Histogram(((bin_of(0.02), requests),)),
        output_tokens=100,
    )
    return IntervalReport(gateway, round(start_s), start_s, 1.0, 1, (window,))


def test_rates_count_the_seconds_once_however_many_gateways_watched_them() -> None:
    reports = [report(second, gateway=gateway) for second in (100.0, 101.0) for gateway in ("g1", "g2")]
    moment = moment_from(release(), NONE, reports)
    candidate = moment.arms[1]
    assert moment.seconds == 2
    assert candidate.requests_per_s == 20
    assert candidate.output_tokens_per_s == 200
    assert candidate.latency.quantile(0.5) == pytest.approx(0.1, rel=0.02)
    assert candidate.ttft.quantile(0.5) == pytest.approx(0.02, rel=0.02)


def test_what_is_older_than_the_newest_seconds_is_no_part_of_now() -> None:
    moment = moment_from(release(), NONE, [report(100.0, failed=10), report(130.0)])
    assert moment.arms[1].failed_share == 0


def test_without_reports_nothing_is_claimed() -> None:
    moment = moment_from(release(), NONE, [])
    assert moment.seconds == 0
    assert moment.arms[1].failed_share is None
    assert moment.arms[1].latency.quantile(0.5) is None


def test_a_stage_says_what_it_still_asks() -> None:
    moment = moment_from(release(), NONE, [])
    assert [(condition.text, condition.met) for condition in moment.conditions] == [
        ("observed 5.0 s of 10 s", False),
        ("20 of 50 candidate requests", False),
        ("1 of 1 checks PASS", True),
        ("a person has to approve it", False),
    ]
    assert moment.then == "then 50 %"


@pytest.mark.parametrize(
    ("phase", "stage", "places"),
    [
        (Phase.CHECKING, 0, (Place.AHEAD, Place.AHEAD, Place.AHEAD)),
        (Phase.PROGRESSING, 1, (Place.DONE, Place.HERE, Place.AHEAD)),
        (Phase.PROMOTED, 2, (Place.DONE, Place.DONE, Place.DONE)),
        (Phase.REJECTED, 0, (Place.AHEAD, Place.AHEAD, Place.AHEAD)),
    ],
)
def test_the_track_shows_where_the_release_stands(phase: Phase, stage: int, places: tuple[Place, ...]) -> None:
    assert tuple(step.place for step in track_of(release(phase, stage))) == places


def effect_of(svg: str) -> tuple[float, float]:
    found = re.search(r'<rect class="effect[^"]*" x="([0-9.]+)" width="([0-9.]+)"', svg)
    assert found
    return float(found[1]), float(found[1]) + float(found[2])


RATIO = Margin(MarginKind.RATIO, 1.1), Margin(MarginKind.RATIO, 1.25)


def test_a_gauge_begins_as_wide_as_it_is_and_shrinks_to_the_effect() -> None:
    verdict = samples.verdict("latency p99")
    assert effect_of(gauge_from(verdict, *RATIO)) == (0.0, WIDTH)
    left, right = effect_of(gauge_from(replace(verdict, effect_low=0.99, effect_high=1.02), *RATIO))
    assert left < WIDTH / 2 < right
    assert right - left < WIDTH / 8


def test_worse_is_right_whichever_way_a_margin_points() -> None:
    worse = replace(samples.verdict("latency p99"), effect_low=1.4, effect_high=1.5)
    assert effect_of(gauge_from(worse, *RATIO))[0] > WIDTH / 2
    lower_score = replace(samples.verdict("helpful"), effect_low=-0.03, effect_high=-0.02)
    margins = Margin(MarginKind.POINTS, -0.01), Margin(MarginKind.POINTS, -0.02)
    assert effect_of(gauge_from(lower_score, *margins))[0] > WIDTH / 2
