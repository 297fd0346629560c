"""Releases kept in a store."""

from __future__ import annotations

from graylift.adapters.sql_store import SqlStore
from graylift.domain.release import Event, Phase, Release, Service
from graylift.ports import Change, Tracked
from graylift.testing import samples

NOW = 1_772_366_400.0


def a_release(phase: Phase = Phase.PROGRESSING, *, reason: str = "observed 3 s of 5 s") -> Release:
    return Release(
        id="file-type-1",
        spec=samples.release_spec(),
        phase=phase,
        reason=reason,
        stage=0,
        entered_s=NOW - 3,
        observed_s=3.0,
        stage_table=1,
        approved=False,
        salt="file-type-1",
        created_s=NOW - 60,
        stable=samples.revision("v1"),
        candidate=samples.revision("v2"),
        checks=samples.check_report(samples.release_spec()).results,
        judgement=samples.judgement(),
        finished_s=NOW if phase.is_final else None,
    )


def keep(store: SqlStore, release: Release, *events: Event) -> None:
    """The release as the newest of its service, in the store."""
    service = Service("file-type", release.spec.protocol, release.spec.routing, samples.revision("v1"), releases=1)
    lease = store.acquire("tests", NOW, 1e9)
    assert lease is not None
    known = [one.revision_no for one in store.snapshot().services]
    store.commit(lease, Change((Tracked(service, release, None, known[0] if known else 0),), events=events))
