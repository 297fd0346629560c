from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from api_site import Site, a_site

from graylift.adapters.sql_store import SqlStore
from graylift.api import steering


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore(f"sqlite:///{tmp_path / 'graylift.db'}")
    yield store
    store.close()


@pytest.fixture
async def site(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(steering, "WAIT_S", 0.1)  # no controller is there to wait for
    async with a_site(store) as one:
        yield one
