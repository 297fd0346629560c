"""The page as JSON, for scripts. Called through `graylift.report`.

The structure is stable: within `graylift.dev/report/v1` fields are added, never changed or taken away. Times are epoch
seconds, durations and latencies seconds, shares numbers from 0 to 1, weights out of 10,000; null is "not known".

    schema    "graylift.dev/report/v1"
    release   id, service, phase, outcome (one sentence), reason, specDigest, createdAt, finishedAt, until
    revisions {stable, candidate}: name, id, digest, model,
              requests, failed, unanswered, abandoned, failedShare, p50, p99, reasons [{reason, count}],
              ttft {p50, p95}, tpot {p50, p95}, inputTokens, outputTokens, scores [{name, count, mean}]
    checks    [{check, passed, sentence, evidence [..]}], null before they ran
    stages    [{number, weight, minObserve, minRequests, approvalRequired, entered, left, observed, why,
              requests {stable, candidate}, verdicts [{check, ruling, sentence, candidate, stable, candidateRequests,
              stableRequests, effect [low, high], evidenceAgainst, evidenceFor}],
              shadow null or {pairs, failed {candidate, stable, both}, compared, agreeing, agreement, meanDrift,
              latencyRatio {p50, p95}, lengthRatio, differences, reasons, lost, examples [..]}}]
    events    [{at, kind, text, by}]
    evidence  gateways, reports, gaps [{why, reports}], unreadableLines, labelledRequests
    series    {stable, candidate}: [{at, length, requests, failed, p50, p99}]; requests is null where nothing reported
"""

from __future__ import annotations

import json

from graylift.domain.judgement import Verdict
from graylift.report.facts import Facts, RevisionFacts, StageFacts
from graylift.report.series import Point
from graylift.report.shadow import document_from

SCHEMA = "graylift.dev/report/v1"


def json_from(facts: Facts) -> str:
    release = facts.release
    document = {
        "schema": SCHEMA,
        "release": {
            "id": release.id,
            "service": release.service,
            "phase": release.phase.value,
            "outcome": facts.outcome,
            "reason": release.reason,
            "specDigest": release.spec.digest,
            "createdAt": release.created_s,
            "finishedAt": release.finished_s,
            "until": facts.until_s,
        },
        "revisions": {arm.role.value: _revision(arm) for arm in facts.arms},
        "checks": None
        if release.checks is None
        else [
            {"check": c.check, "outcome": c.outcome.value, "sentence": c.sentence, "evidence": c.evidence}
            for c in release.checks
        ],
        "stages": [_stage(stage) for stage in facts.stages],
        "events": [{"at": e.at_s, "kind": e.kind, "text": e.text, "by": e.by} for e in facts.events],
        "evidence": {
            "gateways": facts.gateways,
            "reports": facts.intervals,
            "gaps": [{"why": why, "reports": number} for why, number in facts.gaps],
            "unreadableLines": facts.unreadable,
            "labelledRequests": facts.labelled,
        },
        "series": {arm.role.value: [_point(point) for point in arm.series] for arm in facts.arms},
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _revision(arm: RevisionFacts) -> dict[str, object]:
    totals = arm.totals
    return {
        "name": arm.spec.name,
        "id": None if arm.revision is None else arm.revision.id,
        "digest": None if arm.revision is None else arm.revision.digest,
        "model": arm.model,
        "requests": totals.requests,
        "failed": totals.failed,
        "unanswered": totals.unanswered,
        "abandoned": totals.abandoned,
        "failedShare": totals.failed_share,
        "p50": totals.p50_s,
        "p99": totals.p99_s,
        "reasons": [{"reason": reason, "count": count} for reason, count in totals.reasons],
        "ttft": {"p50": totals.ttft.quantile(0.5), "p95": totals.ttft.quantile(0.95)},
        "tpot": {"p50": totals.tpot.quantile(0.5), "p95": totals.tpot.quantile(0.95)},
        "inputTokens": totals.input_tokens,
        "outputTokens": totals.output_tokens,
        "scores": [{"name": name, "count": found.count, "mean": found.mean} for name, found in totals.scores],
    }


def _stage(stage: StageFacts) -> dict[str, object]:
    return {
        "number": stage.number,
        "weight": stage.stage.weights.candidate,
        "minObserve": stage.stage.observe_s,
        "minRequests": stage.stage.min_requests,
        "approvalRequired": stage.stage.approval_required,
        "entered": stage.entered_s,
        "left": stage.left_s,
        "observed": stage.observed_s,
        "why": stage.why,
        "requests": {"stable": stage.stable_n, "candidate": stage.candidate_n},
        "verdicts": [_verdict(verdict) for verdict in stage.verdicts],
        "shadow": document_from(stage.shadow),
    }


def _verdict(verdict: Verdict) -> dict[str, object]:
    return {
        "check": verdict.check,
        "ruling": verdict.ruling.value,
        "sentence": verdict.sentence,
        "candidate": verdict.candidate,
        "stable": verdict.stable,
        "candidateRequests": verdict.candidate_n,
        "stableRequests": verdict.stable_n,
        "effect": [verdict.effect_low, verdict.effect_high],
        "evidenceAgainst": verdict.evidence_against,
        "evidenceFor": verdict.evidence_for,
    }


def _point(point: Point) -> dict[str, object]:
    totals = point.totals
    return {
        "at": point.start_s,
        "length": point.length_s,
        "requests": None if totals is None else totals.requests,
        "failed": None if totals is None else totals.failed,
        "p50": None if totals is None else totals.p50_s,
        "p99": None if totals is None else totals.p99_s,
    }
