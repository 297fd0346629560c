"""An engine's manifest as people and as scripts read it. Called by `build` and `inspect`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from graylift.domain.engine import LanguageFacts, Manifest, Profile
from graylift.engine.artefacts import json_from_manifest


def document_from_manifest(manifest: Manifest, folder: Path) -> dict[str, Any]:
    """For --json: the manifest as it is stored, and where that is."""
    return {**json.loads(json_from_manifest(manifest)), "path": str(folder)}


def passport(manifest: Manifest, folder: Path) -> list[tuple[str, Sequence[str]]]:
    """(what, lines) of everything that a person asks first about an engine."""
    own = {"precision", "packing", "profile"}
    return [
        ("engine", (manifest.digest,)),
        ("size", (size(manifest.size_bytes),)),
        ("runtime", (", ".join((manifest.runtime.value, *(f"{k} {v}" for k, v in manifest.versions))),)),
        *(_of_tensors(manifest) if manifest.language is None else _of_language(manifest.language)),
        ("options", (", ".join(f"{k}={v}" for k, v in manifest.options if k not in own) or "none",)),
        ("sources", tuple(f"{name}  {digest}" for name, digest in manifest.sources)),
        ("built in", (f"{manifest.build_s:.3g} s",)),
        ("built for", (manifest.machine,)),
        ("where", (os.path.relpath(folder),)),
    ]


def _of_tensors(manifest: Manifest) -> list[tuple[str, Sequence[str]]]:
    return [
        ("precision", (manifest.precision.value,)),
        ("profiles", profile_lines(manifest.profiles)),
        ("inputs", tuple(map(str, manifest.interface.inputs))),
        ("outputs", tuple(map(str, manifest.interface.outputs))),
    ]


def _of_language(language: LanguageFacts) -> list[tuple[str, Sequence[str]]]:
    return [
        ("precision", (language.packing.value,)),
        ("model", (f"{language.architecture}, {language.parameters:,} weights, {language.vocabulary:,} tokens",)),
        ("context", (f"{language.context_length:,} tokens",)),
        ("chats", ("by its template" if language.chat_template else "no: it has no chat template",)),
    ]


def profile_lines(profiles: Sequence[Profile]) -> tuple[str, ...]:
    """One a profile and input: smallest, best and largest shape."""
    if not profiles:
        return ("none: every shape the model allows",)
    several = len(profiles) > 1
    return tuple(
        (f"{number}: " if several else "")
        + f"{shape.input} {_sizes(shape.min)} to {_sizes(shape.max)}, fastest at {_sizes(shape.opt)}"
        for number, profile in enumerate(profiles, start=1)
        for shape in profile.shapes
    )


def print_rows(console: Console, rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Names in a column, their lines beside them; wrapped on a terminal alone, so that scripts get whole lines."""
    if not console.is_terminal:
        for name, lines in rows:
            for number, line in enumerate(lines):
                console.print(f"{'' if number else name:10} {line}", markup=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, lines in rows:
        table.add_row(name, Text("\n".join(lines)))
    console.print(table)


def size(size_bytes: int) -> str:
    """12.3 kB, 4.5 MB, 1.2 GB."""
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:.1f} kB"
    if size_bytes < 1_000_000_000:
        return f"{size_bytes / 1e6:.1f} MB"
    return f"{size_bytes / 1e9:.2f} GB"


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
