"""An artefact into a runner."""

from __future__ import annotations

from graylift.engine.artefacts import ArtefactStore
from graylift.engine.runner import Runner
from graylift.engine.vendors import vendor_of


def load(store: ArtefactStore, digest: str, contexts: int = 1) -> Runner:
    """Load the artefact with the runtime that built it, after verifying its bytes, for `contexts` inferences at once.

    Raises EngineError if it is not there or damaged, or if the runtime is missing or refuses it.
    """
    engine = store.open(digest)
    manifest = store.manifest(digest)
    return vendor_of(manifest.runtime).load(engine, manifest, contexts)
