"""ports.Outbox in the file of the store, beside the events that it sorts. Called by the controller through the port."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert, select, update

from graylift.adapters import sql_schema as tables
from graylift.adapters.documents import document_from, value_from
from graylift.adapters.sql_store import SqlStore, event_from_row
from graylift.domain.notices import Notice
from graylift.domain.release import Release
from graylift.ports import Lease, Unread


class SqlOutbox:
    """Shares the file, the lease and the errors of `store`."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        store.add_tables(tables.sorted_events, tables.notices)

    def unread(self, limit: int = 1000) -> Sequence[Unread]:
        events, releases = tables.events, tables.releases
        with self._store.reading() as connection:
            number = connection.scalar(select(tables.sorted_events.c.number)) or 0
            rows = connection.execute(
                select(events).where(events.c.id > number).order_by(events.c.id).limit(limit)
            ).all()
            ids = {row.release_id for row in rows if row.release_id is not None}
            asked = select(releases.c.id, releases.c.document).where(releases.c.id.in_(ids))
            specs = {row.id: value_from(Release, row.document).spec for row in connection.execute(asked)}
            return [Unread(row.id, event_from_row(row), specs.get(row.release_id)) for row in rows]

    def sort(self, lease: Lease, up_to: int, notices: Sequence[Notice]) -> None:
        with self._store.fenced(lease) as connection:
            changed = connection.execute(update(tables.sorted_events).values(number=up_to))
            if changed.rowcount == 0:
                connection.execute(insert(tables.sorted_events).values(id=1, number=up_to))
            if notices:
                rows = [{"number": n.number, "place": n.place, "document": document_from(n)} for n in notices]
                connection.execute(insert(tables.notices), rows)

    def waiting(self) -> Sequence[Notice]:
        kept = tables.notices
        with self._store.reading() as connection:
            documents = connection.scalars(select(kept.c.document).order_by(kept.c.number, kept.c.place)).all()
            return [value_from(Notice, document) for document in documents]

    def settle(self, lease: Lease, notices: Sequence[Notice]) -> None:
        kept = tables.notices
        with self._store.fenced(lease) as connection:
            for notice in notices:
                gone = delete(kept).where(kept.c.number == notice.number, kept.c.place == notice.place)
                connection.execute(gone)
