"""`graylift build`: an ONNX file into an engine of this installation's artefact store, or the one that is there."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from graylift.cli.installation import Installation, installation_from
from graylift.cli.interrupts import INTERRUPTED, Interrupted, until_stopped
from graylift.cli.live import console
from graylift.cli.passport import document_from_manifest, passport, print_rows
from graylift.cli.steps import steps
from graylift.domain.engine import EngineSpec, Manifest, Precision, Profile, Runtime, placement
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.child import build_engine
from graylift.errors import CommandRefused
from graylift.spec.profiles import profiles_from_texts
from graylift.spec.settings import settings_from_texts


def build(
    model: Path,
    runtime: Runtime,
    precision: Precision,
    profiles: Sequence[str],
    threads: int,
    calibration: Path | None,
    settings: Sequence[str],
    state: Path | None,
    *,
    as_json: bool,
) -> int:
    """EngineError if the model cannot be built. 130 if interrupted; nothing is kept then."""
    installation = installation_from(state)
    spec = engine_spec(model, runtime, precision, profiles, threads, calibration, settings)
    try:
        manifest, found = asyncio.run(until_stopped(built(installation, spec, quiet=as_json)))
    except Interrupted:
        sys.stderr.write("interrupted; nothing of the build was kept\n")
        return INTERRUPTED
    folder = installation.artefacts / manifest.digest
    if as_json:
        document = {**document_from_manifest(manifest, folder), "found": found}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return 0
    console.print("found: these inputs were built here before" if found else "built", style="bold green")
    rows = passport(manifest, folder)
    if (placed := placement(ArtefactStore(installation.artefacts).inspect(manifest.digest).layers)) is not None:
        rows.append(("placed", (placed,)))
    print_rows(console, rows)
    console.print(f"look closer: graylift inspect {manifest.digest[:12]}", style="dim")
    return 0


def engine_spec(
    model: Path,
    runtime: Runtime,
    precision: Precision = Precision.FP32,
    profiles: Sequence[str] = (),
    threads: int = 1,
    calibration: Path | None = None,
    settings: Sequence[str] = (),
) -> EngineSpec:
    """What the options ask for. CommandRefused if they contradict each other."""
    if precision is Precision.INT8 and calibration is None:
        raise CommandRefused("--precision int8 finds its ranges in real inputs: name them with --calibration FILE.npz")
    if precision is not Precision.INT8 and calibration is not None:
        raise CommandRefused(f"--calibration is for --precision int8 alone, not for {precision.value}: leave it out")
    return EngineSpec(
        onnx=str(model.absolute()),
        runtime=runtime,
        threads=threads,
        precision=precision,
        profiles=_profiles(profiles),
        calibration=None if calibration is None else str(calibration.absolute()),
        settings=_settings(runtime, settings),
    )


async def built(installation: Installation, spec: EngineSpec, *, quiet: bool) -> tuple[Manifest, bool]:
    """The engine, and whether it was there already. Shows its progress; `quiet` as in `steps`."""
    found = False
    with steps(console, quiet=quiet) as show:

        def progress(step: str, done: float) -> None:
            nonlocal found
            found = found or step == "found"
            show(step, done)

        manifest = await build_engine(spec, installation.artefacts, progress)
    return manifest, found


def _settings(runtime: Runtime, texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    try:
        return settings_from_texts(runtime, texts)
    except ValueError as exc:
        raise CommandRefused(f"--set: {exc}") from exc


def _profiles(texts: Sequence[str]) -> tuple[Profile, ...]:
    try:
        return profiles_from_texts(texts)
    except ValueError as exc:
        raise CommandRefused(f"--profile: {exc}") from exc
