"""What a look of the judge costs, and what it remembers: `python benchmarks/judge/cost.py`. CPU time of one core."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from judged_traffic import USUAL, Arm, errors, latency, points, window

from graylift.analysis import judge
from graylift.domain.spec import JudgeSpec, Stage
from graylift.domain.weights import Role, Weights

HEALTHY = Arm(errors=0.005)
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
TEN = JudgeSpec((errors(points(0.005), points(0.01)), *(latency(q, 1.2, 1.5) for q in QUANTILES)))
LOOKS = 200


def milliseconds(act: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(LOOKS):
        act()
    return (time.process_time() - began) / LOOKS * 1e3


def cost(spec: JudgeSpec, requests: int) -> None:
    rng = np.random.default_rng(0)
    state = judge.start(spec)
    for _ in range(10):
        state = judge.observe(spec, state, [window(rng, Role.STABLE, "before", requests, HEALTHY)])
    state = judge.enter(spec, state, Stage(Weights(2_000), observe_s=1.0), "one", sticky=False)
    reports = [
        [
            window(rng, Role.CANDIDATE, "one", requests // 5, HEALTHY),
            window(rng, Role.STABLE, "one", requests - requests // 5, HEALTHY),
        ]
        for _ in range(20)
    ]
    for report in reports * 10:
        state = judge.observe(spec, state, report)
    text = judge.dump(state)
    print(
        f"{len(spec.checks):2} checks, {requests:6,} requests an interval: "
        f"observe {milliseconds(lambda: judge.observe(spec, state, reports[0])):.2f} ms, "
        f"judge {milliseconds(lambda: judge.judge(spec, state)):.2f} ms, "
        f"dump {milliseconds(lambda: judge.dump(state)):.2f} ms, load {milliseconds(lambda: judge.load(text)):.2f} ms, "
        f"state {len(text) / 1024:.1f} KiB",
        flush=True,
    )


def main() -> None:
    for spec in (USUAL, TEN):
        for requests in (20, 2_000, 20_000):
            cost(spec, requests)


if __name__ == "__main__":
    main()
