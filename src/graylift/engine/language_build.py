"""A GGUF file into a language engine: packed as asked, then loaded once, to see that its runtime takes it.

The engine is a GGUF file again. What a runtime makes of it in memory could be kept as well, and is not: it is tied to
the runtime's release and to the processor, and saves a second or two of a start. Called by `artefacts` and `__main__`.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from graylift.domain.engine import GgufSpec, LanguageFacts, Runtime
from graylift.engine.language import LanguageSettings, language_vendor_of
from graylift.engine.progress import Progress, part_of
from graylift.errors import EngineError

_TRIED = LanguageSettings(threads=1, context_length=64, max_streams=1)


def build_language_engine(spec: GgufSpec, build_key: str, destination: Path, progress: Progress) -> LanguageFacts:
    """Write the engine to `destination`. EngineError if the file is damaged, cannot be packed so, or the runtime does
    not take it."""
    from graylift.engine.gguf_file import template_from, write_packed

    template = None if spec.chat_template is None else template_from(Path(spec.chat_template))
    packing = part_of(progress, 0.05, 0.8)
    facts = write_packed(Path(spec.gguf), destination, spec.packing, template, build_key, packing)
    progress("loading it, to see that it can be", 0.8)
    language_vendor_of(spec.runtime).load(destination, None, _TRIED).close()
    return facts


def check_language_engine(spec: GgufSpec) -> tuple[str, ...]:
    """As `Vendor.check`."""
    versions = versions_of(spec.runtime)
    from graylift.engine.gguf_file import facts_of, template_from

    facts = facts_of(Path(spec.gguf))
    if spec.chat_template is not None:
        template_from(Path(spec.chat_template))
    return (
        f"runtime {', '.join(' '.join(version) for version in versions)}",
        f"architecture {facts.architecture}, {facts.parameters:,} weights, {facts.vocabulary:,} tokens",
        f"context of {facts.context_length:,} tokens, {'a' if facts.chat_template else 'no'} chat template of its own",
    )


def versions_of(runtime: Runtime) -> tuple[tuple[str, str], ...]:
    """(package, version) of all that shapes a build, ascending by name. EngineError if one is not there."""
    try:
        reader = ("gguf", metadata.version("gguf"))
    except metadata.PackageNotFoundError as exc:
        raise EngineError("GGUF files cannot be read; install it with: pip install 'graylift[llm]'") from exc
    return tuple(sorted((*language_vendor_of(runtime).versions(), reader)))
