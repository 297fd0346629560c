"""`graylift inspect`: what an engine says of itself, whether its bytes are still the ones that were built, and whether
it may run here. Reads the artefact; loads and runs nothing."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from graylift.cli.installation import installation_from
from graylift.cli.live import console
from graylift.cli.passport import document_from_manifest, passport, print_rows
from graylift.domain.engine import Inspection, Manifest, placement
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import why_foreign
from graylift.errors import CommandRefused, EngineError

_LEAST_PREFIX = 4
_LISTED = 10


def inspect(target: str, state: Path | None, *, as_json: bool) -> None:
    """CommandRefused or EngineError if there is no such engine, or a damaged one."""
    root, digest = found(target, installation_from(state).artefacts)
    store = ArtefactStore(root)
    inspection = store.inspect(digest)
    manifest = inspection.manifest
    store.open(digest)
    folder = root / digest
    why_not = _why_not_here(manifest)
    if as_json:
        document = {
            **document_from_manifest(manifest, folder),
            "graph": dict(inspection.graph),
            "layers": [asdict(layer) for layer in inspection.layers],
            "runs_on": inspection.runs_on,
            "runs_here": why_not is None,
            "why_not_here": why_not,
        }
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return
    rows = [
        *passport(manifest, folder),
        ("layers", _layers(inspection)),
        ("runs on", (inspection.runs_on,)),
        ("runs here", ("yes" if why_not is None else f"no: {why_not}",)),
    ]
    print_rows(console, rows)


def found(target: str, artefacts: Path) -> tuple[Path, str]:
    """(artefact store, digest) of a digest, the beginning of one, or a path of an artefact or of a file in it.
    CommandRefused if there is none or more than one."""
    path = Path(target)
    if path.exists():
        folder = (path if path.is_dir() else path.parent).absolute()
        if not (folder / "manifest.json").exists():
            cure = (
                f"build it first: graylift build {target}" if path.suffix == ".onnx" else "name a folder that has one"
            )
            raise CommandRefused(f"{target} is no engine of an artefact store: no manifest.json beside it; {cure}")
        return folder.parent, folder.name
    if not re.fullmatch(rf"[0-9a-f]{{{_LEAST_PREFIX},64}}", target):
        raise CommandRefused(
            f"{target!r} is neither a file nor the beginning of a digest ({_LEAST_PREFIX} to 64 hexadecimal digits)"
        )
    known = sorted(folder.parent.name for folder in artefacts.glob("*/manifest.json"))
    meant = [digest for digest in known if digest.startswith(target)]
    if len(meant) == 1:
        return artefacts, meant[0]
    if meant:
        raise CommandRefused(f"{len(meant)} engines begin with {target}: {', '.join(meant)}; write more of it")
    shown = ", ".join(digest[:12] for digest in known[:_LISTED]) or "none yet: graylift build MODEL.onnx makes one"
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    raise CommandRefused(f"no engine in {artefacts} begins with {target}; there are: {shown}{more}")


def _layers(inspection: Inspection) -> tuple[str, ...]:
    """Before and after fusion: how many, and of which kinds most."""
    before = f"{sum(count for _, count in inspection.graph):,} nodes in the model: {_counted(inspection.graph)}"
    if not inspection.layers:
        return (before, f"{inspection.manifest.runtime.value} does not tell what it made of them")
    kinds = Counter(each.kind for each in inspection.layers).most_common()
    lines = [before, f"{len(inspection.layers):,} layers in the engine: {_counted(kinds)}"]
    if (placed := placement(inspection.layers)) is not None:
        lines.append(placed)
    datatypes = Counter(each.datatype for each in inspection.layers if each.datatype is not None).most_common()
    if datatypes:
        lines.append(f"they give {_counted(datatypes)}")
    return tuple(lines)


def _counted(kinds: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds[:_LISTED])
    rest = len(kinds) - _LISTED
    return f"{shown} and {rest} more kinds" if rest > 0 else shown


def _why_not_here(manifest: Manifest) -> str | None:
    """Why it does not run on this machine as it is now; None if it may."""
    try:
        return why_foreign(manifest)
    except EngineError as exc:  # its runtime is missing; all else can be told
        return str(exc)
