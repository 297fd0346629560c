from __future__ import annotations

import pytest

from graylift.demo.models import default_cache
from graylift.demo.scenario import SCENARIOS, Prepared

FILE_TYPES, CONTAINER_NUMBERS, LLM = SCENARIOS


def quiet(_: str) -> None: ...


@pytest.fixture(scope="session")
def file_types(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return FILE_TYPES.prepare(default_cache(), tmp_path_factory.mktemp("file-types"), quiet)


@pytest.fixture(scope="session")
def container_numbers(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return CONTAINER_NUMBERS.prepare(default_cache(), tmp_path_factory.mktemp("container-numbers"), quiet)


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return LLM.prepare(default_cache(), tmp_path_factory.mktemp("llm"), quiet)
