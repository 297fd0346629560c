"""A course of intervals through the controller's judge, with a look at every one: the verdict and when it was reached.

FAIL ends the replay, as it would have ended the release. PASS is that of the last stage that compares both arms, at
its first look at which every check stands at PASS and stable is fit; the rest of the recording may still find the
candidate out. What the recording does not measure is INCONCLUSIVE and keeps everything from passing. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from graylift.analysis import judge
from graylift.domain.judgement import Judgement, Ruling, Verdict
from graylift.domain.spec import Check, JudgeSpec, Stage
from graylift.domain.weights import ALL, NONE, TOTAL, Role, Weights
from graylift.replay.course import Course, Interval, split_of
from graylift.replay.records import COLUMNS, Records


@dataclass(frozen=True, slots=True)
class Found:
    """One check at the end of the replay. decided_s: epoch seconds of the look that found it, None while undecided."""

    verdict: Verdict
    decided_s: float | None


@dataclass(frozen=True, slots=True)
class StageReplay:
    """One weight of the recording. passed_s: when every check stood at PASS first, None if never."""

    weights: Weights
    began_s: float
    candidate_n: int
    stable_n: int
    passed_s: float | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """What the judge says of a recording. decided_s: epoch seconds, None if it is INCONCLUSIVE.

    looks:   at how many intervals the judge was asked
    told:    what is the matter with the evidence
    """

    ruling: Ruling
    decided_s: float | None
    candidate_n: int
    stable_n: int
    found: tuple[Found, ...]
    stages: tuple[StageReplay, ...]
    looks: int
    told: tuple[str, ...]


@dataclass(slots=True)
class _Course:
    """The replay while it goes."""

    state: judge.JudgeState
    stages: list[StageReplay] = field(default_factory=list[StageReplay])
    current: Stage | None = None
    began_s: float = 0.0
    since: dict[str, tuple[Ruling, float]] = field(default_factory=dict[str, "tuple[Ruling, float]"])
    looks: int = 0
    last: Judgement | None = None
    passed: Judgement | None = None
    passed_s: float | None = None
    failed_s: float | None = None


def replay(
    spec: JudgeSpec, stages: Mapping[Weights, Stage], course: Course, stable: Records, candidate: Records
) -> Replay:
    """stages: what the release file asks of a weight; a weight that it does not name gets the judge's own margins."""
    measured = tuple(check for check in spec.checks if _is_measured(check, stable, candidate))
    told = (*stable.told, *candidate.told, *_told_of(course))
    if not measured:
        return _nothing(spec, course, told)
    own = replace(spec, checks=measured)
    going = _Course(judge.start(own))
    for interval in course.intervals:
        _go_on(own, stages, course, going, interval)
        if going.failed_s is not None:
            break
    _leave(going)
    return _replay(spec, own, going, told)


def _go_on(
    spec: JudgeSpec, stages: Mapping[Weights, Stage], course: Course, going: _Course, interval: Interval
) -> None:
    for weights in interval.began:
        if course.weighted and weights in (NONE, ALL):
            continue
        _leave(going)
        stage = _stage(stages, course, weights)
        kept = tuple(margin for margin in stage.promote_if_within if margin.check in {c.name for c in spec.checks})
        going.current, going.began_s = replace(stage, promote_if_within=kept), interval.start_s
        # Without configured weights the observed split is all there is: nothing to hold it against.
        going.state = judge.enter(spec, going.state, going.current, split_of(weights), sticky=not course.weighted)
        going.since, going.passed, going.passed_s = {}, None, None
    if interval.windows:
        going.state = judge.observe(spec, going.state, interval.windows)
    if going.current is None or not interval.windows:
        return
    going.looks += 1
    judgement = going.last = judge.judge(spec, going.state)
    for verdict in judgement.verdicts:
        known = going.since.get(verdict.check)
        if known is None or known[0] is not verdict.ruling:
            going.since[verdict.check] = (verdict.ruling, interval.end_s)
    if judgement.failed:
        going.failed_s = interval.end_s
    elif going.passed is None and _lets_go_on(judgement, going.current):
        going.passed, going.passed_s = judgement, interval.end_s


def _lets_go_on(judgement: Judgement, stage: Stage) -> bool:
    fit = judgement.stable_sick is None and judgement.share_off is None
    return judgement.passed and fit and judgement.candidate_n >= stage.min_requests


def _leave(going: _Course) -> None:
    """Keep what the stage came to."""
    if going.current is None or going.last is None:
        return
    end = going.passed or going.last
    going.stages.append(
        StageReplay(going.current.weights, going.began_s, end.candidate_n, end.stable_n, going.passed_s, end.verdicts)
    )


def _stage(stages: Mapping[Weights, Stage], course: Course, weights: Weights) -> Stage:
    if not course.weighted:
        return Stage(Weights(round(course.share * TOTAL)), observe_s=0.0)
    return stages.get(weights) or Stage(weights, observe_s=0.0)


def _replay(spec: JudgeSpec, own: JudgeSpec, going: _Course, told: tuple[str, ...]) -> Replay:
    judgement = going.last or judge.judge(own, going.state)
    ruling, decided_s = Ruling.INCONCLUSIVE, None
    all_measured = len(own.checks) == len(spec.checks)
    if going.failed_s is not None:
        ruling, decided_s = Ruling.FAIL, going.failed_s
    elif going.passed is not None:
        judgement = going.passed
        if all_measured:
            ruling, decided_s = Ruling.PASS, going.passed_s
    judged = {verdict.check: verdict for verdict in judgement.verdicts}
    found = tuple(_found(check, judged.get(check.name), judgement, going) for check in spec.checks)
    if ruling is Ruling.INCONCLUSIVE:
        told = (*told, *(why for why in (judgement.stable_sick, judgement.share_off) if why is not None))
    return Replay(
        ruling=ruling,
        decided_s=decided_s,
        candidate_n=judgement.candidate_n,
        stable_n=judgement.stable_n,
        found=found,
        stages=tuple(going.stages),
        looks=going.looks,
        told=told,
    )


def _found(check: Check, verdict: Verdict | None, judgement: Judgement, going: _Course) -> Found:
    if verdict is None:
        return Found(_unmeasured(check, judgement.candidate_n, judgement.stable_n), None)
    known = going.since.get(check.name)
    decided = verdict.ruling is not Ruling.INCONCLUSIVE and known is not None and known[0] is verdict.ruling
    return Found(verdict, known[1] if decided and known is not None else None)


def _nothing(spec: JudgeSpec, course: Course, told: tuple[str, ...]) -> Replay:
    found = tuple(Found(_unmeasured(check, 0, 0), None) for check in spec.checks)
    return Replay(Ruling.INCONCLUSIVE, None, 0, 0, found, (), len(course.intervals), told)


def _is_measured(check: Check, stable: Records, candidate: Records) -> bool:
    return all((check.score or check.metric.value) in arm.measured for arm in (stable, candidate))


def _unmeasured(check: Check, candidate_n: int, stable_n: int) -> Verdict:
    column = check.score or COLUMNS.get(check.metric, "status")
    return Verdict(
        check=check.name,
        ruling=Ruling.INCONCLUSIVE,
        sentence=f"{check.name}: the recordings hold no measured `{column}` of both arms",
        candidate=None,
        stable=None,
        candidate_n=candidate_n,
        stable_n=stable_n,
        effect_low=None,
        effect_high=None,
        evidence_against=0.0,
        evidence_for=0.0,
    )


def _told_of(course: Course) -> Sequence[str]:
    told: list[str] = []
    if course.left_out:
        of = f"{course.left_out:,} of {len(course.intervals):,} intervals of {course.length_s:g} s"
        told.append(f"{of} are no evidence and were left out of both arms")
    both = sum({window.arm for window in interval.windows} == set(Role) for interval in course.intervals)
    if course.intervals and not both:
        told.append("the two recordings share no interval: only requests of the same time can be compared")
    if any(ALL in interval.began for interval in course.intervals):
        told.append("at 100 % nothing is left to compare with; the verdict is of the stages before")
    return told
