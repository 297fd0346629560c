"""`graylift profile suggest`: profiles for an engine out of the shapes that requests really had, as text to copy.

Reads three kinds of record: what a model server answers at /shapes, JSON lines of {input: shape}, and an .npz of
samples, of which each is one request.
"""

from __future__ import annotations

import json
import shlex
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from graylift.cli.live import console
from graylift.domain.engine import Profile
from graylift.engine.suggestion import Shapes, Suggestion, counts_from_json, suggest_profiles
from graylift.errors import CommandRefused
from graylift.spec.profiles import texts_from_profiles

_Key = tuple[tuple[str, tuple[int, ...]], ...]


def suggest(file: Path, most: int, *, as_json: bool) -> None:
    """CommandRefused if the file is no record of shapes."""
    try:
        suggestions = suggest_profiles(counts_of(file), most)
    except ValueError as exc:
        raise CommandRefused(f"{file}: {exc}") from exc
    except OSError as exc:
        raise CommandRefused(f"cannot read {file}: {exc.strerror}") from exc
    profiles = [suggestion.profile for suggestion in suggestions]
    if as_json:
        sys.stdout.write(json.dumps(_document(suggestions), indent=2, ensure_ascii=False) + "\n")
        return
    lines = [
        "# release.yaml, under model:",
        "profiles:",
        *(f"  - {_yaml(profile)}{_why(suggestion)}" for profile, suggestion in zip(profiles, suggestions, strict=True)),
        "",
        "# the same for graylift build:",
        " ".join(f"--profile {shlex.quote(text)}" for text in texts_from_profiles(profiles)),
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def counts_of(file: Path) -> list[tuple[Shapes, int]]:
    """(shapes, how many requests had them). ValueError if it is no record of shapes."""
    if file.suffix == ".npz":
        return _counts_of_samples(file)
    text = file.read_bytes()
    try:
        return counts_from_json(text)
    except ValueError:
        return _counts_of_lines(text)


def _counts_of_lines(text: bytes) -> list[tuple[Shapes, int]]:
    counts: Counter[_Key] = Counter()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry: dict[str, Any] = orjson.loads(line)
            counts[tuple(sorted((str(n), tuple(int(size) for size in shape)) for n, shape in entry.items()))] += 1
        except (TypeError, ValueError, AttributeError) as exc:
            raise ValueError(
                f'line {number} is no record of shapes; write one request a line, as in {{"input_ids": [1, 128]}}, '
                "or save what a model server answers at /v2/models/SERVICE/shapes"
            ) from exc
    return [(dict(shapes), count) for shapes, count in counts.items()]


def _counts_of_samples(file: Path) -> list[tuple[Shapes, int]]:
    """Each sample, along the first axis, is a request of its own: a batch of one."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            shapes = {name: tuple(archive[name].shape) for name in archive.files}
    except (AttributeError, TypeError, EOFError, ValueError, zipfile.BadZipFile) as exc:
        raise ValueError(f"it cannot be read as an .npz of plain arrays ({exc})") from exc
    rows = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(rows) != 1:
        raise ValueError("it needs one array for each input, all with as many samples along the first axis")
    return [({name: (1, *shape[1:]) for name, shape in shapes.items()}, rows.pop())]


def _yaml(profile: Profile) -> str:
    entries = (
        f"{json.dumps(s.input) if not s.input.isidentifier() else s.input}: "
        f"{{min: {list(s.min)}, opt: {list(s.opt)}, max: {list(s.max)}}}"
        for s in profile.shapes
    )
    return f"{{{', '.join(entries)}}}"


def _why(suggestion: Suggestion) -> str:
    requests = f"{suggestion.requests:,} request{'s' * (suggestion.requests != 1)}"
    return f"  # {requests}, in the mean {2**suggestion.distance:.2g} times as large or as small as opt"


def _document(suggestions: Sequence[Suggestion]) -> dict[str, object]:
    profiles = [suggestion.profile for suggestion in suggestions]
    return {
        "profiles": [
            {shape.input: {"min": shape.min, "opt": shape.opt, "max": shape.max} for shape in profile.shapes}
            for profile in profiles
        ],
        "requests": [suggestion.requests for suggestion in suggestions],
        "options": texts_from_profiles(profiles),
    }
