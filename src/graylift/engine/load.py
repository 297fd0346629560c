"""An artefact into a runner."""

from __future__ import annotations

from graylift.domain.engine import Manifest
from graylift.engine.artefacts import ArtefactStore, this_machine
from graylift.engine.runner import Runner
from graylift.engine.vendors import vendor_of
from graylift.errors import EngineError


def load(store: ArtefactStore, digest: str, contexts: int = 1) -> Runner:
    """Load the artefact with the runtime that built it, after verifying its bytes, for `contexts` inferences at once.

    Raises EngineError if it is not there, damaged or of another machine, or if the runtime is missing or refuses it.
    """
    engine = store.open(digest)
    manifest = store.manifest(digest)
    refuse_foreign(manifest)
    return vendor_of(manifest.runtime).load(engine, manifest, contexts)


def refuse_foreign(manifest: Manifest) -> None:
    """EngineError with the reason if the engine was built for another kind of machine, runtime or GPU than this."""
    system, here = _system_of(manifest.machine), _system_of(this_machine())
    reason = vendor_of(manifest.runtime).why_not_here(manifest) if system == here else None
    if system != here:
        reason = f"it was built on {system}, and this is {here}: build it here"
    if reason is not None:
        raise EngineError(f"engine {manifest.digest[:12]} does not run here: {reason}")


def _system_of(machine: str) -> str:
    """Architecture and operating system. The processor between them may differ: no engine is tied to its model."""
    first, *_, last = machine.split(", ")
    return f"{first}, {last}"
