"""Pairs of answers: judged with few requests, at the stated chance of error, and never by what is missing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from graylift.analysis import judge as judges
from graylift.analysis import mixture, paired
from graylift.analysis.mixture import LASTING, ONE_STAGE
from graylift.domain.evidence import Window
from graylift.domain.histogram import Histogram, bin_of
from graylift.domain.judgement import Judgement, Ruling
from graylift.domain.shadow import ShadowWindow
from graylift.domain.spec import AgreementMargins, JudgeSpec, ShadowJudge, ShadowSpec, Stage
from graylift.domain.weights import ALL, NONE, Role, Weights
from graylift.testing.samples import ERRORS

JUDGE = ShadowJudge(agreement=AgreementMargins(0.9, 0.8))
SPEC = JudgeSpec((ERRORS,), shadow=JUDGE)
STAGE = Stage(NONE, 10.0, shadow=ShadowSpec(ALL))


def window(
    pairs: int, *, ours: int = 0, theirs: int = 0, agreeing: int | None = None, ratio: float = 1.0, split: str = "a-1/0"
) -> ShadowWindow:
    """ours, theirs: pairs in which the candidate, or stable, failed alone."""
    compared = pairs - ours - theirs
    return ShadowWindow(
        service="a",
        split=split,
        revision_id="a.v2.0",
        pairs=pairs,
        only_candidate_failed=ours,
        only_stable_failed=theirs,
        compared=compared,
        agreeing=compared if agreeing is None else agreeing,
        latency_ratio=Histogram(((bin_of(ratio), compared),)) if compared else Histogram(),
        reasons=(("HTTP 500", ours),) if ours else (),
        differences=() if agreeing is None else (("words", compared - agreeing),),
    )


def judged(*windows: ShadowWindow, spec: JudgeSpec = SPEC) -> Judgement:
    state = judges.enter(spec, judges.start(spec), STAGE, "a-1/0", sticky=False)
    for one in windows:
        state = judges.load(judges.dump(judges.observe(spec, state, (), (one,))))
    return judges.judge(spec, state)


def ruling(judgement: Judgement, check: str) -> Ruling:
    return next(verdict.ruling for verdict in judgement.verdicts if verdict.check == check)


def test_a_candidate_that_does_as_stable_does_passes_with_some_hundred_pairs() -> None:
    found = judged(*[window(20)] * 15)
    assert found.passed
    assert not found.failed
    assert found.candidate_n == 300
    assert found.shadow is not None
    assert found.shadow.agreement == 1
    assert not judged(*[window(20)] * 3).passed


def test_a_candidate_that_fails_everything_is_found_out_within_fifteen_pairs() -> None:
    found = judged(window(15, ours=15))
    assert found.failed
    assert ruling(found, "shadow errors") is Ruling.FAIL
    assert "shadow errors 100.0 % against 0.0 % of 15 pairs, 15 x HTTP 500" in found.verdicts[0].sentence


def test_answers_that_disagree_or_take_too_long_fail_by_their_own_check() -> None:
    other = judged(window(30, agreeing=5))
    assert ruling(other, "shadow agreement") is Ruling.FAIL
    assert "most differ in words" in next(v.sentence for v in other.verdicts if v.check == "shadow agreement")
    slow = judged(window(30, ratio=3.0))
    assert ruling(slow, "shadow latency") is Ruling.FAIL
    assert "shadow answers take 3.0" in next(v.sentence for v in slow.verdicts if v.check == "shadow latency")


def test_agreement_is_told_and_not_judged_where_the_file_does_not_say_how_much_is_enough() -> None:
    spec = replace(SPEC, shadow=replace(JUDGE, agreement=None))
    found = judged(*[window(20, agreeing=0)] * 15, spec=spec)
    assert found.passed
    assert {verdict.check for verdict in found.verdicts} == {"shadow errors", "shadow latency"}
    assert found.shadow is not None
    assert found.shadow.agreement == 0


def test_a_stable_that_fails_more_than_the_candidate_does_not_count_against_the_candidate() -> None:
    found = judged(*[window(20, theirs=4)] * 15)
    assert not found.failed
    assert ruling(found, "shadow errors") is Ruling.PASS


def test_without_a_pair_nothing_is_said_for_or_against() -> None:
    lost = replace(window(0), lost=(("shed", 500),))
    for found in (judged(), judged(lost)):
        assert not found.failed
        assert not found.passed
        assert {verdict.ruling for verdict in found.verdicts} == {Ruling.INCONCLUSIVE}


def test_pairs_count_for_the_stage_that_shadowed_them_and_failures_for_the_whole_release() -> None:
    state = judges.enter(SPEC, judges.start(SPEC), STAGE, "a-1/0", sticky=False)
    state = judges.observe(SPEC, state, (), (window(300),))
    state = judges.enter(SPEC, state, STAGE, "a-1/1", sticky=False)
    later = judges.observe(SPEC, state, (), (window(5), window(40, split="someone else's")))
    assert judges.judge(SPEC, later).candidate_n == 0
    found = judges.judge(SPEC, judges.observe(SPEC, later, (), (window(20, ours=20),)))
    assert found.failed


def test_a_failure_found_in_a_shadow_stage_is_still_one_when_a_person_goes_on_regardless() -> None:
    state = judges.enter(SPEC, judges.start(SPEC), STAGE, "a-1/0", sticky=False)
    state = judges.observe(SPEC, state, (), (window(20, ours=20),))
    state = judges.enter(SPEC, state, Stage(Weights(500), 10.0), "a-1/1", sticky=False)
    found = judges.judge(SPEC, state)
    assert [verdict.check for verdict in found.verdicts] == ["errors", "shadow errors"]
    assert found.failed
    assert not found.passed
    assert found.shadow is None


def test_users_of_stable_alone_never_look_like_a_wrong_split() -> None:
    state = judges.enter(SPEC, judges.start(SPEC), STAGE, "a-1/0", sticky=False)
    alone = Window("a", "a-1/0", Role.STABLE, "a.v1.0", None, requests=1_000)
    for _ in range(30):
        state = judges.observe(SPEC, state, (alone,), (window(20),))
    found = judges.judge(SPEC, state)
    assert found.share_off is None
    assert found.passed
    assert (found.candidate_n, found.stable_n) == (600, 30_000)


def test_at_its_margins_a_candidate_is_blamed_or_passed_no_more_often_than_stated() -> None:
    """At each margin, on 200 releases with 20 looks each. A bound of 5 %: more than 20 of 200 by chance in one of a
    thousand."""
    rng = np.random.default_rng(1)
    releases, looks, size = 200, 20, 40
    blamed = passed = 0
    for _ in range(releases):
        worst = best = -math.inf
        at_rollback, at_promote = paired.begin(JUDGE), paired.begin(JUDGE)
        for _ in range(looks):
            # Of all pairs, 5 % fail on either side alone, and the margin more on the candidate's.
            ours, theirs = rng.binomial(size, 0.05 + JUDGE.errors_rollback.value), rng.binomial(size, 0.05)
            agreeing = rng.binomial(size, 0.9)
            at_rollback = paired.follow(
                JUDGE, at_rollback, [_of(size, ours, theirs, agreeing, 1.5, rng.binomial(size, 0.5))], "a-1/0"
            )
            ours, theirs = rng.binomial(size, 0.05 + JUDGE.errors_promote.value), rng.binomial(size, 0.05)
            agreeing = rng.binomial(size, 0.8)
            at_promote = paired.follow(
                JUDGE, at_promote, [_of(size, ours, theirs, agreeing, 2.0, rng.binomial(size, 0.5))], "a-1/0"
            )
            worst = max(worst, *(mixture.log_value(one, LASTING) for one in at_rollback.against))
            best = max(best, *(mixture.log_value(one, ONE_STAGE) for one in at_promote.within))
        # Three checks look at once: each may err with a third of 5 %.
        blamed += worst >= math.log(3 / 0.05)
        passed += best >= math.log(3 / 0.05)
    assert blamed <= 20
    assert passed <= 20


def _of(size: int, ours: int, theirs: int, agreeing: int, margin: float, slower: int) -> ShadowWindow:
    """A window whose pairs lie on both sides of the latency margin, and whose checks are independent."""
    bins = ((bin_of(margin * 0.9), size - slower), (bin_of(margin * 1.1), slower))
    ratio = Histogram(tuple((number, times) for number, times in bins if times))
    one = replace(window(size), only_candidate_failed=ours, only_stable_failed=min(theirs, size - ours))
    return replace(one, agreeing=agreeing, compared=size, latency_ratio=ratio)
