"""The store: everything a controller must not forget, in one SQLite file that survives kill -9 and full disks.

A commit is one transaction, fenced by the lease and by each service's `revision_no`; what the foreign libraries raise
becomes StoreError in one place. The file may be read by other processes (`status`, `events`, `report`) while a
controller writes. It judges and decides nothing. Called by the controller and, for reading, by the commands.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, delete, event, func, insert, inspect, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from graylift.adapters import sql_schema as tables
from graylift.adapters.documents import document_from, value_from
from graylift.domain.access import Token
from graylift.domain.evidence import IntervalReport
from graylift.domain.release import Command, Event, Release, Service
from graylift.domain.routing import RoutingTable
from graylift.errors import CommandRefused, LeaseLost, StoreError
from graylift.ports import Change, Handled, History, Lease, Snapshot, Tracked

RECENT_S = 3600.0
"""How long reports are kept that belong to no release."""

_BUSY_S = 2.0


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event and its place in the order of all: whoever has read up to `number` asks for what follows."""

    number: int
    event: Event


class SqlStore:
    """ports.ReleaseStore in the SQLite file of `url` (`sqlite:////var/lib/graylift/state.db`), made if it is missing.

    Every method blocks, for at most some two seconds while another process writes, and raises StoreError alone.
    """

    def __init__(self, url: str) -> None:
        self._path, parsed = _place_from(url)
        _create_private(self._path)
        engine = create_engine(parsed, connect_args={"timeout": _BUSY_S, "isolation_level": None})
        event.listen(engine, "connect", _make_durable)
        event.listen(engine, "begin", _begin)
        self._reader = engine
        # A write transaction takes the lock first: one that starts by reading could not be upgraded once another wrote.
        self._writer = engine.execution_options(begin="BEGIN IMMEDIATE")
        self._prepare()

    def close(self) -> None:
        self._reader.dispose()

    # The port.

    def acquire(self, holder: str, now: float, ttl_s: float) -> Lease | None:
        with self._transaction(self._writer) as connection:
            held = _lease(connection)
            if held is not None and held.holder != holder and held.until_s > now:
                return None
            token = 1 if held is None else held.token + (held.holder != holder)
            taken = Lease(holder, token, now + ttl_s)
            _put(connection, tables.lease, {"id": 1}, holder=holder, token=token, until_s=taken.until_s)
            return taken

    def snapshot(self) -> Snapshot:
        with self._transaction(self._reader) as connection:
            tracked = connection.execute(
                select(tables.services, tables.releases.c.document.label("release"))
                .outerjoin(tables.releases, tables.services.c.release_id == tables.releases.c.id)
                .order_by(tables.services.c.name)
            ).all()
            table = connection.scalar(select(tables.routing_table.c.document))
            cursors = connection.execute(select(tables.cursors).order_by(tables.cursors.c.gateway)).all()
            commands = connection.scalars(
                select(tables.commands.c.document)
                .where(tables.commands.c.outcome.is_(None))
                .order_by(tables.commands.c.arrival)
            ).all()
            return Snapshot(
                services=tuple(
                    Tracked(
                        service=value_from(Service, row.document),
                        release=None if row.release is None else value_from(Release, row.release),
                        judge_state=row.judge_state,
                        revision_no=row.revision_no,
                    )
                    for row in tracked
                ),
                table=None if table is None else value_from(RoutingTable, table),
                cursors=tuple((row.gateway, row.sequence) for row in cursors),
                commands=tuple(value_from(Command, document) for document in commands),
            )

    def commit(self, lease: Lease, change: Change) -> None:
        with self.fenced(lease) as connection:
            for tracked in change.tracked:
                _write_tracked(connection, tracked)
            if change.table is not None:
                _put(connection, tables.routing_table, {"id": 1}, document=document_from(change.table))
            if change.events:
                connection.execute(insert(tables.events), [_row_from_event(told) for told in change.events])
            _write_reports(connection, change.reports)
            for handled in change.handled:
                connection.execute(
                    update(tables.commands)
                    .where(tables.commands.c.id == handled.command_id)
                    .values(outcome=handled.text, refused=handled.refused)
                )

    def append(self, command: Command) -> None:
        with self._transaction(self._writer) as connection:
            known = select(tables.commands.c.id).where(tables.commands.c.id == command.id)
            if connection.scalar(known) is None:
                connection.execute(insert(tables.commands).values(id=command.id, document=document_from(command)))

    def history(self, release_id: str) -> History:
        with self._transaction(self._reader) as connection:
            release = connection.scalar(select(tables.releases.c.document).where(tables.releases.c.id == release_id))
            if release is None:
                raise KeyError(release_id)
            events = connection.execute(
                select(tables.events).where(tables.events.c.release_id == release_id).order_by(tables.events.c.id)
            ).all()
            kept = tables.release_reports
            reports = connection.scalars(
                select(kept.c.document)
                .where(kept.c.release_id == release_id)
                .order_by(kept.c.start_s, kept.c.gateway, kept.c.sequence)
            ).all()
            return History(
                release=value_from(Release, release),
                events=tuple(event_from_row(row) for row in events),
                reports=tuple(value_from(IntervalReport, document) for document in reports),
            )

    # What the commands and the API read besides.

    def release(self, release_id: str) -> Release:
        """KeyError if there is none of that id."""
        with self._transaction(self._reader) as connection:
            kept = tables.releases
            document = connection.scalar(select(kept.c.document).where(kept.c.id == release_id))
            if document is None:
                raise KeyError(release_id)
            return value_from(Release, document)

    def releases(self, service: str | None = None, limit: int = 100) -> tuple[Release, ...]:
        """The newest releases of one service or of all, newest first."""
        kept = tables.releases
        asked = select(kept.c.document).order_by(kept.c.created_s.desc(), kept.c.id.desc()).limit(limit)
        if service is not None:
            asked = asked.where(kept.c.service == service)
        with self._transaction(self._reader) as connection:
            return tuple(value_from(Release, document) for document in connection.scalars(asked))

    def lease(self) -> Lease | None:
        """The newest lease, run out or not; None before the first controller."""
        with self._transaction(self._reader) as connection:
            return _lease(connection)

    def outcome(self, command_id: str) -> Handled | None:
        """What became of a command, None while no controller has handled it. KeyError if it was never appended."""
        with self._transaction(self._reader) as connection:
            row = connection.execute(
                select(tables.commands.c.outcome, tables.commands.c.refused).where(tables.commands.c.id == command_id)
            ).one_or_none()
            if row is None:
                raise KeyError(command_id)
            return None if row.outcome is None else Handled(command_id, row.outcome, row.refused)

    def events_after(
        self, number: int = 0, *, service: str | None = None, release_id: str | None = None, limit: int = 1000
    ) -> tuple[NumberedEvent, ...]:
        """The first `limit` events after event `number`, of one service, one release or of all, in the order they
        were told."""
        asked = select(tables.events).where(tables.events.c.id > number).order_by(tables.events.c.id).limit(limit)
        if service is not None:
            asked = asked.where(tables.events.c.service == service)
        if release_id is not None:
            asked = asked.where(tables.events.c.release_id == release_id)
        with self._transaction(self._reader) as connection:
            return tuple(NumberedEvent(row.id, event_from_row(row)) for row in connection.execute(asked))

    def last_event(self) -> int:
        """The number of the newest event; 0 before the first."""
        with self._transaction(self._reader) as connection:
            return connection.scalar(select(func.max(tables.events.c.id))) or 0

    def recent_reports(self, service: str, since_s: float) -> tuple[IntervalReport, ...]:
        """Reports of intervals that ended after `since_s` (epoch seconds; an hour back at most), oldest first, with
        the windows of this service alone."""
        recent = tables.recent_reports
        with self._transaction(self._reader) as connection:
            documents = connection.scalars(
                select(recent.c.document)
                .where(recent.c.end_s > since_s)
                .order_by(recent.c.end_s, recent.c.gateway, recent.c.sequence)
            ).all()
            return tuple(_of_service(value_from(IntervalReport, document), service) for document in documents)

    # What other parts of the state share with it, each in tables of its own.

    def reading(self) -> AbstractContextManager[Connection]:
        return self._transaction(self._reader)

    @contextmanager
    def fenced(self, lease: Lease) -> Generator[Connection]:
        """A transaction that writes. LeaseLost if the lease was taken by another."""
        with self._transaction(self._writer) as connection:
            _refuse_stale_lease(lease, _lease(connection))
            yield connection

    def add_tables(self, *missing: Table) -> None:
        """Make those that are not there yet. Older code passes them over, so the schema's version stays."""
        with self._transaction(self._writer) as connection:
            tables.metadata.create_all(connection, tables=missing)

    # Who may use the API.

    def tokens(self) -> tuple[Token, ...]:
        """All there ever were, revoked ones too, by name."""
        with self._transaction(self._reader) as connection:
            if not inspect(connection).has_table(tables.tokens.name):
                return ()
            documents = connection.scalars(select(tables.tokens.c.document).order_by(tables.tokens.c.name))
            return tuple(value_from(Token, document) for document in documents)

    def add_token(self, token: Token) -> None:
        """CommandRefused if its name has a token that is not revoked; a revoked one is replaced."""
        with self._transaction(self._writer) as connection:
            tables.tokens.create(connection, checkfirst=True)
            known = connection.scalar(select(tables.tokens.c.document).where(tables.tokens.c.name == token.name))
            if known is not None and value_from(Token, known).revoked_s is None:
                raise CommandRefused(f"{token.name} has a token: graylift token revoke {token.name} first")
            _put(connection, tables.tokens, {"name": token.name}, digest=token.digest, document=document_from(token))

    def revoke_token(self, name: str, now: float) -> None:
        """From the next request on. CommandRefused if there is none of that name."""
        token = next((token for token in self.tokens() if token.name == name), None)
        if token is None:
            raise CommandRefused(f"nobody called {name[:80]!r} has a token; graylift token list names who does")
        with self._transaction(self._writer) as connection:
            revoked = replace(token, revoked_s=token.revoked_s or now)
            _put(connection, tables.tokens, {"name": name}, digest=token.digest, document=document_from(revoked))

    # The file.

    def _prepare(self) -> None:
        """Make the tables of a new file; refuse one of a newer Graylift. An old file is not written to."""
        with self._transaction(self._reader) as connection:
            version = _schema_version(connection)
        if version is None:
            with self._transaction(self._writer) as connection:
                # Another process may have been quicker.
                version = _schema_version(connection)
                if version is None:
                    tables.metadata.create_all(connection)
                    connection.execute(insert(tables.schema).values(version=tables.SCHEMA_VERSION))
                    version = tables.SCHEMA_VERSION
        if version > tables.SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a newer Graylift (schema {version}; this one knows up to "
                f"{tables.SCHEMA_VERSION}): upgrade graylift, or name another state"
            )

    @contextmanager
    def _transaction(self, engine: Engine) -> Generator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(_explained(error, self._path)) from error
        except ValueError as error:
            raise StoreError(f"{self._path} holds something this Graylift cannot read: {error}") from error


def _place_from(url: str) -> tuple[Path, URL]:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(f"the store is a URL like sqlite:////var/lib/graylift/state.db, not {url!r}") from error
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:") or parsed.query:
        shown = parsed.render_as_string(hide_password=True)
        raise StoreError(f"the store is a SQLite file, sqlite:////var/lib/graylift/state.db, not {shown}")
    return Path(parsed.database), parsed


def _create_private(path: Path) -> None:
    """Make an empty file that only its owner may read: SQLite gives its side files the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StoreError(f"the state {path} cannot be made: {error.strerror}") from error


def _make_durable(connection: Any, _record: object) -> None:
    """FULL: what was committed outlives a power cut, too, not only the process."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _schema_version(connection: Connection) -> int | None:
    if not inspect(connection).has_table(tables.schema.name):
        return None
    return connection.scalar(select(tables.schema.c.version))


def _lease(connection: Connection) -> Lease | None:
    # FOR UPDATE serialises controllers where a transaction does not lock the whole database.
    row = connection.execute(select(tables.lease).with_for_update()).one_or_none()
    return None if row is None else Lease(row.holder, row.token, row.until_s)


def _refuse_stale_lease(lease: Lease, held: Lease | None) -> None:
    if held is None:
        raise LeaseLost(f"{lease.holder} holds no lease: nobody does; acquire it before writing")
    if (held.holder, held.token) != (lease.holder, lease.token):
        raise LeaseLost(
            f"{lease.holder} lost the lease (token {lease.token}): {held.holder} holds it now (token {held.token})"
        )


def _write_tracked(connection: Connection, tracked: Tracked) -> None:
    name, release = tracked.service.name, tracked.release
    stored = connection.scalar(select(tables.services.c.revision_no).where(tables.services.c.name == name)) or 0
    if stored != tracked.revision_no:
        raise LeaseLost(
            f"service {name} was changed by another controller: stored revision_no {stored}, read {tracked.revision_no}"
        )
    _put(
        connection,
        tables.services,
        {"name": name},
        revision_no=stored + 1,
        release_id=None if release is None else release.id,
        judge_state=tracked.judge_state,
        document=document_from(tracked.service),
    )
    if release is not None:
        _put(
            connection,
            tables.releases,
            {"id": release.id},
            service=release.service,
            created_s=release.created_s,
            finished_s=release.finished_s,
            document=document_from(release),
        )


def _write_reports(connection: Connection, reports: Sequence[IntervalReport]) -> None:
    cursors = {row.gateway: row.sequence for row in connection.execute(select(tables.cursors))}
    fresh: dict[str, list[IntervalReport]] = defaultdict(list)
    for report in sorted(reports, key=lambda report: report.sequence):
        if report.sequence > cursors.get(report.gateway, -1):
            cursors[report.gateway] = report.sequence
            fresh[report.gateway].append(report)
    if not fresh:
        return
    for gateway, news in fresh.items():
        _put(connection, tables.cursors, {"gateway": gateway}, sequence=news[-1].sequence)
        connection.execute(
            insert(tables.recent_reports),
            [
                {
                    "gateway": gateway,
                    "sequence": report.sequence,
                    "end_s": report.start_s + report.length_s,
                    "document": document_from(report),
                }
                for report in news
            ],
        )
        # By the gateway's own clock: another one's that runs ahead must not take its reports away.
        _forget_before(connection, gateway, max(r.start_s + r.length_s for r in news) - RECENT_S)
    evidence = [row for news in fresh.values() for report in news for row in _evidence_rows(connection, report)]
    if evidence:
        connection.execute(insert(tables.release_reports), evidence)


def _forget_before(connection: Connection, gateway: str, end_s: float) -> None:
    recent = tables.recent_reports
    connection.execute(delete(recent).where(recent.c.gateway == gateway, recent.c.end_s < end_s))


def _evidence_rows(connection: Connection, report: IntervalReport) -> Iterator[dict[str, object]]:
    """One row for each release in whose life span the interval lies, if only in part. Also without a window: that a
    gateway saw nothing, or has a gap, is evidence."""
    releases = tables.releases
    alive = connection.execute(
        select(releases.c.id, releases.c.service).where(
            releases.c.created_s < report.start_s + report.length_s,
            releases.c.finished_s.is_(None) | (releases.c.finished_s > report.start_s),
        )
    )
    for row in alive:
        if report.service not in (None, row.service):
            continue
        yield {
            "release_id": row.id,
            "gateway": report.gateway,
            "sequence": report.sequence,
            "start_s": report.start_s,
            "document": document_from(_of_service(report, row.service)),
        }


def _of_service(report: IntervalReport, service: str) -> IntervalReport:
    return replace(report, windows=tuple(window for window in report.windows if window.service == service))


def _put(connection: Connection, table: Table, key: Mapping[str, object], **values: object) -> None:
    """Update the row of this key or insert it: an upsert that every database understands."""
    changed = connection.execute(
        update(table).where(*(table.c[name] == value for name, value in key.items())).values(**values)
    )
    if changed.rowcount == 0:
        connection.execute(insert(table).values(**key, **values))


def _row_from_event(told: Event) -> dict[str, object]:
    return {
        "at_s": told.at_s,
        "service": told.service,
        "release_id": told.release_id,
        "kind": told.kind,
        "text": told.text,
        "by": told.by,
    }


def event_from_row(row: Any) -> Event:
    return Event(row.at_s, row.service, row.release_id, row.kind, row.text, row.by)


def _explained(error: SQLAlchemyError, path: Path) -> str:
    """What happened to the file and what to do, for the cases a user can mend."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    name = str(getattr(cause, "sqlite_errorname", ""))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return (
            f"the state {path} was locked by another process for more than {_BUSY_S:g} s; nothing was written, "
            "the next look tries again. If it stays so, find who has the file open (fuser names it)"
        )
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR_WRITE")):
        return f"the disk of the state {path} is full; nothing was written. Free some space: the next look tries again"
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return (
            f"the state {path} is damaged or no SQLite file ({cause}). Traffic keeps its split. Put a backup in its "
            "place, or move it away to start with an empty state"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return f"the state {path} cannot be written ({cause}): check the owner and mode of the file and its directory"
    return f"the state {path} cannot be used; nothing was written: {cause}"
