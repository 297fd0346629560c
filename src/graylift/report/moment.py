"""A release as it stands at this moment: both arms over the newest seconds, the track of its stages, and what the
current stage still asks before it goes on.

Called by whoever shows a release live. A page about the past is made of `facts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.histogram import Histogram, merged
from graylift.domain.judgement import Ruling
from graylift.domain.release import Phase, Release
from graylift.domain.spec import Stage
from graylift.domain.weights import Role, Weights
from graylift.report.series import windows_of
from graylift.report.words import count, span

RECENT_S = 5.0
"""Rates and quantiles of the arms are over the newest intervals of this many seconds; whoever shows them says so."""

ON_TRAFFIC = (Phase.PROGRESSING, Phase.PAUSED, Phase.PROMOTING)
LOST = (Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED, Phase.REJECTED)


@dataclass(frozen=True, slots=True)
class ArmNow:
    """One arm over the newest seconds. Shares and histograms are empty without requests; rates are then 0."""

    role: Role
    revision: str
    weights: Weights
    requests_per_s: float
    failed_share: float | None
    latency: Histogram
    ttft: Histogram
    tpot: Histogram
    output_tokens_per_s: float


class Place(Enum):
    """Where a stage lies from where the release stands."""

    DONE = "done"
    HERE = "here"
    FAILED = "failed"
    AHEAD = "ahead"


@dataclass(frozen=True, slots=True)
class Step:
    """A stage on the track. share: of what it asks to be observed, 0 to 1."""

    number: int
    stage: Stage
    place: Place
    share: float


@dataclass(frozen=True, slots=True)
class Condition:
    """Something the current stage asks before the release goes on."""

    text: str
    met: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """seconds: the stretch of time that the arms are of, 0 before the first report."""

    release: Release
    seconds: float
    arms: tuple[ArmNow, ArmNow]
    track: tuple[Step, ...]
    conditions: tuple[Condition, ...]
    then: str


def moment_from(release: Release, weights: Weights, reports: Sequence[IntervalReport]) -> Moment:
    """weights: those in force. reports: the newest ones, with the windows of this service at least."""
    seconds, arms = arms_from(release, weights, reports)
    return Moment(
        release=release,
        seconds=seconds,
        arms=arms,
        track=track_of(release),
        conditions=_conditions(release),
        then=_then(release),
    )


def arms_from(
    release: Release, weights: Weights, reports: Sequence[IntervalReport]
) -> tuple[float, tuple[ArmNow, ArmNow]]:
    """Stable and candidate over the newest RECENT_S seconds of `reports`, and how many seconds that really are."""
    reports = [report for report in reports if report.service is None]
    newest_s = max((report.start_s + report.length_s for report in reports), default=0.0)
    recent = [report for report in reports if report.start_s >= newest_s - RECENT_S]
    # Gateways watch the same seconds side by side: time counts once, requests add up.
    seconds = newest_s - min((report.start_s for report in recent), default=newest_s)

    def arm(role: Role, revision: str, own: Weights) -> ArmNow:
        return _arm(role, revision, own, windows_of(release, role, recent), seconds)

    return seconds, (
        arm(Role.STABLE, release.spec.stable.name, Weights(weights.stable)),
        arm(Role.CANDIDATE, release.spec.candidate.name, weights),
    )


def _arm(role: Role, revision: str, weights: Weights, windows: Sequence[Window], seconds: float) -> ArmNow:
    requests = sum(window.requests for window in windows)
    return ArmNow(
        role=role,
        revision=revision,
        weights=weights,
        requests_per_s=requests / seconds if seconds else 0.0,
        failed_share=sum(window.failed for window in windows) / requests if requests else None,
        latency=merged(window.latency for window in windows),
        ttft=merged(window.ttft for window in windows),
        tpot=merged(window.tpot for window in windows),
        output_tokens_per_s=sum(window.output_tokens for window in windows) / seconds if seconds else 0.0,
    )


def track_of(release: Release) -> tuple[Step, ...]:
    """The stages in a row, and where the release stands among them."""
    if release.phase is Phase.PROMOTED:
        reached = len(release.spec.stages)
    elif release.phase in (*ON_TRAFFIC, *LOST):
        reached = release.stage
    else:
        reached = -1

    def place(index: int) -> Place:
        if index < reached:
            return Place.DONE
        if index > reached or (release.phase in LOST and not release.done):
            return Place.AHEAD
        return Place.FAILED if release.phase in LOST else Place.HERE

    def step(index: int, stage: Stage) -> Step:
        where = place(index)
        share = 1.0 if where is Place.DONE else 0.0
        if where is Place.HERE and stage.observe_s > 0:
            share = min(1.0, release.observed_s / stage.observe_s)
        return Step(index + 1, stage, where, share)

    return tuple(step(index, stage) for index, stage in enumerate(release.spec.stages))


def _conditions(release: Release) -> tuple[Condition, ...]:
    """Only what the stage really asks, in the order in which the controller looks."""
    if release.phase not in ON_TRAFFIC:
        return ()
    stage, judgement = release.current_stage, release.judgement
    seen = 0 if judgement is None else judgement.candidate_n
    verdicts = () if judgement is None else judgement.verdicts
    asked = [
        Condition(
            f"observed {span(release.observed_s)} of {span(stage.observe_s)}", release.observed_s >= stage.observe_s
        )
    ]
    if stage.min_requests:
        noun = "candidate requests" if stage.shadow is None else "pairs of answers"
        told = f"{count(seen)} of {count(stage.min_requests)} {noun}"
        asked.append(Condition(told, seen >= stage.min_requests))
    if not stage.is_watch:
        passing = sum(verdict.ruling is Ruling.PASS for verdict in verdicts)
        pairs = release.spec.judge.shadow
        wanted = len(release.spec.judge.checks if stage.shadow is None or pairs is None else pairs.checks)
        asked.append(Condition(f"{passing} of {wanted} checks PASS", passing == wanted))
    if stage.approval_required:
        asked.append(
            Condition("approved by a person" if release.approved else "a person has to approve it", release.approved)
        )
    return tuple(asked)


def _then(release: Release) -> str:
    """What follows where it stands, in a few words; empty when it is over."""
    match release.phase:
        case Phase.PENDING | Phase.CHECKING:
            return "then the candidate's server starts; no user sees it before"
        case Phase.STARTING:
            return f"then its first stage: {release.spec.stages[0]}"
        case Phase.PROGRESSING | Phase.PAUSED:
            following = release.spec.stages[release.stage + 1 : release.stage + 2]
            return "".join("then all traffic, watched" if stage.is_watch else f"then {stage}" for stage in following)
        case Phase.PROMOTING:
            return "then it is the new stable, and the old one's server ends"
        case Phase.ROLLING_BACK | Phase.ROLLBACK_FAILED:
            return "until every gateway has shown that the candidate gets nothing"
        case Phase.PROMOTED | Phase.ROLLED_BACK | Phase.REJECTED:
            return ""
