"""What the judge says, in the cases a reader needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judged_traffic import errors, latency, points, ratio, score, tpot, ttft

from graylift.analysis import judge, sentences
from graylift.domain.evidence import Window
from graylift.domain.histogram import Histogram, bin_of
from graylift.domain.judgement import Judgement, Ruling
from graylift.domain.scores import ScoreCounts
from graylift.domain.spec import Check, JudgeSpec, Stage
from graylift.domain.weights import Role, Weights

ERRORS = errors(points(0.02), points(0.01))
P50 = latency(0.5, 1.2, 1.5)
HALF = 5_000


def arm(role: Role, requests: int, failed: int = 0, seconds: float = 0.1, *, abandoned: int = 0) -> Window:
    answers = requests - failed
    bins = ((bin_of(seconds), answers),) if answers else ()
    return Window("s", "one", role, role.value, None, requests, failed, abandoned=abandoned, latency=Histogram(bins))


def candidate(requests: int, failed: int = 0, seconds: float = 0.1, *, abandoned: int = 0) -> Window:
    return arm(Role.CANDIDATE, requests, failed, seconds, abandoned=abandoned)


def stable(requests: int, failed: int = 0, seconds: float = 0.1) -> Window:
    return arm(Role.STABLE, requests, failed, seconds)


def after(
    *reports: tuple[Window, ...],
    checks: tuple[Check, ...] = (ERRORS,),
    weight: int = HALF,
    sticky: bool = False,
    earlier: int = 0,
) -> Judgement:
    spec = JudgeSpec(checks)
    state = judge.start(spec)
    for _ in range(earlier):
        state = judge.observe(spec, state, [stable(100)])
    state = judge.enter(spec, state, Stage(Weights(weight), 10.0), "one", sticky=sticky)
    for report in reports:
        state = judge.observe(spec, state, report)
    return judge.judge(spec, state)


def only(judgement: Judgement) -> str:
    (verdict,) = judgement.verdicts
    return verdict.sentence


def test_before_any_request_nothing_is_claimed_and_the_sentence_says_why() -> None:
    judgement = after(checks=(ERRORS, P50))
    assert [v.ruling for v in judgement.verdicts] == [Ruling.INCONCLUSIVE] * 2
    assert [v.sentence for v in judgement.verdicts] == [
        "errors: no candidate requests yet",
        "p50 latency: no candidate requests yet",
    ]
    assert all(v.candidate is None and v.effect_low is None and v.effect_high is None for v in judgement.verdicts)


def test_without_stable_requests_there_is_nothing_to_compare_with() -> None:
    assert only(after((candidate(85),))) == "errors: no stable requests to compare with (candidate n=85)"


def test_a_latency_check_waits_until_stable_knows_its_own_quantile() -> None:
    p99 = latency(0.99, 1.2, 1.5)
    assert only(after((candidate(5), stable(60)), checks=(p99,))) == (
        "p99 latency: stable has not answered enough to know its own, 40 more answers needed "
        "(candidate n=5, stable n=60)"
    )


def test_an_inconclusive_sentence_estimates_how_many_requests_are_missing() -> None:
    sentence = only(after(*[(candidate(5), stable(95))] * 17, weight=500, earlier=10))
    assert sentence.startswith("errors 0.0 % against 0.0 %: not yet shown to be within 1pp (candidate n=85, about 2")
    assert sentence.endswith(" more needed, stable n=1,615)")
    more = int(sentence.split("about ")[1].split(" ")[0])
    assert 200 <= more <= 300


def test_no_estimate_is_given_while_the_evidence_does_not_grow() -> None:
    assert "more needed" not in only(after(*[(candidate(50, failed=1), stable(50))] * 3, earlier=10))


def test_a_pass_shows_both_numbers_both_sizes_the_limit_and_the_chance() -> None:
    judgement = after(*[(candidate(50), stable(50))] * 20, earlier=10)
    assert judgement.passed
    assert only(judgement) == (
        "errors 0.0 % against 0.0 %; shown to be within 1pp (candidate n=1,000, stable n=1,000); "
        "chance of this for a candidate beyond it: under 5 %"
    )


def test_a_fail_shows_both_numbers_both_sizes_the_limit_and_the_bound() -> None:
    judgement = after(*[(candidate(10, seconds=0.1312), stable(90))] * 30, checks=(P50,), weight=1_000, earlier=10)
    assert judgement.failed
    sentence = only(judgement)
    assert sentence.startswith("p50 latency 131 ms is 1.31x stable's 99.9 ms; rollback limit 1.20x")
    assert "limit 1.20x (candidate n=" in sentence
    assert sentence.endswith("chance of this for a candidate within the limit: under 1 %")


def test_a_latency_fail_says_that_failed_requests_count_as_slow() -> None:
    judgement = after(*[(candidate(10, failed=9), stable(90))] * 3, checks=(P50,), weight=1_000, earlier=10)
    assert judgement.failed
    assert "failed requests count as slower than any answer" in only(judgement)


def test_a_candidate_without_a_single_answer_has_no_latency_to_show() -> None:
    judgement = after((candidate(10, failed=10), stable(90)), checks=(P50,), weight=1_000, earlier=10)
    assert judgement.failed
    assert only(judgement).startswith(
        "p50 latency unknown, without an answer, against stable's 99.9 ms; rollback limit"
    )


def test_checks_that_are_enough_only_together_are_worded_with_care() -> None:
    reports = [(candidate(10, failed=5), stable(90))]
    for count in range(1, 30):
        judgement = after(*reports * count, checks=(ERRORS, P50, latency(0.4, 1.2, 1.5)), weight=1_000, earlier=10)
        if judgement.failed:
            break
    assert judgement.failed
    together = [v for v in judgement.verdicts if v.ruling is Ruling.FAIL and v.evidence_against < 5.7]
    assert all("with the evidence of the other checks" in v.sentence for v in together)


def test_a_sick_stable_is_told_and_the_candidate_is_not_blamed_for_it() -> None:
    judgement = after(*[(candidate(50, failed=22), stable(50, failed=22))] * 20, checks=(ERRORS, P50))
    assert not judgement.failed
    assert judgement.stable_sick == (
        "stable itself fails 44.0 % of its requests (n=1,000, recent): nothing is concluded against the candidate"
    )


def test_a_candidate_that_fails_everything_beside_a_sick_stable_is_still_worse() -> None:
    assert after(*[(candidate(10, failed=10), stable(90, failed=36))] * 20, weight=1_000).failed


def test_nothing_good_is_concluded_while_stable_is_sick() -> None:
    """From the second interval on; that stable is sick shows only when its first sick interval has ended."""
    reports = [(candidate(100, failed=20), stable(100, failed=50))]
    first, later = after(*reports, earlier=5), after(*reports * 200, earlier=5)
    assert later.stable_sick is not None
    assert later.verdicts[0].evidence_for < after(*reports * 8, earlier=5).verdicts[0].evidence_for + 1e-9
    assert first.stable_sick is None


def test_a_stable_with_few_requests_is_not_called_sick() -> None:
    assert after((candidate(1), stable(19, failed=19))).stable_sick is None


def test_an_illness_of_stable_that_is_over_is_forgotten() -> None:
    sick, well = (candidate(50), stable(50, failed=25)), (candidate(50), stable(50))
    assert after(*[sick] * 20).stable_sick is not None
    assert after(*[sick] * 20, *[well] * 20).stable_sick is None


def test_in_the_watch_a_candidate_that_fails_is_called_sick_and_nothing_is_compared() -> None:
    judgement = after(*[(candidate(5, failed=4),)] * 4, weight=10_000, earlier=10)
    assert judgement.candidate_sick is not None
    assert judgement.candidate_sick.startswith(
        "the candidate fails 80.0 % of its requests (n=20, recent); stable failed 0.0 %"
    )
    assert not judgement.failed


def test_in_the_watch_a_candidate_that_dies_is_called_sick_after_three_answers() -> None:
    assert after((candidate(3, failed=3),), weight=10_000, earlier=10).candidate_sick is not None
    assert after((candidate(2, failed=2),), weight=10_000, earlier=10).candidate_sick is None


def test_in_the_watch_a_few_failures_are_no_illness() -> None:
    assert after(*[(candidate(20, failed=2),)] * 30, weight=10_000, earlier=10).candidate_sick is None


def test_a_candidate_that_got_well_is_not_called_sick() -> None:
    ill, well = (candidate(20, failed=20),), (candidate(20),)
    assert after(*[ill] * 5, *[well] * 20, weight=10_000, earlier=10).candidate_sick is None


def test_a_split_that_is_not_the_configured_one_is_told() -> None:
    judgement = after(*[(candidate(20), stable(80))] * 40, weight=500)
    assert judgement.share_off is not None
    assert judgement.share_off.startswith(
        "the candidate got 20.0 % of 3,000 requests, configured is 5 %: the split is off"
    )


def test_abandoned_requests_count_as_assigned() -> None:
    assert after(*[(candidate(1, abandoned=4), stable(95))] * 100, weight=500).share_off is None
    assert after(*[(candidate(1), stable(95))] * 100, weight=500).share_off is not None


def test_the_first_seconds_of_a_stage_say_nothing_of_the_split() -> None:
    assert after(*[(stable(100),)] * 10, weight=500).share_off is None


def test_the_split_of_sticky_users_is_not_tested() -> None:
    assert after(*[(candidate(20), stable(80))] * 40, weight=500, sticky=True).share_off is None


def test_a_young_stage_says_nothing_for_a_candidate_whose_slow_answers_cannot_have_ended() -> None:
    """Stable takes 20 s; in a stage of 15 s every candidate looks fast."""
    spec = JudgeSpec((P50,))
    state = judge.start(spec)
    for _ in range(10):
        state = judge.observe(spec, state, [stable(100, seconds=20.0)])
    state = judge.enter(spec, state, Stage(Weights(HALF), 10.0), "one", sticky=False)
    for _ in range(15):
        state = judge.observe(spec, state, [candidate(20, seconds=5.0), stable(20, seconds=20.0)])
    assert judge.judge(spec, state).verdicts[0].evidence_for == pytest.approx(0)
    for _ in range(60):
        state = judge.observe(spec, state, [candidate(20, seconds=5.0), stable(20, seconds=20.0)])
    assert judge.judge(spec, state).passed


def test_constant_latencies_that_are_equal_pass_and_do_not_fail() -> None:
    judgement = after(*[(candidate(50), stable(50))] * 10, checks=(P50, latency(0.99, 1.2, 1.5)), earlier=10)
    assert judgement.passed
    assert not judgement.failed


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0000123, "12.3 us"),
        (0.000912, "912 us"),
        (0.00123, "1.23 ms"),
        (0.912, "912 ms"),
        (1.5, "1.50 s"),
        (75, "75.0 s"),
        (5_000, "5,000 s"),
        (0.9997, "1.00 s"),
    ],
)
def test_durations_are_shown_with_three_digits_in_a_readable_unit(seconds: float, text: str) -> None:
    assert sentences.duration(seconds) == text


def test_a_ratio_of_errors_is_worded_like_points() -> None:
    judgement = after(*[(candidate(50, failed=10), stable(450, failed=10))] * 10, checks=(errors(ratio(2), ratio(3)),))
    assert judgement.failed
    assert only(judgement).startswith("errors 20.0 % against 2.2 %; rollback limit 2.00x (candidate n=")


def streamed(
    role: Role, requests: int, first_s: float, pace_s: float, steps: tuple[tuple[int, int], ...] = ()
) -> Window:
    """Answers of 2 s, all streamed, with scores."""
    return replace(
        arm(role, requests, seconds=2.0),
        ttft=Histogram(((bin_of(first_s), requests),)),
        tpot=Histogram(((bin_of(pace_s), requests),)),
        scores=(("helpful", ScoreCounts(steps)),) if steps else (),
    )


def test_a_slower_pace_is_found_by_its_own_metric_and_told_in_its_own_words() -> None:
    pair = (streamed(Role.CANDIDATE, 20, 0.25, 0.04), streamed(Role.STABLE, 20, 0.25, 0.02))
    judgement = after(*[pair] * 20, checks=(ttft(0.95, 1.2, 1.5), tpot(0.95, 1.2, 1.5)), earlier=0)
    first, pace = judgement.verdicts
    assert judgement.failed
    assert first.ruling is not Ruling.FAIL
    assert pace.ruling is Ruling.FAIL
    assert pace.sentence.startswith("p95 time per output token 40.0 ms is 2.01x stable's 19.9 ms; rollback limit 1.20x")
    assert f"(candidate n={pace.candidate_n} streams, stable n={pace.stable_n} streams)" in pace.sentence


def test_a_stage_speaks_for_streams_only_once_they_could_have_ended() -> None:
    """They are seen when they end: of a candidate with slow first tokens, those that were fast have ended first."""
    pair = (streamed(Role.CANDIDATE, 50, 0.25, 0.02), streamed(Role.STABLE, 50, 0.25, 0.02))
    check = ttft(0.9, 1.2, 1.5)
    assert after(*[pair] * 6, checks=(check,)).verdicts[0].evidence_for == pytest.approx(0.0)
    assert after(*[pair] * 30, checks=(check,)).verdicts[0].ruling is Ruling.PASS


@pytest.mark.parametrize(("rollback", "worse"), [(-0.02, 600), (0.02, 950)])
def test_a_mean_that_moves_the_wrong_way_is_found_and_the_other_way_is_not(rollback: float, worse: int) -> None:
    check = score("helpful", rollback, 2 * rollback)
    usual = streamed(Role.STABLE, 10, 0.2, 0.02, ((700, 1), (900, 1)))
    course = [(replace(usual, arm=Role.CANDIDATE), usual)] * 5
    course += [(streamed(Role.CANDIDATE, 10, 0.2, 0.02, ((worse, 2),)), usual)] * 200
    found = after(*course, checks=(check,))
    (verdict,) = found.verdicts
    assert verdict.ruling is Ruling.FAIL
    assert verdict.sentence.startswith("mean helpful 0.")
    assert f"rollback limit {rollback:+g} (candidate n={verdict.candidate_n} scores" in verdict.sentence
    other_way = after(*course, checks=(score("helpful", -rollback, -2 * rollback),))
    assert other_way.verdicts[0].ruling is Ruling.PASS


def test_equal_scores_pass_within_their_margin_and_their_difference_is_known() -> None:
    even = tuple(streamed(role, 10, 0.2, 0.02, ((700, 1), (900, 1))) for role in Role)
    (verdict,) = after(*[even] * 400, checks=(score("helpful", -0.02, -0.03),)).verdicts
    assert verdict.ruling is Ruling.PASS
    assert "shown to be within -0.03" in verdict.sentence
    assert verdict.effect_low is not None
    assert verdict.effect_high is not None
    assert -0.05 < verdict.effect_low < 0 < verdict.effect_high < 0.05


def test_scores_of_one_arm_or_of_none_claim_nothing_and_say_what_to_do() -> None:
    check = score("helpful", -0.02, -0.03)
    bare = tuple(streamed(role, 10, 0.2, 0.02) for role in Role)
    assert only(after(*[bare] * 9, checks=(check,))) == (
        "helpful: no candidate scores yet, nor any of stable's: post scores called `helpful`, or take it out of "
        "judge.metrics"
    )
    lone = streamed(Role.CANDIDATE, 10, 0.2, 0.02, ((100, 3),))
    assert only(after(*[(lone, bare[1])] * 9, checks=(check,))) == (
        "helpful: no stable scores to compare with (candidate n=27)"
    )
    whole = after((candidate(5), stable(60)), checks=(ttft(0.95, 1.2, 1.5),))
    assert only(whole) == (
        "p95 time to first token: no candidate streams yet, nor any of stable's: clients that do not stream have none; "
        "judge `latency` instead"
    )


def test_scores_that_come_after_their_requests_are_judged_in_the_interval_they_come_in() -> None:
    late = [
        Window("s", "one", role, role.value, None, scores=(("helpful", ScoreCounts(((step, 3),))),))
        for role, step in ((Role.CANDIDATE, 300), (Role.STABLE, 900))
    ]
    judgement = after(*[(candidate(5), stable(5))] * 3, *[tuple(late)] * 60, checks=(score("helpful", -0.1, -0.2),))
    assert judgement.failed
