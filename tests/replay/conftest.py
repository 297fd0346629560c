"""Recordings are made from the traffic that the judge's benchmark simulates."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "judge"))
