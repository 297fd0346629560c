"""What the page says of streams and scores: with their units where there are any, nothing where there are none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from report_stories import Story

from graylift.domain.histogram import Histogram, bin_of
from graylift.domain.judgement import Ruling, Verdict
from graylift.domain.scores import ScoreCounts
from graylift.domain.spec import Check, Margin, MarginKind, Metric
from graylift.report import CheckEffects, EffectLook, explain, render_html, render_json, render_markdown

PACE = Check(Metric.TPOT, 0.95, Margin(MarginKind.RATIO, 1.2), Margin(MarginKind.RATIO, 1.5))
HELPFUL = Check(Metric.SCORE, None, Margin(MarginKind.SCORE, -0.01), Margin(MarginKind.SCORE, -0.02), score="helpful")
VERDICTS = (
    Verdict("tpot p95", Ruling.PASS, "its pace is right", 0.0204, 0.02, 700, 70_000, 0.97, 1.08, -1.0, 5.0),
    Verdict("helpful", Ruling.FAIL, "it is less helpful", 0.71, 0.802, 80, 8_000, -0.15, -0.03, 9.0, -5.0),
)


@pytest.fixture
def streams(promoted: Story) -> Story:
    """The same release of a service that streams 12 tokens an answer, one of 100 answers with a score."""
    reports = tuple(
        replace(
            report,
            windows=tuple(
                replace(
                    window,
                    ttft=Histogram(((bin_of(0.25), window.requests - window.failed),)),
                    tpot=Histogram(((bin_of(0.02), window.requests - window.failed),)),
                    input_tokens=40 * (window.requests - window.failed),
                    output_tokens=12 * (window.requests - window.failed),
                    scores=(("helpful", ScoreCounts(((750, 1),))),),
                )
                for window in report.windows
            ),
        )
        for report in promoted.reports
    )
    release = promoted.release
    spec = replace(release.spec, judge=replace(release.spec.judge, checks=(PACE, HELPFUL)))
    done = tuple(replace(record, verdicts=VERDICTS) for record in release.done)
    return replace(promoted, release=replace(release, spec=spec, done=done), reports=reports)


def test_streams_have_their_rows_and_plots_with_their_units(streams: Story) -> None:
    markdown, html = render_markdown(*streams.parts), render_html(*streams.parts)
    for fact in ("time to first token", "time per output token", "ms/token", "tokens of an answer, mean", "12.0"):
        assert fact in markdown, fact
        assert fact in html, fact
    assert "| mean helpful | 0.750 (n=" in markdown
    assert html.count("<svg") == 7
    assert "20.4 ms/token (n=700)" in markdown
    assert "-0.150 to -0.030" in markdown
    told = json.loads(render_json(*streams.parts))["revisions"]["candidate"]
    assert told["ttft"]["p95"] == pytest.approx(0.25, rel=0.01)
    assert told["outputTokens"] * 40 == told["inputTokens"] * 12 > 0
    assert told["scores"] == [{"name": "helpful", "count": pytest.approx(told["requests"], rel=0.99), "mean": 0.75}]


def test_a_service_without_streams_and_scores_has_none_of_their_rows(promoted: Story) -> None:
    for page in (render_markdown(*promoted.parts), render_html(*promoted.parts)):
        assert "token" not in page
        assert "mean " not in page.split("Stages")[0]


def test_a_score_is_retold_as_a_difference_and_a_pace_as_a_ratio(streams: Story) -> None:
    told = " ".join(explain(*streams.parts).split())
    assert "candidate 0.710 (n=80), stable 0.802 (n=8,000); the difference, with 95 % certainty" in told
    assert "candidate 20.4 ms/token (n=700), stable 20.0 ms/token (n=70,000); the ratio, with" in told


def test_the_certainty_of_a_score_is_drawn_in_its_own_unit_with_both_margins(streams: Story) -> None:
    looks = tuple(EffectLook(n, -0.3 / n, 0.1 / n) for n in range(1, 9))
    html = render_html(*streams.parts, effects=(CheckEffects(HELPFUL, looks, ()),))
    assert "helpful: 95 % interval of candidate - stable" in html
    drawn = html.split("helpful: 95 % interval")[-1]
    assert drawn.count('class="line limit"') == 2
    assert "pp<" not in drawn
    assert ">-0.3<" in drawn
