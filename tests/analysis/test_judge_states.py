"""The judge between looks: what may not matter to a verdict does not, and what is stored is enough to go on."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_traffic import USUAL, errors, latency, points, ratio, score, tpot, ttft

from graylift.analysis import bounds, judge
from graylift.analysis.bounds import Bounds
from graylift.analysis.reference import GENERATION
from graylift.domain.evidence import Window
from graylift.domain.histogram import LARGEST, SMALLEST, Histogram, bin_of
from graylift.domain.judgement import Judgement, Ruling
from graylift.domain.scores import ScoreCounts
from graylift.domain.spec import JudgeSpec, PromoteMargin, Stage
from graylift.domain.weights import Role, Weights

SPLITS = ("before", "one", "two", "other")
SPEC = JudgeSpec(
    (
        errors(points(0.02), points(0.05)),
        latency(0.5, 1.2, 1.5),
        latency(0.9, 1.2, 1.5),
        ttft(0.9, 1.2, 1.5),
        score("helpful", -0.05, -0.1),
    )
)
ERRORS = SPEC.checks[0]
FAST, SLOW = bin_of(0.050), bin_of(0.200)

Report = tuple[Window, ...]
Step = Report | Stage


@st.composite
def windows(draw: st.DrawFn) -> Window:
    arm = draw(st.sampled_from(Role))
    fast, slow, failed = draw(st.integers(0, 30)), draw(st.integers(0, 8)), draw(st.integers(0, 8))
    bins = tuple((number, count) for number, count in ((FAST, fast), (SLOW, slow)) if count)
    good, bad = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    scores = tuple((step, count) for step, count in ((333, bad), (900, good)) if count)
    return Window(
        "s",
        draw(st.sampled_from(SPLITS)),
        arm,
        arm.value,
        draw(st.sampled_from((None, None, None, "x-tenant=internal"))),
        requests=fast + slow + failed,
        failed=failed,
        abandoned=draw(st.integers(0, 2)),
        latency=Histogram(bins),
        ttft=Histogram(bins[:1]),
        scores=(("curt", ScoreCounts(scores)), ("helpful", ScoreCounts(scores))) if scores else (),
    )


reports = st.lists(windows(), max_size=6).map(tuple)
stages = st.builds(
    lambda weight, loose: Stage(
        Weights(weight), observe_s=1.0, promote_if_within=(PromoteMargin("errors", points(0.2)),) if loose else ()
    ),
    st.sampled_from((100, 2_000, 5_000, 10_000)),
    st.booleans(),
)
courses = st.lists(st.one_of(reports, reports, reports, stages), max_size=12)


def follow(course: Sequence[Step], state: judge.JudgeState | None = None, spec: JudgeSpec = SPEC) -> judge.JudgeState:
    state = judge.start(spec) if state is None else state
    for step in course:
        if isinstance(step, Stage):
            split = SPLITS[min(2, 1 + sum(s in state.splits for s in SPLITS[1:3]))]
            state = judge.enter(spec, state, step, split, sticky=False)
        else:
            state = judge.observe(spec, state, step)
    return state


def verdict_of(course: Sequence[Step]) -> Judgement:
    return judge.judge(SPEC, follow(course))


@settings(max_examples=60, deadline=None)
@given(courses, st.integers(0, 12))
def test_storing_and_loading_in_the_middle_changes_nothing(course: list[Step], middle: int) -> None:
    stored = judge.load(judge.dump(follow(course[:middle])))
    assert follow(course[middle:], stored) == follow(course)


@settings(max_examples=40, deadline=None)
@given(courses, st.lists(st.integers(0, 12), max_size=4))
def test_any_number_of_controller_runs_and_looks_gives_the_same_judgement(course: list[Step], cuts: list[int]) -> None:
    state = judge.start(SPEC)
    edges = [0, *sorted(min(cut, len(course)) for cut in cuts), len(course)]
    for begin, end in itertools.pairwise(edges):
        state = follow(course[begin:end], judge.load(judge.dump(state)))
        judge.judge(SPEC, state)
    assert judge.judge(SPEC, state) == verdict_of(course)


@settings(max_examples=40, deadline=None)
@given(st.data(), courses)
def test_the_order_of_windows_in_a_report_does_not_matter(data: st.DataObject, course: list[Step]) -> None:
    shuffled = [step if isinstance(step, Stage) else tuple(data.draw(st.permutations(step))) for step in course]
    assert follow(shuffled) == follow(course)


@settings(max_examples=40, deadline=None)
@given(courses)
def test_reports_without_traffic_change_nothing(course: list[Step]) -> None:
    silent = Window("s", "one", Role.CANDIDATE, "candidate", None)
    padded: list[Step] = []
    for step in course:
        padded += [step, (), (silent, replace(silent, arm=Role.STABLE))]
    assert follow(padded) == follow(course)


@settings(max_examples=40, deadline=None)
@given(courses, windows())
def test_labelled_requests_are_no_sample(course: list[Step], window: Window) -> None:
    labelled = replace(window, label="x-tenant=internal")
    mixed = [step if isinstance(step, Stage) else (*step, labelled) for step in course]
    assert follow(mixed) == follow(course)


def with_and_without_failing(course: list[Step], last: list[Window]) -> tuple[list[Step], list[Step]]:
    """A course of one stage, and the same with every answer of the candidate's last report turned into a failure."""
    started = [Stage(Weights(2_000), 1.0), *(step for step in course if not isinstance(step, Stage))]
    last = [replace(window, split="one", label=None) for window in last]
    worse = [
        replace(window, failed=window.requests, latency=Histogram(), ttft=Histogram())
        if window.arm is Role.CANDIDATE
        else window
        for window in last
    ]
    return [*started, tuple(last)], [*started, tuple(worse)]


@settings(max_examples=80, deadline=None)
@given(courses, st.lists(windows(), min_size=1, max_size=4))
def test_turning_candidate_answers_into_failures_never_speaks_for_it(course: list[Step], last: list[Window]) -> None:
    before, after = (verdict_of(one) for one in with_and_without_failing(course, last))
    assert not (before.failed and after.passed)
    assert after.verdicts[0].evidence_against >= before.verdicts[0].evidence_against - 1e-9
    for old, new in zip(before.verdicts, after.verdicts, strict=True):
        assert new.evidence_for <= old.evidence_for + 1e-9


@settings(max_examples=80, deadline=None)
@given(courses, st.lists(windows(), min_size=1, max_size=4))
def test_without_a_check_on_errors_failing_never_takes_a_fail_back(course: list[Step], last: list[Window]) -> None:
    spec = JudgeSpec(SPEC.checks[1:])
    before, after = (judge.judge(spec, follow(one, spec=spec)) for one in with_and_without_failing(course, last))
    assert after.failed or not before.failed
    for old, new in zip(before.verdicts, after.verdicts, strict=True):
        assert new.evidence_against >= old.evidence_against - 1e-9 or before.failed


@settings(max_examples=40, deadline=None)
@given(courses, st.lists(windows(), min_size=1, max_size=4))
def test_beside_a_check_on_errors_a_failure_is_not_slowness_too(course: list[Step], last: list[Window]) -> None:
    """A candidate within its margin of errors must not be found slow for the requests that it fails."""
    started = [Stage(Weights(2_000), 1.0), *(step for step in course if not isinstance(step, Stage))]
    last = [replace(window, split="one", label=None) for window in last]
    failing = [
        replace(window, requests=window.requests + 3, failed=window.failed + 3)
        if window.arm is Role.CANDIDATE and window.requests
        else window
        for window in last
    ]
    before, after = (judge.judge(SPEC, follow([*started, tuple(one)])) for one in (last, failing))
    for old, new in zip(before.verdicts[1:], after.verdicts[1:], strict=True):
        assert new.evidence_against == pytest.approx(old.evidence_against, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(courses)
def test_one_arm_alone_is_never_passed_nor_failed(course: list[Step]) -> None:
    for role in Role:
        alone = [step if isinstance(step, Stage) else tuple(w for w in step if w.arm is role) for step in course]
        verdict = verdict_of(alone)
        assert not verdict.failed
        assert not verdict.passed
        assert all(v.ruling is Ruling.INCONCLUSIVE for v in verdict.verdicts)


@settings(max_examples=60, deadline=None)
@given(courses)
def test_a_judgement_agrees_with_itself_and_holds_no_nan(course: list[Step]) -> None:
    verdict = verdict_of(course)
    assert verdict.failed == any(v.ruling is Ruling.FAIL for v in verdict.verdicts)
    assert verdict.passed == all(v.ruling is Ruling.PASS for v in verdict.verdicts)
    if not verdict.failed:
        assert sum(math.exp(v.evidence_against) for v in verdict.verdicts) / len(SPEC.checks) < 100
    for v in verdict.verdicts:
        numbers = (v.candidate, v.stable, v.effect_low, v.effect_high, v.evidence_against, v.evidence_for)
        assert all(number == number for number in numbers)
        assert "nan" not in v.sentence
        assert "None" not in v.sentence
        if v.effect_low is not None and v.effect_high is not None:
            assert v.effect_low < v.effect_high


def test_a_fail_stays_with_the_words_in_which_it_was_found() -> None:
    good = tuple(Window("s", "one", r, r.value, None, 30, 0, latency=Histogram(((FAST, 30),))) for r in Role)
    bad = tuple(replace(w, failed=30, latency=Histogram()) if w.arm is Role.CANDIDATE else w for w in good)
    stage = Stage(Weights(5_000), 1.0)
    found = follow([stage, bad])
    assert judge.judge(SPEC, found).failed
    assert judge.judge(SPEC, follow([good] * 200, found)).failed
    assert follow([good] * 200, found).found == found.found


def test_the_checks_of_a_release_share_one_bound() -> None:
    """Beside two checks that know nothing yet, a third needs thrice the evidence."""
    report = [
        Window("s", "one", Role.CANDIDATE, "c", None, 4, 1, latency=Histogram(((FAST, 3),))),
        Window("s", "one", Role.STABLE, "s", None, 8, 0, latency=Histogram(((FAST, 8),))),
    ]
    silent = (latency(0.999, 1.2, 1.5), latency(0.9999, 1.2, 1.5))
    for checks in ((ERRORS,), (ERRORS, *silent)):
        spec = JudgeSpec(checks, false_rollback=0.01)
        state = judge.enter(spec, judge.start(spec), Stage(Weights(2_000), 1.0), "one", sticky=False)
        before = 0.0
        while not judge.judge(spec, state).failed:
            before = judge.judge(spec, state).verdicts[0].evidence_against
            state = judge.observe(spec, state, report)
        others = len(checks) - 1
        found = judge.judge(spec, state).verdicts[0].evidence_against
        assert math.exp(before) + others < 100 * len(checks) <= math.exp(found) + others


def test_windows_of_an_earlier_stage_speak_against_the_candidate_but_not_for_it() -> None:
    good = [Window("s", "one", r, r.value, None, 100, 0, latency=Histogram(((FAST, 100),))) for r in Role]
    both_stages = [Stage(Weights(5_000), 1.0), tuple(good), Stage(Weights(5_000), 1.0)]
    late_good = judge.judge(SPEC, follow([*both_stages, *[tuple(good)] * 50]))
    assert late_good.candidate_n == 0
    assert all(v.evidence_for == pytest.approx(0) for v in late_good.verdicts)
    late_bad = [replace(w, failed=100, latency=Histogram()) if w.arm is Role.CANDIDATE else w for w in good]
    assert judge.judge(SPEC, follow([*both_stages, tuple(late_bad)])).failed


def test_windows_of_another_release_are_not_evidence_but_teach_what_stable_is_like() -> None:
    foreign = [Window("s", "other", r, r.value, None, 100, 0, latency=Histogram(((FAST, 100),))) for r in Role]
    state = follow([Stage(Weights(5_000), 1.0), tuple(foreign), tuple(foreign)])
    assert state.reference.answers(SPEC.checks[1]) == 200
    assert judge.judge(SPEC, state).candidate_n == 0
    assert all(v.evidence_against == pytest.approx(0) for v in judge.judge(SPEC, state).verdicts)


def test_entering_a_stage_twice_does_not_count_its_windows_twice() -> None:
    stage = Stage(Weights(5_000), 1.0)
    state = judge.enter(SPEC, judge.start(SPEC), stage, "one", sticky=False)
    assert judge.enter(SPEC, state, stage, "one", sticky=False).splits == ("one",)


def test_stable_is_remembered_over_its_last_requests_only() -> None:
    state = judge.start(SPEC)
    for failed in (400, 0, 0, 0):
        for _ in range(10):
            window = Window("s", "other", Role.STABLE, "v1", None, 1_000, failed, latency=Histogram(((FAST, 10),)))
            state = judge.observe(SPEC, state, [window])
    assert state.reference.failed_share < 0.001
    assert state.reference.requests <= 2 * GENERATION


def test_bounds_that_contradict_each_other_are_told_as_none() -> None:
    certain = Bounds((50.0,) * 81, (50.0,) * 81)
    assert bounds.interval(certain, ERRORS) == (None, None)
    assert bounds.interval(bounds.begin(ERRORS), ERRORS) == (None, None)
    half = tuple(50.0 if level < 0 else -50.0 for level in bounds.levels(ERRORS) for _ in range(3))
    assert bounds.interval(Bounds(half, half[::-1]), ERRORS) == (-0.002, 0.05)


def test_a_stage_may_have_its_own_promote_margin() -> None:
    loose = Stage(Weights(5_000), 1.0, promote_if_within=(PromoteMargin("latency p50", ratio(2.0)),))
    state = judge.enter(SPEC, judge.start(SPEC), loose, "one", sticky=False)
    assert state.stage.promote[:3] == (points(0.05), ratio(2.0), ratio(1.5))


def test_state_stays_small_however_long_and_varied_the_release() -> None:
    state = judge.start(USUAL)
    bins = tuple((number, 12_345) for number in range(bin_of(0.001), bin_of(10.0)))
    wide = Histogram(bins)
    for number in range(8):
        state = judge.enter(USUAL, state, Stage(Weights(2_000), 1.0), f"release-12/stage-{number}", sticky=False)
        for _ in range(25):
            report = [
                Window("s", f"release-12/stage-{number}", r, r.value, None, wide.count, 0, latency=wide) for r in Role
            ]
            state = judge.observe(USUAL, state, report)
    assert len(judge.dump(state)) < 64 * 1024


def test_state_of_streams_and_scores_stays_small_for_each_metric() -> None:
    """And scores that nobody judges, whatever their names, are not remembered at all."""
    spec = JudgeSpec((*USUAL.checks, ttft(0.95, 1.2, 1.5), tpot(0.95, 1.2, 1.5), score("helpful", -0.01, -0.02)))
    wide = Histogram(tuple((number, 12_345) for number in range(bin_of(0.001), bin_of(10.0))))
    every = ScoreCounts(tuple((step, 12_345) for step in range(1_001)))
    state = judge.enter(spec, judge.start(spec), Stage(Weights(5_000), 1.0), "one", sticky=False)
    for number in range(50):
        others = tuple((f"other-{number}-{i}", every) for i in range(3))
        report = [
            Window(
                *("s", "one", r, r.value, None, wide.count),
                latency=wide,
                ttft=wide,
                tpot=wide,
                scores=(("helpful", every), *others),
            )
            for r in Role
        ]
        state = judge.observe(spec, state, report)
    text = judge.dump(state)
    assert "other-" not in text
    assert len(text) < 4 * 64 * 1024  # of errors and latency together, ttft, tpot, and the score


def test_a_state_of_before_there_were_streams_and_scores_goes_on() -> None:
    spec = JudgeSpec(SPEC.checks[:3])
    report = tuple(Window("s", "one", r, r.value, None, 9, 0, latency=Histogram(((FAST, 9),))) for r in Role)
    state = follow([Stage(Weights(5_000), 1.0), *[report] * 3], spec=spec)
    document = json.loads(judge.dump(state))
    samples = (*document["state"]["reference"].values(), *(document["state"]["stage"][arm.value] for arm in Role))
    for sample in samples:
        for name in ("ttft", "tpot", "scores"):
            del sample[name]
    assert judge.load(json.dumps(document)) == state


def test_the_widest_histogram_can_be_judged() -> None:
    everything = Histogram(tuple((number, 1) for number in range(SMALLEST, LARGEST + 1)))
    report = [Window("s", "one", r, r.value, None, everything.count, 0, latency=everything) for r in Role]
    state = follow([Stage(Weights(5_000), 1.0), *[tuple(report)] * 4])
    assert not judge.judge(SPEC, state).failed


def test_a_state_of_another_version_or_of_no_judge_is_refused() -> None:
    document = json.loads(judge.dump(judge.start(SPEC)))
    with pytest.raises(ValueError, match="version 2; this Graylift reads 1"):
        judge.load(json.dumps({**document, "version": 2}))
    for text in ("", "[]", "{}", "null", json.dumps({"version": 1, "state": {"against": 3}})):
        with pytest.raises(ValueError, match="cannot be read"):
            judge.load(text)


def test_checks_that_have_no_test_are_refused_with_what_was_expected() -> None:
    bad = {
        "at least one check": (),
        "latency p50: expected a ratio": (replace(SPEC.checks[1], promote_if_within=points(0.1)),),
        "expected a quantile between 0 and 1, got None": (replace(SPEC.checks[1], quantile=None),),
        "expected no quantile": (replace(SPEC.checks[0], quantile=0.5),),
        "expected a margin of more than 1x, got 1.00x": (latency(0.5, 1.0, 1.5),),
        "more than 0pp and at most 90pp, got 95pp": (errors(points(0.01), points(0.95)),),
        "ttft p90: expected a ratio": (replace(SPEC.checks[3], rollback_if_worse=points(0.1)),),
        "errors: expected points such as 0.5pp as margin, got -0.01": (
            replace(SPEC.checks[0], rollback_if_worse=score("", -0.01, -0.02).rollback_if_worse),
        ),
        "helpful: expected a signed difference": (replace(SPEC.checks[4], promote_if_within=points(0.1)),),
        "helpful: expected the name of a score and no quantile": (replace(SPEC.checks[4], quantile=0.5),),
        "helpful: expected both margins to look the same way, got \\+0.1": (score("helpful", -0.05, 0.1),),
        "between -0.9 and \\+0.9 that is not 0, got -0.95": (score("helpful", -0.05, -0.95),),
    }
    for message, checks in bad.items():
        with pytest.raises(ValueError, match=message):
            judge.start(JudgeSpec(checks))
    loose = Stage(Weights(100), 1.0, promote_if_within=(PromoteMargin("latency p50", points(0.1)),))
    with pytest.raises(ValueError, match="latency p50: expected a ratio"):
        judge.enter(SPEC, judge.start(SPEC), loose, "one", sticky=False)
