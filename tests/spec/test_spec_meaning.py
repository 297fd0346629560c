"""A release file that is right: what it means, what it leaves to defaults, what its digest stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from graylift.domain.limits import LimitRule, Limits, Quota, WhenAway
from graylift.domain.spec import (
    AUTO,
    AgreementMargins,
    Check,
    EndpointModel,
    HeaderRule,
    JudgeSpec,
    KeepExamples,
    LabelRule,
    Margin,
    MarginKind,
    Metric,
    OnFailure,
    OnInconclusive,
    OnnxModel,
    PromoteMargin,
    ReleaseSpec,
    RevisionSpec,
    RoutingSpec,
    Serving,
    ServingProtocol,
    ShadowJudge,
    ShadowSpec,
    Stage,
    Sticky,
    StickyBy,
    TensorName,
    Tolerance,
)
from graylift.domain.weights import ALL, NONE, Role, Weights, weights_from_percent
from graylift.errors import SpecError
from graylift.spec import parse

Reader = Callable[[str], ReleaseSpec]

SHORT = """\
apiVersion: graylift.dev/v1
kind: Release
metadata: {name: file-type}
spec:
  protocol: open-inference
  stable: {revision: v1, model: {onnx: models/v1.onnx}}
  candidate: {revision: v2, model: {onnx: models/v2.onnx}}
  stages:
    - {weight: 5, observe: 10m}
    - {weight: 20, observe: 10m}
    - {weight: 100, watch: 30m}
"""


def points(value: float) -> Margin:
    return Margin(MarginKind.POINTS, value)


def ratio(value: float) -> Margin:
    return Margin(MarginKind.RATIO, value)


def test_every_field_means_what_the_reference_says(good: str, read: Reader) -> None:
    assert replace(read(good), digest="") == ReleaseSpec(
        service="file-type",
        protocol=ServingProtocol.OPEN_INFERENCE,
        stable=RevisionSpec("v1", OnnxModel("/base/models/v1.onnx")),
        candidate=RevisionSpec(
            "v2",
            OnnxModel(
                "/base/models/v2.onnx",
                threads=2,
                inputs=(TensorName("bytes", "x"), TensorName("length", "n")),
                outputs=(TensorName("label", "y"),),
            ),
            ready_within_s=30.0,
        ),
        routing=RoutingSpec(
            Sticky(StickyBy.HEADER, "x-user-id"), (LabelRule("x-tenant", "internal", Role.CANDIDATE),), 10.0
        ),
        stages=(
            Stage(
                weights_from_percent(Decimal(1)),
                observe_s=600.0,
                min_requests=500,
                promote_if_within=(PromoteMargin("errors", points(0.06)), PromoteMargin("latency p99", ratio(2.0))),
            ),
            Stage(weights_from_percent(Decimal(20)), observe_s=3600.0, approval_required=True),
            Stage(ALL, observe_s=1800.0),
        ),
        judge=JudgeSpec(
            checks=(
                Check(Metric.ERRORS, None, points(0.005), points(0.01)),
                Check(Metric.LATENCY, 0.99, ratio(1.1), ratio(1.2)),
            ),
            false_rollback=0.02,
            false_promotion=0.1,
        ),
        on_failure=OnFailure.PAUSE,
        digest="",
    )


def test_limits_mean_what_the_reference_says(good: str, read: Reader) -> None:
    written = """    whenLimiterAway: allow
    limits:
      - {key: {header: X-Api-Key}, requests: 100/s, concurrent: 20}
      - {label: {header: x-tenant, exact: batch}, path: /v1/embeddings, requests: 9000/h}
"""
    assert read(good.replace("    timeout: 10s\n", written)).routing.limits == Limits(
        (
            LimitRule(key_header="x-api-key", requests=Quota(100, 1.0), concurrent=20),
            LimitRule(label=("x-tenant", "batch"), path="/v1/embeddings", requests=Quota(9000, 3600.0)),
        ),
        WhenAway.ALLOW,
    )


def test_what_is_left_out_has_a_default(read: Reader) -> None:
    spec = read(SHORT)
    assert spec.on_failure is OnFailure.ROLLBACK
    assert spec.routing == RoutingSpec(sticky=None, match=(), timeout_s=30.0)
    assert spec.candidate.ready_within_s == 60.0
    assert (spec.judge.false_rollback, spec.judge.false_promotion) == (0.01, 0.05)
    assert [
        (check.name, str(check.rollback_if_worse), str(check.promote_if_within)) for check in spec.judge.checks
    ] == [("errors", "0.5pp", "1pp"), ("latency p50", "1.10x", "1.25x"), ("latency p99", "1.20x", "1.50x")]


def test_a_small_stage_asks_only_whether_the_candidate_is_no_catastrophe(read: Reader) -> None:
    small, full, watch = read(SHORT).stages
    assert {promote.check: promote.margin for promote in small.promote_if_within} == {
        "errors": points(0.05),
        "latency p50": ratio(2.0),
        "latency p99": ratio(2.0),
    }
    assert full.promote_if_within == watch.promote_if_within == ()


def test_a_small_stage_may_ask_for_the_full_margin_by_name(read: Reader) -> None:
    text = SHORT.replace("observe: 10m}", "observe: 10m, promoteIfWithin: {errors: 1pp}}", 1)
    assert [promote.check for promote in read(text).stages[0].promote_if_within] == ["latency p50", "latency p99"]


OPENAI = (
    SHORT.replace("open-inference", "openai")
    .replace("onnx: models/v1.onnx", "endpoint: http://10.0.0.7:8000")
    .replace("onnx: models/v2.onnx", "endpoint: http://10.0.0.8:8000")
)


def told(checks: Sequence[Check]) -> list[tuple[str, str, str]]:
    return [(check.name, str(check.rollback_if_worse), str(check.promote_if_within)) for check in checks]


def test_a_service_of_streams_is_judged_by_its_first_token_and_its_pace_and_not_by_how_much_it_says(
    read: Reader,
) -> None:
    spec = read(OPENAI)
    assert told(spec.judge.checks) == [
        ("errors", "0.5pp", "1pp"),
        ("ttft p95", "1.20x", "1.50x"),
        ("tpot p95", "1.20x", "1.50x"),
    ]
    assert {promote.check: str(promote.margin) for promote in spec.stages[0].promote_if_within} == {
        "errors": "5pp",
        "ttft p95": "2.00x",
        "tpot p95": "2.00x",
    }


def test_any_other_name_is_a_score_whose_sign_says_which_way_is_worse(read: Reader) -> None:
    metrics = (
        "  judge:\n    metrics:\n"
        "      - {name: helpful, rollbackIfWorse: -0.01, promoteIfWithin: -0.02}\n"
        "      - {name: toxic-words, rollbackIfWorse: +0.005, promoteIfWithin: +0.2}\n"
    )
    spec = read(SHORT + metrics)
    assert told(spec.judge.checks) == [("helpful", "-0.01", "-0.02"), ("toxic-words", "+0.005", "+0.2")]
    assert all(check.metric is Metric.SCORE and check.score == check.name for check in spec.judge.checks)
    (loose,) = spec.stages[0].promote_if_within
    assert (loose.check, str(loose.margin)) == ("helpful", "-0.1")


def test_a_stage_may_name_a_metric_without_its_quantile_where_only_one_is_judged(read: Reader) -> None:
    loose = OPENAI.replace("observe: 10m}", "observe: 10m, promoteIfWithin: {ttft: 3x}}", 1)
    margins = {promote.check: promote.margin for promote in read(loose).stages[0].promote_if_within}
    assert margins["ttft p95"] == ratio(3.0)
    with pytest.raises(SpecError, match="no metric is called `latency`"):
        read(SHORT.replace("observe: 10m}", "observe: 10m, promoteIfWithin: {latency: 3x}}", 1))


def test_a_stage_of_a_score_may_be_looser_the_same_way_and_no_other(read: Reader) -> None:
    metrics = "  judge: {metrics: [{name: helpful, rollbackIfWorse: -0.01, promoteIfWithin: -0.02}]}\n"
    for margin, said in (("+0.3", "looks the other way"), ("-0.01", "tighter than what the judge asks of every stage")):
        text = SHORT.replace("observe: 10m}", f"observe: 10m, promoteIfWithin: {{helpful: {margin}}}}}", 1) + metrics
        with pytest.raises(SpecError, match=said):
            read(text)


def test_a_margin_that_is_looser_than_no_catastrophe_stays(read: Reader) -> None:
    metrics = "  judge: {metrics: [{name: errors, rollbackIfWorse: 2pp, promoteIfWithin: 9pp}]}\n"
    assert read(SHORT + metrics).stages[0].promote_if_within == ()


@pytest.mark.parametrize(
    ("written", "serving"),
    [
        ("contexts: auto", Serving(contexts=AUTO)),
        ("contexts: 2, maxBatchSize: auto, maxQueueDelay: 5ms", Serving(2, AUTO, 0.005)),
    ],
)
def test_the_server_may_find_out_by_itself_what_pays(read: Reader, written: str, serving: Serving) -> None:
    model = read(SHORT.replace("v2.onnx", f"v2.onnx, {written}")).candidate.model
    assert isinstance(model, OnnxModel)
    assert model.serving == serving


def test_a_model_may_be_a_server_that_runs_already(read: Reader) -> None:
    spec = read(SHORT.replace("{onnx: models/v2.onnx}", "{endpoint: http://10.0.0.7:8000}"))
    assert spec.candidate.model == EndpointModel("http://10.0.0.7:8000")


def test_an_absolute_path_stays_as_it_is(read: Reader) -> None:
    spec = read(SHORT.replace("models/v2.onnx", "/srv/v2.onnx"))
    assert spec.candidate.model == OnnxModel("/srv/v2.onnx")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kind: Release\n", "kind: Release  # a comment\n\n"),
        ("apiVersion: graylift.dev/v1\nkind: Release\n", "kind: Release\napiVersion: graylift.dev/v1\n"),
        ("{weight: 5, observe: 10m}", "{observe: 600s, weight: 5}"),
        ("{weight: 5, observe: 10m}", '{weight: 5, observe: "10m", minRequests: 0, promoteIfWithin: {errors: 5pp}}'),
        ("  stages:", "  onFailure: rollback\n  judge: {falseRollback: 1.0%, falsePromotion: 5%}\n  stages:"),
        ("  stages:", "  routing: {timeout: 30s}\n  stages:"),
        ("{onnx: models/v2.onnx}", "{threads: 1, onnx: ./models/v2.onnx, inputs: {}}"),
    ],
)
def test_how_it_is_written_does_not_change_the_digest(read: Reader, old: str, new: str) -> None:
    assert old in SHORT
    assert read(SHORT.replace(old, new, 1)).digest == read(SHORT).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("models/v2.onnx", "models/v3.onnx"),
        ("observe: 10m", "observe: 11m"),
        ("name: file-type", "name: file-kind"),
        ("  stages:", "  onFailure: pause\n  stages:"),
        ("{onnx: models/v2.onnx}", "{onnx: models/v2.onnx, inputs: {a: b}}"),
    ],
)
def test_what_it_means_changes_the_digest(read: Reader, old: str, new: str) -> None:
    assert read(SHORT.replace(old, new, 1)).digest != read(SHORT).digest


def test_the_order_of_tensor_names_does_not_change_the_digest(good: str, read: Reader) -> None:
    swapped = good.replace("{bytes: x, length: n}", "{length: n, bytes: x}")
    assert swapped != good
    assert read(swapped) == read(good)


def test_the_folder_is_part_of_what_a_relative_path_means() -> None:
    assert parse(SHORT, "a", Path("/one")).digest != parse(SHORT, "a", Path("/two")).digest


@pytest.mark.parametrize("value", ['"no"', "'010'", '"1:30"', "internal", "v1.2", "a b", '"null"', "名"])
def test_text_that_cannot_be_mistaken_is_taken_as_it_is(read: Reader, value: str) -> None:
    spec = read(SHORT.replace("models/v2.onnx", value))
    assert spec.candidate.model == OnnxModel(f"/base/{value.strip(chr(34) + chr(39))}")


def test_a_stage_may_say_what_follows_when_it_is_not_proven_in_time(good: str, read: Reader) -> None:
    text = good.replace("observe: 10m", "observe: 10m, maxDuration: 6h, onInconclusive: rollback")
    first, second, _ = read(text).stages
    assert (first.max_duration_s, first.on_inconclusive) == (6 * 3600.0, OnInconclusive.ROLLBACK)
    assert (second.max_duration_s, second.on_inconclusive) == (None, OnInconclusive.HOLD)


@pytest.mark.parametrize(
    ("written", "sticky"),
    [
        ("{header: X-User-Id}", Sticky(StickyBy.HEADER, "x-user-id")),
        ("{cookie: visitor}", Sticky(StickyBy.COOKIE, "visitor")),
        ("{body: user}", Sticky(StickyBy.USER)),
        ("{body: conversation}", Sticky(StickyBy.CONVERSATION)),
    ],
)
def test_one_thing_keeps_requests_together(read: Reader, written: str, sticky: Sticky) -> None:
    text = SHORT.replace("open-inference", "openai").replace(
        "  stages:", f"  routing: {{sticky: {written}}}\n  stages:"
    )
    for version in ("v1", "v2"):
        text = text.replace(f"{{onnx: models/{version}.onnx}}", f"{{endpoint: http://{version}:80}}")
    assert read(text).routing.sticky == sticky


SHADOWED = SHORT.replace("  stages:\n", "  stages:\n    - {shadow: 12.5%, observe: 5m, minRequests: 200}\n")


def test_a_shadow_stage_comes_before_the_weights_and_brings_a_judge_of_pairs(read: Reader) -> None:
    spec = read(SHADOWED)
    assert spec.stages[0] == Stage(NONE, 300.0, min_requests=200, shadow=ShadowSpec(Weights(1_250)))
    assert str(spec.stages[0]) == "shadow 12.5 %"
    assert spec.judge.shadow == ShadowJudge()
    assert read(SHORT).judge.shadow is None


def test_a_shadow_says_which_requests_it_takes_and_how_pairs_are_judged(read: Reader) -> None:
    judge = """  judge:
    shadow:
      errors: {rollbackIfWorse: 2pp, promoteIfWithin: 3pp}
      agreement: {rollbackIfBelow: 95%, promoteIfAbove: 90%}
      maxTextDrift: 0.25
      keepExamples: text
"""
    chosen = SHADOWED.replace(
        "observe: 5m,", "methods: [POST, PUT], match: [{header: X-Safe, exact: a b}], observe: 5m,"
    )
    spec = read(chosen + judge)
    assert spec.stages[0].shadow == ShadowSpec(Weights(1_250), ("POST", "PUT"), (HeaderRule("x-safe", "a b"),))
    assert spec.judge.shadow == ShadowJudge(
        errors_rollback=points(0.02),
        errors_promote=points(0.03),
        agreement=AgreementMargins(0.95, 0.9),
        tolerance=Tolerance(max_text_drift=0.25),
        keep_examples=KeepExamples.TEXT,
    )
