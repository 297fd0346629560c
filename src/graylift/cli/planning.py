"""`graylift plan`: how long each stage of a release file will take on a given traffic, and what it would catch.

Called by `main.py`. The arithmetic is `analysis.planner`'s; here are the options, the advice and the words.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from graylift.analysis import planner
from graylift.analysis.planner import Passing, StagePlan
from graylift.analysis.traffic import Scores, Times, Traffic
from graylift.cli.live import console
from graylift.domain.spec import Check, Margin, MarginKind, Metric, ReleaseSpec, Stage
from graylift.domain.weights import TOTAL, Weights, weights_from_percent
from graylift.errors import CommandRefused
from graylift.spec import load_rules
from graylift.spec.units import seconds_from_text, share_from_text

REASONABLE_S = 86_400.0
"""A stage that takes longer is warned of."""
_SEED = 20_261_124
_RATE = re.compile(r"(\d{1,7}(?:\.\d{1,6})?)/(s|m|h)")
_QUANTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,4})?)=(\w+)")
_SCORES = re.compile(r"mean=(0?\.\d{1,4}),sd=(0?\.\d{1,4}),of=(.+)")
_WEIGHTS = tuple(weights_from_percent(Decimal(percent)) for percent in ("1", "2", "5", "10", "20", "50"))
_LOOSER = {
    MarginKind.POINTS: (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2),
    MarginKind.RATIO: (1.1, 1.2, 1.25, 1.5, 2.0, 3.0, 5.0),
    MarginKind.SCORE: (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3),
}


def plan(file: Path, traffic: Traffic, *, as_json: bool) -> None:
    release = load_rules(file)
    stages = planner.plan(release.judge, release.stages, traffic, np.random.default_rng(_SEED))
    warnings = tuple(warning for stage in stages for warning in _warnings(release, stage, traffic))
    if as_json:
        sys.stdout.write(json.dumps(_structure(stages, warnings), indent=2, ensure_ascii=False) + "\n")
    else:
        _show(release, stages, warnings, traffic)


def traffic_from(rate: str, errors: str, *, latency: str, ttft: str, tpot: str, scores: str) -> Traffic:
    """The options as a person writes them. CommandRefused with the cure for what is none."""
    per_second = _RATE.fullmatch(rate)
    if per_second is None or float(per_second[1]) == 0:
        raise CommandRefused(f"--rate {rate}: write requests of both arms together, as in 40/s, 90/m or 500/h")
    try:
        share = share_from_text(errors)
    except ValueError as exc:
        raise CommandRefused(f"--errors {errors}: {exc}") from exc
    return Traffic(
        rate=float(per_second[1]) / {"s": 1, "m": 60, "h": 3600}[per_second[2]],
        errors=share,
        latency=_times("latency", latency),
        ttft=_times("ttft", ttft),
        tpot=_times("tpot", tpot),
        scores=_scores(scores),
    )


def _times(name: str, text: str) -> Times:
    quantiles: list[tuple[float, float]] = []
    for part in text.split(","):
        found = _QUANTILE.fullmatch(part.strip())
        try:
            if found is None:
                raise ValueError(f"write quantiles of stable's {name}: p50=20ms,p99=200ms")
            quantiles.append((float(found[1]) / 100, seconds_from_text(found[2])))
        except ValueError as exc:
            raise CommandRefused(f"--{name} {part.strip()}: {exc}") from exc
    rising = all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(quantiles))
    if not rising or quantiles[0][0] <= 0 or quantiles[0][1] <= 0:
        raise CommandRefused(f"--{name} {text}: expected quantiles and durations that rise, as in p50=20ms,p99=200ms")
    return Times(tuple(quantiles))


def _scores(text: str) -> Scores:
    try:
        found = _SCORES.fullmatch(text)
        if found is None:
            raise ValueError("write what stable's scores are like, and of how many requests: mean=0.8,sd=0.2,of=10%")
        scores = Scores(float(found[1]), float(found[2]), share_from_text(found[3]))
        if not (scores.sd > 0 and scores.share > 0 and scores.sd**2 < scores.mean * (1 - scores.mean)):
            raise ValueError(
                "expected an sd above 0 that scores from 0 to 1 of that mean can have (below the root of "
                "mean * (1 - mean)), and a share above 0%"
            )
    except ValueError as exc:
        raise CommandRefused(f"--scores {text}: {exc}") from exc
    return scores


def _warnings(release: ReleaseSpec, found: StagePlan, traffic: Traffic) -> Iterator[str]:
    """Where a stage would not conclude in reasonable time: what would help, tried out."""
    rng = np.random.default_rng(_SEED)
    checks = {check.name: check for check in release.judge.checks}
    for one in found.passing:
        if one.seconds is not None and one.seconds <= REASONABLE_S:
            continue
        check, weights = checks[one.check], found.stage.weights
        takes = "it never gets there" if one.seconds is None else f"this needs {span(one.seconds)}"
        cures = [*_looser(release, check, one.margin, weights, traffic, rng)]
        cures += _larger(release, check, one.margin, weights, traffic, rng)
        cure = " or ".join(cures) or "more traffic is needed, or a looser margin than any sensible one"
        what = f"{one.check} within {one.margin} at {weights} of {_rate(traffic)}"
        yield f"{what}: {takes}. To conclude within a day: {cure}"


def _looser(
    release: ReleaseSpec, check: Check, margin: Margin, weights: Weights, traffic: Traffic, rng: np.random.Generator
) -> Iterator[str]:
    for step in _LOOSER[margin.kind]:
        looser = Margin(margin.kind, -step if margin.value < 0 else step)
        if looser.room > margin.room and _in_time(release, check, looser, weights, traffic, rng):
            yield f"loosen the stage's promoteIfWithin to {{{check.name}: {looser}}}"
            return


def _larger(
    release: ReleaseSpec, check: Check, margin: Margin, weights: Weights, traffic: Traffic, rng: np.random.Generator
) -> Iterator[str]:
    for larger in _WEIGHTS:
        if larger.candidate > weights.candidate and _in_time(release, check, margin, larger, traffic, rng):
            yield f"start at {larger}"
            return


def _in_time(
    release: ReleaseSpec, check: Check, margin: Margin, weights: Weights, traffic: Traffic, rng: np.random.Generator
) -> bool:
    tried = planner.passing(release.judge, check, margin, weights.candidate / TOTAL, traffic, rng)
    return tried.seconds is not None and tried.seconds <= REASONABLE_S


def _structure(stages: tuple[StagePlan, ...], warnings: tuple[str, ...]) -> dict[str, Any]:
    """The JSON of `graylift plan --json`. Shares are 0 to 1, durations seconds."""
    return {
        "likely": planner.LIKELY,
        "seconds": _total(stages),
        "stages": [
            {
                "weight": float(found.stage.weights.percent),
                "seconds": found.seconds,
                "candidate_n": found.candidate_n,
                "passing": [
                    {
                        "name": one.check,
                        "margin": str(one.margin),
                        "candidate_n": one.candidate_n,
                        "seconds": one.seconds,
                    }
                    for one in found.passing
                ],
                "catching": [
                    {
                        "name": one.check,
                        "worse_by": str(one.worse),
                        "candidate_n": one.candidate_n,
                        "bad_answers": one.bad,
                        "seconds": one.seconds,
                    }
                    for one in found.catching
                ],
                "missed": list(found.missed),
            }
            for found in stages
        ],
        "warnings": list(warnings),
    }


def _total(stages: tuple[StagePlan, ...]) -> float | None:
    times = [found.seconds for found in stages if found.seconds is not None]
    return sum(times) if len(times) == len(stages) else None


def _show(release: ReleaseSpec, stages: tuple[StagePlan, ...], warnings: tuple[str, ...], traffic: Traffic) -> None:
    total = _total(stages)
    takes = "may never end as it is written" if total is None else f"takes about {span(total)} to all of the traffic"
    console.print(
        f"{release.service} at {_rate(traffic)}, with {traffic.errors * 100:g} % errors: a candidate as good as stable "
        f"{takes} (4 in 5 such releases)",
        soft_wrap=True,
        highlight=False,
    )
    for found in stages:
        for line, style in _lines(found):
            console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _lines(found: StagePlan) -> Iterator[tuple[str, str]]:
    """A stage: when it likely passes and what takes longest, then what it would find meanwhile."""
    takes = "it never passes" if found.seconds is None else f"likely passes after {span(found.seconds)}"
    sizes = "" if found.candidate_n is None else f", {_rounded(found.candidate_n):,} candidate requests"
    yield f"\nstage {found.stage.weights}: {takes}{sizes}; {_slowest(found.stage, found.passing)}", "bold"
    for one in found.catching:
        worse = f"+{one.worse}" if one.worse.kind is MarginKind.POINTS else str(one.worse)
        bad = "failed" if one.check == Metric.ERRORS.value else "slower than its limit"
        price = f"after {_rounded(one.candidate_n):,} requests"
        if one.bad is not None:
            price += f", {_rounded(one.bad):,} of them {bad}"
        yield f"  finds {one.check} {worse} or more, {price}", ""
    for name in found.missed:
        yield f"  finds nothing that is wrong with {name} alone in that time", ""


def _slowest(stage: Stage, passing: tuple[Passing, ...]) -> str:
    slowest = max(passing, key=lambda one: float("inf") if one.seconds is None else one.seconds)
    if slowest.seconds is not None and slowest.seconds <= stage.observe_s:
        return f"`observe` takes longest, {span(stage.observe_s)}"
    return f"{slowest.check} within {slowest.margin} takes longest"


def _rounded(number: int) -> int:
    """To two digits: a plan is no promise."""
    step = 10 ** max(0, len(str(number)) - 2)
    return -(-number // step) * step


def _rate(traffic: Traffic) -> str:
    return f"{traffic.rate:.6g} requests/s"


def span(seconds: float) -> str:
    """`40 s`, `13 min`, `2.4 h`, `9 days`."""
    for unit, size, least in (("days", 86_400, 1.5), ("h", 3600, 1.5), ("min", 60, 1.5)):
        if seconds >= least * size:
            number = seconds / size
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"
    return f"{seconds:.0f} s"
