"""What every ports.ReleaseStore must do. Subclass `StoreConformance` in a test, and give it a `store` fixture:

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store(self) -> ReleaseStore: return MyStore(...)

The values below stand for real ones in other tests of a store, too. Nothing here imports pytest.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.histogram import Histogram
from graylift.domain.judgement import Judgement, Ruling, Verdict
from graylift.domain.release import (
    CheckOutcome,
    CheckResult,
    Command,
    CommandKind,
    Event,
    Phase,
    Release,
    Service,
    StageRecord,
)
from graylift.domain.revision import Revision, RunningEndpoint, ServedEngine
from graylift.domain.routing import Backend, RoutingTable, ServiceRoutes
from graylift.domain.scores import ScoreCounts
from graylift.domain.spec import (
    Check,
    EndpointModel,
    JudgeSpec,
    LabelRule,
    Margin,
    MarginKind,
    Metric,
    OnFailure,
    OnnxModel,
    PromoteMargin,
    ReleaseSpec,
    RevisionSpec,
    RoutingSpec,
    ServingProtocol,
    Stage,
    Sticky,
    StickyBy,
    TensorName,
)
from graylift.domain.weights import ALL, NONE, Role, Weights
from graylift.errors import LeaseLost
from graylift.ports import Change, Handled, Lease, ReleaseStore, Tracked

NOW = 1_800_000_000.0


def a_spec(service: str = "file-type") -> ReleaseSpec:
    """A spec in which every optional part is there once."""
    check = Check(Metric.LATENCY, 0.99, Margin(MarginKind.RATIO, 1.1), Margin(MarginKind.RATIO, 1.2))
    return ReleaseSpec(
        service=service,
        protocol=ServingProtocol.OPEN_INFERENCE,
        stable=RevisionSpec("v1", OnnxModel("/models/v1.onnx", outputs=(TensorName("label", "output_0"),))),
        candidate=RevisionSpec("v2", EndpointModel("http://127.0.0.1:8000"), ready_within_s=5.0),
        routing=RoutingSpec(Sticky(StickyBy.HEADER, "x-user-id"), (LabelRule("x-tenant", "internal", Role.CANDIDATE),)),
        stages=(
            Stage(Weights(100), 600.0, 500, promote_if_within=(PromoteMargin(check.name, check.promote_if_within),)),
            Stage(ALL, 1800.0, approval_required=True),
        ),
        judge=JudgeSpec((check,)),
        on_failure=OnFailure.PAUSE,
        digest="5" * 64,
    )


def a_release(number: int = 1, service: str = "file-type") -> Release:
    """A release in its first stage, with every kind of evidence, infinite ones included."""
    verdict = Verdict(
        "errors", Ruling.INCONCLUSIVE, "too little", 0.01, None, 70, 0, None, 0.2, float("-inf"), float("inf")
    )
    judgement = Judgement((verdict,), False, False, None, None, None, 70, 0)
    return Release(
        id=f"{service}-{number}",
        spec=a_spec(service),
        phase=Phase.PROGRESSING,
        reason="stage 1 of 2",
        stage=0,
        entered_s=NOW + number,
        observed_s=12.5,
        stage_table=3,
        approved=False,
        salt="salt",
        created_s=NOW,
        stable=Revision(service, "v1", "1" * 64, ServedEngine("a" * 64, (), (TensorName("label", "output_0"),)), 60.0),
        candidate=Revision(service, "v2", "2" * 64, RunningEndpoint("http://127.0.0.1:8000"), 5.0),
        checks=(CheckResult("interface", CheckOutcome.PASS, "equal", ("input: FP32[?]",)),),
        judgement=judgement,
        done=(StageRecord(0, Weights(100), NOW, NOW + 1, 1.0, 70, 0, (verdict,), "passed"),),
    )


def a_tracked(service: str = "file-type", release: Release | None = None, revision_no: int = 0) -> Tracked:
    routing = RoutingSpec(Sticky(StickyBy.COOKIE, "visitor"))
    return Tracked(Service(service, ServingProtocol.OPEN_INFERENCE, routing), release, "judge's own", revision_no)


def a_table(version: int, token: int = 1) -> RoutingTable:
    routes = ServiceRoutes(
        service="file-type",
        protocol=ServingProtocol.OPEN_INFERENCE,
        stable=Backend("file-type.v1.111111111111", "127.0.0.1:9001"),
        candidate=None,
        weights=NONE,
        match=(),
        sticky=None,
        salt="",
        split="file-type-1/0",
        timeout_s=30.0,
    )
    return RoutingTable(version, token, (routes,))


def a_report(sequence: int, services: tuple[str, ...] = ("file-type",), gateway: str = "gateway-1") -> IntervalReport:
    """The interval of one second that starts `sequence` seconds after NOW."""
    windows = tuple(
        Window(
            *(name, "split", Role.STABLE, "v1", None),
            requests=2,
            failed=1,
            latency=Histogram(((-300, 1),)),
            scores=(("helpful", ScoreCounts(((900, 1),))),),
        )
        for name in services
    )
    return IntervalReport(gateway, sequence, NOW + sequence, 1.0, 7, windows)


def an_event(text: str, release_id: str | None = "file-type-1") -> Event:
    return Event(NOW, "file-type", release_id, "stage", text)


def a_command(command_id: str, kind: CommandKind = CommandKind.PAUSE) -> Command:
    spec = a_spec() if kind is CommandKind.START else None
    return Command(command_id, "file-type", kind, "anna", "a look", NOW, spec)


def a_lease(store: ReleaseStore, holder: str = "one", now: float = NOW) -> Lease:
    lease = store.acquire(holder, now, 10.0)
    assert lease is not None
    return lease


@contextmanager
def _refused() -> Generator[None]:
    try:
        yield
    except LeaseLost as lost:
        assert str(lost), "a refusal says why"  # noqa: PT017
    else:
        raise AssertionError("expected LeaseLost")


class StoreConformance:
    """One test for each promise of the port."""

    def test_an_empty_store_has_nothing(self, store: ReleaseStore) -> None:
        snapshot = store.snapshot()
        assert (snapshot.services, snapshot.table, snapshot.cursors, snapshot.commands) == ((), None, (), ())

    def test_what_is_committed_is_read_back_equal(self, store: ReleaseStore) -> None:
        tracked = a_tracked(release=a_release())
        store.commit(a_lease(store), Change((tracked,), a_table(4), (an_event("began"),), (a_report(1),)))
        snapshot = store.snapshot()
        assert snapshot.services == (replace(tracked, revision_no=1),)
        assert snapshot.table == a_table(4)
        assert snapshot.cursors == (("gateway-1", 1),)
        history = store.history("file-type-1")
        assert history.release == a_release()
        assert history.events == (an_event("began"),)
        assert history.reports == (a_report(1),)

    def test_a_change_without_a_table_keeps_the_table(self, store: ReleaseStore) -> None:
        lease = a_lease(store)
        store.commit(lease, Change(table=a_table(1)))
        store.commit(lease, Change(events=(an_event("later"),)))
        assert store.snapshot().table == a_table(1)

    def test_the_snapshot_has_the_newest_release_and_history_keeps_the_older(self, store: ReleaseStore) -> None:
        lease = a_lease(store)
        first = replace(a_release(1), phase=Phase.ROLLED_BACK, finished_s=NOW + 5)
        store.commit(lease, Change((a_tracked(release=first),)))
        second = replace(a_release(2), created_s=NOW + 6)
        store.commit(lease, Change((a_tracked(release=second, revision_no=1),)))
        assert [tracked.release for tracked in store.snapshot().services] == [second]
        assert store.history("file-type-1").release == first

    def test_the_history_of_an_unknown_release_is_a_key_error(self, store: ReleaseStore) -> None:
        try:
            store.history("nobody-1")
        except KeyError:
            return
        raise AssertionError("expected KeyError")

    # Leases.

    def test_a_lease_is_renewed_by_its_holder_with_the_same_token(self, store: ReleaseStore) -> None:
        first = a_lease(store)
        renewed = a_lease(store, now=NOW + 5)
        assert (renewed.token, renewed.until_s) == (first.token, NOW + 15)

    def test_nobody_else_gets_a_lease_that_has_not_run_out(self, store: ReleaseStore) -> None:
        a_lease(store)
        assert store.acquire("two", NOW + 9.9, 10.0) is None

    def test_a_lease_that_ran_out_is_taken_over_with_a_higher_token(self, store: ReleaseStore) -> None:
        first = a_lease(store)
        second = a_lease(store, "two", NOW + 10)
        assert second.token > first.token
        assert a_lease(store, "one", NOW + 20).token > second.token

    def test_whoever_lost_the_lease_writes_nothing(self, store: ReleaseStore) -> None:
        old = a_lease(store)
        new = a_lease(store, "two", NOW + 10)
        with _refused():
            store.commit(old, Change(table=a_table(1)))
        assert store.snapshot().table is None
        store.commit(new, Change(table=a_table(2)))
        assert store.snapshot().table == a_table(2)

    def test_a_lease_that_ran_out_untaken_still_writes(self, store: ReleaseStore) -> None:
        lease = store.acquire("one", NOW, 0.0)
        assert lease is not None
        store.commit(lease, Change(table=a_table(1)))
        assert store.snapshot().table == a_table(1)

    def test_without_any_lease_nothing_is_written(self, store: ReleaseStore) -> None:
        with _refused():
            store.commit(Lease("one", 1, NOW), Change(table=a_table(1)))
        assert store.snapshot().table is None

    # Atomicity.

    def test_a_service_that_was_changed_meanwhile_refuses_the_whole_change(self, store: ReleaseStore) -> None:
        lease = a_lease(store)
        store.append(a_command("c1"))
        store.commit(lease, Change((a_tracked(release=a_release()),)))
        before = store.snapshot()
        with _refused():
            store.commit(
                lease,
                Change(
                    tracked=(a_tracked("another"), a_tracked(revision_no=0)),
                    table=a_table(9),
                    events=(an_event("must not be told"),),
                    reports=(a_report(1),),
                    handled=(Handled("c1", "done"),),
                ),
            )
        assert store.snapshot() == before
        history = store.history("file-type-1")
        assert (history.events, history.reports) == ((), ())

    def test_each_commit_raises_the_revision_number_of_its_services_alone(self, store: ReleaseStore) -> None:
        lease = a_lease(store)
        store.commit(lease, Change((a_tracked("a"), a_tracked("b"))))
        store.commit(lease, Change((a_tracked("b", revision_no=1),)))
        assert [(t.service.name, t.revision_no) for t in store.snapshot().services] == [("a", 1), ("b", 2)]

    # Commands.

    def test_commands_wait_in_order_of_arrival_until_they_are_handled(self, store: ReleaseStore) -> None:
        sent = [a_command("z", CommandKind.START), a_command("a"), a_command("m", CommandKind.RESUME)]
        for command in sent:
            store.append(command)
        assert list(store.snapshot().commands) == sent
        store.commit(a_lease(store), Change(handled=(Handled("a", "paused"),)))
        assert [command.id for command in store.snapshot().commands] == ["z", "m"]

    def test_a_command_appended_twice_is_there_once_even_when_handled(self, store: ReleaseStore) -> None:
        store.append(a_command("c1"))
        store.append(a_command("c1", CommandKind.ABORT))
        assert store.snapshot().commands == (a_command("c1"),)
        store.commit(a_lease(store), Change(handled=(Handled("c1", "paused"),)))
        store.append(a_command("c1"))
        assert store.snapshot().commands == ()

    # Evidence.

    def test_a_report_that_comes_twice_is_counted_once(self, store: ReleaseStore) -> None:
        lease = a_lease(store)
        store.commit(lease, Change((a_tracked(release=a_release()),), reports=(a_report(1), a_report(2))))
        store.commit(lease, Change(reports=(a_report(2), a_report(3), a_report(3))))
        assert [report.sequence for report in store.history("file-type-1").reports] == [1, 2, 3]
        assert store.snapshot().cursors == (("gateway-1", 3),)

    def test_each_gateway_has_its_own_cursor(self, store: ReleaseStore) -> None:
        reports = (a_report(8, gateway="b"), a_report(2, gateway="a"), a_report(1, gateway="a"))
        store.commit(a_lease(store), Change((a_tracked(release=a_release()),), reports=reports))
        assert store.snapshot().cursors == (("a", 2), ("b", 8))
        assert [r.sequence for r in store.history("file-type-1").reports] == [1, 2, 8]

    def test_history_has_the_events_of_the_release_in_the_order_told(self, store: ReleaseStore) -> None:
        lease = a_lease(store)
        told = [an_event(str(number)) for number in (3, 1, 2)]
        store.commit(lease, Change((a_tracked(release=a_release()),), events=(*told, an_event("another's", None))))
        store.commit(lease, Change(events=(an_event("last"),)))
        assert [event.text for event in store.history("file-type-1").events] == ["3", "1", "2", "last"]

    def test_history_leaves_out_other_services_and_keeps_reports_without_windows(self, store: ReleaseStore) -> None:
        reports = (a_report(1, ("file-type", "another")), a_report(2, ("another",)), a_report(3, ()))
        store.commit(a_lease(store), Change((a_tracked(release=a_release()),), reports=reports))
        kept = store.history("file-type-1").reports
        assert [[window.service for window in report.windows] for report in kept] == [["file-type"], [], []]

    def test_history_is_the_life_span_of_the_release_however_late_its_reports_come(self, store: ReleaseStore) -> None:
        lease = a_lease(store)
        release = replace(a_release(), created_s=NOW + 2.5, finished_s=NOW + 4.5)
        store.commit(lease, Change((a_tracked(release=release),)))
        store.commit(lease, Change(reports=tuple(a_report(sequence) for sequence in range(8))))
        assert [report.sequence for report in store.history("file-type-1").reports] == [2, 3, 4]

    def test_the_evidence_of_a_release_outlives_the_hour(self, store: ReleaseStore) -> None:
        lease = a_lease(store)
        store.commit(lease, Change((a_tracked(release=a_release()),), reports=(a_report(1),)))
        store.commit(lease, Change(reports=(a_report(7200),)))
        assert [report.sequence for report in store.history("file-type-1").reports] == [1, 7200]
