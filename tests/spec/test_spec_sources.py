"""Metrics that are counted elsewhere, as a release file writes them: what they mean, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graylift.domain.sources import OtlpHistogram, PrometheusCounters, PrometheusHistogram
from graylift.domain.spec import Margin, MarginKind, Metric, ReleaseSpec
from graylift.spec.problems import Problem

FILE = """\
apiVersion: graylift.dev/v1
kind: Release
metadata: {name: file-type}
spec:
  protocol: open-inference
  stable: {revision: v1, model: {onnx: v1.onnx}}
  candidate: {revision: v2, model: {onnx: v2.onnx}}
  stages:
    - {weight: 5, observe: 10m, promoteIfWithin: {slow-queue: 4pp}}
    - {weight: 50, observe: 1h}
    - {weight: 100, watch: 30m}
  judge:
    metrics:
      - name: slow-queue
        prometheus: {url: http://p:9090/prom/, histogram: queue_seconds, above: 0.5, labels: {v: "{revision}", m: a}}
        rollbackIfWorse: 1pp
        promoteIfWithin: 3pp
      - name: lost
        prometheus: {url: https://p:9090, bad: bad_total, total: all_total, labels: {v: "r-{revision}"}, every: 30s}
        rollbackIfWorse: 1.5x
        promoteIfWithin: 2x
      - name: slow-token
        otlp: {histogram: gen_ai.server.time_to_first_token, above: 2, attributes: {model: tiny}}
        rollbackIfWorse: 2pp
        promoteIfWithin: 2pp
"""


def test_each_source_is_read_with_its_defaults(read: Callable[[str], ReleaseSpec]) -> None:
    queue, lost, token = read(FILE).judge.checks
    assert [check.name for check in (queue, lost, token)] == ["slow-queue", "lost", "slow-token"]
    assert {check.metric for check in (queue, lost, token)} == {Metric.SHARE}
    labels = (("m", "a"), ("v", "{revision}"))
    assert queue.origin == PrometheusHistogram("http://p:9090/prom", "queue_seconds", 0.5, labels, 60.0)
    assert lost.origin == PrometheusCounters("https://p:9090", "bad_total", "all_total", (("v", "r-{revision}"),), 30.0)
    assert token.origin == OtlpHistogram("gen_ai.server.time_to_first_token", 2.0, (("model", "tiny"),), 180.0)
    assert lost.rollback_if_worse == Margin(MarginKind.RATIO, 1.5)


def test_small_stages_ask_for_no_catastrophe_in_the_unit_of_the_metric(read: Callable[[str], ReleaseSpec]) -> None:
    small, half, _ = read(FILE).stages
    assert {one.check: str(one.margin) for one in small.promote_if_within} == {
        "slow-queue": "4pp",
        "lost": "3.00x",
        "slow-token": "5pp",
    }
    assert half.promote_if_within == ()


MISTAKES = [
    ("name: slow-queue\n", "name: latency\n", "give it a name of your own"),
    ("http://p:9090/prom/", "p:9090", "write http://host:port"),
    ("http://p:9090/prom/", "http://me:secret@p:9090", "a password in a release file"),
    ("http://p:9090/prom/", "http://p:9090/?a=b", "write http://host:port"),
    ("histogram: queue_seconds", "histogram: queue_seconds_bucket", "write queue_seconds"),
    ("histogram: queue_seconds", "histogram: queue-seconds", "as Prometheus shows it"),
    ("histogram: queue_seconds, above: 0.5", "histogram: queue_seconds", "`above` is missing"),
    ("histogram: queue_seconds, above: 0.5", "histogram: queue_seconds, above: slow", "not a plain number"),
    ('{v: "{revision}", m: a}', "{v: a}", "tells the series of the two revisions apart"),
    (', labels: {v: "{revision}", m: a}', "", "tells the series of the two revisions apart"),
    ("bad: bad_total, ", "", "`bad` is missing"),
    ("bad: bad_total", "bad: bad_total, above: 1", "no place beside two counters"),
    ("every: 30s", "every: 500ms", "from 1s to 10m"),
    ("rollbackIfWorse: 1pp", "rollbackIfWorse: 1.5x", "of different kinds"),
    ("rollbackIfWorse: 1pp", "rollbackIfWorse: -0.01", "does not fit a share of events"),
    ("rollbackIfWorse: 1pp", "rollbackIfWorse: 4pp", "is tighter than rollbackIfWorse"),
    ("rollbackIfWorse: 1pp", "quantile: 0.9\n        rollbackIfWorse: 1pp", "name a bound as `above`"),
    ("{slow-queue: 4pp}", "{slow-queue: 2x}", "of another kind"),
    ("{slow-queue: 4pp}", "{slow-queue: 2pp}", "is tighter than what the judge asks"),
    ("otlp: {histogram:", "otlp: {url: x, histogram:", "unknown field `url`"),
    ("otlp: {", "prometheus: {}\n        otlp: {", "one source"),
]


@pytest.mark.parametrize(("good", "bad", "said"), MISTAKES)
def test_what_is_wrong_is_told_with_its_cure(
    good: str, bad: str, said: str, problems_of: Callable[[str], list[Problem]]
) -> None:
    assert good in FILE
    told = "\n".join(str(problem) for problem in problems_of(FILE.replace(good, bad, 1)))
    assert said in told
