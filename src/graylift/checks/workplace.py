"""Where a check works: what every check is given beside the two sides. Made by `checklist`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Workplace:
    """artefacts: folder of the artefact store, absolute
    scratch:   a folder for what only this run of the checks needs; it is gone after the last check"""

    artefacts: Path
    scratch: Path
