"""The stories that the tests of this folder tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_stories import Story, story, verdicts

from graylift.domain.judgement import Judgement, Ruling
from graylift.domain.release import Phase


@pytest.fixture(scope="session")
def promoted() -> Story:
    return story(good=True)


@pytest.fixture(scope="session")
def rolled_back() -> Story:
    return story(good=False)


@pytest.fixture(scope="session")
def in_flight(promoted: Story) -> Story:
    """The good one, seen in the middle of its second stage."""
    now = promoted.release.done[1].entered_s + 50
    release = replace(
        promoted.release,
        phase=Phase.PROGRESSING,
        reason="waits for more evidence",
        stage=1,
        entered_s=promoted.release.done[1].entered_s,
        observed_s=50.0,
        done=promoted.release.done[:1],
        finished_s=None,
        judgement=Judgement(verdicts(Ruling.INCONCLUSIVE), False, False, None, None, None, 401, 1602),
    )
    return Story(
        release,
        tuple(event for event in promoted.events if event.at_s <= now),
        tuple(report for report in promoted.reports if report.start_s < now),
    )
