"""Deployers whose servers are gone when the test is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from deploying import STAND_IN, Hours, MakeDeployer

from graylift.adapters.processes import ProcessDeployer


@pytest.fixture
def hours() -> Hours:
    return Hours()


@pytest.fixture
async def make_deployer(tmp_path: Path, hours: Hours) -> AsyncIterator[MakeDeployer]:
    """`make_deployer(mode)` is a controller's deployer; a second call is the next controller's, on the same files."""
    made: list[ProcessDeployer] = []

    def make(mode: str = "ready", **options: object) -> ProcessDeployer:
        arguments = {"serve": (sys.executable, str(STAND_IN), mode), "monotonic": hours, **options}
        artefacts = arguments.pop("artefacts", tmp_path / "artefacts")
        made.append(ProcessDeployer(tmp_path / "servers", artefacts, **arguments))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for deployer in made:
        await deployer.close()
    last = ProcessDeployer(tmp_path / "servers", tmp_path / "artefacts", monotonic=hours)
    for revision_id in await last.running():
        await last.stop(revision_id)
    hours.forward_s += 3600
    while await last.ending():
        await asyncio.sleep(0.01)
