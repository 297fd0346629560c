"""An artefact into a runner."""

from __future__ import annotations

from graylift.domain.engine import Manifest
from graylift.engine.artefacts import ArtefactStore, this_system
from graylift.engine.language import LanguageRunner, LanguageSettings, language_vendor_of
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


def load_language_engine(store: ArtefactStore, digest: str, settings: LanguageSettings) -> LanguageRunner:
    """The same for a language engine. EngineError also if the artefact is none, or the context is longer than its."""
    engine = store.open(digest)
    manifest = store.manifest(digest)
    if manifest.language is None:
        raise EngineError(f"engine {digest[:12]} is no language model: it is served over the Open Inference Protocol")
    if settings.context_length > manifest.language.context_length:
        raise EngineError(
            f"a context of {settings.context_length:,} tokens is asked for, and the model was made for "
            f"{manifest.language.context_length:,}; lower contextLength"
        )
    refuse_foreign(manifest)
    return language_vendor_of(manifest.runtime).load(engine, manifest, settings)


def refuse_foreign(manifest: Manifest) -> None:
    """EngineError with the reason if the engine was built for another kind of machine, runtime or GPU than this."""
    reason = why_foreign(manifest)
    if reason is not None:
        raise EngineError(f"engine {manifest.digest[:12]} does not run here: {reason}")


def why_foreign(manifest: Manifest) -> str | None:
    """The reason; None if it may run here. EngineError if its runtime is missing."""
    if manifest.system != (here := this_system()):
        return f"it was built on {manifest.system}, and this is {here}: build it here"
    vendor = vendor_of(manifest.runtime) if manifest.language is None else language_vendor_of(manifest.runtime)
    return vendor.why_not_here(manifest)
