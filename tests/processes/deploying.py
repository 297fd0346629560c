"""What the tests of this folder share besides fixtures: a stand-in server, a clock to put forward, a revision."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from graylift.adapters.processes import ProcessDeployer
from graylift.domain.revision import Revision, ServedEngine
from graylift.domain.spec import TensorName

STAND_IN = Path(__file__).parent / "stand_in.py"

MakeDeployer = Callable[..., ProcessDeployer]


class Hours:
    """The real monotonic clock, which a test may put forward."""

    def __init__(self) -> None:
        self.forward_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.forward_s


def a_revision(name: str = "v2") -> Revision:
    engine = ServedEngine("a" * 64, (TensorName("bytes", "input_0"),), (TensorName("label", "output=0"),))
    return Revision("file-type", name, name.encode().hex().ljust(64, "0"), engine, 30.0)
