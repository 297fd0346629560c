from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from graylift.adapters.sql_store import SqlStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore(f"sqlite:///{tmp_path / 'graylift.db'}")
    yield store
    store.close()
