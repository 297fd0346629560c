"""A release retold, and the plot of how sure the judge was: what is told is what is stored, at every look."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from report_stories import Story

from graylift.analysis import judge
from graylift.cli.reporting import effects_of
from graylift.domain.judgement import Ruling
from graylift.domain.release import CheckOutcome, CheckResult, Phase
from graylift.ports import History
from graylift.report import explain, render_html


def history(story: Story) -> History:
    return History(*story.parts)


def test_a_rollback_is_told_in_order_with_both_numbers_and_the_reason(rolled_back: Story) -> None:
    told = explain(*rolled_back.parts)
    order = ("was rolled back", "Before any traffic 2 checks ran", "Stage 1, with 1 %", "Stage 2, with 20 %", "In all")
    places = [told.index(part) for part in order]
    assert places == sorted(places)
    assert "Stage 3" not in told
    failing = next(line for line in told.splitlines() if "errors was shown to be worse" in line)
    assert "candidate 0.52 % (n=812), stable 0.48 % (n=80,120)" in failing
    assert "-0.20pp to +0.40pp" in failing
    assert (
        told.rstrip().split("\n\n")[-1].startswith("It was taken back: errors 18 % against 0.4 %; rollback limit 0.5pp")
    )
    assert "anna" in told


def test_what_is_missing_is_told(promoted: Story) -> None:
    gap = replace(promoted.reports[5], gap="the log could not be read", unreadable=3)
    told = explain(promoted.release, promoted.events, (*promoted.reports[:5], gap, *promoted.reports[6:]))
    assert "the log could not be read (1 reports); 3 log lines could not be read" in told


def test_a_candidate_that_no_user_met_is_told_as_that(promoted: Story) -> None:
    stopped = CheckResult("parity", CheckOutcome.FAIL, "outputs differ by 12 %")
    release = replace(promoted.release, phase=Phase.REJECTED, done=(), checks=(stopped,), reason="parity")
    told = explain(release, promoted.events, ())
    assert "parity failed: outputs differ by 12 %." in told
    assert "no user met it" in told


def test_the_plot_of_certainty_has_both_margins_and_marks_the_stages(promoted: Story, rolled_back: Story) -> None:
    for story, weights in ((promoted, ["1 %", "20 %"]), (rolled_back, ["1 %", "20 %"])):
        page = render_html(*story.parts, effects=effects_of(history(story)))
        section = page[page.index("How sure the judge was") : page.index("<h2>Stages")]
        figures = re.findall(r"<svg.*?</svg>", section, re.DOTALL)
        assert len(figures) == 2
        for figure in figures:
            assert figure.count('class="line limit"') == 2
            assert re.findall(r'class="mark stage"[^>]*>([^<]+)<', figure)[-1:] == weights[-1:]


def test_the_bounds_of_the_plot_are_those_of_the_judge_at_the_end(rolled_back: Story) -> None:
    release = rolled_back.release
    state = judge.start(release.spec.judge)
    for index in range(2):
        state = judge.enter(
            release.spec.judge, state, release.spec.stages[index], f"{release.id}/{index}", sticky=False
        )
        for report in rolled_back.reports:
            if any(window.split == f"{release.id}/{index}" for window in report.windows) and not state.found:
                state = judge.observe(release.spec.judge, state, report.windows)
    verdicts = {verdict.check: verdict for verdict in judge.judge(release.spec.judge, state).verdicts}
    assert verdicts["errors"].ruling is Ruling.FAIL
    for one in effects_of(history(rolled_back)):
        last, verdict = one.looks[-1], verdicts[one.check.name]
        assert (last.low, last.high) == (verdict.effect_low, verdict.effect_high)


def test_a_long_release_is_looked_at_in_stretches(promoted: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graylift.cli.reporting.MOST_LOOKS", 20)
    few = effects_of(history(promoted))
    assert all(len(one.looks) <= 20 for one in few)
    assert few[0].stages[1][1].candidate == 2_000
