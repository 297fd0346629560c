"""The `stages` of a release file -> `Stage`s. Called by `release`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

from graylift.domain.spec import Check, OnInconclusive, PromoteMargin, Stage
from graylift.domain.weights import ALL, NONE, Weights, weights_from_percent
from graylift.spec import defaults
from graylift.spec.document import Node, Scalar
from graylift.spec.fields import Fields, Read, Wrong, nearest
from graylift.spec.judge import MEASURED, margin_for
from graylift.spec.notify import read_gates
from graylift.spec.shadow import read_shadow
from graylift.spec.shapes import STAGE
from graylift.spec.values import any_margin, between, choice, duration, integer, number

_observation = between(0.1, 90 * 24 * 3600, "write a duration from 100ms to 2160h", duration)
_requests = integer(0, 1_000_000_000)
_approval = choice({"required": True})
_on_inconclusive = choice({member.value: member for member in OnInconclusive})
_LAST = "{weight: 100, watch: 30m}"


def read_stages(spec: Fields, checks: tuple[Check, ...] | None) -> tuple[Stage, ...]:
    """`checks` are those of the judge, None if they could not be read."""
    weights: list[Read[Weights]] = []

    def read_stage(fields: Fields) -> Stage:
        if fields.has("shadow"):
            if weights:
                why = "a shadow after users have seen the candidate would tell less than they do"
                fields.refuse("shadow", why, "put the stages with `shadow` before the first `weight`")
            return _read_shadow_stage(fields)
        for name in ("methods", "match"):
            why = f"`{name}` says which requests are shadowed, and this stage shadows none"
            fields.refuse(name, why, "delete it, or write `shadow` instead of `weight`")
        weights.append(fields.read("weight", _weight))
        return _read_stage(fields, weights[-1], checks)

    stages = spec.each("stages", STAGE, read_stage)
    _demand_rise(spec, weights if weights else [Read(stages.place, (NONE,))] if stages.found else [])
    return tuple(stage.value for stage in stages.value)


def _read_shadow_stage(fields: Fields) -> Stage:
    for name in ("weight", "watch", "promoteIfWithin"):
        why = f"`{name}` has no meaning in a shadow stage: no user gets an answer of the candidate"
        fields.refuse(name, why, "delete it; how pairs of answers are judged stands in judge.shadow")
    shadow = read_shadow(fields)
    observe = fields.read("observe", _observation)
    min_requests = fields.read_or(defaults.MIN_REQUESTS, "minRequests", _requests)
    approval = fields.read_or(default=False, name="approval", reader=_approval)
    longest, then = _read_longest(fields, observe)
    return Stage(
        weights=NONE,
        observe_s=observe.value,
        min_requests=min_requests.value,
        approval_required=approval.value,
        max_duration_s=longest,
        on_inconclusive=then,
        shadow=shadow,
    )


def _read_stage(fields: Fields, weight: Read[Weights], checks: tuple[Check, ...] | None) -> Stage:
    if weight.found == (ALL,):
        for name in ("observe", "minRequests", "approval", "promoteIfWithin", "maxDuration", "onInconclusive"):
            why = f"`{name}` has no meaning where the candidate has all of the traffic: nothing is left to compare with"
            fields.refuse(name, why, f"write the last stage as {_LAST}")
        return Stage(ALL, observe_s=fields.read("watch", _observation).value, confirm=read_gates(fields))
    if weight.found:
        fields.refuse("watch", "`watch` belongs to the last stage alone, the one with weight 100", "write `observe`")
    observe = fields.read("observe", _observation)
    min_requests = fields.read_or(defaults.MIN_REQUESTS, "minRequests", _requests)
    approval = fields.read_or(default=False, name="approval", reader=_approval)
    own = fields.table("promoteIfWithin", partial(_read_margin, checks))
    longest, then = _read_longest(fields, observe)
    return Stage(
        weights=weight.value,
        observe_s=observe.value,
        min_requests=min_requests.value,
        approval_required=approval.value,
        promote_if_within=tuple(effective_margins(weight.value, checks or (), [read.value for read in own.value])),
        max_duration_s=longest,
        on_inconclusive=then,
        confirm=read_gates(fields),
    )


def _read_longest(fields: Fields, observe: Read[float]) -> tuple[float | None, OnInconclusive]:
    """How long a stage may last unproven, and what follows; neither says anything without the other."""
    then = fields.read_or(OnInconclusive.HOLD, "onInconclusive", _on_inconclusive)
    if not fields.has("maxDuration"):
        if then.found and then.value is not OnInconclusive.HOLD:
            what = f"`onInconclusive: {then.value.value}` without `maxDuration` would never come about"
            fields.problems.add(then.place, what, "add maxDuration, as in 6h, or delete onInconclusive")
        return None, OnInconclusive.HOLD
    longest = fields.read("maxDuration", _observation)
    if then.found and then.value is OnInconclusive.HOLD:
        what = "`maxDuration` says nothing while the stage is held when it is over"
        fields.problems.add(longest.place, what, "write onInconclusive: pause or rollback beside it, or delete it")
    if longest.found and observe.found and longest.value < observe.value:
        what = "`maxDuration` is shorter than `observe`, so the stage could never be left forward"
        fields.problems.add(longest.place, what, "make it several times as long as `observe`")
    return longest.value, then.value


def _weight(node: Node) -> Weights:
    try:
        weights = weights_from_percent(number(node))
    except ValueError as exc:
        raise Wrong(
            node.place, str(exc), "write the candidate's share in percent, without a sign: 1, 0.5, 100"
        ) from exc
    if weights == NONE:
        raise Wrong(node.place, "a stage of weight 0 would show the candidate to nobody", "begin with 1")
    return weights


def _demand_rise(spec: Fields, weights: Sequence[Read[Weights]]) -> None:
    """Each stage has more than the one before; the last one, and no other, has everything."""
    for before, after in pairwise(weights):
        if before.found and after.found and after.value.candidate <= before.value.candidate:
            what = f"the weight goes from {before.value} to {after.value}; stages give the candidate ever more"
            spec.problems.add(after.place, what, "order the stages by weight, each weight once")
    last = weights[-1] if weights else Read(spec.place, ())
    if last.found and last.value != ALL:
        what = f"the last stage leaves the candidate at {last.value}"
        spec.problems.add(last.place, what, f"end with {_LAST}")
    elif len(weights) == 1 and last.found:
        what = "all traffic at once: no stage before this one could find a bad candidate out"
        spec.problems.add(last.place, what, "put a stage before it, as in {weight: 1, observe: 10m}")


def _read_margin(checks: tuple[Check, ...] | None, key: Scalar, node: Node) -> PromoteMargin:
    """A stage's own margin for the check that `key` names."""
    if checks is None:
        metric = MEASURED.get(key.text.split(" ")[0])
        return PromoteMargin(key.text, (any_margin if metric is None else margin_for(metric))(node))
    check = _check_called(checks, key)
    margin = margin_for(check.metric)(node)
    if margin.value * check.promote_if_within.value < 0:
        what = f"{margin} looks the other way than the metric's own promoteIfWithin ({check.promote_if_within})"
        raise Wrong(node.place, what, "give it the sign of the direction in which the score gets worse")
    if margin.room < check.promote_if_within.room:
        what = f"{margin} is tighter than what the judge asks of every stage ({check.promote_if_within})"
        raise Wrong(
            node.place, what, "a stage's margin may only be looser; tighten the metric's promoteIfWithin instead"
        )
    return PromoteMargin(check.name, margin)


def _check_called(checks: tuple[Check, ...], key: Scalar) -> Check:
    """By its name, or by its metric's alone where no other check has the same."""
    by_name = {check.name: check for check in checks}
    of_metric = [check for check in checks if check.quantile is not None and check.metric.value == key.text]
    if key.text not in by_name and len(of_metric) == 1:
        return of_metric[0]
    if key.text not in by_name:
        raise Wrong(key.place, f"no metric is called `{key.text}`", nearest(key.text, by_name))
    return by_name[key.text]


def effective_margins(
    weight: Weights, checks: Sequence[Check], own: Sequence[PromoteMargin]
) -> Iterator[PromoteMargin]:
    """Where this stage asks for something else than the check's own promote margin."""
    named = {promote.check: promote.margin for promote in own}
    for check in checks:
        usual = check.promote_if_within
        if weight.candidate < defaults.FULL_RIGOUR.candidate:
            usual = max(usual, defaults.no_catastrophe(check), key=lambda margin: margin.room)
        margin = named.get(check.name, usual)
        if margin != check.promote_if_within:
            yield PromoteMargin(check.name, margin)
