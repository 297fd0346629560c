"""Build the engine of one side of a release and bind the side to it by digest: from here on it is a revision.

Called by `checklist`; later checks look at `Built`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from graylift.domain.engine import EngineSpec, Manifest
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.revision import Revision, RunningEndpoint, ServedEngine
from graylift.domain.spec import EndpointModel, OnnxModel, RevisionSpec, ServingProtocol
from graylift.domain.weights import Role
from graylift.engine.child import BUILD, build_engine
from graylift.engine.progress import Progress, unheard
from graylift.errors import EngineError


@dataclass(frozen=True, slots=True)
class Built:
    """One side of a release, bound to its revision. `manifest` is its engine's, None for an endpoint."""

    spec: RevisionSpec
    revision: Revision
    manifest: Manifest | None


async def build_side(
    service: str,
    role: Role,
    spec: RevisionSpec,
    artefacts: Path,
    command: Sequence[str] = BUILD,
    progress: Progress = unheard,
    protocol: ServingProtocol = ServingProtocol.OPEN_INFERENCE,
) -> tuple[Built | None, CheckResult]:
    """The side's revision, built or found, and the result of the check. None if it cannot be built."""
    check = f"build {role.value}"
    match spec.model:
        case EndpointModel(url):
            endpoint = RunningEndpoint(url, protocol)
            revision = Revision(service, spec.name, _digest(url), endpoint, spec.ready_within_s)
            sentence = f"{spec.name} runs at {url} already: nothing to build"
            evidence = (f"revision {revision.digest}",)
            return Built(spec, revision, None), CheckResult(check, CheckOutcome.PASS, sentence, evidence)
        case OnnxModel() as model:
            try:
                manifest = await build_engine(engine_spec_of(model), artefacts, progress, command=command)
            except EngineError as error:
                sentence = f"{spec.name} cannot be built: {error}"
                return None, CheckResult(check, CheckOutcome.FAIL, sentence, (f"from {model.onnx}",))
            revision = Revision(
                service, spec.name, _engine_digest(manifest, model), _backend(manifest, model), spec.ready_within_s
            )
            return Built(spec, revision, manifest), _result(check, model, manifest, revision)
        case _:
            assert_never(spec.model)


def engine_spec_of(model: OnnxModel) -> EngineSpec:
    """What the release file asks to be built."""
    return EngineSpec(
        model.onnx,
        model.runtime,
        model.threads,
        model.precision,
        model.profiles,
        model.calibration,
        model.settings,
    )


def _backend(manifest: Manifest, model: OnnxModel) -> ServedEngine:
    return ServedEngine(manifest.digest, model.inputs, model.outputs, model.serving)


def _engine_digest(manifest: Manifest, model: OnnxModel) -> str:
    names = [sorted((name.served, name.own) for name in names) for names in (model.inputs, model.outputs)]
    return _digest(manifest.digest, model.runtime.value, model.threads, *names, dataclasses.astuple(model.serving))


def _digest(*parts: object) -> str:
    """sha256 (hex) over everything that makes the revision behave as it does."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _result(check: str, model: OnnxModel, manifest: Manifest, revision: Revision) -> CheckResult:
    source, source_digest = manifest.sources[0]
    runtime = manifest.runtime.value
    threads = f"{model.threads} thread{'s' * (model.threads != 1)}"
    sentence = (
        f"{revision.name} is engine {manifest.digest[:12]} ({_size(manifest.size_bytes)}, {runtime}, {threads}), "
        f"built in {manifest.build_s:.1f} s from {source} {source_digest[:12]}"
    )
    evidence = (
        f"revision {revision.digest}",
        f"engine {manifest.digest}",
        *(f"source {name} {digest}" for name, digest in manifest.sources),
        *(f"option {name}={value}" for name, value in manifest.options),
        *(f"version {name} {version}" for name, version in manifest.versions),
        f"machine {manifest.machine}",
    )
    return CheckResult(check, CheckOutcome.PASS, sentence, evidence)


def _size(size_bytes: int) -> str:
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:.1f} kB"
    return f"{size_bytes / 1e6:.1f} MB"
