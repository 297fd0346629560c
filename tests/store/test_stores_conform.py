"""Both stores keep the promises of the port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from graylift.adapters.sql_store import SqlStore
from graylift.testing.conformance_store import StoreConformance
from graylift.testing.memory_store import MemoryStore


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestSqlStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqlStore]:
        store = SqlStore(f"sqlite:///{tmp_path / 'state.db'}")
        yield store
        store.close()
