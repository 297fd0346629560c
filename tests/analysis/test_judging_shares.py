"""Shares of events that are counted elsewhere, judged beside what the gateway saw."""

from __future__ import annotations

import numpy as np
import pytest
from judged_traffic import errors, points, ratio

from graylift.adapters.documents import document_from, value_from
from graylift.analysis import judge
from graylift.domain.evidence import Window
from graylift.domain.judgement import Judgement, Ruling
from graylift.domain.sources import OtlpHistogram, PrometheusCounters, PrometheusHistogram
from graylift.domain.spec import Check, JudgeSpec, Margin, Metric, Stage
from graylift.domain.tally import Tally
from graylift.domain.weights import Role, Weights

COUNTERS = PrometheusCounters("http://p:9090", "bad_total", "all_total", (("v", "{revision}"),), 60.0)
ERRORS = errors(points(0.02), points(0.05))


def slow_queue(rollback: Margin, promote: Margin) -> Check:
    return Check(Metric.SHARE, None, rollback, promote, share="slow-queue", origin=COUNTERS)


QUEUE = slow_queue(points(0.01), points(0.03))


def counted(candidate: Tally, stable: Tally, *, name: str = "slow-queue", split: str = "one") -> list[Window]:
    arms = ((Role.CANDIDATE, candidate), (Role.STABLE, stable))
    return [Window("s", split, role, role.value, None, external=((name, tally),)) for role, tally in arms]


def requests(number: int) -> list[Window]:
    return [Window("s", "one", role, role.value, None, requests=number) for role in Role]


def after(*reports: list[Window], checks: tuple[Check, ...] = (QUEUE,), stored: bool = True) -> Judgement:
    spec = JudgeSpec(checks)
    state = judge.enter(spec, judge.start(spec), Stage(Weights(5_000), 10.0), "one", sticky=False)
    for report in reports:
        state = judge.observe(spec, judge.load(judge.dump(state)) if stored else state, report)
    return judge.judge(spec, state)


def test_a_share_that_is_larger_fails_with_both_numbers() -> None:
    judgement = after(*[counted(Tally(10, 100), Tally(2, 200))] * 20)
    (verdict,) = judgement.verdicts
    assert (judgement.failed, verdict.ruling) == (True, Ruling.FAIL)
    assert verdict.sentence.startswith("slow-queue 10.0 % against stable's 1.0 %; rollback limit 1pp (candidate n=")
    assert "events" in verdict.sentence
    assert verdict.candidate == pytest.approx(0.1)


def test_a_share_that_is_equal_passes_and_a_ratio_does_as_well() -> None:
    same = [counted(Tally(2, 200), Tally(2, 200))] * 40
    assert after(*same).passed
    tenth = [counted(Tally(20, 200), Tally(20, 200))] * 40
    assert after(*tenth, checks=(slow_queue(ratio(1.2), ratio(2.0)),)).passed


def test_without_events_nothing_is_claimed_whatever_the_gateway_saw() -> None:
    judgement = after(*[requests(500)] * 50, checks=(ERRORS, QUEUE))
    by_name = {verdict.check: verdict for verdict in judgement.verdicts}
    assert by_name["errors"].ruling is Ruling.PASS
    assert by_name["slow-queue"].ruling is Ruling.INCONCLUSIVE
    assert not judgement.passed
    assert (
        "no candidate events yet, nor any of stable's: what is wrong with its source" in by_name["slow-queue"].sentence
    )


def test_one_arm_alone_is_no_evidence() -> None:
    judgement = after(*[counted(Tally(90, 100), Tally(0, 0))] * 50)
    assert [verdict.ruling for verdict in judgement.verdicts] == [Ruling.INCONCLUSIVE]
    assert not judgement.failed


def test_events_age_no_stage_and_count_as_no_request() -> None:
    judgement = after(*[counted(Tally(2, 200), Tally(2, 200))] * 40, checks=(ERRORS, QUEUE))
    assert (judgement.candidate_n, judgement.stable_n) == (0, 0)
    assert judgement.share_off is None
    assert judgement.stable_sick is None


def test_other_names_and_other_splits_change_nothing() -> None:
    others = [
        *[counted(Tally(90, 100), Tally(0, 100), name="another")] * 20,
        *[counted(Tally(90, 100), Tally(0, 100), split="other")] * 20,
    ]
    assert [verdict.ruling for verdict in after(*others).verdicts] == [Ruling.INCONCLUSIVE]


def test_a_candidate_on_the_margin_is_rarely_failed() -> None:
    chance = np.random.default_rng(7)
    failed = 0
    for _ in range(100):
        reports = [
            counted(
                Tally(int(chance.binomial(40, level + 0.01)), 40),
                Tally(int(chance.binomial(160, level)), 160),
            )
            for level in 0.05 + 0.04 * np.sin(np.arange(40) / 8)  # a rhythm that both arms share
        ]
        failed += after(*reports, stored=False).failed
    assert failed <= 4  # 1 % of 100 is 1; more than 4 has a chance under 0.5 %


def test_a_share_needs_a_margin_of_shares() -> None:
    wrong = Margin(ERRORS.rollback_if_worse.kind, 2.0)
    with pytest.raises(ValueError, match="at most 90pp"):
        judge.start(JudgeSpec((slow_queue(wrong, wrong),)))


@pytest.mark.parametrize(
    "origin",
    [
        COUNTERS,
        PrometheusHistogram("http://p:9090", "queue", 0.5, (("v", "{revision}"),), 60.0),
        OtlpHistogram("queue", 0.5, (("model", "m"),), 60.0),
    ],
)
def test_a_check_keeps_its_origin_through_the_store(origin: PrometheusCounters) -> None:
    check = Check(Metric.SHARE, None, points(0.01), points(0.02), share="q", origin=origin)
    assert value_from(Check, document_from(check)) == check
