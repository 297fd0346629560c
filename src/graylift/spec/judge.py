"""The `judge` part of a release file -> `JudgeSpec`. Called by `release`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import assert_never

from graylift.domain.spec import Check, JudgeSpec, Margin, MarginKind, Metric, ServingProtocol
from graylift.spec import defaults
from graylift.spec.document import Node
from graylift.spec.fields import Fields, Read, Reported, Wrong, nearest
from graylift.spec.shadow import read_judge_of_shadows
from graylift.spec.shapes import METRIC, SHADOW
from graylift.spec.sources import is_counted_elsewhere, read_origin
from graylift.spec.values import any_margin, between, matching, number, percentage

MEASURED = {metric.value: metric for metric in Metric if metric not in (Metric.SCORE, Metric.SHARE)}
"""By name; every other name is that of a score, or of a share that is counted elsewhere."""

_KIND = {
    Metric.ERRORS: MarginKind.POINTS,
    Metric.LATENCY: MarginKind.RATIO,
    Metric.TTFT: MarginKind.RATIO,
    Metric.TPOT: MarginKind.RATIO,
    Metric.SCORE: MarginKind.SCORE,
    Metric.SHARE: MarginKind.POINTS,
}
_KIND_CURE = {
    MarginKind.POINTS: "errors and other shares are compared by difference, since nothing is a multiple of none: "
    "write percentage points, as in 0.5pp",
    MarginKind.RATIO: "latencies are compared by ratio, since only a share of a duration fits every model: "
    "write a ratio, as in 1.10x",
    MarginKind.SCORE: "scores are compared by difference: write it with the sign that says which way is worse, as in "
    "-0.01 where lower is",
}

_name = matching(
    "a name of a metric or score",
    r"[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*(?<!.{65})",
    "write lower-case words of letters and digits with `-`, `_` or `.` between them, at most 64 in all: helpful, "
    "json-ok",
)
_bound = between(0.0001, 0.49, "write a percentage from 0.01% to 49%", percentage)

DEFAULT = JudgeSpec(defaults.CHECKS, defaults.FALSE_ROLLBACK, defaults.FALSE_PROMOTION)


def default_for(protocol: ServingProtocol) -> JudgeSpec:
    """The judge of a release file that says nothing of it."""
    return JudgeSpec(defaults.checks_of(protocol), defaults.FALSE_ROLLBACK, defaults.FALSE_PROMOTION)


def read_judge(protocol: ServingProtocol, fields: Fields) -> JudgeSpec:
    false_rollback = fields.read_or(DEFAULT.false_rollback, "falseRollback", _bound)
    false_promotion = fields.read_or(DEFAULT.false_promotion, "falsePromotion", _bound)
    read = partial(_read_check, protocol)
    checks = fields.each("metrics", METRIC, read).value if fields.has("metrics") else None
    return JudgeSpec(
        checks=defaults.checks_of(protocol) if checks is None else _unique(fields, checks),
        false_rollback=false_rollback.value,
        false_promotion=false_promotion.value,
        shadow=fields.nested_or(None, "shadow", SHADOW, lambda shadow: read_judge_of_shadows(shadow, margin_for)).value,
    )


def margin_for(metric: Metric) -> Callable[[Node], Margin]:
    """The reader of that metric's margins."""

    def reader(node: Node) -> Margin:
        margin = any_margin(node)
        if margin.kind is not _KIND[metric]:
            what = f"the margin {margin} does not fit {'a score' if metric is Metric.SCORE else metric.value}"
            raise Wrong(node.place, what, _KIND_CURE[_KIND[metric]])
        return margin

    return reader


def _read_check(protocol: ServingProtocol, fields: Fields) -> Check:
    name = fields.read("name", partial(_read_name, protocol))
    metric = next((MEASURED.get(found, Metric.SCORE) for found in name.found), None)
    if is_counted_elsewhere(fields):
        metric = Metric.SHARE
    margin = any_margin if metric in (None, Metric.SCORE) else margin_for(metric)
    rollback = fields.read("rollbackIfWorse", margin)
    promote = fields.read("promoteIfWithin", margin)
    if metric is Metric.SCORE:
        _demand_score(fields, name, (rollback, promote))
    if promote.found and rollback.found and promote.value.kind is rollback.value.kind:
        _demand_room(fields, rollback.value, promote)
    match metric:
        case None:
            raise Reported
        case Metric.LATENCY | Metric.TTFT | Metric.TPOT:
            return Check(metric, fields.read("quantile", _quantile).value, rollback.value, promote.value)
        case Metric.ERRORS:
            fields.refuse("quantile", "a share of failed requests has no quantile", "delete it")
            return Check(metric, None, rollback.value, promote.value)
        case Metric.SCORE:
            fields.refuse("quantile", "a score is judged by its mean and has no quantile", "delete it")
            return Check(metric, None, rollback.value, promote.value, score=name.value)
        case Metric.SHARE:
            fields.refuse("quantile", "what is counted elsewhere is judged as a share", "name a bound as `above`")
            origin = read_origin(fields, name, MEASURED)
            return Check(metric, None, rollback.value, promote.value, share=name.value, origin=origin)
        case _:
            assert_never(metric)


def _read_name(protocol: ServingProtocol, node: Node) -> str:
    name = _name(node)
    if MEASURED.get(name) in (Metric.TTFT, Metric.TPOT) and protocol is ServingProtocol.OPEN_INFERENCE:
        what = f"`{name}` is of streams of tokens, and answers of protocol open-inference come whole"
        raise Wrong(node.place, what, "judge `latency` instead")
    return name


def _demand_score(fields: Fields, name: Read[str], margins: Sequence[Read[Margin]]) -> None:
    """What is no metric is a score, if its margins are those of one: else the name is more likely mistyped."""
    wrong = [margin for margin in margins if margin.found and margin.value.kind is not MarginKind.SCORE]
    if wrong and len(wrong) == len([margin for margin in margins if margin.found]):
        what = f"`{name.value}` is no metric known here, and a score would have a margin such as -0.01"
        fields.problems.add(name.place, what, nearest(name.value, MEASURED))
        raise Reported
    for margin in wrong:
        what = f"the margin {margin.value} does not fit the score `{name.value}`"
        fields.problems.add(margin.place, what, _KIND_CURE[MarginKind.SCORE])
        raise Reported


def _demand_room(fields: Fields, rollback: Margin, promote: Read[Margin]) -> None:
    if promote.value.value * rollback.value < 0:
        what = f"promoteIfWithin ({promote.value}) looks the other way than rollbackIfWorse ({rollback})"
        fields.problems.add(promote.place, what, "give both the sign of the direction in which the score gets worse")
    elif promote.value.room < rollback.room:
        what = f"promoteIfWithin ({promote.value}) is tighter than rollbackIfWorse ({rollback})"
        cure = "make it at least as wide; the further the two lie apart, the sooner it is decided"
        fields.problems.add(promote.place, what, cure)


def _quantile(node: Node) -> float:
    value = number(node)
    if not 0 < value < 1:
        cure = f"write a share: {value / 100}" if 1 < value < 100 else "write a number between 0 and 1, as in 0.99"
        raise Wrong(node.place, f"a quantile of {value} is not between 0 and 1", cure)
    return float(value)


def _unique(fields: Fields, checks: Sequence[Read[Check]]) -> tuple[Check, ...]:
    first: dict[str, Read[Check]] = {}
    for check in checks:
        for value in check.found:
            if (other := first.setdefault(value.name, check)) is not check:
                what = f"`{value.name}` is judged twice: in line {other.place.line} and in line {check.place.line}"
                fields.problems.add(check.place, what, "keep one of them")
    if len(first) < len(checks):
        raise Reported
    return tuple(check.value for check in checks)
