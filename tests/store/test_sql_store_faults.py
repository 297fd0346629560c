"""What the file meets in the world: full disks, locks, damage, newer versions, kill -9. Nothing half-written, ever."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from graylift.adapters.sql_store import SqlStore
from graylift.errors import StoreError
from graylift.ports import Change
from graylift.testing.conformance_store import a_lease, a_release, a_table, a_tracked, an_event


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@contextmanager
def opened(path: Path) -> Iterator[SqlStore]:
    store = SqlStore(f"sqlite:///{path}")
    try:
        yield store
    finally:
        store.close()


@contextmanager
def each_connection_with(pragma: str) -> Iterator[None]:
    """SQLite's own ways to meet a full or a read-only disk hold for one connection, so each new one must ask."""

    def ask(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA {pragma}")

    event.listen(Pool, "connect", ask)
    try:
        yield
    finally:
        event.remove(Pool, "connect", ask)


def test_only_its_owner_may_read_the_state_and_its_side_files(path: Path) -> None:
    with opened(path) as store:
        store.commit(a_lease(store), Change(table=a_table(1)))
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm"), "0o600")


def test_the_state_outlives_the_store(path: Path) -> None:
    with opened(path) as store:
        store.commit(a_lease(store), Change((a_tracked(release=a_release()),), a_table(1)))
        before = store.snapshot()
    with opened(path) as store:
        assert store.snapshot() == before


def test_a_full_disk_writes_nothing_and_says_so(path: Path) -> None:
    with opened(path) as store:
        store.commit(a_lease(store), Change((a_tracked(release=a_release()),), a_table(1)))
        before = store.snapshot()
    with each_connection_with("max_page_count = 40"), opened(path) as store:
        lease = a_lease(store)
        big = tuple(an_event("x" * 1000) for _ in range(300))
        with pytest.raises(StoreError, match=r"disk of the state .*state\.db is full; nothing was written"):
            store.commit(lease, Change((a_tracked(revision_no=1),), a_table(2), big))
        assert store.snapshot() == before
        assert store.history("file-type-1").events == ()
    with opened(path) as store:
        store.commit(a_lease(store), Change((a_tracked(revision_no=1),), a_table(2), big))
        assert len(store.events_after(limit=1000)) == 300


def test_a_file_locked_by_another_process_is_named_and_can_still_be_read(path: Path) -> None:
    with opened(path) as store:
        lease = a_lease(store)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"state\.db was locked by another process for more than 2 s"):
            store.commit(lease, Change(table=a_table(1)))
        assert store.snapshot().table is None
        other.execute("ROLLBACK")
        other.close()
        store.commit(lease, Change(table=a_table(1)))
        assert store.snapshot().table == a_table(1)


def test_a_file_that_cannot_be_written_says_what_to_check(path: Path) -> None:
    with opened(path):
        pass
    with (
        each_connection_with("query_only = ON"),
        opened(path) as store,
        pytest.raises(StoreError, match=r"cannot be written .*owner and mode"),
    ):
        a_lease(store)


def test_a_damaged_file_is_told_from_an_empty_one(path: Path) -> None:
    path.write_bytes(b"no database, but quite long enough to be taken for one" * 100)
    with pytest.raises(StoreError, match=r"state\.db is damaged or no SQLite file"):
        SqlStore(f"sqlite:///{path}")


def test_a_document_that_cannot_be_read_names_its_fault(path: Path) -> None:
    with opened(path) as store:
        store.commit(a_lease(store), Change(table=a_table(1)))
        with sqlite3.connect(path) as other:
            other.execute("""UPDATE routing_table SET document = '{"version": 1, "services": []}'""")
        other.close()
        with pytest.raises(StoreError, match="this is no RoutingTable: at token: Field required"):
            store.snapshot()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"away/state\.db cannot be made: No such file or directory"):
        SqlStore(f"sqlite:///{tmp_path}/away/state.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql://u:secret@db/x", "state.db", ""])
def test_what_is_no_sqlite_file_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(StoreError, match="sqlite:////var/lib/graylift") as refused:
        SqlStore(url)
    assert "secret" not in str(refused.value)


def test_the_state_of_a_newer_graylift_is_refused(path: Path) -> None:
    with opened(path):
        pass
    with sqlite3.connect(path) as other:
        other.execute("UPDATE graylift_schema SET version = 99")
    other.close()
    with pytest.raises(StoreError, match=r"newer Graylift \(schema 99; this one knows up to 1\)"):
        SqlStore(f"sqlite:///{path}")


_COMMITS_FOREVER = """
import sys, time
from graylift.adapters.sql_store import SqlStore
from graylift.ports import Change
from graylift.testing.conformance_store import *
store = SqlStore(sys.argv[1])
lease = a_lease(store)
snapshot = store.snapshot()
number = snapshot.services[0].revision_no if snapshot.services else 0
while True:
    release = replace(a_release(), observed_s=float(number + 1))
    store.commit(lease, Change(
        (a_tracked(release=release, revision_no=number),),
        a_table(number + 1),
        (an_event(str(number + 1)), an_event(str(number + 1))),
        (a_report(number + 1),),
    ))
    number += 1
    print(number, flush=True)
"""


@pytest.mark.real
def test_after_kill_9_at_any_moment_each_commit_is_whole(path: Path) -> None:
    moments = random.Random(9)
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", _COMMITS_FOREVER, f"sqlite:///{path}"], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        told = [child.stdout.readline()]
        time.sleep(moments.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        told += child.stdout.readlines()
        child.stdout.close()
        child.wait()
        with opened(path) as store:
            snapshot = store.snapshot()
            assert snapshot.table is not None
            release = snapshot.services[0].release
            assert release is not None
            number = snapshot.services[0].revision_no
            assert number >= max(int(line) for line in told if line.endswith("\n")), "a commit was told and is gone"
            assert (snapshot.table.version, snapshot.cursors, release.observed_s) == (
                number,
                (("gateway-1", number),),
                number,
            )
            history = store.history("file-type-1")
            assert [told.text for told in history.events] == [str(n) for n in range(1, number + 1) for _ in "12"]
            assert [report.sequence for report in history.reports] == list(range(1, number + 1))
