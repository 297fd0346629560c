"""Releases with plausible evidence, made from a seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.histogram import Histogram, bin_of, histogram_from_counts
from graylift.domain.judgement import Ruling, Verdict
from graylift.domain.release import CheckOutcome, CheckResult, Event, Phase, Release, StageRecord
from graylift.domain.revision import Revision, ServedEngine
from graylift.domain.spec import (
    Check,
    JudgeSpec,
    Margin,
    MarginKind,
    Metric,
    OnFailure,
    OnnxModel,
    ReleaseSpec,
    RevisionSpec,
    RoutingSpec,
    ServingProtocol,
    Stage,
)
from graylift.domain.weights import TOTAL, Role, weights_from_percent

BEGAN_S = 1_772_366_400.0  # 2026-03-01 12:00 UTC
LENGTHS_S = (120.0, 180.0, 240.0)


@dataclass(frozen=True)
class Story:
    """What a store keeps of one release."""

    release: Release
    events: tuple[Event, ...]
    reports: tuple[IntervalReport, ...]

    @property
    def parts(self) -> tuple[Release, tuple[Event, ...], tuple[IntervalReport, ...]]:
        return self.release, self.events, self.reports


def spec(service: str = "file-type") -> ReleaseSpec:
    checks = (
        Check(Metric.ERRORS, None, Margin(MarginKind.POINTS, 0.005), Margin(MarginKind.POINTS, 0.01)),
        Check(Metric.LATENCY, 0.99, Margin(MarginKind.RATIO, 1.1), Margin(MarginKind.RATIO, 1.2)),
    )
    stages = zip((1, 20, 100), LENGTHS_S, strict=True)
    return ReleaseSpec(
        service=service,
        protocol=ServingProtocol.OPEN_INFERENCE,
        stable=RevisionSpec("v1", OnnxModel("/models/v1.onnx")),
        candidate=RevisionSpec("v2", OnnxModel("/models/v2.onnx")),
        routing=RoutingSpec(),
        stages=tuple(Stage(weights_from_percent(Decimal(w)), observe_s=s, min_requests=100) for w, s in stages),
        judge=JudgeSpec(checks),
        on_failure=OnFailure.ROLLBACK,
        digest="5e" * 32,
    )


def revision(name: str) -> Revision:
    return Revision("file-type", name, name[-1] * 64, ServedEngine("ab" * 32), 60.0)


def verdicts(ruling: Ruling) -> tuple[Verdict, ...]:
    return (
        Verdict(
            "errors", ruling, "errors 0.52 % against 0.48 %", 0.0052, 0.0048, 812, 80_120, -0.002, 0.004, -1.0, 5.0
        ),
        Verdict("latency p99", ruling, "p99 latency 31 ms is 1.07x", 0.031, 0.029, 812, 80_120, 0.97, None, -1.0, 5.0),
    )


def latencies(chance: random.Random, number: int, median_s: float) -> Histogram:
    return histogram_from_counts(Counter(bin_of(median_s * chance.lognormvariate(0, 0.5)) for _ in range(number)))


def window(chance: random.Random, role: Role, split: str, number: int, failing: float, median_s: float) -> Window:
    failed = sum(chance.random() < failing for _ in range(number))
    return Window(
        service="file-type",
        split=split,
        arm=role,
        revision_id=revision("v1" if role is Role.STABLE else "v2").id,
        label=None,
        requests=number,
        failed=failed,
        unanswered=failed // 2,
        latency=latencies(chance, number - failed, median_s),
        reasons=(("HTTP 500", failed),) if failed else (),
    )


def story(*, good: bool) -> Story:
    """v2 goes through all stages and is promoted, or fails in the second one and is rolled back."""
    chance = random.Random(7)
    service = "file-type"
    release_id = f"{service}-3"
    told = [
        Event(BEGAN_S, service, release_id, "PENDING", "release v2 for v1", "anna"),
        Event(BEGAN_S + 5, service, release_id, "STARTING", "2 of 2 checks passed"),
    ]
    reports: list[IntervalReport] = []
    done: list[StageRecord] = []
    now = BEGAN_S + 20
    for index, stage in enumerate(spec().stages):
        told.append(
            Event(
                now, service, release_id, "PROMOTING" if stage.is_watch else "PROGRESSING", f"stage {index + 1} begins"
            )
        )
        bad = not good and index == 1
        seconds = 40 if bad else int(stage.observe_s)
        for second in range(seconds):
            share = stage.weights.candidate / TOTAL
            number = chance.randint(30, 60)
            ours = sum(chance.random() < share for _ in range(number))
            windows = (
                window(chance, Role.STABLE, f"{release_id}/{index}", number - ours, 0.004, 0.012),
                window(chance, Role.CANDIDATE, f"{release_id}/{index}", ours, 0.2 if bad else 0.004, 0.013),
            )
            away = good and index == 1 and 60 <= second < 90
            if not away:
                reports.append(
                    IntervalReport("g1", len(reports), now + second, 1.0, 7, tuple(w for w in windows if w.requests))
                )
        entered, now = now, now + seconds
        why = "errors 18 % against 0.4 %; rollback limit 0.5pp" if bad else "every check passed"
        ruling = Ruling.FAIL if bad else Ruling.PASS
        done.append(StageRecord(index, stage.weights, entered, now, seconds, 812, 80_120, verdicts(ruling), why))
        if bad:
            break
    if good:
        told.append(Event(now, service, release_id, "PROMOTED", "the watch is over"))
    else:
        told.append(Event(now, service, release_id, "ROLLING_BACK", done[-1].why))
        now += 2
        told.append(Event(now, service, release_id, "ROLLED_BACK", "verified at every gateway"))
    release = Release(
        id=release_id,
        spec=spec(),
        phase=Phase.PROMOTED if good else Phase.ROLLED_BACK,
        reason="the watch is over" if good else "verified at every gateway",
        stage=len(done) - 1,
        entered_s=now,
        observed_s=0.0,
        stage_table=9,
        approved=False,
        salt="s",
        created_s=BEGAN_S,
        stable=revision("v1"),
        candidate=revision("v2"),
        checks=(
            CheckResult(
                "build", CheckOutcome.PASS, "both engines were built", ("v1: 12 MB in 3 s", "v2: 14 MB in 4 s")
            ),
            CheckResult("interface", CheckOutcome.PASS, "inputs and outputs are the same"),
        ),
        done=tuple(done),
        finished_s=now,
    )
    return Story(release, tuple(told), tuple(reports))
