"""`graylift judge`: the controller's judge on recorded requests, and what it says, for people and for scripts.

Called by `main.py`. Reading and replaying are `graylift.replay`'s; here are the choice of the rules and the words.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graylift.analysis import kayenta
from graylift.analysis.evidence import scores_of
from graylift.cli.live import console
from graylift.cli.method import Method
from graylift.domain.judgement import Ruling, Verdict
from graylift.domain.spec import JudgeSpec, ReleaseSpec, Stage
from graylift.domain.weights import Role, Weights
from graylift.replay.course import course_from, length_for
from graylift.replay.points import points_of
from graylift.replay.reading import Table, read
from graylift.replay.records import COLUMNS, Records, records_from
from graylift.replay.replaying import Replay, replay
from graylift.spec import DEFAULT, effective_margins, load_rules

EXIT_CODES = {Ruling.PASS: 0, Ruling.FAIL: 3, Ruling.INCONCLUSIVE: 5}
STYLES = {Ruling.PASS: "bold green", Ruling.FAIL: "bold red", Ruling.INCONCLUSIVE: "bold yellow"}


def judge(stable: Path, candidate: Path, rules: Path | None, method: Method, *, as_json: bool) -> int:
    """Exit code: 0 PASS, 3 FAIL, 5 INCONCLUSIVE."""
    release = None if rules is None else load_rules(rules)
    # What was recorded are requests of either revision, never pairs of answers.
    spec = DEFAULT if release is None else replace(release.judge, shadow=None)
    tables = tuple(read(path, scores_of(spec.checks)) for path in (stable, candidate))
    theirs, ours = (records_from(table, spec.checks) for table in tables)
    if method is Method.KAYENTA:
        return _kayenta(theirs, ours, spec, as_json=as_json)
    length_s = length_for(theirs, ours)
    course = course_from(theirs, ours, length_s)
    seen = {weights for interval in course.intervals for weights in interval.began}
    found = replay(spec, _stages(release, spec, seen), course, theirs, ours)
    told = (*found.told, *_not_judged(spec, *tables))
    if as_json:
        sys.stdout.write(json.dumps(structure_from(found, told, length_s), indent=2, ensure_ascii=False) + "\n")
    else:
        for line, style in _lines(found, told, length_s):
            _say(line, style)
    return EXIT_CODES[found.ruling]


def _kayenta(stable: Records, candidate: Records, spec: JudgeSpec, *, as_json: bool) -> int:
    """Kayenta's verdict: a score, not a bound."""
    course = course_from(stable, candidate, kayenta.STEP_S)
    found = {
        check.name: kayenta.classify(points_of(course, check, Role.CANDIDATE), points_of(course, check, Role.STABLE))
        for check in spec.checks
    }
    score = kayenta.score(found)
    ruling = Ruling.INCONCLUSIVE
    if score is not None and score >= kayenta.PASS_SCORE:
        ruling = Ruling.PASS
    elif score is not None and score <= kayenta.MARGINAL_SCORE:
        ruling = Ruling.FAIL
    told = (*stable.told, *candidate.told)
    if as_json:
        metrics = [
            {
                "name": name,
                "classification": one.classification.value,
                "points": list(one.points),
                "shift": one.estimate,
                "shift_low": one.low,
                "shift_high": one.high,
            }
            for name, one in found.items()
        ]
        document = {"method": "kayenta", "verdict": ruling.value, "score": score, "metrics": metrics}
        sys.stdout.write(json.dumps({**document, "notes": list(told)}, indent=2, ensure_ascii=False) + "\n")
        return EXIT_CODES[ruling]
    shown = "no data" if score is None else f"score {score:.0f}"
    _say(f"{ruling.value} by Kayenta's rules: {shown} (pass from 95, fail up to 75)", STYLES[ruling])
    for name, one in found.items():
        _say(f"  {one.classification.value:8}{name} (candidate {one.points[0]:,} points, stable {one.points[1]:,})")
    for sentence in (*told, "these rules bound no error rate over a release; without --method there is one"):
        _say(f"  note: {sentence}", "dim")
    return EXIT_CODES[ruling]


def _say(line: str, style: str = "") -> None:
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def structure_from(found: Replay, told: tuple[str, ...], length_s: float) -> dict[str, Any]:
    """The JSON of `graylift judge --json`. Times are epoch seconds, latencies seconds, shares 0 to 1."""
    return {
        "verdict": found.ruling.value,
        "decided_at": found.decided_s,
        "candidate_n": found.candidate_n,
        "stable_n": found.stable_n,
        "interval_s": length_s,
        "looks": found.looks,
        "metrics": [
            {**_verdict(one.verdict), "decided_at": one.decided_s, "sentence": one.verdict.sentence}
            for one in found.found
        ],
        "stages": [
            {
                "weight": float(stage.weights.percent),
                "began_at": stage.began_s,
                "passed_at": stage.passed_s,
                "candidate_n": stage.candidate_n,
                "stable_n": stage.stable_n,
                "metrics": [_verdict(verdict) for verdict in stage.verdicts],
            }
            for stage in found.stages
        ],
        "notes": list(told),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "name": verdict.check,
        "verdict": verdict.ruling.value,
        "candidate": verdict.candidate,
        "stable": verdict.stable,
        "effect_low": verdict.effect_low,
        "effect_high": verdict.effect_high,
    }


def _stages(release: ReleaseSpec | None, spec: JudgeSpec, seen: set[Weights]) -> dict[Weights, Stage]:
    """What is asked of each weight: by the file, and by the defaults where it does not name one."""
    stages = () if release is None else release.stages
    named = {stage.weights: stage for stage in stages if stage.shadow is None}
    usual = {
        weights: Stage(weights, 0.0, promote_if_within=tuple(effective_margins(weights, spec.checks, ())))
        for weights in seen
    }
    return usual | named


def _not_judged(spec: JudgeSpec, stable: Table, candidate: Table) -> Iterator[str]:
    judged = {check.metric for check in spec.checks}
    columns = [column for metric, column in COLUMNS.items() if metric not in judged]
    for column in dict.fromkeys(name for table in (stable, candidate) for name in (*table.numbers, *table.others)):
        if column in columns or column in (*stable.others, *candidate.others):
            yield f"the column `{column}` is not judged; {', '.join(check.name for check in spec.checks)} are"
    lengths = [_mean(table.numbers.get("output_tokens")) for table in (candidate, stable)]
    if lengths[0] is not None and lengths[1]:
        yield (
            f"the candidate's answers have {lengths[0]:.1f} output tokens on average, {lengths[0] / lengths[1]:.2f}x "
            f"stable's {lengths[1]:.1f}; told, not judged: another length is no fault by itself"
        )


def _mean(numbers: NDArray[np.float64] | None) -> float | None:
    known = numbers[np.isfinite(numbers)] if numbers is not None else ()
    return float(np.mean(known)) if len(known) else None


def _lines(found: Replay, told: tuple[str, ...], length_s: float) -> Iterator[tuple[str, str]]:
    sizes = f"candidate n={found.candidate_n:,}, stable n={found.stable_n:,}"
    at = "" if found.decided_s is None else f" at {moment(found.decided_s)}"
    yield f"{found.ruling.value}{at} ({sizes}; {found.looks:,} looks, one every {length_s:g} s)", STYLES[found.ruling]
    for one in found.found:
        since = "" if one.decided_s is None else f" ({moment(one.decided_s)})"
        yield f"  {one.verdict.ruling.value:12} {one.verdict.sentence}{since}", ""
    if len(found.stages) > 1:
        for stage in found.stages:
            passed = "never passed" if stage.passed_s is None else f"passed at {moment(stage.passed_s)}"
            yield f"  stage {stage.weights}: {passed} (candidate n={stage.candidate_n:,})", "dim"
    for sentence in told:
        yield f"  note: {sentence}", "dim"


def moment(epoch_s: float) -> str:
    """A recorded time; one of the first days of 1970 is a count from a start and shown as such."""
    if epoch_s < 1e6:
        return f"second {epoch_s:,.0f}"
    return f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
