"""A release with its events and its evidence -> all that the page says, before it is said. Called by the renderings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from graylift.domain.evidence import IntervalReport
from graylift.domain.judgement import Verdict
from graylift.domain.release import Event, Phase, Release, StageRecord
from graylift.domain.revision import Revision
from graylift.domain.scores import NO_SCORES, ScoreCounts
from graylift.domain.shadow import ShadowWindow
from graylift.domain.spec import EndpointModel, GgufModel, OnnxModel, RevisionSpec, Stage
from graylift.domain.weights import ALL, NONE, Role, Weights
from graylift.report.moment import ON_TRAFFIC
from graylift.report.series import Point, Totals, series_from, totals_from, windows_of
from graylift.report.words import span, utc

_TURNS = (Phase.PROMOTED, Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED, Phase.PAUSED)


@dataclass(frozen=True, slots=True)
class RevisionFacts:
    """One side of the release. revision: None if it was never built; model: the path or address as asked for."""

    role: Role
    spec: RevisionSpec
    revision: Revision | None
    totals: Totals
    series: tuple[Point, ...]

    def scored(self, name: str) -> ScoreCounts:
        return dict(self.totals.scores).get(name, NO_SCORES)

    @property
    def model(self) -> str:
        match self.spec.model:
            case OnnxModel(onnx=path) | GgufModel(gguf=path):
                return path
            case EndpointModel(url=url):
                return url
            case _:
                assert_never(self.spec.model)


@dataclass(frozen=True, slots=True)
class StageFacts:
    """A stage that was entered. left_s: None while it lasts; why: why it was left, or what it waits for."""

    number: int
    stage: Stage
    entered_s: float
    left_s: float | None
    observed_s: float
    candidate_n: int
    stable_n: int
    verdicts: tuple[Verdict, ...]
    why: str
    shadow: ShadowWindow | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """until_s: when the release ended, or the newest thing that is known of it.

    steps:  (epoch seconds, the candidate's weight from then on)
    turns:  events of the phases in which the release stopped going forward
    gaps:   (why evidence is missing, in how many reports)
    labelled: requests that a label rule sent somewhere
    """

    release: Release
    outcome: str
    until_s: float
    stable: RevisionFacts
    candidate: RevisionFacts
    stages: tuple[StageFacts, ...]
    events: tuple[Event, ...]
    steps: tuple[tuple[float, Weights], ...]
    turns: tuple[Event, ...]
    gateways: int
    intervals: int
    gaps: tuple[tuple[str, int], ...]
    unreadable: int
    labelled: int

    @property
    def arms(self) -> tuple[RevisionFacts, RevisionFacts]:
        return self.stable, self.candidate

    @property
    def streams(self) -> bool:
        """Were any streams of tokens seen?"""
        return any(arm.totals.ttft.bins for arm in self.arms)

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of all scores that came."""
        return tuple(sorted({name for arm in self.arms for name, _ in arm.totals.scores}))


def facts_from(release: Release, events: Sequence[Event], reports: Sequence[IntervalReport]) -> Facts:
    end = release.finished_s
    reports = [report for report in reports if end is None or report.start_s < end]
    until_s = end or max(
        release.entered_s,
        *(event.at_s for event in events),
        *(report.start_s + report.length_s for report in reports),
        release.created_s,
    )
    stages = _stages(release)
    gaps: dict[str, int] = {}
    for report in reports:
        if report.gap is not None:
            gaps[report.gap] = gaps.get(report.gap, 0) + 1
    return Facts(
        release=release,
        outcome=_outcome(release, until_s),
        until_s=until_s,
        stable=_revision(release, Role.STABLE, reports),
        candidate=_revision(release, Role.CANDIDATE, reports),
        stages=stages,
        events=tuple(events),
        steps=_steps(release, stages, events),
        turns=tuple(event for event in events if event.kind in {phase.value for phase in _TURNS}),
        gateways=len({report.gateway for report in reports if report.service is None}),
        intervals=sum(report.service is None for report in reports),
        gaps=tuple(sorted(gaps.items())),
        unreadable=sum(report.unreadable for report in reports),
        labelled=sum(
            window.requests
            for report in reports
            for window in report.windows
            if window.label is not None and window.service == release.service
        ),
    )


def _outcome(release: Release, until_s: float) -> str:
    """What, when, how long and why, in one sentence."""
    candidate, stable = release.spec.candidate.name, release.spec.stable.name
    lasted = span(until_s - release.created_s)
    last_why = release.done[-1].why if release.done else release.reason
    match release.phase:
        case Phase.PROMOTED:
            what, why = f"{candidate} was promoted and replaces {stable}", release.reason
        case Phase.ROLLED_BACK:
            what, why = f"{candidate} was rolled back and {stable} has all traffic again", last_why
        case Phase.REJECTED:
            before = "any user got an answer of it" if release.done else "it got any traffic"
            what, why = f"{candidate} was rejected before {before}", release.reason
        case Phase.ROLLBACK_FAILED:
            what, why = f"{candidate} is being rolled back and that is NOT verified at every gateway", release.reason
        case Phase.ROLLING_BACK:
            what, why = f"{candidate} is being rolled back, not verified yet", last_why
        case Phase.PENDING | Phase.CHECKING | Phase.STARTING | Phase.PROGRESSING | Phase.PAUSED | Phase.PROMOTING:
            what, why = f"{candidate} is still {release.phase.value}{_where(release)}", release.reason
        case _:
            assert_never(release.phase)
    at = f"at {utc(until_s)}, {lasted} after the release began"
    return f"{what} ({at}): {why}"


def _where(release: Release) -> str:
    if release.phase not in ON_TRAFFIC:
        return ""
    return f" in stage {release.stage + 1} of {len(release.spec.stages)} ({release.current_stage})"


def _revision(release: Release, role: Role, reports: Sequence[IntervalReport]) -> RevisionFacts:
    stable = role is Role.STABLE
    return RevisionFacts(
        role=role,
        spec=release.spec.stable if stable else release.spec.candidate,
        revision=release.stable if stable else release.candidate,
        totals=totals_from(windows_of(release, role, reports)),
        series=series_from(release, role, reports),
    )


def _stages(release: Release) -> tuple[StageFacts, ...]:
    done = tuple(_left(release, record) for record in release.done)
    if release.phase not in ON_TRAFFIC:
        return done
    judgement = release.judgement
    current = StageFacts(
        number=release.stage + 1,
        stage=release.current_stage,
        entered_s=release.entered_s,
        left_s=None,
        observed_s=release.observed_s,
        candidate_n=0 if judgement is None else judgement.candidate_n,
        stable_n=0 if judgement is None else judgement.stable_n,
        verdicts=() if judgement is None else judgement.verdicts,
        why=release.reason,
        shadow=None if judgement is None else judgement.shadow,
    )
    return (*done, current)


def _left(release: Release, record: StageRecord) -> StageFacts:
    return StageFacts(
        number=record.index + 1,
        stage=release.spec.stages[record.index],
        entered_s=record.entered_s,
        left_s=record.left_s,
        observed_s=record.observed_s,
        candidate_n=record.candidate_n,
        stable_n=record.stable_n,
        verdicts=record.verdicts,
        why=record.why,
        shadow=record.shadow,
    )


def _steps(
    release: Release, stages: Sequence[StageFacts], events: Sequence[Event]
) -> tuple[tuple[float, Weights], ...]:
    steps = [(release.created_s, NONE), *((stage.entered_s, stage.stage.weights) for stage in stages)]
    back = [event.at_s for event in events if event.kind == Phase.ROLLING_BACK.value]
    if back:
        steps.append((back[0], NONE))
    elif release.phase in (Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED, Phase.ROLLED_BACK) and stages:
        steps.append((stages[-1].left_s or release.entered_s, NONE))
    elif release.phase is Phase.PROMOTED and release.finished_s is not None:
        steps.append((release.finished_s, ALL))
    return tuple(steps)
