"""What a release becomes: by a decision, by a report of what was observed. Every move is recorded and told once.

It decides nothing: `decisions` and `commands` say where to go, this module goes there. Called by the controller.
"""

from __future__ import annotations

from dataclasses import replace

from graylift.domain.evidence import IntervalReport
from graylift.domain.judgement import Decision, DecisionKind, Judgement
from graylift.domain.notices import GateAnswer, GateState
from graylift.domain.release import CheckResult, Event, Phase, Release, Situation, StageRecord
from graylift.rollout.arms import ON_TRAFFIC, UNBOUND
from graylift.rollout.wording import because, stage_name


def evolve(release: Release, decision: Decision, situation: Situation, now: float) -> tuple[Release, tuple[Event, ...]]:
    """The release after `decision`, and what is to be told of it. ValueError for a decision its phase does not know."""
    seen = _with_results(release, situation)
    noticed = (
        *_checked(release, situation, now),
        *_noticed(release, situation.judgement, now),
        *_answered(release, situation, now),
    )
    if decision.kind is DecisionKind.HOLD:
        return replace(seen, reason=decision.why), noticed
    after = _moved(seen, decision, situation.table_version + 1, now)
    return after, (*noticed, told(after, now))


def _moved(release: Release, decision: Decision, table: int, now: float) -> Release:
    why = decision.why
    match release.phase, decision.kind:
        case Phase.PENDING, DecisionKind.ADVANCE:
            return enter_phase(release, Phase.CHECKING, why, table, now)
        case Phase.CHECKING, DecisionKind.ADVANCE:
            return enter_phase(release, Phase.STARTING, why, table, now)
        case Phase.STARTING, DecisionKind.ADVANCE:
            return enter_stage(release, 0, why, table, now)
        case Phase.PENDING | Phase.CHECKING | Phase.STARTING, DecisionKind.REJECT:
            return enter_phase(release, Phase.REJECTED, why, table, now)
        case Phase.PROGRESSING | Phase.PAUSED, DecisionKind.REJECT if release.current_stage.shadow is not None:
            return enter_phase(_left(release, why, now), Phase.REJECTED, why, table, now)
        case Phase.PROGRESSING, DecisionKind.ADVANCE | DecisionKind.PROMOTE:
            return next_stage(release, why, table, now)
        case Phase.PROGRESSING, DecisionKind.PAUSE:
            return replace(release, phase=Phase.PAUSED, reason=why)
        case Phase.PROGRESSING | Phase.PAUSED | Phase.PROMOTING, DecisionKind.ROLLBACK:
            return go_back(release, why, table, now)
        case Phase.PROMOTING, DecisionKind.PROMOTE:
            return next_stage(release, why, table, now)
        case Phase.ROLLING_BACK | Phase.ROLLBACK_FAILED, DecisionKind.ROLLBACK:
            return enter_phase(release, Phase.ROLLED_BACK, why, table, now)
        case Phase.ROLLING_BACK, DecisionKind.PAUSE:
            # The table that must be verified stays the one that was stored when the rollback began.
            return enter_phase(release, Phase.ROLLBACK_FAILED, why, release.stage_table, now)
        case phase, kind:
            raise ValueError(f"{kind.value} means nothing to a release that is {phase.value}")


def enter_phase(release: Release, phase: Phase, why: str, table: int, now: float) -> Release:
    """The release in a phase without a stage of its own. `table`: version of the first routing table of the phase."""
    return replace(
        release,
        phase=phase,
        reason=why,
        entered_s=now,
        observed_s=0.0,
        stage_table=table,
        approved=False,
        resumed_s=None,
        finished_s=now if phase.is_final else None,
        gates=(),
    )


def enter_stage(release: Release, index: int, why: str, table: int, now: float) -> Release:
    """The release at the start of stage `index`, with nothing observed yet."""
    phase = Phase.PROMOTING if release.spec.stages[index].is_watch else Phase.PROGRESSING
    return replace(enter_phase(release, phase, why, table, now), stage=index, judgement=None)


def next_stage(release: Release, why: str, table: int, now: float) -> Release:
    """One stage further; from the last one to the end."""
    left = _left(release, why, now)
    if release.stage + 1 == len(release.spec.stages):
        return enter_phase(left, Phase.PROMOTED, why, table, now)
    return enter_stage(left, release.stage + 1, why, table, now)


def go_back(release: Release, why: str, table: int, now: float) -> Release:
    """All traffic back to stable; to be verified."""
    return enter_phase(_left(release, why, now), Phase.ROLLING_BACK, why, table, now)


def _left(release: Release, why: str, now: float) -> Release:
    """With the record of the stage that is left now."""
    judgement = release.judgement
    record = StageRecord(
        index=release.stage,
        weights=release.current_stage.weights,
        entered_s=release.entered_s,
        left_s=now,
        observed_s=release.observed_s,
        candidate_n=0 if judgement is None else judgement.candidate_n,
        stable_n=0 if judgement is None else judgement.stable_n,
        verdicts=() if judgement is None else judgement.verdicts,
        why=why,
        shadow=None if judgement is None else judgement.shadow,
    )
    return replace(release, done=(*release.done, record))


def credit(release: Release, report: IntervalReport, gateways: int) -> Release:
    """The release with one interval of one gateway observed; each of `gateways` gateways counts for its share.

    Counted is only what was whole and wholly under a routing table of this stage. Time goes on while a release is
    paused: what was seen then was seen. The caller hands each report over once. ValueError if there is no gateway.
    """
    if gateways < 1:
        raise ValueError("a report came from a gateway, so there is at least one")
    if release.phase not in ON_TRAFFIC or report.gap is not None:
        return release
    if report.table_version is None or report.table_version < release.stage_table:
        return release
    return replace(release, observed_s=release.observed_s + report.length_s / gateways)


def _with_results(release: Release, situation: Situation) -> Release:
    """With what became known: the checks and the revisions they bind it to, the newest judgement."""
    if release.phase is Phase.CHECKING and situation.checks is None and situation.ended_checks:
        # A controller that took over begins the checks anew: what an earlier one found stands until it is found again.
        ended = {result.check for result in situation.ended_checks}
        before = (result for result in release.checks or () if result.check not in ended)
        release = replace(release, checks=(*situation.ended_checks, *before))
    if release.phase in UNBOUND and situation.checks is not None:
        report = situation.checks
        # What serves already stays what it is, address and name; the checks have only confirmed it.
        release = replace(
            release, checks=report.results, stable=release.stable or report.stable, candidate=report.candidate
        )
    if release.phase in ON_TRAFFIC and situation.judgement is not None:
        release = replace(release, judgement=situation.judgement)
    if situation.gates:
        release = replace(release, gates=situation.gates)
    return release


def told(release: Release, now: float, by: str = "graylift") -> Event:
    """The event that says where the release has got to."""
    where = f"{stage_name(release)}: " if release.phase in ON_TRAFFIC else ""
    return Event(now, release.service, release.id, release.phase.value, f"{where}{release.reason}", by)


def _checked(release: Release, situation: Situation, now: float) -> tuple[Event, ...]:
    """The pre-release checks that have ended since the last look."""
    if release.phase is not Phase.CHECKING:
        return ()
    results: tuple[CheckResult, ...] = situation.ended_checks if situation.checks is None else situation.checks.results
    return tuple(
        Event(now, release.service, release.id, "CHECK", f"{result.check} {result.outcome.value}: {result.sentence}")
        for result in results
        if result not in (release.checks or ())
    )


def _noticed(release: Release, judgement: Judgement | None, now: float) -> tuple[Event, ...]:
    """What the judge says now and did not say at the last look: a check's other ruling, stable's health."""
    if judgement is None or release.phase not in ON_TRAFFIC:
        return ()
    before = release.judgement
    rulings = {} if before is None else {verdict.check: verdict.ruling for verdict in before.verdicts}
    events = [
        Event(now, release.service, release.id, "VERDICT", f"{v.ruling.value}: {v.sentence}")
        for v in judgement.verdicts
        if v.check in rulings and rulings[v.check] is not v.ruling
    ]
    was_sick = before is not None and before.stable_sick is not None
    if judgement.stable_sick is not None and not was_sick:
        events.append(Event(now, release.service, release.id, "STABLE_SICK", judgement.stable_sick))
    if judgement.stable_sick is None and was_sick:
        events.append(Event(now, release.service, release.id, "STABLE_WELL", "stable is fit to compare with again"))
    return tuple(events)


def _answered(release: Release, situation: Situation, now: float) -> tuple[Event, ...]:
    """What gates say now and did not say when they were asked last."""
    return tuple(
        Event(now, release.service, release.id, "GATE", f"{a.gate} {_said(a)}{because(a.reason)}")
        for a in situation.gates
        if a not in release.gates
    )


def _said(answer: GateAnswer) -> str:
    return "is away" if answer.state is GateState.AWAY else f"says {answer.state.value}"
