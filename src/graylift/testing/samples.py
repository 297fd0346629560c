"""Small, complete domain values for tests: every argument has a default, so that a test names only what it is about."""

from __future__ import annotations

from collections.abc import Sequence

from graylift.domain.judgement import Judgement, Ruling, Verdict
from graylift.domain.release import CheckOutcome, CheckReport, CheckResult
from graylift.domain.revision import Instance, InstanceState, Revision, ServedEngine
from graylift.domain.routing import GatewayState
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
from graylift.domain.weights import ALL, Weights

ERRORS = Check(Metric.ERRORS, None, Margin(MarginKind.POINTS, 0.02), Margin(MarginKind.POINTS, 0.05))
LATENCY = Check(Metric.LATENCY, 0.99, Margin(MarginKind.RATIO, 1.2), Margin(MarginKind.RATIO, 1.5))
STAGES = (Stage(Weights(500), 5.0), Stage(Weights(5000), 5.0), Stage(ALL, 5.0))


def release_spec(
    *,
    service: str = "file-type",
    stable: str = "v1",
    candidate: str = "v2",
    stages: Sequence[Stage] = STAGES,
    checks: Sequence[Check] = (ERRORS,),
    on_failure: OnFailure = OnFailure.ROLLBACK,
    routing: RoutingSpec | None = None,
    ready_within_s: float = 30.0,
    digest: str | None = None,
) -> ReleaseSpec:
    """A release file from `stable` to `candidate`. Its digest follows from the two names unless it is given."""
    return ReleaseSpec(
        service=service,
        protocol=ServingProtocol.OPEN_INFERENCE,
        stable=RevisionSpec(stable, OnnxModel(f"/models/{stable}.onnx"), ready_within_s),
        candidate=RevisionSpec(candidate, OnnxModel(f"/models/{candidate}.onnx"), ready_within_s),
        routing=routing or RoutingSpec(),
        stages=tuple(stages),
        judge=JudgeSpec(checks=tuple(checks)),
        on_failure=on_failure,
        digest=digest or f"{service}:{stable}->{candidate}",
    )


def revision(name: str = "v1", *, service: str = "file-type", ready_within_s: float = 30.0) -> Revision:
    """The revision that a file means by `name`; equal names give equal revisions."""
    digest = name.encode().hex().ljust(64, "0")
    return Revision(service, name, digest, ServedEngine(digest), ready_within_s)


def check_report(spec: ReleaseSpec, *failures: str) -> CheckReport:
    """What the checks of `spec` found: the two revisions, and one failed check for each sentence in `failures`."""
    return CheckReport(
        stable=revision(spec.stable.name, service=spec.service, ready_within_s=spec.stable.ready_within_s),
        candidate=revision(spec.candidate.name, service=spec.service, ready_within_s=spec.candidate.ready_within_s),
        results=tuple(CheckResult("interface", CheckOutcome.FAIL, text) for text in failures)
        or (CheckResult("interface", CheckOutcome.PASS, "inputs and outputs match"),),
    )


def instance(of: Revision, state: InstanceState = InstanceState.READY, detail: str = "") -> Instance:
    return Instance(of.id, state, f"{of.name}.test:80", detail)


def gateway_state(
    name: str = "g1",
    *,
    applied: int | None = 1,
    healthy: Sequence[Revision] = (),
    refused: str | None = None,
    problem: str | None = None,
    open_requests: Sequence[tuple[str, int]] = (),
) -> GatewayState:
    return GatewayState(name, applied, refused, tuple(r.id for r in healthy), tuple(open_requests), problem)


def verdict(check: str = "errors", ruling: Ruling = Ruling.PASS, sentence: str = "0.1 % against 0.1 %") -> Verdict:
    return Verdict(check, ruling, sentence, 0.001, 0.001, 1000, 1000, None, None, 0.0, 0.0)


def judgement(
    *rulings: Ruling,
    failed: bool | None = None,
    stable_sick: str | None = None,
    candidate_sick: str | None = None,
    share_off: str | None = None,
    candidate_n: int = 1000,
    stable_n: int = 1000,
) -> Judgement:
    """One verdict for each ruling (`errors` first, then `latency p99`); a PASS of `errors` if none is named."""
    verdicts = tuple(
        verdict(check.name, ruling) for check, ruling in zip((ERRORS, LATENCY), rulings or (Ruling.PASS,), strict=False)
    )
    return Judgement(
        verdicts=verdicts,
        failed=any(v.ruling is Ruling.FAIL for v in verdicts) if failed is None else failed,
        passed=all(v.ruling is Ruling.PASS for v in verdicts),
        stable_sick=stable_sick,
        candidate_sick=candidate_sick,
        share_off=share_off,
        candidate_n=candidate_n,
        stable_n=stable_n,
    )
