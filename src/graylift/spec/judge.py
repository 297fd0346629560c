"""The `judge` part of a release file -> `JudgeSpec`. Called by `release`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

from graylift.domain.spec import Check, JudgeSpec, Margin, MarginKind, Metric
from graylift.spec import defaults
from graylift.spec.document import Node
from graylift.spec.fields import Fields, Read, Reported, Wrong
from graylift.spec.shadow import read_judge_of_shadows
from graylift.spec.shapes import METRIC, SHADOW
from graylift.spec.values import any_margin, between, choice, number, percentage

_LATER = {
    "ttft": "time to first token comes with LLM protocols; judge `latency` until then",
    "tpot": "time per output token comes with LLM protocols; judge `latency` until then",
}
_KIND = {Metric.ERRORS: MarginKind.POINTS, Metric.LATENCY: MarginKind.RATIO}
_KIND_CURE = {
    MarginKind.POINTS: "errors are compared by difference, since a stable without errors has no multiple: "
    "write percentage points, as in 0.5pp",
    MarginKind.RATIO: "latencies are compared by ratio, since only a share of a duration fits every model: "
    "write a ratio, as in 1.10x",
}

_bound = between(0.0001, 0.49, "write a percentage from 0.01% to 49%", percentage)

DEFAULT = JudgeSpec(defaults.CHECKS, defaults.FALSE_ROLLBACK, defaults.FALSE_PROMOTION)


def read_judge(fields: Fields) -> JudgeSpec:
    false_rollback = fields.read_or(DEFAULT.false_rollback, "falseRollback", _bound)
    false_promotion = fields.read_or(DEFAULT.false_promotion, "falsePromotion", _bound)
    checks = fields.each("metrics", METRIC, _read_check).value if fields.has("metrics") else None
    return JudgeSpec(
        checks=DEFAULT.checks if checks is None else _unique(fields, checks),
        false_rollback=false_rollback.value,
        false_promotion=false_promotion.value,
        shadow=fields.nested_or(None, "shadow", SHADOW, lambda shadow: read_judge_of_shadows(shadow, margin_for)).value,
    )


def margin_for(metric: Metric) -> Callable[[Node], Margin]:
    """The reader of that metric's margins."""

    def reader(node: Node) -> Margin:
        margin = any_margin(node)
        if margin.kind is not _KIND[metric]:
            what = f"a margin in `{margin.kind.value}` does not fit {metric.value}"
            raise Wrong(node.place, what, _KIND_CURE[_KIND[metric]])
        return margin

    return reader


def _read_check(fields: Fields) -> Check:
    metric = fields.read("name", choice({metric.value: metric for metric in Metric}, _LATER))
    margin = margin_for(metric.value) if metric.found else any_margin
    rollback = fields.read("rollbackIfWorse", margin)
    promote = fields.read("promoteIfWithin", margin)
    if promote.found and rollback.found and promote.value.kind is rollback.value.kind:
        _demand_room(fields, rollback.value, promote)
    match metric.value:
        case Metric.LATENCY:
            quantile = fields.read("quantile", _quantile).value
        case Metric.ERRORS:
            fields.refuse("quantile", "a share of failed requests has no quantile", "delete it")
            quantile = None
        case _:
            assert_never(metric.value)
    return Check(metric.value, quantile, rollback.value, promote.value)


def _demand_room(fields: Fields, rollback: Margin, promote: Read[Margin]) -> None:
    if promote.value.value < rollback.value:
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
