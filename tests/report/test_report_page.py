"""The page about a release: the same facts in every form, harmless whatever names and texts it is given."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree.ElementTree import fromstring

import pytest
from report_stories import Story

from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.histogram import Histogram, bin_of
from graylift.domain.release import CheckOutcome, CheckResult, Event, Phase
from graylift.domain.shadow import Example, ShadowWindow
from graylift.domain.spec import ShadowSpec, Stage
from graylift.domain.weights import NONE, Role, Weights
from graylift.report import explain, render_html, render_json, render_markdown

EVIL = "<script>alert(1)</script>|[x](http://evil)`![y](http://evil)"


class Tags(HTMLParser):
    """Every tag with its attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(params=["promoted", "rolled_back", "in_flight"])
def any_story(request: pytest.FixtureRequest) -> Story:
    return request.getfixturevalue(request.param)


def test_the_outcome_comes_first_and_says_what_when_how_long_and_why(promoted: Story, rolled_back: Story) -> None:
    assert render_markdown(*promoted.parts).split("\n\n")[1] == (
        "v2 was promoted and replaces v1 (at 2026-03-01 12:09:20 UTC, 9 min 20 s after the release began): "
        "the watch is over"
    )
    assert render_markdown(*rolled_back.parts).split("\n\n")[1] == (
        "v2 was rolled back and v1 has all traffic again (at 2026-03-01 12:03:02 UTC, 3 min 2 s after the release "
        "began): errors 18 % against 0.4 %; rollback limit 0.5pp"
    )


def test_a_release_in_flight_has_its_page_too(in_flight: Story) -> None:
    outcome = json.loads(render_json(*in_flight.parts))["release"]["outcome"]
    assert outcome.startswith("v2 is still PROGRESSING in stage 2 of 3 (20 %) (at 2026-03-01 12:03:10 UTC")
    assert "not known yet" not in render_markdown(*in_flight.parts)
    assert json.loads(render_json(*in_flight.parts))["stages"][-1]["left"] is None


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_a_page_before_anything_is_known(promoted: Story, phase: Phase) -> None:
    release = replace(
        promoted.release, phase=phase, done=(), stable=None, candidate=None, checks=None, stage=0, finished_s=None
    )
    for render in (render_html, render_markdown, render_json):
        assert "v2" in render(release, (), ())


def test_markdown_and_html_tell_the_same_facts(any_story: Story) -> None:
    markdown, html = render_markdown(*any_story.parts), Tags(render_html(*any_story.parts)).text
    release = any_story.release
    facts = [release.spec.digest, "5e" * 32, "1" * 64, "2" * 64, "/models/v2.onnx", "HTTP 500", "v1: 12 MB in 3 s"]
    facts += [event.text for event in any_story.events] + ["anna", "2026-03-01 12:00:05 UTC"]
    facts += [verdict.sentence for record in release.done for verdict in record.verdicts]
    facts += ["80,120", "812", "0.52 %", "31.0 ms", "-0.20pp to +0.40pp", "from 0.97x"]
    for fact in facts:
        assert fact in html, fact
        assert fact in markdown.replace("\\", ""), fact


def test_what_the_arms_got_is_the_sum_of_their_windows(rolled_back: Story) -> None:
    document = json.loads(render_json(*rolled_back.parts))
    for role in Role:
        windows = [w for report in rolled_back.reports for w in report.windows if w.arm is role]
        arm = document["revisions"][role.value]
        assert arm["requests"] == sum(window.requests for window in windows)
        assert arm["failed"] == sum(window.failed for window in windows)
        assert arm["reasons"] == [{"reason": "HTTP 500", "count": arm["failed"]}]
        assert sum(point["requests"] or 0 for point in document["series"][role.value]) == arm["requests"]


def test_labelled_requests_are_counted_apart(rolled_back: Story) -> None:
    labelled = Window("file-type", "s", Role.CANDIDATE, rolled_back.reports[0].windows[0].revision_id, "x=y", 50, 50)
    report = replace(rolled_back.reports[0], gateway="g2", windows=(labelled,))
    release, events, reports = rolled_back.parts
    before = json.loads(render_json(release, events, reports))
    after = json.loads(render_json(release, events, (*reports, report)))
    assert after["revisions"] == before["revisions"]
    assert after["evidence"]["labelledRequests"] == 50


def test_missing_evidence_is_said(rolled_back: Story) -> None:
    release, events, reports = rolled_back.parts
    gap = IntervalReport("g1", 999, reports[-1].start_s, 1.0, None, (), gap="the disk was full", unreadable=3)
    for render in (render_html, render_markdown, render_json):
        assert "the disk was full" in render(release, events, (*reports, gap))


def test_a_release_named_script_is_harmless(rolled_back: Story) -> None:
    release, events, reports = rolled_back.parts
    spec = replace(release.spec, service=EVIL, candidate=replace(release.spec.candidate, name=EVIL), digest=EVIL)
    record = replace(release.done[0], why=EVIL)
    check = replace((release.checks or ())[0], sentence=EVIL, evidence=(EVIL,))
    evil = replace(release, id=EVIL, spec=spec, reason=EVIL, done=(record,), checks=(check,))
    told = (*events, Event(events[-1].at_s, EVIL, EVIL, EVIL, EVIL, EVIL))
    page = Tags(render_html(evil, told, reports))
    assert "script" not in [tag for tag, _ in page.tags]
    assert EVIL in page.text
    markdown = render_markdown(evil, told, reports)
    assert not re.search(r"(?<!\\)[<\[`]", markdown)
    assert not re.search(r"(?<!\\)\|\\\[x", markdown)
    assert json.loads(render_json(evil, told, reports))["release"]["id"] == EVIL


def test_the_page_runs_nothing_and_asks_for_nothing(any_story: Story) -> None:
    html = render_html(*any_story.parts)
    tags = Tags(html).tags
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in tags}
    for _, attributes in tags:
        assert not {"src", "href", "xlink:href", "action"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in html
    assert "@import" not in html


def test_the_plots_show_both_arms_the_stages_and_how_it_ended(rolled_back: Story) -> None:
    plots = [fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", render_html(*rolled_back.parts), re.DOTALL)]
    assert [plot.findtext("title") for plot in plots] == [
        "Candidate's weight",
        "Requests per second",
        "Failed requests",
        "Latency p50",
        "Latency p99",
    ]
    for plot in plots:
        labels = [text.text for text in plot.findall("text") if "mark" in text.get("class", "")]
        assert labels == ["1 %", "20 %", "ROLLING_BACK"]
    for plot in plots[1:]:
        assert [path.get("class") for path in plot.findall("path")] == ["line stable", "line candidate"]


def test_the_numbers_of_the_json_are_described_where_it_is_made(rolled_back: Story) -> None:
    from graylift.report import structure

    described = set(re.findall(r"\w+", structure.__doc__ or ""))

    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return {str(key) for key in value}.union(*(keys(inner) for inner in value.values()))
        return set[str]().union(*(keys(inner) for inner in value)) if isinstance(value, list) else set()

    document = json.loads(render_json(*rolled_back.parts))
    assert document["schema"] == "graylift.dev/report/v1"
    assert keys(document) <= described


def test_every_outcome_of_a_check_is_shown_with_its_sentence_and_its_evidence_folded(rolled_back: Story) -> None:
    release, events, reports = rolled_back.parts
    checks = tuple(CheckResult(f"check {o.name}", o, f"sentence {o.name}", (f"line {o.name}",)) for o in CheckOutcome)
    why = "check FAIL: sentence FAIL"
    rejected = replace(release, phase=Phase.REJECTED, reason=why, checks=checks, done=(), candidate=None)

    html = render_html(rejected, events, reports)
    for text in (html, render_markdown(rejected, events, reports)):
        assert "4 checks: 1 PASS, 1 FAIL, 1 INCONCLUSIVE, 1 SKIPPED" in text
        for outcome in CheckOutcome:
            assert f"sentence {outcome.name}" in text
            assert f"line {outcome.name}" in text
    folded = html.partition("<details>")[2].partition("</details>")[0]
    assert "line PASS" in folded
    outcome = json.loads(render_json(rejected, events, reports))["release"]["outcome"]
    assert "v2 was rejected before it got any traffic" in outcome
    assert outcome.endswith(why)


def test_checks_that_still_run_are_shown_as_far_as_they_have_come(rolled_back: Story) -> None:
    release, events, reports = rolled_back.parts
    checking = replace(release, phase=Phase.CHECKING, done=(), stage=0, finished_s=None)

    for render in (render_html, render_markdown):
        assert "2 checks: 2 PASS; the others still run" in render(checking, events, reports)


def test_a_shadow_stage_is_told_with_its_pairs_and_with_the_examples_that_the_file_had_kept(promoted: Story) -> None:
    where = "the first other word is number 3 of 9"
    text = Example("r-1", 0.75, "words", where, "aa", "bb", "a?", "<b>sky</b>", "grey")
    hashed = replace(text, request_id="r-2", request=None, stable=None, candidate=None)
    seen = ShadowWindow(
        *("file-type", "file-type-3/0", "file-type.v2.0"),
        pairs=412,
        only_candidate_failed=2,
        compared=410,
        agreeing=400,
        drift=5.0,
        latency_ratio=Histogram(((bin_of(1.25), 410),)),
        differences=(("finish reason", 3), ("words", 7)),
        reasons=(("HTTP 500", 2),),
        lost=(("shed", 30),),
        examples=(text, hashed),
    )
    release, events, reports = promoted.parts
    stages = (Stage(NONE, 120.0, shadow=ShadowSpec(Weights(1_000))), *release.spec.stages[1:])
    release = replace(
        release,
        spec=replace(release.spec, stages=stages),
        done=(replace(release.done[0], weights=NONE, shadow=seen), *release.done[1:]),
    )
    html, markdown = render_html(release, events, reports), render_markdown(release, events, reports)
    for page in (html, markdown):
        assert "Stage 1 of 3: shadow 10 %" in page
        assert "412 pairs of answers, 410 compared: 97.6 % agree" in page
        assert "the candidate took 1.25x" in page
        assert "the candidate alone 2" in page
        assert "30 shed" in page
        assert where in page
        assert "<b>sky</b>" not in page
        assert "grey" in page
        assert "bb" in page
    document = json.loads(render_json(release, events, reports))
    assert document["stages"][0]["shadow"]["agreement"] == pytest.approx(400 / 410)
    assert document["stages"][0]["shadow"]["examples"][1]["stable"] is None
    assert document["stages"][1]["shadow"] is None
    assert "412 pairs of answers" in explain(release, events, reports)
