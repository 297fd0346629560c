"""What a release file says of shadow traffic: which requests it is, and how pairs of answers are judged. Called by
`stages` and `judge`."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import partial

from graylift.domain.spec import (
    AgreementMargins,
    HeaderRule,
    KeepExamples,
    Margin,
    Metric,
    ShadowJudge,
    ShadowSpec,
    Tolerance,
)
from graylift.domain.weights import NONE, Weights, weights_from_percent
from graylift.spec.document import Node
from graylift.spec.fields import Fields, Wrong
from graylift.spec.headers import header, header_value
from graylift.spec.shapes import AGREEMENT, SHADOW_MARGINS, STAGE_MATCH
from graylift.spec.values import between, choice, decimal, each_of, matching, percentage

DEFAULT = ShadowJudge()

_method = matching("a method of HTTP", r"[A-Z]{1,20}", "write it in capitals: POST")
_methods = each_of("the methods: [POST]", _method)
_keep = choice({member.value: member for member in KeepExamples})
_share = between(0, 1, "write a percentage from 0% to 100%", percentage)
_error = between(0, 1, "write a share from 0 to 1", decimal)


def read_shadow(fields: Fields) -> ShadowSpec:
    """Which requests a stage shadows. `fields` are the stage's."""
    share = fields.read("shadow", _of_requests)
    methods = fields.read_or(("POST",), "methods", _methods)
    rules = fields.each("match", STAGE_MATCH, _read_rule).value if fields.has("match") else ()
    return ShadowSpec(share.value, methods.value, tuple(rule.value for rule in rules))


def read_judge_of_shadows(fields: Fields, margin_for: Callable[[Metric], Callable[[Node], Margin]]) -> ShadowJudge:
    """`margin_for` gives the reader of a metric's margins."""

    def margins(name: str, metric: Metric, rollback: Margin, promote: Margin) -> tuple[Margin, Margin]:
        read = partial(_read_margins, margin=margin_for(metric))
        return fields.nested_or((rollback, promote), name, SHADOW_MARGINS, read).value

    errors = margins("errors", Metric.ERRORS, DEFAULT.errors_rollback, DEFAULT.errors_promote)
    latency = margins("latency", Metric.LATENCY, DEFAULT.latency_rollback, DEFAULT.latency_promote)
    agreement = fields.nested_or(None, "agreement", AGREEMENT, _read_agreement)
    error = fields.read_or(DEFAULT.tolerance.max_relative_error, "maxRelativeError", _error)
    drift = fields.read_or(DEFAULT.tolerance.max_text_drift, "maxTextDrift", _error)
    keep = fields.read_or(DEFAULT.keep_examples, "keepExamples", _keep)
    return ShadowJudge(*errors, *latency, agreement.value, Tolerance(error.value, drift.value), keep.value)


def _of_requests(node: Node) -> Weights:
    try:
        share = weights_from_percent(Decimal(str(percentage(node))) * 100)
    except ValueError as exc:
        raise Wrong(node.place, str(exc), "write a percentage, in steps of 0.01%: 10%") from exc
    if share == NONE:
        raise Wrong(node.place, "a shadow of 0% would compare nothing", "write a percentage above 0%, as in 10%")
    return share


def _read_rule(fields: Fields) -> HeaderRule:
    return HeaderRule(fields.read("header", header).value, fields.read("exact", header_value).value)


def _read_margins(fields: Fields, margin: Callable[[Node], Margin]) -> tuple[Margin, Margin]:
    rollback, promote = fields.read("rollbackIfWorse", margin), fields.read("promoteIfWithin", margin)
    if rollback.found and promote.found and promote.value.value < rollback.value.value:
        what = f"promoteIfWithin ({promote.value}) is tighter than rollbackIfWorse ({rollback.value})"
        fields.problems.add(promote.place, what, "make it at least as wide")
    return rollback.value, promote.value


def _read_agreement(fields: Fields) -> AgreementMargins:
    below, above = fields.read("rollbackIfBelow", _share), fields.read("promoteIfAbove", _share)
    if below.found and above.found and above.value > below.value:
        what = f"promoteIfAbove ({above.value:.10g}) asks for more than rollbackIfBelow ({below.value:.10g}) refuses"
        cure = "make it at most as large: a candidate in between could never be decided"
        fields.problems.add(above.place, what, cure)
    return AgreementMargins(below.value, above.value)
