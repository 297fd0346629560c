"""What to do with a release at one look: one table by phase, from everything that is known, with the reason.

It knows nothing of how a decision is carried out (`moves`) and never looks at evidence itself, only at the judge's
words. Called by the controller through `decide`. How a kind reads in each phase:

    PENDING, CHECKING, STARTING   ADVANCE to the next phase, REJECT
    PROGRESSING                   ADVANCE to the next stage, PROMOTE to all traffic, PAUSE, ROLLBACK; REJECT in a shadow
    PAUSED                        ROLLBACK, REJECT in a shadow stage; nothing else moves it but a person
    PROMOTING                     PROMOTE to the end, ROLLBACK
    ROLLING_BACK                  ROLLBACK: it is back, verified. PAUSE: it is not, a person must look
    ROLLBACK_FAILED               ROLLBACK: it is back after all
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from graylift.domain.judgement import Decision, DecisionKind, Judgement, Ruling, Verdict
from graylift.domain.notices import Gate, GateAnswer, GateState, Question
from graylift.domain.release import Phase, Release, Situation
from graylift.domain.revision import Instance, InstanceState, Revision
from graylift.domain.spec import OnFailure, OnInconclusive
from graylift.rollout.arms import candidate_of, stable_of, stage_ahead
from graylift.rollout.wording import because, duration

ROLLBACK_WITHIN_S = 30.0
"""A rollback that is not verified at every gateway by then is loud about it, and goes on trying."""


def decide(release: Release, situation: Situation, now: float) -> Decision:
    """The one thing to do now, and why. `now` is epoch seconds."""
    match release.phase:
        case Phase.PENDING:
            return Decision(DecisionKind.ADVANCE, "its checks begin")
        case Phase.CHECKING:
            return _checking(release, situation)
        case Phase.STARTING:
            return _starting(release, situation, now)
        case Phase.PROGRESSING:
            return (
                _danger(release, situation)
                or _alarm(release, situation)
                or _unfinished(
                    release,
                    _unfit(release, situation) or _early(release, situation) or _unproven(release, situation),
                    now,
                )
                or _hold(_unapproved(release))
                or _unconfirmed(release, situation)
                or _next_stage(release)
            )
        case Phase.PAUSED:
            # A person paused to look, not to keep users on a version that is known to be broken.
            return _danger(release, situation) or Decision(DecisionKind.HOLD, release.reason)
        case Phase.PROMOTING:
            return (
                _danger(release, situation)
                or _hold(_unfit(release, situation) or _early(release, situation) or _unapproved(release))
                or Decision(DecisionKind.PROMOTE, f"all traffic watched for {duration(release.observed_s)}")
            )
        case Phase.ROLLING_BACK | Phase.ROLLBACK_FAILED:
            return _going_back(release, situation, now)
        case Phase.PROMOTED | Phase.ROLLED_BACK | Phase.REJECTED:
            return Decision(DecisionKind.HOLD, release.reason)
        case _:
            assert_never(release.phase)


def _hold(why: str | None) -> Decision | None:
    return None if why is None else Decision(DecisionKind.HOLD, why)


def _unfinished(release: Release, why: str | None, now: float) -> Decision | None:
    """Hold while a stage is not proven good; past its longest duration, do what the file says of that."""
    if why is None:
        return None
    longest = release.current_stage.max_duration_s
    since_s = release.entered_s if release.resumed_s is None else release.resumed_s
    if longest is None or now - since_s < longest:
        return Decision(DecisionKind.HOLD, why)
    told = f"not proven good within {duration(longest)}: {why}"
    match release.current_stage.on_inconclusive:
        case OnInconclusive.HOLD:
            return Decision(DecisionKind.HOLD, why)
        case OnInconclusive.PAUSE:
            return Decision(DecisionKind.PAUSE, told)
        case OnInconclusive.ROLLBACK:
            return Decision(_way_back(release), told)
        case _:
            assert_never(release.current_stage.on_inconclusive)


def _checking(release: Release, situation: Situation) -> Decision:
    report = situation.checks
    if report is None:
        return Decision(DecisionKind.HOLD, "its checks run")
    stopped = [result for result in report.results if not result.lets_through]
    if stopped:
        return Decision(DecisionKind.REJECT, _listed([f"{stop.check}: {stop.sentence}" for stop in stopped]))
    if report.stable is None or report.candidate is None:
        missing = release.spec.stable if report.stable is None else release.spec.candidate
        return Decision(DecisionKind.REJECT, f"its checks gave no revision for {missing.name}")
    running = release.stable or report.stable
    if running.digest != report.stable.digest:
        return Decision(
            DecisionKind.REJECT,
            f"the file's stable is {_named(report.stable)}, but {release.service} runs {_named(running)}: "
            f"name in the file what runs now",
        )
    if running.id == report.candidate.id:
        return Decision(
            DecisionKind.REJECT, f"the candidate {_named(report.candidate)} is what {release.service} runs already"
        )
    return Decision(DecisionKind.ADVANCE, f"{_count(len(report.results), 'check')} passed")


def _named(revision: Revision) -> str:
    return f"{revision.name} ({revision.digest[:12]})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _starting(release: Release, situation: Situation, now: float) -> Decision:
    candidate, stable = candidate_of(release), stable_of(release)
    if situation.candidate is not None and situation.candidate.state is InstanceState.DEAD:
        return Decision(DecisionKind.REJECT, _ended(candidate, situation.candidate))
    for revision, instance in ((candidate, situation.candidate), (stable, situation.stable)):
        waiting = _not_ready(revision, instance)
        if waiting is None:
            continue
        if now - release.entered_s > revision.ready_within_s:
            within = duration(revision.ready_within_s)
            return Decision(DecisionKind.REJECT, f"{revision.name} was not ready within {within}: {waiting}")
        return Decision(DecisionKind.HOLD, waiting)
    return (
        _hold(_gateways_behind(release, situation, situation.table_version))
        or _unconfirmed(release, situation)
        or Decision(DecisionKind.ADVANCE, f"{candidate.name} is ready and every gateway sees it healthy")
    )


def _danger(release: Release, situation: Situation) -> Decision | None:
    """What takes users off the candidate at once, paused or not."""
    candidate = candidate_of(release)
    if situation.candidate is not None and situation.candidate.state is InstanceState.DEAD:
        return Decision(_way_back(release), _ended(candidate, situation.candidate))
    judgement = situation.judgement
    if judgement is None:
        return None
    if judgement.failed and release.spec.on_failure is OnFailure.ROLLBACK:
        return Decision(_way_back(release), _failure(judgement))
    # To compare with nothing is weak evidence: it may move users only to a stable that is there to take them.
    fit = situation.stable is not None and situation.stable.state is InstanceState.READY
    if release.current_stage.is_watch and judgement.candidate_sick is not None and fit:
        return Decision(DecisionKind.ROLLBACK, judgement.candidate_sick)
    return None


def _way_back(release: Release) -> DecisionKind:
    """From a shadow stage nobody has to come back: no user ever got an answer of the candidate."""
    return DecisionKind.ROLLBACK if release.current_stage.shadow is None else DecisionKind.REJECT


def _alarm(release: Release, situation: Situation) -> Decision | None:
    """What a person must look at before the release goes on."""
    judgement = situation.judgement
    if judgement is None:
        return None
    if judgement.failed and release.spec.on_failure is OnFailure.PAUSE:
        return Decision(DecisionKind.PAUSE, _failure(judgement))
    if judgement.share_off is not None:
        return Decision(DecisionKind.PAUSE, judgement.share_off)
    return None


def _failure(judgement: Judgement) -> str:
    failures = [_told(verdict) for verdict in judgement.verdicts if verdict.ruling is Ruling.FAIL]
    return "; ".join(failures) or "the checks together reached the bound for a rollback"


def _listed(reasons: Sequence[str]) -> str:
    """Numbered if there are several: each is a sentence, with commas and semicolons of its own."""
    if len(reasons) == 1:
        return reasons[0]
    numbered = "; ".join(f"({number}) {why}" for number, why in enumerate(reasons, start=1))
    return f"{len(reasons)} checks stop it: {numbered}"


def _told(verdict: Verdict) -> str:
    return f"{verdict.ruling.value}: {verdict.sentence}"


def _ended(revision: Revision, instance: Instance) -> str:
    return f"the server of {revision.name} ended: {instance.detail or 'it left no word'}"


def _not_ready(revision: Revision, instance: Instance | None) -> str | None:
    if instance is None:
        return f"nobody can tell how the server of {revision.name} is"
    match instance.state:
        case InstanceState.READY:
            return None
        case InstanceState.DEAD:
            return _ended(revision, instance)
        case InstanceState.ABSENT:
            return f"the server of {revision.name} does not run yet{because(instance.detail)}"
        case InstanceState.STARTING:
            return f"the server of {revision.name} is starting{because(instance.detail)}"
        case _:
            assert_never(instance.state)


def _unfit(release: Release, situation: Situation) -> str | None:
    """Why what is observed now says little about the candidate."""
    judgement = situation.judgement
    if judgement is not None and judgement.stable_sick is not None:
        return judgement.stable_sick
    return (
        _not_ready(stable_of(release), situation.stable)
        or _not_ready(candidate_of(release), situation.candidate)
        or _gateways_behind(release, situation, release.stage_table)
    )


def _gateways_behind(release: Release, situation: Situation, table: int) -> str | None:
    """Why not every gateway does what routing table `table` says, with both arms healthy; None if all do."""
    behind = _not_applied(situation, table)
    if behind is not None:
        return behind
    for gateway in situation.gateways:
        if gateway.refused is not None:
            return f"gateway {gateway.gateway} refused a routing table: {gateway.refused}"
        if gateway.problem is not None:
            return f"gateway {gateway.gateway}: {gateway.problem}"
        for revision in (candidate_of(release), stable_of(release)):
            if revision.id not in gateway.healthy:
                return f"gateway {gateway.gateway} does not see {revision.name} healthy"
    return None


def _not_applied(situation: Situation, table: int) -> str | None:
    """Why it is not certain that every gateway runs routing table `table` or a newer one; None if it is."""
    if not situation.gateways:
        return "no gateway answers"
    for gateway in situation.gateways:
        name, applied = f"gateway {gateway.gateway}", gateway.applied_version
        if applied is not None and applied >= table:
            continue
        if gateway.refused is not None:
            return f"{name} refused routing table {table}: {gateway.refused}"
        if gateway.problem is not None:
            return f"{name}: {gateway.problem}"
        if applied is None:
            return f"{name} runs no routing table yet, expected {table}"
        return f"{name} runs routing table {applied}, expected {table}"
    return None


def _early(release: Release, situation: Situation) -> str | None:
    """Why this stage was not seen for long enough, or on too few requests."""
    stage, judgement = release.current_stage, situation.judgement
    observed = duration(release.observed_s)
    if stage.shadow is not None and (judgement is None or judgement.candidate_n == 0):
        return _no_pair(judgement, observed)
    if judgement is None or judgement.candidate_n == 0:
        return f"no request to {candidate_of(release).name} in the {observed} observed in this stage"
    if release.observed_s < stage.observe_s:
        return f"observed {observed} of {duration(stage.observe_s)}"
    if judgement.candidate_n < stage.min_requests:
        noun = "request" if stage.shadow is None else "pair"
        return f"{judgement.candidate_n:,} of {_count(stage.min_requests, noun)}"
    return None


def _no_pair(judgement: Judgement | None, observed: str) -> str:
    """Why a shadow stage has nothing to show, as far as that is known."""
    lost = () if judgement is None or judgement.shadow is None else judgement.shadow.lost
    if lost:
        kinds = ", ".join(f"{times:,} {why}" for why, times in lost)
        return f"no shadow request became a pair of answers in the {observed} observed in this stage: {kinds}"
    asked = 0 if judgement is None else judgement.stable_n
    return (
        f"no shadow request arrived in the {observed} observed in this stage, while stable had "
        f"{_count(asked, 'request')}"
    )


def _unproven(release: Release, situation: Situation) -> str | None:
    """Why not every check of the file is a PASS."""
    if not _names(release):
        return "no check judges this release, so nothing can pass"
    verdicts = {} if situation.judgement is None else {v.check: v for v in situation.judgement.verdicts}
    for check in _names(release):
        verdict = verdicts.get(check)
        if verdict is None:
            return f"{check} {Ruling.INCONCLUSIVE.value}: it was not judged"
        if verdict.ruling is not Ruling.PASS:
            return _told(verdict)
    if situation.judgement is None or not situation.judgement.passed:
        return "not every check has passed in this stage"
    return None


def _names(release: Release) -> tuple[str, ...]:
    """The checks that the current stage is judged by."""
    judge = release.spec.judge
    if release.current_stage.shadow is None:
        return tuple(check.name for check in judge.checks)
    return () if judge.shadow is None else tuple(check.value for check in judge.shadow.checks)


def _unapproved(release: Release) -> str | None:
    if release.current_stage.approval_required and not release.approved:
        return f"waiting for approval: graylift approve {release.service}"
    return None


def question(release: Release, situation: Situation, now: float) -> Question | None:
    """What the gates of the stage ahead are to be asked now; None while anything else holds the release, too."""
    ahead, gates = stage_ahead(release), _gates_ahead(release)
    if ahead is None or not gates:
        return None
    all_go = tuple(GateAnswer(gate.name, GateState.GO) for gate in gates)
    would_go_on = decide(release, replace(situation, gates=all_go), now)
    if would_go_on.kind not in (DecisionKind.ADVANCE, DecisionKind.PROMOTE):
        return None
    spec = release.spec
    weight = str(spec.stages[ahead].weights)
    return Question(release.id, spec.service, spec.candidate.name, spec.stable.name, ahead, weight, gates)


def _gates_ahead(release: Release) -> tuple[Gate, ...]:
    ahead = stage_ahead(release)
    return () if ahead is None else release.spec.stages[ahead].confirm


def _unconfirmed(release: Release, situation: Situation) -> Decision | None:
    """What follows while not every gate before the next stage says go. One that is away holds; it blames nobody."""
    said = {answer.gate: answer for answer in situation.gates}
    answers = [(gate.name, said.get(gate.name)) for gate in _gates_ahead(release)]
    for name, answer in answers:
        if answer is not None and answer.state is GateState.STOP:
            return Decision(_stopped(release), f"gate {name} says stop{because(answer.reason)}")
    for name, answer in answers:
        if answer is None:
            return Decision(DecisionKind.HOLD, f"gate {name} is asked")
        if answer.state is GateState.WAIT:
            return Decision(DecisionKind.HOLD, f"gate {name} says wait{because(answer.reason)}")
        if answer.state is GateState.AWAY:
            return Decision(DecisionKind.HOLD, f"gate {name} is away{because(answer.reason)}")
    return None


def _stopped(release: Release) -> DecisionKind:
    if release.phase is Phase.STARTING:
        return DecisionKind.REJECT
    return DecisionKind.PAUSE if release.spec.on_failure is OnFailure.PAUSE else DecisionKind.ROLLBACK


def _next_stage(release: Release) -> Decision:
    following = release.spec.stages[release.stage + 1]
    passed = f"{_count(len(_names(release)), 'check')} passed in {duration(release.observed_s)}"
    if following.is_watch:
        return Decision(DecisionKind.PROMOTE, f"{passed}: all traffic")
    return Decision(DecisionKind.ADVANCE, f"{passed}: on to {following}")


def _going_back(release: Release, situation: Situation, now: float) -> Decision:
    behind = _not_applied(situation, release.stage_table)
    if behind is None:
        gateways = _count(len(situation.gateways), "gateway")
        return Decision(DecisionKind.ROLLBACK, f"{_cause(release)} (weight 0 verified at {gateways})")
    late = now - release.entered_s > ROLLBACK_WITHIN_S
    if release.phase is Phase.ROLLING_BACK and late:
        return Decision(
            DecisionKind.PAUSE,
            f"weight 0 is not verified after {duration(ROLLBACK_WITHIN_S)}: {behind}; "
            f"users may still reach {candidate_of(release).name}. It is tried again and again",
        )
    return Decision(DecisionKind.HOLD, release.reason)


def _cause(release: Release) -> str:
    """Why the release went back: the reason it left its last stage with."""
    return release.done[-1].why if release.done else release.reason
