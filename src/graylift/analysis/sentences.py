"""The judge's words: one sentence a verdict, with both numbers, both sample sizes and the limit. It decides nothing."""

from __future__ import annotations

import math
from typing import assert_never

from graylift.analysis.reference import Reference
from graylift.analysis.sample import Sample
from graylift.analysis.sickness import Recent
from graylift.domain.shadow import ShadowWindow
from graylift.domain.spec import Check, Margin, Metric, ShadowCheck, ShadowJudge


def failing(
    check: Check, candidate: Sample, stable: Sample, *, alone: bool, chance: float, failures_are_slow: bool
) -> str:
    """Why a check is FAIL. alone: its own evidence was enough; chance: the release's false-rollback bound;
    failures_are_slow: for a latency, whether failures count against it."""
    if alone:
        bound = f"chance of this for a candidate within the limit: under {_percent(chance)}"
    else:
        bound = (
            "not established by this check alone; with the evidence of the other checks, the chance of this for a "
            f"candidate within all limits is under {_percent(chance)}"
        )
    slow = ""
    if check.quantile is not None and candidate.failed and failures_are_slow:
        slow = f"; its {_count(candidate.failed)} failed requests count as slower than any answer"
    found = f"{compared(check, candidate, stable)}; rollback limit {check.rollback_if_worse}"
    return f"{found} {_sizes(check, candidate, stable)}{slow}; {bound}"


def passing(check: Check, margin: Margin, candidate: Sample, stable: Sample, *, chance: float) -> str:
    """Why a check is PASS."""
    return (
        f"{compared(check, candidate, stable)}; shown to be within {margin} {_sizes(check, candidate, stable)}; "
        f"chance of this for a candidate beyond it: under {_percent(chance)}"
    )


def undecided(
    check: Check, margin: Margin, candidate: Sample, stable: Sample, *, answers_missing: int, more: float | None
) -> str:
    """What is missing. answers_missing: of stable before its quantile or mean is known; more: of the candidate, if
    known."""
    what = noun(check)
    if not candidate.sized(check):
        return f"{subject(check)}: no candidate {what} yet{_cure(check, candidate, stable)}"
    if not stable.sized(check):
        return f"{subject(check)}: no stable {what} to compare with (candidate n={_count(candidate.sized(check))})"
    if answers_missing:
        more_of = "answers" if check.metric is Metric.LATENCY else what
        return (
            f"{subject(check)}: stable has not answered enough to know its own, {_count(answers_missing)} more "
            f"{more_of} needed {_sizes(check, candidate, stable)}"
        )
    missing = "" if more is None else f", about {_count(_rounded_up(more))} more needed"
    return (
        f"{compared(check, candidate, stable)}: not yet shown to be within {margin} "
        f"(candidate n={_count(candidate.sized(check))}{missing}, stable n={_count(stable.sized(check))})"
    )


def compared(check: Check, candidate: Sample, stable: Sample) -> str:
    """Both numbers."""
    ours, theirs = candidate.value(check), stable.value(check)
    match check.metric:
        case Metric.ERRORS:
            left, right = ("none" if share is None else _share(share) for share in (ours, theirs))
            return f"errors {left} against {right}"
        case Metric.SHARE:
            left, right = ("none" if share is None else _share(share) for share in (ours, theirs))
            return f"{subject(check)} {left} against stable's {right}"
        case Metric.LATENCY | Metric.TTFT | Metric.TPOT:
            if ours is None or theirs is None:
                known = "unknown, without an answer,"
                left, right = (known if value is None else duration(value) for value in (ours, theirs))
                return f"{subject(check)} {left} against stable's {right}".rstrip(",")
            return f"{subject(check)} {duration(ours)} is {ours / theirs:.2f}x stable's {duration(theirs)}"
        case Metric.SCORE:
            if ours is None or theirs is None:
                left, right = ("unknown" if value is None else f"{value:.3f}" for value in (ours, theirs))
                return f"mean {subject(check)} {left} against stable's {right}"
            return f"mean {subject(check)} {ours:.3f} is {ours - theirs:+.3f} from stable's {theirs:.3f}"
        case _:
            assert_never(check.metric)


def subject(check: Check) -> str:
    """What the check is about: `errors`, `p99 latency`, `p95 time to first token`, a score's own name."""
    match check.metric:
        case Metric.ERRORS | Metric.SCORE | Metric.SHARE:
            return check.name
        case Metric.LATENCY:
            what = "latency"
        case Metric.TTFT:
            what = "time to first token"
        case Metric.TPOT:
            what = "time per output token"
        case _:
            assert_never(check.metric)
    return f"p{(check.quantile or 0.5) * 100:.10g} {what}"


def noun(check: Check) -> str:
    """What a check counts."""
    match check.metric:
        case Metric.ERRORS | Metric.LATENCY:
            return "requests"
        case Metric.TTFT | Metric.TPOT:
            return "streams"
        case Metric.SCORE:
            return "scores"
        case Metric.SHARE:
            return "events"
        case _:
            assert_never(check.metric)


def _cure(check: Check, candidate: Sample, stable: Sample) -> str:
    """Requests, but nothing of what a check needs in either arm: that will not come by waiting."""
    if not (candidate.requests and stable.requests) or stable.sized(check):
        return ""
    if check.metric is Metric.SHARE:
        return ", nor any of stable's: what is wrong with its source stands in the events"
    if check.metric is Metric.SCORE:
        return f", nor any of stable's: post scores called `{check.name}`, or take it out of judge.metrics"
    return ", nor any of stable's: clients that do not stream have none; judge `latency` instead"


def failing_pairs(
    check: ShadowCheck, judge: ShadowJudge, seen: ShadowWindow | None, *, alone: bool, chance: float
) -> str:
    """Why a check on pairs of answers is FAIL. alone, chance: as in `failing`."""
    within = "the limit" if alone else "all limits, by the evidence of all checks together,"
    return (
        f"{paired(check, seen)}; rollback limit {_limit(check, judge, rollback=True)}; chance of this for a candidate "
        f"within {within} under {_percent(chance)}"
    )


def passing_pairs(check: ShadowCheck, judge: ShadowJudge, seen: ShadowWindow | None, *, chance: float) -> str:
    """Why a check on pairs of answers is PASS."""
    return (
        f"{paired(check, seen)}; shown to be within {_limit(check, judge, rollback=False)}; chance of this for a "
        f"candidate beyond it: under {_percent(chance)}"
    )


def undecided_pairs(check: ShadowCheck, judge: ShadowJudge, seen: ShadowWindow | None) -> str:
    """What is missing."""
    if seen is None or not seen.pairs:
        return f"{check.value}: no pair of answers yet"
    return f"{paired(check, seen)}: not yet shown to be within {_limit(check, judge, rollback=False)}"


def paired(check: ShadowCheck, seen: ShadowWindow | None) -> str:
    """Both numbers, and of how many pairs."""
    if seen is None or not seen.pairs:
        return f"{check.value} on no pair of this stage"
    match check:
        case ShadowCheck.ERRORS:
            ours = (seen.only_candidate_failed + seen.both_failed) / seen.pairs
            theirs = (seen.only_stable_failed + seen.both_failed) / seen.pairs
            why = "".join(f", {_count(times)} x {reason}" for reason, times in seen.reasons)
            return f"shadow errors {_share(ours)} against {_share(theirs)} of {_count(seen.pairs)} pairs{why}"
        case ShadowCheck.LATENCY:
            ratio = seen.latency_ratio.quantile(0.5)
            if ratio is None:
                return f"shadow latency unknown: in none of {_count(seen.pairs)} pairs did both answer"
            return (
                f"shadow answers take {ratio:.2f}x stable's time (median of {_count(seen.latency_ratio.count)} pairs)"
            )
        case ShadowCheck.AGREEMENT:
            if seen.agreement is None:
                return f"shadow agreement unknown: none of {_count(seen.pairs)} pairs could be compared"
            most = max(seen.differences, key=lambda kind: kind[1], default=None)
            mostly = "" if most is None else f", most differ in {most[0]}"
            return f"shadow answers agree in {_share(seen.agreement)} of {_count(seen.compared)} pairs{mostly}"
        case _:
            assert_never(check)


def _limit(check: ShadowCheck, judge: ShadowJudge, *, rollback: bool) -> str:
    match check:
        case ShadowCheck.ERRORS:
            return str(judge.errors_rollback if rollback else judge.errors_promote)
        case ShadowCheck.LATENCY:
            return str(judge.latency_rollback if rollback else judge.latency_promote)
        case ShadowCheck.AGREEMENT:
            assert judge.agreement is not None
            share = judge.agreement.rollback_if_below if rollback else judge.agreement.promote_if_above
            return f"{_percent(share)} agreement"
        case _:
            assert_never(check)


def stable_sick(recent: Recent) -> str:
    return (
        f"stable itself fails {_share(recent.failed_share)} of its requests (n={_count(recent.requests)}, recent): "
        "nothing is concluded against the candidate"
    )


def candidate_sick(recent: Recent, past: Reference, *, chance: float) -> str:
    before = f"stable failed {_share(past.failed / past.requests)} before" if past.requests else "stable is not known"
    return (
        f"the candidate fails {_share(recent.failed_share)} of its requests (n={_count(recent.requests)}, recent); "
        f"{before}; chance of this for a candidate that fails up to "
        f"10 % or twice stable's share: under {_percent(chance)}"
    )


def share_off(candidate: int, total: int, configured: float, *, chance: float) -> str:
    return (
        f"the candidate got {_share(candidate / total)} of {_count(total)} requests, configured is "
        f"{_percent(configured)}: the split is off, or requests of one arm do not end; chance of this for the right "
        f"split: under {_percent(chance)}"
    )


def duration(seconds: float) -> str:
    """Three digits, in us, ms or s."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{_three_digits(seconds * factor)} {unit}"
    return f"{_three_digits(seconds)} s"


def _three_digits(value: float) -> str:
    rounded = float(f"{value:.3g}")
    decimals = max(0, 2 - math.floor(math.log10(rounded))) if rounded > 0 else 0
    return f"{value:,.{decimals}f}"


def _share(share: float) -> str:
    """A measured share of requests."""
    percent = share * 100
    decimals = 1 if percent >= 1 or percent == 0 else 2
    return f"{percent:.2g} %" if 0 < percent < 0.1 else f"{percent:.{decimals}f} %"


def _percent(share: float) -> str:
    """A share that somebody set: a bound or a weight."""
    return f"{share * 100:g} %"


def _sizes(check: Check, candidate: Sample, stable: Sample) -> str:
    of = "" if noun(check) == "requests" else f" {noun(check)}"
    return f"(candidate n={_count(candidate.sized(check))}{of}, stable n={_count(stable.sized(check))}{of})"


def _count(number: int) -> str:
    return f"{number:,}"


def _rounded_up(number: float) -> int:
    """To two digits, so that an estimate does not look like a promise."""
    step = 10 ** max(0, math.floor(math.log10(max(number, 1.0))) - 1)
    return math.ceil(number / step) * step
