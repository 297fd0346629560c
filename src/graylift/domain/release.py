"""A release in flight, the service it belongs to, and what a person may tell it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from graylift.domain.judgement import Judgement, Verdict
from graylift.domain.notices import GateAnswer
from graylift.domain.revision import Instance, Revision
from graylift.domain.routing import GatewayState
from graylift.domain.shadow import ShadowWindow
from graylift.domain.spec import ReleaseSpec, RoutingSpec, ServingProtocol, Stage
from graylift.domain.weights import Weights


class Phase(Enum):
    """Where a release stands.

    PENDING       stored, nothing done yet
    CHECKING      engines are built, pre-release checks run
    STARTING      the candidate's server starts and warms up; it gets no request
    PROGRESSING   a stage below all traffic is observed; a shadow stage among them
    PAUSED        as PROGRESSING, but only a person lets it go on; the split stays
    PROMOTING     the candidate has all traffic and is watched; the old stable is warm
    PROMOTED      the candidate is the new stable                               (end)
    ROLLING_BACK  stable gets everything; not yet verified at every gateway
    ROLLED_BACK   verified: no gateway sends the candidate anything             (end)
    ROLLBACK_FAILED  not verified in time: a person must look; Graylift keeps trying
    REJECTED      it failed before any user saw it                              (end)
    """

    PENDING = "PENDING"
    CHECKING = "CHECKING"
    STARTING = "STARTING"
    PROGRESSING = "PROGRESSING"
    PAUSED = "PAUSED"
    PROMOTING = "PROMOTING"
    PROMOTED = "PROMOTED"
    ROLLING_BACK = "ROLLING_BACK"
    ROLLED_BACK = "ROLLED_BACK"
    ROLLBACK_FAILED = "ROLLBACK_FAILED"
    REJECTED = "REJECTED"

    @property
    def is_final(self) -> bool:
        return self in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.REJECTED)


class CheckOutcome(Enum):
    """PASS: shown to hold. FAIL: shown not to. INCONCLUSIVE: not shown, so no user sees the candidate, but nothing is
    said against it. SKIPPED: not run, for a reason that the sentence names."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One pre-release check, executed. `sentence` shows both numbers or names; `evidence` holds details, one a line."""

    check: str
    outcome: CheckOutcome
    sentence: str
    evidence: tuple[str, ...] = ()

    @property
    def lets_through(self) -> bool:
        """May the release go on, as far as this check goes?"""
        return self.outcome in (CheckOutcome.PASS, CheckOutcome.SKIPPED)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All pre-release checks of a release, and the revisions they bind it to (None where one could not be built)."""

    stable: Revision | None
    candidate: Revision | None
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        return self.stable is not None and self.candidate is not None and all(r.lets_through for r in self.results)


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A stage that was left: the evidence of the executed checklist. `shadow`: see `Judgement.shadow`."""

    index: int
    weights: Weights
    entered_s: float
    left_s: float
    observed_s: float
    candidate_n: int
    stable_n: int
    verdicts: tuple[Verdict, ...]
    why: str
    shadow: ShadowWindow | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """One attempt to replace a service's stable by a candidate.

    id:            `<service>-<number>`
    reason:        why it is in this phase, one sentence
    stage:         index into spec.stages; of the stage entered last; 0 before the first
    entered_s:     epoch seconds at which this phase (or stage) was entered
    observed_s:    seconds of this stage of which evidence was seen, each counted once
    stage_table:   version of the first routing table of this stage; older evidence is not of this stage
    approved:      a person approved this stage
    resumed_s:     when a person last let this stage go on, None if nobody did; its longest duration counts from then
    salt:          see ServiceRoutes.salt
    checks:        what was checked before traffic, as far as it has come; None before the first check ended
    judgement:     the last look of this stage, None before the first
    done:          the stages that were left
    gates:         what the gates before the next stage said last, none before they were asked
    """

    id: str
    spec: ReleaseSpec
    phase: Phase
    reason: str
    stage: int
    entered_s: float
    observed_s: float
    stage_table: int
    approved: bool
    salt: str
    created_s: float
    stable: Revision | None = None
    candidate: Revision | None = None
    checks: tuple[CheckResult, ...] | None = None
    judgement: Judgement | None = None
    done: tuple[StageRecord, ...] = ()
    finished_s: float | None = None
    resumed_s: float | None = None
    gates: tuple[GateAnswer, ...] = ()

    @property
    def service(self) -> str:
        return self.spec.service

    @property
    def current_stage(self) -> Stage:
        return self.spec.stages[self.stage]


@dataclass(frozen=True, slots=True)
class Retiring:
    """A revision that gets no new request and is stopped when its open ones are done, or at the latest `until_s`."""

    revision: Revision
    until_s: float


@dataclass(frozen=True, slots=True)
class Service:
    """A service and what serves it now.

    stable:   None until the first release has built it
    releases: how many releases it has had
    """

    name: str
    protocol: ServingProtocol
    routing: RoutingSpec
    stable: Revision | None = None
    retiring: tuple[Retiring, ...] = ()
    releases: int = 0


class CommandKind(Enum):
    """START begins a release. PROMOTE goes on to the next stage now. The others are what their names say;
    RETRY begins a new attempt with the same file after the last one ended without promotion."""

    START = "start"
    PROMOTE = "promote"
    PAUSE = "pause"
    RESUME = "resume"
    APPROVE = "approve"
    ABORT = "abort"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Command:
    """What a person wants. `spec` is set for START alone."""

    id: str
    service: str
    kind: CommandKind
    by: str
    reason: str
    at_s: float
    spec: ReleaseSpec | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, told once. `release_id` is None for what belongs to the service alone."""

    at_s: float
    service: str
    release_id: str | None
    kind: str
    text: str
    by: str = "graylift"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that is known at one look; what rollout decides on.

    checks:   None while they run
    stable, candidate: what the deployer sees of the two servers
    gateways: what each gateway reports; empty if none answers
    table_version: of the newest routing table that was stored
    judgement: None when there is nothing to judge yet
    ended_checks: of the checks that have ended, while the others run
    gates:    what the gates before the stage ahead say now; those that have not answered are missing
    """

    checks: CheckReport | None
    stable: Instance | None
    candidate: Instance | None
    gateways: tuple[GatewayState, ...]
    table_version: int
    judgement: Judgement | None
    ended_checks: tuple[CheckResult, ...] = ()
    gates: tuple[GateAnswer, ...] = ()
