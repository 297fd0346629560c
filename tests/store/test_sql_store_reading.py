"""What the commands read besides the port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from graylift.adapters.sql_store import SqlStore
from graylift.domain.release import Event
from graylift.ports import Change, Handled
from graylift.testing.conformance_store import (
    NOW,
    a_command,
    a_lease,
    a_report,
    an_event,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore(f"sqlite:///{tmp_path / 'state.db'}")
    yield store
    store.close()


def test_the_newest_lease_is_shown_even_when_it_ran_out(store: SqlStore) -> None:
    assert store.lease() is None
    taken = a_lease(store)
    assert store.lease() == taken


def test_whoever_sent_a_command_can_ask_what_became_of_it(store: SqlStore) -> None:
    with pytest.raises(KeyError):
        store.outcome("c1")
    store.append(a_command("c1"))
    assert store.outcome("c1") is None
    store.commit(a_lease(store), Change(handled=(Handled("c1", "paused at 5 %"),)))
    assert store.outcome("c1") == Handled("c1", "paused at 5 %")


def test_events_are_read_on_from_the_last_one_seen(store: SqlStore) -> None:
    other = Event(NOW, "another", None, "stage", "elsewhere")
    store.commit(a_lease(store), Change(events=(an_event("one"), other, an_event("two", None))))
    first, second, third = store.events_after()
    assert [first.event, second.event, third.event] == [an_event("one"), other, an_event("two", None)]
    assert store.events_after(first.number) == (second, third)
    assert store.events_after(first.number, service="file-type") == (third,)
    assert store.events_after(limit=1) == (first,)
    assert store.events_after(third.number) == ()


def test_recent_reports_are_those_of_the_service_since_a_time(store: SqlStore) -> None:
    reports = tuple(a_report(sequence, ("file-type", "another")) for sequence in (1, 2, 3))
    store.commit(a_lease(store), Change(reports=reports))
    assert store.recent_reports("file-type", NOW + 2) == (a_report(2), a_report(3))


def test_reports_of_no_release_go_after_an_hour_of_their_own_gateway(store: SqlStore) -> None:
    lease = a_lease(store)
    store.commit(lease, Change(reports=(a_report(1), a_report(2), a_report(1, gateway="slow clock"))))
    store.commit(lease, Change(reports=(a_report(3602),)))
    kept = [(report.gateway, report.sequence) for report in store.recent_reports("file-type", 0.0)]
    assert kept == [("slow clock", 1), ("gateway-1", 2), ("gateway-1", 3602)]
    store.commit(lease, Change(reports=(a_report(1),)))
    assert len(store.recent_reports("file-type", 0.0)) == 3, "a report that was forgotten does not come back"
