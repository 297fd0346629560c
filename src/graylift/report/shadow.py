"""What a shadow stage found, in words and as JSON. Called by the renderings, and by the terminal's view.

Examples are told only where they were kept, which the release file decides.
"""

from __future__ import annotations

from dataclasses import asdict

from graylift.domain.shadow import ShadowWindow


def lines_from(seen: ShadowWindow) -> tuple[str, ...]:
    """A few lines, the most important first."""
    lines = [_agreement(seen)]
    median, tail = seen.latency_ratio.quantile(0.5), seen.latency_ratio.quantile(0.95)
    if median is not None and tail is not None:
        length = seen.length_ratio.quantile(0.5)
        lengths = "" if length is None else f"; its answers are {length:.2f}x as long"
        lines.append(f"the candidate took {median:.2f}x stable's time (median; p95 {tail:.2f}x){lengths}")
    failed = (
        ("the candidate alone", seen.only_candidate_failed),
        ("stable alone", seen.only_stable_failed),
        ("both", seen.both_failed),
    )
    if any(times for _, times in failed):
        reasons = ", ".join(f"{reason}: {times:,}" for reason, times in seen.reasons)
        who = ", ".join(f"{name} {times:,}" for name, times in failed if times)
        lines.append(f"failed: {who}{f' (the candidate: {reasons})' if reasons else ''}")
    if seen.lost:
        lines.append("no pairs: " + ", ".join(f"{times:,} {why}" for why, times in seen.lost))
    return tuple(lines)


def document_from(seen: ShadowWindow | None) -> dict[str, object] | None:
    """For the JSON of the report."""
    if seen is None:
        return None
    return {
        "pairs": seen.pairs,
        "failed": {
            "candidate": seen.only_candidate_failed,
            "stable": seen.only_stable_failed,
            "both": seen.both_failed,
        },
        "compared": seen.compared,
        "agreeing": seen.agreeing,
        "agreement": seen.agreement,
        "meanDrift": seen.mean_drift,
        "latencyRatio": {"p50": seen.latency_ratio.quantile(0.5), "p95": seen.latency_ratio.quantile(0.95)},
        "lengthRatio": seen.length_ratio.quantile(0.5),
        "differences": dict(seen.differences),
        "reasons": dict(seen.reasons),
        "lost": dict(seen.lost),
        "examples": [asdict(example) for example in seen.examples],
    }


def _agreement(seen: ShadowWindow) -> str:
    if seen.agreement is None:
        return f"{seen.pairs:,} pairs of answers, none of which could be compared"
    kinds = ", ".join(f"{what}: {times:,}" for what, times in sorted(seen.differences, key=lambda one: -one[1]))
    others = f"; the others differ in {kinds}; mean drift {seen.mean_drift or 0:.3g}" if kinds else ""
    return f"{seen.pairs:,} pairs of answers, {seen.compared:,} compared: {seen.agreement * 100:.3g} % agree{others}"
