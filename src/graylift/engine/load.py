"""An artefact into a runner."""

from __future__ import annotations

from graylift.domain.engine import Manifest
from graylift.engine.artefacts import ArtefactStore, this_system
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
    reason = why_foreign(manifest)
    if reason is not None:
        raise EngineError(f"engine {manifest.digest[:12]} does not run here: {reason}")


def why_foreign(manifest: Manifest) -> str | None:
    """The reason; None if it may run here. EngineError if its runtime is missing."""
    if manifest.system != (here := this_system()):
        return f"it was built on {manifest.system}, and this is {here}: build it here"
    return vendor_of(manifest.runtime).why_not_here(manifest)
