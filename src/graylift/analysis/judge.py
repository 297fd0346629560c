"""The judge: FAIL, PASS or INCONCLUSIVE for every check, at any number of looks. The controller is its only caller.

`observe` takes one interval report's windows at a time, so that its result does not depend on how reports are
batched; `judge` only reads. A report with a gap is not observed: whatever lost part of it may have lost one arm's
more than the other's.

What is claimed. FAIL: sum_m v_m M_m >= 1 / false_rollback over all checks m, each M_m an e-process against "worse by
at most the rollback margin" that runs over the whole release. Under any dependence between checks, the chance that
this ever happens to a candidate within all its rollback margins is at most false_rollback (Ville; weights v_m = 1 /
checks). Once complete, it stays. PASS: the e-process against "at or beyond the promote margin" of the current stage
stands at 1 / false_promotion or more; all checks must pass, which needs no correction (intersection-union).
INCONCLUSIVE: neither.

The bound is about the chance of requests. Replicas that wander by themselves break it: margins must be wider than
that noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from graylift.analysis import bounds, evidence, mixture, paired, reference, sentences, share, sickness
from graylift.analysis.betting import Side
from graylift.analysis.evidence import Known
from graylift.analysis.mixture import LASTING, ONE_STAGE, Mixture, Starts
from graylift.analysis.sample import Stratum, added, sample_from_windows, stratum_from_windows, unlabelled
from graylift.analysis.state import JudgeState, StageEvidence, dump, load
from graylift.domain.evidence import INTERVAL_S, Window
from graylift.domain.judgement import Judgement, Ruling, Verdict
from graylift.domain.shadow import ShadowWindow
from graylift.domain.spec import Check, JudgeSpec, Margin, MarginKind, Metric, ShadowCheck, Stage
from graylift.domain.weights import NONE, TOTAL, Role, Weights

__all__ = ["JudgeState", "dump", "enter", "judge", "load", "observe", "start"]

_LARGEST_POINTS = _LARGEST_SCORE = 0.9
_PATIENCE = 2.0
"""A stage speaks for a candidate's latency once it is this many times as old as the latency in question."""


def start(spec: JudgeSpec) -> JudgeState:
    """The judge of a new release, before its first stage. ValueError for a check that has no test."""
    if not spec.checks:
        raise ValueError("expected at least one check on traffic, got none: a release without one can never pass")
    for check in spec.checks:
        _refuse_untestable(check, check.rollback_if_worse)
        _refuse_untestable(check, check.promote_if_within)
    return JudgeState(
        against=tuple(mixture.begin(evidence.grid_of(check, Side.WORSE), LASTING) for check in spec.checks),
        bounds=tuple(bounds.begin(check) for check in spec.checks),
        stage=_fresh_stage(spec, NONE, tuple(check.promote_if_within for check in spec.checks), sticky=False),
        paired=None if spec.shadow is None else paired.begin(spec.shadow),
    )


def enter(spec: JudgeSpec, state: JudgeState, stage: Stage, split: str, *, sticky: bool) -> JudgeState:
    """A new stage begins: evidence for promotion starts anew, evidence for rollback goes on.

    split:  what the records of this stage will carry
    sticky: requests with equal keys stay on one arm; then requests are no independent draws and the split is not tested
    ValueError for a margin that has no test.
    """
    own = {margin.check: margin.margin for margin in stage.promote_if_within}
    promote = tuple(own.get(check.name, check.promote_if_within) for check in spec.checks)
    for check, margin in zip(spec.checks, promote, strict=True):
        _refuse_untestable(check, margin)
    against = state.against
    if state.splits:
        against = tuple(
            mixture.stage_begins(running, evidence.grid_of(check, Side.WORSE), LASTING)
            for check, running in zip(spec.checks, against, strict=True)
        )
    pairs = state.paired
    if spec.shadow is not None and pairs is not None and state.splits:
        pairs = paired.stage_begins(spec.shadow, pairs)
    fresh = _fresh_stage(spec, stage.weights, promote, sticky=sticky)
    return replace(
        state,
        against=against,
        stage=replace(fresh, shadow=stage.shadow is not None),
        paired=pairs,
        recent_candidate=sickness.NEVER,
        splits=(*(earlier for earlier in state.splits if earlier != split), split),
    )


def observe(
    spec: JudgeSpec, state: JudgeState, windows: Sequence[Window], shadows: Sequence[ShadowWindow] = ()
) -> JudgeState:
    """The state after the windows of one service of one interval report that has no gap; their order does not matter.

    Everything that a test uses of the past is of earlier reports. Windows of splits that are not of this release teach
    stable's reference and nothing else.
    """
    state = _observe_pairs(spec, state, shadows)
    sample = unlabelled(windows)
    if not any(window.requests or window.abandoned or window.scores or window.external for window in sample):
        return state
    names = evidence.names_of(spec.checks)
    strata = tuple(stratum_from_windows(sample, split, names) for split in state.splits)
    pasts = evidence.known(spec.checks, state.reference)
    rollback = tuple(check.rollback_if_worse for check in spec.checks)
    against, limits = state.against, state.bounds
    for stratum in strata:
        if stratum.can_compare:
            against = _follow(spec, rollback, Side.WORSE, LASTING, against, pasts, stratum)
            limits = bounds.follow(limits, spec.checks, pasts, stratum)
    stable = sample_from_windows((window for window in sample if window.arm is Role.STABLE), names)
    after = replace(
        state,
        against=against,
        bounds=limits,
        stage=_follow_stage(spec, state, pasts, strata[-1]) if strata else state.stage,
        reference=reference.learn(state.reference, stable),
        recent_candidate=sickness.remember(
            state.recent_candidate,
            sum(stratum.candidate.requests for stratum in strata),
            sum(stratum.candidate.failed for stratum in strata),
        ),
        recent_stable=sickness.remember(state.recent_stable, stable.requests, stable.failed),
    )
    return after if after.found else replace(after, found=_found(spec, after))


def _observe_pairs(spec: JudgeSpec, state: JudgeState, shadows: Sequence[ShadowWindow]) -> JudgeState:
    ours = [window for window in shadows if window.split in state.splits]
    if spec.shadow is None or state.paired is None or not ours:
        return state
    after = replace(state, paired=paired.follow(spec.shadow, state.paired, ours, state.splits[-1]))
    return after if after.found else replace(after, found=_found(spec, after))


def judge(spec: JudgeSpec, state: JudgeState) -> Judgement:
    """What can be said now."""
    stage = state.stage
    seen = None if state.paired is None or not stage.shadow else state.paired.seen
    if stage.shadow:
        now = _undisputed_pairs(spec, state)
    else:
        now = tuple(_undisputed(spec, state, number) for number in range(len(spec.checks)))
    found = {verdict.check: verdict for verdict in state.found}
    # What was found in a shadow stage stays found where nothing is shadowed any more.
    verdicts = (*(found.pop(verdict.check, verdict) for verdict in now), *found.values())
    return Judgement(
        verdicts=verdicts,
        failed=bool(state.found),
        passed=all(verdict.ruling is Ruling.PASS for verdict in verdicts),
        stable_sick=sentences.stable_sick(state.recent_stable) if state.recent_stable.is_sick else None,
        candidate_sick=_candidate_sick(spec, state),
        share_off=_share_off(stage),
        candidate_n=(0 if seen is None else seen.pairs) if stage.shadow else stage.candidate.requests,
        stable_n=stage.stable.requests,
        shadow=seen,
    )


def _refuse_untestable(check: Check, margin: Margin) -> None:
    match check.metric:
        case Metric.LATENCY | Metric.TTFT | Metric.TPOT:
            if check.quantile is None or not 0 < check.quantile < 1:
                raise ValueError(f"{check.name}: expected a quantile between 0 and 1, got {check.quantile}")
            if margin.kind is not MarginKind.RATIO:
                raise ValueError(f"{check.name}: expected a ratio such as 1.20x as margin, got {margin}")
        case Metric.ERRORS:
            if check.quantile is not None:
                raise ValueError(f"{check.name}: expected no quantile, got {check.quantile}")
            if margin.kind is MarginKind.SCORE:
                raise ValueError(f"{check.name}: expected points such as 0.5pp as margin, got {margin}")
        case Metric.SCORE:
            if check.score is None or check.quantile is not None:
                raise ValueError(f"{check.name}: expected the name of a score and no quantile")
            if margin.kind is not MarginKind.SCORE:
                raise ValueError(f"{check.name}: expected a signed difference such as -0.01 as margin, got {margin}")
            if evidence.lower_is_worse(check) is not (margin.value < 0):
                raise ValueError(f"{check.name}: expected both margins to look the same way, got {margin}")
        case Metric.SHARE:
            if check.share is None or check.quantile is not None:
                raise ValueError(f"{check.name}: expected the name of a share and no quantile")
            if margin.kind is not MarginKind.POINTS:
                raise ValueError(f"{check.name}: expected points such as 0.5pp as margin, got {margin}")
        case _:
            assert_never(check.metric)
    if margin.kind is MarginKind.POINTS and not 0 < margin.value <= _LARGEST_POINTS:
        raise ValueError(f"{check.name}: expected a margin of more than 0pp and at most 90pp, got {margin}")
    if margin.kind is MarginKind.SCORE and not 0 < margin.room <= _LARGEST_SCORE:
        raise ValueError(f"{check.name}: expected a margin between -0.9 and +0.9 that is not 0, got {margin}")
    if margin.kind is MarginKind.RATIO and not 1 < margin.value < math.inf:
        raise ValueError(f"{check.name}: expected a margin of more than 1x, got {margin}")


def _fresh_stage(spec: JudgeSpec, weights: Weights, promote: tuple[Margin, ...], *, sticky: bool) -> StageEvidence:
    return StageEvidence(
        weight=weights.candidate,
        sticky=sticky,
        promote=promote,
        within=tuple(mixture.begin(evidence.grid_of(check, Side.WITHIN), ONE_STAGE) for check in spec.checks),
        sick=mixture.begin(sickness.EFFECTS, LASTING),
    )


def _follow(
    spec: JudgeSpec,
    margins: Sequence[Margin],
    side: Side,
    starts: Starts,
    running: tuple[Mixture, ...],
    pasts: Sequence[Known | None],
    stratum: Stratum,
) -> tuple[Mixture, ...]:
    """The evidence of all checks after one more stratum; a check without a past stands still."""
    found = evidence.log_e(spec.checks, margins, side, pasts, stratum)
    return tuple(
        one if log_e is None else mixture.follow(one, evidence.grid_of(check, side), starts, log_e)
        for check, one, log_e in zip(spec.checks, running, found, strict=True)
    )


def _follow_stage(
    spec: JudgeSpec, state: JudgeState, pasts: tuple[Known | None, ...], stratum: Stratum
) -> StageEvidence:
    stage = state.stage
    within = stage.within
    elapsed_s = stage.reports * INTERVAL_S
    # Being no worse than a sick stable says nothing good of a candidate.
    if stratum.can_compare and not state.recent_stable.is_sick:
        # Requests are seen when they end: a stage that is young shows no slow answers, however slow the candidate is.
        ripe = tuple(
            None if past is None or elapsed_s < _PATIENCE * evidence.slowest_s(check, margin, past) else past
            for check, margin, past in zip(spec.checks, stage.promote, pasts, strict=True)
        )
        within = _follow(spec, stage.promote, Side.WITHIN, ONE_STAGE, within, ripe, stratum)
    sick = stage.sick
    if stratum.candidate.requests:
        tolerable = sickness.tolerable_share(state.reference.failed_share)
        log_e = sickness.log_e(stratum.candidate.requests, stratum.candidate.failed, tolerable)
        sick = mixture.follow(sick, sickness.EFFECTS, LASTING, log_e)
    ended_candidate = stratum.candidate.requests + stratum.candidate.abandoned
    ended = ended_candidate + stratum.stable.requests + stratum.stable.abandoned
    settled = elapsed_s >= share.SETTLING_S
    return replace(
        stage,
        within=within,
        sick=sick,
        candidate=added((stage.candidate, stratum.candidate)),
        stable=added((stage.stable, stratum.stable)),
        reports=stage.reports + (ended > 0),
        assigned=stage.assigned + (ended if settled else 0),
        assigned_candidate=stage.assigned_candidate + (ended_candidate if settled else 0),
    )


def _found(spec: JudgeSpec, state: JudgeState) -> tuple[Verdict, ...]:
    """If the evidence of all checks together is complete: FAIL for the strongest and each that is enough alone."""
    pairs = () if state.paired is None else state.paired.against
    each = math.log(len(spec.checks) + len(pairs))
    shares = tuple(mixture.log_value(running, LASTING) - each for running in (*state.against, *pairs))
    needed = -math.log(spec.false_rollback)
    if mixture.log_sum(shares) < needed:
        return ()
    guilty = [number for number, own in enumerate(shares) if own >= needed or own == max(shares)]
    checks = len(spec.checks)
    return (
        *(_failing(spec, state, number, alone=shares[number] >= needed) for number in guilty if number < checks),
        *(
            _failing_pairs(spec, state, number - checks, alone=shares[number] >= needed)
            for number in guilty
            if number >= checks
        ),
    )


def _failing(spec: JudgeSpec, state: JudgeState, number: int, *, alone: bool) -> Verdict:
    sentence = sentences.failing(
        spec.checks[number],
        state.stage.candidate,
        state.stage.stable,
        alone=alone,
        chance=spec.false_rollback,
        failures_are_slow=evidence.failures_are_slow(spec.checks, Side.WORSE),
    )
    return _verdict(spec, state, number, Ruling.FAIL, sentence)


def _failing_pairs(spec: JudgeSpec, state: JudgeState, number: int, *, alone: bool) -> Verdict:
    assert spec.shadow is not None
    assert state.paired is not None
    check, seen = spec.shadow.checks[number], state.paired.seen
    sentence = sentences.failing_pairs(check, spec.shadow, seen, alone=alone, chance=spec.false_rollback)
    return _verdict_on_pairs(state.paired, number, check, Ruling.FAIL, sentence)


def _undisputed(spec: JudgeSpec, state: JudgeState, number: int) -> Verdict:
    """PASS or INCONCLUSIVE."""
    check, stage = spec.checks[number], state.stage
    margin, running = stage.promote[number], stage.within[number]
    missing = -math.log(spec.false_promotion) - mixture.log_value(running, ONE_STAGE)
    if missing <= 0:
        sentence = sentences.passing(check, margin, stage.candidate, stage.stable, chance=spec.false_promotion)
        return _verdict(spec, state, number, Ruling.PASS, sentence)
    growth = _growth(check, running) / max(stage.candidate.sized(check), 1)
    sentence = sentences.undecided(
        check,
        margin,
        stage.candidate,
        stage.stable,
        answers_missing=max(0, reference.answers_needed(check) - state.reference.answers(check)),
        more=missing / growth if growth > 0 else None,
    )
    return _verdict(spec, state, number, Ruling.INCONCLUSIVE, sentence)


def _undisputed_pairs(spec: JudgeSpec, state: JudgeState) -> tuple[Verdict, ...]:
    """PASS or INCONCLUSIVE of each check on pairs."""
    if spec.shadow is None or state.paired is None:
        return ()
    needed = -math.log(spec.false_promotion)
    verdicts: list[Verdict] = []
    for number, (check, running) in enumerate(zip(spec.shadow.checks, state.paired.within, strict=True)):
        shown = mixture.log_value(running, ONE_STAGE) >= needed
        seen = state.paired.seen
        if shown:
            sentence = sentences.passing_pairs(check, spec.shadow, seen, chance=spec.false_promotion)
        else:
            sentence = sentences.undecided_pairs(check, spec.shadow, seen)
        ruling = Ruling.PASS if shown else Ruling.INCONCLUSIVE
        verdicts.append(_verdict_on_pairs(state.paired, number, check, ruling, sentence))
    return tuple(verdicts)


def _verdict_on_pairs(pairs: paired.Paired, number: int, check: ShadowCheck, ruling: Ruling, sentence: str) -> Verdict:
    candidate, stable, n = paired.measured(check, pairs.seen)
    return Verdict(
        check=check.value,
        ruling=ruling,
        sentence=sentence,
        candidate=candidate,
        stable=stable,
        candidate_n=n,
        stable_n=n,
        effect_low=None,
        effect_high=None,
        evidence_against=mixture.log_value(pairs.against[number], LASTING),
        evidence_for=mixture.log_value(pairs.within[number], ONE_STAGE),
    )


def _growth(check: Check, running: Mixture) -> float:
    """How much the best bet has gained in this stage, as a logarithm."""
    grid = evidence.grid_of(check, Side.WITHIN)
    began = mixture.begin(grid, ONE_STAGE).log_parts
    return max(now - then for now, then in zip(running.log_parts, began, strict=True))


def _verdict(spec: JudgeSpec, state: JudgeState, number: int, ruling: Ruling, sentence: str) -> Verdict:
    check, stage = spec.checks[number], state.stage
    low, high = bounds.interval(state.bounds[number], check)
    return Verdict(
        check=check.name,
        ruling=ruling,
        sentence=sentence,
        candidate=stage.candidate.value(check),
        stable=stage.stable.value(check),
        candidate_n=stage.candidate.sized(check),
        stable_n=stage.stable.sized(check),
        effect_low=low,
        effect_high=high,
        evidence_against=mixture.log_value(state.against[number], LASTING),
        evidence_for=mixture.log_value(stage.within[number], ONE_STAGE),
    )


def _candidate_sick(spec: JudgeSpec, state: JudgeState) -> str | None:
    shown = mixture.log_value(state.stage.sick, LASTING) >= -math.log(spec.false_rollback)
    tolerable = sickness.tolerable_share(state.reference.failed_share)
    # Evidence outlasts an illness; the claim is about now.
    if not shown or state.recent_candidate.failed_share < tolerable:
        return None
    return sentences.candidate_sick(state.recent_candidate, state.reference, chance=spec.false_rollback)


def _share_off(stage: StageEvidence) -> str | None:
    configured = stage.weight / TOTAL
    if stage.sticky or stage.shadow or not share.is_off(stage.assigned_candidate, stage.assigned, configured):
        return None
    return sentences.share_off(stage.assigned_candidate, stage.assigned, configured, chance=share.ALPHA)
