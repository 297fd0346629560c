"""What the judge says, in the cases a reader needs."""

from __future__ import annotations

import pytest
from judged_traffic import errors, latency, points, ratio

from graylift.analysis import judge, sentences
from graylift.domain.evidence import Window
from graylift.domain.histogram import Histogram, bin_of
from graylift.domain.judgement import Judgement, Ruling
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
