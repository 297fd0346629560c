"""The judge is tested on the traffic and releases of its benchmark: a minute's worth of them here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "judge"))
