"""What a look of the judge costs, what it remembers, and a million records from first to last: CPU time of one core.

`python benchmarks/judge/cost.py`. A look is `observe`, `judge` and `dump`, as the controller does them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from judged_traffic import USUAL, Arm, errors, latencies, latency, points, score, tpot, ttft, window

from graylift.analysis import judge
from graylift.domain.evidence import INTERVAL_S, Outcome, RequestRecord, Window
from graylift.domain.spec import JudgeSpec, Stage
from graylift.domain.weights import Role, Weights
from graylift.metrics.intervals import Intervals

HEALTHY = Arm(errors=0.005)
STREAMING = Arm(errors=0.005, streams=True, score=0.8)
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
TEN = JudgeSpec((errors(points(0.005), points(0.01)), *(latency(q, 1.2, 1.5) for q in QUANTILES)))
MIXED = JudgeSpec(
    (
        errors(points(0.005), points(0.01)),
        *(latency(q, 1.2, 1.5) for q in (0.5, 0.99)),
        *(ttft(q, 1.2, 1.5) for q in (0.5, 0.95, 0.99)),
        *(tpot(q, 1.2, 1.5) for q in (0.5, 0.95)),
        score("helpful", -0.01, -0.02),
        score("curt", 0.01, 0.02),
    )
)
LOOKS = 200
RECORDS = 1_000_000


def milliseconds(act: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(LOOKS):
        act()
    return (time.process_time() - began) / LOOKS * 1e3


def cost(spec: JudgeSpec, requests: int, arm: Arm = HEALTHY) -> None:
    rng = np.random.default_rng(0)
    state = judge.start(spec)
    for _ in range(10):
        state = judge.observe(spec, state, [seen(rng, Role.STABLE, "before", requests, arm)])
    state = judge.enter(spec, state, Stage(Weights(2_000), observe_s=1.0), "one", sticky=False)
    reports = [
        [
            seen(rng, Role.CANDIDATE, "one", requests // 5, arm),
            seen(rng, Role.STABLE, "one", requests - requests // 5, arm),
        ]
        for _ in range(20)
    ]
    for report in reports * 10:
        state = judge.observe(spec, state, report)
    text = judge.dump(state)
    spent = {
        "observe": milliseconds(lambda: judge.observe(spec, state, reports[0])),
        "judge": milliseconds(lambda: judge.judge(spec, state)),
        "dump": milliseconds(lambda: judge.dump(state)),
    }
    parts = ", ".join(f"{name} {ms:.2f}" for name, ms in spent.items())
    print(
        f"{len(spec.checks):2} checks, {requests:6,} requests an interval: a look {sum(spent.values()):.2f} ms "
        f"({parts}), load {milliseconds(lambda: judge.load(text)):.2f} ms, state {len(text) / 1024:.1f} KiB",
        flush=True,
    )


def seen(rng: np.random.Generator, role: Role, split: str, requests: int, arm: Arm) -> Window:
    """One interval of an arm; every score is there under two names."""
    drawn = window(rng, role, split, requests, arm)
    return replace(drawn, scores=tuple((name, found) for name in ("curt", "helpful") for _, found in drawn.scores))


def million(spec: JudgeSpec, rate: int) -> None:
    """Records, as the gateway reads them, to windows to a judgement: RECORDS in all, `rate` a second."""
    rng = np.random.default_rng(0)
    intervals = Intervals(INTERVAL_S, 0)
    state = judge.start(spec)
    state = judge.enter(spec, state, Stage(Weights(2_000), observe_s=1.0), "one", sticky=False)
    spent = 0.0
    for second in range(RECORDS // rate):
        records = list(drawn(rng, second, rate))  # not timed: they are what comes in
        began = time.process_time()
        for record in records:
            intervals.add(record)
        for interval in intervals.close(second + 2.0):
            state = judge.observe(spec, state, interval.windows)
        spent += time.process_time() - began
    judgement = judge.judge(spec, state)
    judged = judgement.candidate_n + judgement.stable_n
    print(f"{judged:,} records, {rate:,} a second, {len(spec.checks)} checks: {spent:.1f} s", flush=True)


def drawn(rng: np.random.Generator, second: int, count: int) -> Iterator[RequestRecord]:
    """Requests of one second, a fifth of them the candidate's."""
    for seconds, place, luck in zip(latencies(rng, count), rng.random(count), rng.random(count), strict=True):
        role = Role.CANDIDATE if place < 0.2 else Role.STABLE
        ok = luck >= 0.005
        yield RequestRecord(
            ended_s=second + float(place),
            service="s",
            split="one",
            arm=role,
            revision_id=role.value,
            answered_by=role.value if ok else None,
            label=None,
            attempts=1,
            status=200 if ok else 500,
            outcome=Outcome.OK if ok else Outcome.FAILED,
            reason=None if ok else "HTTP 500",
            ttfb_s=float(seconds),
            duration_s=float(seconds),
            request_bytes=100,
            response_bytes=100,
        )


def main() -> None:
    for spec in (USUAL, TEN):
        for requests in (20, 2_000, 20_000):
            cost(spec, requests)
    print("streams and scores:")
    for requests in (20, 2_000, 20_000):
        cost(MIXED, requests, STREAMING)
    for rate in (1_000, 10_000):
        million(USUAL, rate)


if __name__ == "__main__":
    main()
