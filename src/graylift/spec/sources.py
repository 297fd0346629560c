"""A metric that is counted elsewhere -> `Check` with its origin. Called by `judge`.

What is read is a share of events, so both margins are of a share: points, or a ratio.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from graylift.domain.sources import (
    REVISION,
    MetricOrigin,
    OtlpHistogram,
    PrometheusCounters,
    PrometheusHistogram,
)
from graylift.domain.spec import Check, Margin, MarginKind, Metric
from graylift.spec import defaults
from graylift.spec.document import Node, Scalar
from graylift.spec.fields import Fields, Read, Reported, Wrong
from graylift.spec.shapes import OTLP, PROMETHEUS
from graylift.spec.values import any_margin, between, decimal, duration, matching, text

_metric_name = matching(
    "the name of a Prometheus metric",
    r"[a-zA-Z_:][a-zA-Z0-9_:]{0,199}",
    "write it as Prometheus shows it: vllm:request_queue_time_seconds",
)
_instrument = matching(
    "the name of an instrument",
    r"[a-zA-Z][a-zA-Z0-9_./-]{0,254}",
    "write it as OpenTelemetry has it: gen_ai.server.time_to_first_token",
)
_label = matching("the name of a label", r"[a-zA-Z_][a-zA-Z0-9_]{0,99}", "write letters, digits and `_`")
_every = between(1, 600, "write a duration from 1s to 10m, several scrapes or exports long", duration)


def is_counted_elsewhere(fields: Fields) -> bool:
    """Does this metric name a source?"""
    return fields.has("prometheus") or fields.has("otlp")


def read_share(fields: Fields, name: Read[str], taken: Collection[str]) -> Check:
    """The check of a metric that names a source. `name` has been read; those of `taken` mean what gateways record."""
    if name.found and name.value in taken:
        what = f"`{name.value}` is what the gateway itself records, and this metric is counted elsewhere"
        fields.problems.add(name.place, what, "give it a name of your own: slow-queue")
    if fields.has("prometheus"):
        fields.refuse("otlp", "a metric has one source, and this one names two", "make two metrics of them")
        origin = fields.nested("prometheus", PROMETHEUS, _read_prometheus)
    else:
        origin = fields.nested("otlp", OTLP, _read_otlp)
    fields.refuse("quantile", "what is counted elsewhere is judged as a share", "delete it; name a bound as `above`")
    rollback = fields.read("rollbackIfWorse", share_margin)
    promote = fields.read("promoteIfWithin", share_margin)
    _demand_room(fields, rollback, promote)
    return Check(Metric.SHARE, None, rollback.value, promote.value, share=name.value, origin=origin.value)


def share_margin(node: Node) -> Margin:
    """Points, or a ratio of shares."""
    margin = any_margin(node)
    if margin.kind is MarginKind.SCORE:
        raise Wrong(node.place, f"the margin {margin} does not fit a share of events", "write 0.5pp or 1.5x")
    return margin


def _demand_room(fields: Fields, rollback: Read[Margin], promote: Read[Margin]) -> None:
    if not (rollback.found and promote.found):
        return
    tighter, looser = promote.value, rollback.value
    if tighter.kind is not looser.kind:
        what = f"promoteIfWithin ({tighter}) and rollbackIfWorse ({looser}) are of different kinds"
        fields.problems.add(promote.place, what, "write both in pp, or both as a ratio")
    elif tighter.value < looser.value:
        what = f"promoteIfWithin ({tighter}) is tighter than rollbackIfWorse ({looser})"
        cure = "make it at least as wide; the further the two lie apart, the sooner it is decided"
        fields.problems.add(promote.place, what, cure)


def _read_prometheus(fields: Fields) -> MetricOrigin:
    url = fields.read("url", prometheus_url)
    every = fields.read_or(defaults.EVERY_S, "every", _every)
    labels = fields.table("labels", _read_label)
    if fields.has("bad") or fields.has("total"):
        for name in ("histogram", "above"):
            fields.refuse(name, f"`{name}` has no place beside two counters", "delete it, or `bad` and `total`")
        bad, total = fields.read("bad", _metric_name), fields.read("total", _metric_name)
        selected = _telling_arms_apart(fields, labels)
        return PrometheusCounters(url.value, bad.value, total.value, selected, every.value)
    histogram, above = fields.read("histogram", _metric_name), fields.read("above", decimal)
    if histogram.found and histogram.value.endswith("_bucket"):
        what = f"`{histogram.value}` names the buckets, not the histogram"
        fields.problems.add(histogram.place, what, f"write {histogram.value.removesuffix('_bucket')}")
    selected = _telling_arms_apart(fields, labels)
    return PrometheusHistogram(url.value, histogram.value, above.value, selected, every.value)


def _read_otlp(fields: Fields) -> MetricOrigin:
    histogram, above = fields.read("histogram", _instrument), fields.read("above", decimal)
    every = fields.read_or(defaults.PUSHED_EVERY_S, "every", _every)
    attributes = fields.table("attributes", lambda key, node: (key.text, text(node)))
    selected = tuple(sorted(one.value for one in attributes.value))
    return OtlpHistogram(histogram.value, above.value, selected, every.value)


def _read_label(key: Scalar, node: Node) -> tuple[str, str]:
    return _label(key), text(node)


def _telling_arms_apart(fields: Fields, labels: Read[tuple[Read[tuple[str, str]], ...]]) -> tuple[tuple[str, str], ...]:
    selected = tuple(sorted(one.value for one in labels.value))
    if not any(REVISION in value for _, value in selected):
        what = "no label tells the series of the two revisions apart"
        cure = f'add the one that holds the revision: labels: {{version: "{REVISION}"}}, which becomes v1 and v2'
        fields.problems.add(labels.place, what, cure)
        raise Reported
    return selected


def prometheus_url(node: Node) -> str:
    """http(s)://host:port, with a path if it has one, without a slash at the end."""
    url = text(node)
    cure = "write http://host:port, with the path it is served under if there is one"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable or parts.query or parts.fragment:
        raise Wrong(node.place, f"`{url[:60]}` is not the address of a Prometheus", cure)
    if parts.username is not None or parts.password is not None:
        raise Wrong(
            node.place, "a password in a release file is one that everybody reads", "put a proxy in front of it"
        )
    return url.rstrip("/")
