"""Whatever people command and whatever is observed, the rules of a release hold."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from graylift.domain.evidence import IntervalReport
from graylift.domain.judgement import DecisionKind, Judgement, Ruling
from graylift.domain.release import Command, CommandKind, Phase, Release, Service, Situation
from graylift.domain.revision import InstanceState
from graylift.domain.routing import GatewayState, ServiceRoutes
from graylift.domain.spec import LabelRule, OnFailure, ReleaseSpec, RoutingSpec, Stage, Sticky, StickyBy
from graylift.domain.weights import ALL, NONE, Role, Weights
from graylift.rollout import credit, decide, evolve, kept, obey, retire, routes, settle, wanted
from graylift.testing.samples import check_report, gateway_state, instance, judgement, release_spec, revision

ON_TRAFFIC = (Phase.PROGRESSING, Phase.PAUSED, Phase.PROMOTING)
GOES_BACK = (Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED, Phase.ROLLED_BACK)
NAMES = ("v1", "v2", "v3")
ADDRESSES = {revision(name).id: f"{name}.test:80" for name in NAMES}
ROUTING = RoutingSpec(
    sticky=Sticky(StickyBy.HEADER, "x-user"),
    match=(LabelRule("x-team", "us", Role.CANDIDATE), LabelRule("x-team", "them", Role.STABLE)),
)

sentences = st.none() | st.just("it is so")
versions_behind = st.sampled_from([None, 2, 1, 0, 0, 0, 0])


@st.composite
def specs(draw: st.DrawFn) -> ReleaseSpec:
    weights = sorted(draw(st.sets(st.integers(1, 9_999), max_size=3)))
    stages = [
        Stage(Weights(weight), draw(st.sampled_from([0.0, 2.0])), draw(st.sampled_from([0, 10])), draw(st.booleans()))
        for weight in weights
    ]
    stable, candidate = draw(st.permutations(NAMES))[:2]
    watch = Stage(ALL, draw(st.sampled_from([0.0, 2.0])), approval_required=draw(st.booleans()))
    return release_spec(
        stable=stable,
        candidate=candidate,
        stages=(*stages, watch),
        routing=ROUTING,
        on_failure=draw(st.sampled_from(OnFailure)),
        digest=f"{stable}{candidate}{weights}",
    )


@st.composite
def judgements(draw: st.DrawFn) -> Judgement:
    ruling = draw(st.sampled_from([Ruling.PASS, Ruling.PASS, Ruling.PASS, Ruling.INCONCLUSIVE, Ruling.FAIL]))
    rarely = st.sampled_from([None, None, None, None, None, "it is so"])
    return judgement(
        ruling,
        stable_sick=draw(rarely),
        candidate_sick=draw(rarely),
        share_off=draw(rarely),
        candidate_n=draw(st.sampled_from([0, 5, 50])),
    )


@st.composite
def gateways(draw: st.DrawFn, newest: int) -> tuple[GatewayState, ...]:
    def one(name: str) -> GatewayState:
        behind = draw(versions_behind)
        healthy = [revision(name) for name in NAMES if draw(st.sampled_from([True, True, True, True, False]))]
        refused = draw(st.sampled_from([None, None, None, "no"]))
        return gateway_state(
            name, applied=None if behind is None else newest - behind, healthy=healthy, refused=refused
        )

    return tuple(one(name) for name in draw(st.sampled_from([(), ("g1",), ("g1",), ("g1", "g2")])))


class AnyRelease(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.service: Service | None = None
        self.release: Release | None = None
        self.table = 0
        self.routes: ServiceRoutes | None = None
        self.now = 1000.0
        self.credited = 0.0
        self.went_back: set[str] = set()
        self.splits: dict[str, Weights] = {}

    @initialize(spec=specs())
    def a_release_starts(self, spec: ReleaseSpec) -> None:
        self.a_person_commands(CommandKind.START, spec)

    @rule(kind=st.sampled_from([*CommandKind, CommandKind.START, CommandKind.PROMOTE]), spec=specs())
    def a_person_commands(self, kind: CommandKind, spec: ReleaseSpec) -> None:
        before, service_before = self.release, self.service
        running = service_before.stable.name if service_before and service_before.stable else spec.stable.name
        if running != spec.candidate.name:  # mostly the file names what runs
            spec = replace(spec, stable=replace(spec.stable, name=running), digest=f"{running}{spec.digest}")
        command = Command("c", "file-type", kind, "ann", "", self.now, spec if kind is CommandKind.START else None)
        obeyed = obey(command, self.service, self.release, self.table, self.now)
        if obeyed.refused:
            assert obeyed.release == before
            assert obeyed.service == service_before
            assert obeyed.outcome
            return
        again = obey(command, obeyed.service, obeyed.release, self.table, self.now)
        if kind not in (CommandKind.PROMOTE, CommandKind.RETRY):
            assert again.refused or again.release == obeyed.release, "twice is as once"
        self.becomes(obeyed.service, obeyed.release, may_raise=kind is CommandKind.PROMOTE)

    @precondition(lambda self: self.release is not None)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 1.0, 40.0]))
    def the_controller_looks_at_anything(self, data: st.DataObject, seconds: float) -> None:
        release = self.now_unfinished()
        self.now += seconds
        state = st.sampled_from([InstanceState.READY] * 6 + list(InstanceState))
        judged = release.phase in ON_TRAFFIC and data.draw(st.booleans())
        checked = release.phase is Phase.CHECKING and data.draw(st.booleans())
        failures = data.draw(st.sampled_from([(), (), ("no",)]))
        self.look(
            Situation(
                checks=check_report(release.spec, *failures) if checked else None,
                stable=instance(release.stable, data.draw(state)) if release.stable else None,
                candidate=instance(release.candidate, data.draw(state)) if release.candidate else None,
                gateways=data.draw(gateways(self.table)),
                table_version=self.table,
                judgement=data.draw(judgements()) if judged else None,
            )
        )

    @precondition(lambda self: self.release is not None)
    @rule(looks=st.integers(1, 8))
    def all_is_well_for_a_while(self, looks: int) -> None:
        for _ in range(looks):
            release = self.now_unfinished()
            self.now += 1.0
            self.a_report_arrives(gap=None, length_s=1.0, behind=0, fleet=1)
            self.look(
                Situation(
                    checks=check_report(release.spec) if release.phase is Phase.CHECKING else None,
                    stable=instance(release.stable) if release.stable else None,
                    candidate=instance(release.candidate) if release.candidate else None,
                    gateways=(gateway_state(applied=self.table, healthy=[revision(name) for name in NAMES]),),
                    table_version=self.table,
                    judgement=judgement(Ruling.PASS) if release.phase in ON_TRAFFIC else None,
                )
            )

    def now_unfinished(self) -> Release:
        assert self.release is not None
        return self.release

    def look(self, situation: Situation) -> None:
        release = self.now_unfinished()
        assert self.service is not None
        service = retire(self.service, situation.gateways, self.table, self.now)
        decision = decide(release, situation, self.now)
        assert decision.why
        after, _ = evolve(release, decision, situation, self.now)
        moved_up = release.phase is Phase.STARTING and decision.kind is DecisionKind.ADVANCE
        proven = (
            release.phase is Phase.PROGRESSING
            and decision.kind in (DecisionKind.ADVANCE, DecisionKind.PROMOTE)
            and situation.judgement is not None
            and situation.judgement.passed
            and all(verdict.ruling is Ruling.PASS for verdict in situation.judgement.verdicts)
        )
        if release.phase.is_final:
            assert after == release
        if release.phase is Phase.PAUSED:
            assert after.phase in (Phase.PAUSED, Phase.ROLLING_BACK)
        self.becomes(service, after, may_raise=moved_up or proven)

    @precondition(lambda self: self.release is not None)
    @rule(
        gap=sentences,
        length_s=st.sampled_from([0.5, 1.0, 5.0]),
        behind=versions_behind,
        fleet=st.integers(1, 3),
    )
    def a_report_arrives(self, gap: str | None, length_s: float, behind: int | None, fleet: int) -> None:
        assert self.release is not None
        version = None if behind is None else self.table - behind
        report = IntervalReport("g1", 1, self.now, length_s, version, (), gap)
        counted = (
            gap is None and version is not None and version >= self.release.stage_table
        ) and self.release.phase in ON_TRAFFIC
        after = credit(self.release, report, fleet)
        if counted:
            self.credited += length_s / fleet
        else:
            assert after is self.release
        assert replace(after, observed_s=0.0) == replace(self.release, observed_s=0.0)
        self.release = after

    def becomes(self, service: Service | None, after: Release | None, *, may_raise: bool) -> None:
        assert service is not None
        assert after is not None
        before = self.release
        service = settle(service, before, after, self.now)
        new_routes = routes(service, after, ADDRESSES)
        old_weight = self.routes.weights.candidate if self.routes else 0
        new_weight = new_routes.weights.candidate if new_routes else 0
        if before is None or before.id != after.id:
            assert after.phase is Phase.PENDING
            assert new_weight == 0, "a new release begins with no traffic"
        else:
            assert after.stage - before.stage in (0, 1), "no stage is skipped"
            entered = after.phase in ON_TRAFFIC and (after.stage != before.stage or before.phase is Phase.STARTING)
            if entered or after.phase not in ON_TRAFFIC:
                self.credited = 0.0
            if entered:
                assert after.observed_s == 0.0
                assert not after.approved
                assert after.stage_table == self.table + 1
            if new_weight > old_weight:
                assert may_raise
            if after.phase in GOES_BACK:
                self.went_back.add(after.id)
                assert new_weight == 0, "the very next table has no traffic for the candidate"
        if new_routes != self.routes:
            self.table += 1
        self.service, self.release, self.routes = service, after, new_routes
        event(after.phase.value)

    @invariant()
    def what_went_back_gets_no_traffic(self) -> None:
        if self.release is not None and self.release.id in self.went_back:
            assert self.release.phase in GOES_BACK

    @invariant()
    def no_more_is_observed_than_was_credited(self) -> None:
        if self.release is not None:
            assert self.release.observed_s <= self.credited + 1e-9

    @invariant()
    def the_first_table_of_a_stage_was_written(self) -> None:
        if self.release is not None and self.release.phase in (*ON_TRAFFIC, Phase.ROLLING_BACK):
            assert self.release.stage_table <= self.table

    @invariant()
    def the_routes_are_consistent(self) -> None:
        release, service, seen = self.release, self.service, self.routes
        if release is None or service is None:
            return
        running, leaving = {r.id for r in wanted(service, release)}, {r.id for r in kept(service, release)}
        assert not running & leaving
        if seen is None:
            assert service.stable is None
            return
        assert service.stable is not None
        assert seen.stable.revision_id == service.stable.id
        assert {seen.stable.revision_id} <= running
        assert {backend.revision_id for backend in seen.draining} == leaving
        to_candidate = [rule for rule in seen.match if rule.to is Role.CANDIDATE]
        if release.phase in ON_TRAFFIC:
            assert seen.candidate is not None
            assert seen.weights == release.current_stage.weights
            assert to_candidate
        else:
            assert seen.weights == NONE
            assert not to_candidate
        if seen.candidate is not None:
            assert release.candidate is not None
            assert seen.candidate.revision_id == release.candidate.id
            assert seen.candidate.revision_id in running
            assert seen.candidate.revision_id != seen.stable.revision_id
            assert seen.salt == release.salt
        assert self.splits.setdefault(seen.split, seen.weights) == seen.weights, "one split, one weight"


TestAnyRelease = AnyRelease.TestCase
TestAnyRelease.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
