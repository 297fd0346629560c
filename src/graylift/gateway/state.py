"""What a gateway agent keeps on disk: how far the log is read and counted, the reports nobody has fetched yet, and the
routing tables. One SQLite file, since all of it must change together or not at all, also across a kill -9.

Methods block. They may be called from several threads, one at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from graylift.domain.evidence import IntervalReport
from graylift.domain.routing import RoutingTable
from graylift.errors import GatewayError
from graylift.gateway.tail import LogPosition
from graylift.metrics.intervals import Interval
from graylift.metrics.reports import Gap, InForce

_T = TypeVar("_T")

DROPPED = "older reports were dropped: nobody fetched them in time"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS reports (sequence INTEGER PRIMARY KEY, document BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, document BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything counted from the log up to `position`, so that a restart counts every line once.

    length_s, first, open: the open intervals (see `metrics.intervals`)
    sequence:     of the next report
    seen_s:       until when (epoch seconds) Envoy was seen to run and to write its log
    envoy:        identity of that Envoy process
    write_failed: Envoy's count of failed log writes then
    """

    position: LogPosition
    length_s: float
    first: int
    open: tuple[Interval, ...]
    sequence: int
    seen_s: float
    envoy: str
    write_failed: int
    in_force: tuple[InForce, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """The routing tables of this gateway.

    token:   the highest fencing token ever seen
    good:    the last table that Envoy took
    intent:  the table that is being applied, None when `good` is what is wanted
    refused: why the last table was refused, None if it was not
    """

    token: int = 0
    good: RoutingTable | None = None
    intent: RoutingTable | None = None
    refused: str | None = None

    @property
    def known(self) -> tuple[RoutingTable, ...]:
        """Those that Envoy may run by now."""
        return tuple(table for table in (self.good, self.intent) if table is not None)


class AgentState:
    """The state file at `path`. Every method raises GatewayError if it cannot be read or written."""

    def __init__(self, path: Path, max_reports: int) -> None:
        self._path = path
        self._max_reports = max_reports
        self._lock = Lock()
        with self._mapped():
            self._db = sqlite3.connect(path, timeout=1.0, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)

    def checkpoint(self) -> Checkpoint | None:
        return self._document("checkpoint", Checkpoint)

    def tables(self) -> Tables:
        return self._document("tables", Tables) or Tables()

    def keep_tables(self, tables: Tables) -> None:
        with self._transaction() as db:
            _put(db, "tables", _dumped(Tables, tables))

    def advance(self, checkpoint: Checkpoint, reports: Sequence[IntervalReport]) -> None:
        """Keep the new reports and the checkpoint that follows them, both or neither."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO reports VALUES (?, ?)", [(one.sequence, _dumped(IntervalReport, one)) for one in reports]
            )
            _put(db, "checkpoint", _dumped(Checkpoint, checkpoint))
            self._drop_oldest(db)

    def reports(self, after: int | None, limit: int) -> tuple[IntervalReport, ...]:
        """The oldest `limit` reports that follow sequence `after`; those up to `after` are deleted."""
        with self._transaction() as db:
            if after is not None:
                db.execute("DELETE FROM reports WHERE sequence <= ?", (after,))
            rows = db.execute("SELECT document FROM reports ORDER BY sequence LIMIT ?", (limit,)).fetchall()
        return tuple(self._loaded(IntervalReport, document) for (document,) in rows)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _drop_oldest(self, db: sqlite3.Connection) -> None:
        oldest_kept = db.execute(
            "SELECT sequence, document FROM reports ORDER BY sequence DESC LIMIT 1 OFFSET ?", (self._max_reports - 1,)
        ).fetchone()
        if oldest_kept is None:
            return
        sequence, document = oldest_kept
        if db.execute("DELETE FROM reports WHERE sequence < ?", (sequence,)).rowcount:
            report = self._loaded(IntervalReport, document)
            if report.gap is None or DROPPED not in report.gap:
                report = replace(report, gap=f"{report.gap}; {DROPPED}" if report.gap else DROPPED)
                db.execute(
                    "UPDATE reports SET document = ? WHERE sequence = ?", (_dumped(IntervalReport, report), sequence)
                )

    def _document(self, name: str, kind: type[_T]) -> _T | None:
        with self._transaction() as db:
            row = db.execute("SELECT document FROM documents WHERE name = ?", (name,)).fetchone()
        return None if row is None else self._loaded(kind, row[0])

    def _loaded(self, kind: type[_T], document: bytes) -> _T:
        try:
            return _adapter(kind).validate_json(document)
        except ValidationError as exc:
            raise GatewayError(
                f"{self._path} holds a {kind.__name__} that this version of Graylift does not understand "
                f"({exc.error_count()} problems). Start the gateway with the version that wrote it, or move it away"
            ) from exc

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._lock, self._mapped():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextmanager
    def _mapped(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise GatewayError(
                f"the gateway's state {self._path} cannot be read or written: {exc}. "
                "Nothing was changed; see that the disk has room and the file is whole"
            ) from exc


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _dumped(kind: type[_T], value: _T) -> bytes:
    return _adapter(kind).dump_json(value)


def _put(db: sqlite3.Connection, name: str, document: bytes) -> None:
    db.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (name, document))
