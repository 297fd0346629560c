"""Files of this machine as inputs of the file type models, and what their names say of their type.

The models see the first and the last 1,024 bytes of a file, as magika 0.6 and 1.0 prepare them. Knows no HTTP and
no model runtime. Called by the file type scenario.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Labels = NDArray[np.bool_]

SIDE = 1024
"""Bytes that are looked at from each end."""
BLOCK = 4096
"""Bytes that are read at each end, before white space is stripped."""
PADDING = 256
"""The token for "the file has no byte here": one above the highest byte."""
SMALLEST = 8
"""Files with fewer bytes that are not white space are not for the model."""

FOLDERS = (sysconfig.get_path("stdlib"), "/usr/share/doc", "/usr/share", "/usr/bin", "/usr/lib")
"""Where a plain Linux has files of many kinds."""
MOST_VISITED = 8_000


def tokens_of(path: Path) -> Tokens | None:
    """int32[2048]: the first 1,024 bytes without leading white space, padded behind, then the last 1,024 without
    trailing white space, padded before. None if the file is too small to tell. OSError if it cannot be read."""
    with path.open("rb") as file:
        head = file.read(BLOCK)
        file.seek(max(0, os.fstat(file.fileno()).st_size - BLOCK))
        tail = file.read(BLOCK)
    head, tail = head.lstrip()[:SIDE], tail.rstrip()[-SIDE:]
    if len(head) < SMALLEST:
        return None
    row = np.full(2 * SIDE, PADDING, np.int32)
    row[: len(head)] = np.frombuffer(head, np.uint8)
    row[2 * SIDE - len(tail) :] = np.frombuffer(tail, np.uint8)
    return row


@dataclass(frozen=True, slots=True)
class Sample:
    """A file and what the model sees of it."""

    path: Path
    tokens: Tokens

    @property
    def is_short(self) -> bool:
        """Does it need padding?"""
        return bool((self.tokens == PADDING).any())


def choose_samples(
    folders: Iterable[str], count: int, share_short: float, most_of_a_kind: int = 40
) -> tuple[Sample, ...]:
    """At most `count` readable files, at most `share_short` of `count` with fewer than 1,024 bytes, of many kinds (at
    most `most_of_a_kind` of one suffix and length). The same on every call while the folders stay the same."""
    room = {True: round(count * share_short), False: count - round(count * share_short)}
    kinds: Counter[tuple[str, bool]] = Counter()
    chosen: list[Sample] = []
    # By a hash of the path: well mixed, and one more file in a folder does not change all the others.
    for path in sorted(_files(folders), key=lambda path: hashlib.sha256(os.fsencode(path)).digest()):
        try:
            row = tokens_of(path)
        except OSError:
            continue  # not ours to read
        if row is None:
            continue
        sample = Sample(path, row)
        kind = (path.suffix, sample.is_short)
        if room[sample.is_short] and kinds[kind] < most_of_a_kind:
            room[sample.is_short] -= 1
            kinds[kind] += 1
            chosen.append(sample)
        if not any(room.values()):
            break
    return tuple(chosen)


def _files(folders: Iterable[str]) -> Iterator[Path]:
    """Regular files, each folder's walk bounded. Links are not followed: they lead to the same files, or in circles."""
    for folder in folders:
        yield from islice(_walk(folder), MOST_VISITED)


def _walk(folder: str) -> Iterator[Path]:
    for place, inner, names in os.walk(folder):
        inner.sort()
        for name in sorted(names):
            path = Path(place, name)
            try:
                regular = stat.S_ISREG(path.lstat().st_mode)
            except OSError:
                continue
            if regular:
                yield path


def expected_labels(path: Path, labels: Sequence[str], extensions: Mapping[str, Sequence[str]]) -> Labels:
    """bool[labels]: those that the file's suffix allows; all False if the suffix says nothing."""
    suffix = path.suffix.removeprefix(".").lower()
    return np.array([bool(suffix) and suffix in extensions.get(label, ()) for label in labels])
