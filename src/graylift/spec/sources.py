"""The source of a metric that is counted elsewhere -> `MetricOrigin`. Called by `judge`."""

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
from graylift.spec import defaults
from graylift.spec.document import Node, Scalar
from graylift.spec.fields import Fields, Read, Reported, Wrong
from graylift.spec.shapes import OTLP, PROMETHEUS
from graylift.spec.values import between, decimal, duration, matching, text

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


def read_origin(fields: Fields, name: Read[str], taken: Collection[str]) -> MetricOrigin:
    """The source that a metric names. `name` has been read; those of `taken` mean what gateways record."""
    if name.found and name.value in taken:
        what = f"`{name.value}` is what the gateway itself records, and this metric is counted elsewhere"
        fields.problems.add(name.place, what, "give it a name of your own: slow-queue")
    if fields.has("prometheus"):
        fields.refuse("otlp", "a metric has one source, and this one names two", "make two metrics of them")
        return fields.nested("prometheus", PROMETHEUS, _read_prometheus).value
    return fields.nested("otlp", OTLP, _read_otlp).value


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
