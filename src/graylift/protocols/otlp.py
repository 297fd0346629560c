"""Histograms pushed by OTLP/HTTP: bytes -> data points, and the answer. No I/O.

Both encodings become the same message, read by the package opentelemetry-proto, which is imported when the first bytes
come: it is an extra. Whatever else an export holds is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graylift.errors import ProtocolError

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

_NO_VALUE = 1
_DELTA, _CUMULATIVE = 1, 2
_NANO = 1e9


@dataclass(frozen=True, slots=True)
class HistogramPoint:
    """One data point of a histogram.

    resource, attributes: of the process that counts, and of what it counts; values as text
    start_s, at_s: epoch seconds: what was counted after the one, up to the other
    is_delta:   since the point before; otherwise since start_s
    bounds:     (bound, how many values lie above it), ascending; each bound is exact
    count:      of all values
    """

    name: str
    resource: Mapping[str, str]
    attributes: Mapping[str, str]
    start_s: float
    at_s: float
    is_delta: bool
    bounds: Mapping[float, int]
    count: int


@dataclass(frozen=True, slots=True)
class Export:
    """points: those that could be read; rejected: why the others could not"""

    points: tuple[HistogramPoint, ...]
    rejected: tuple[str, ...]


def export_from(body: bytes, content_type: str) -> Export:
    """ProtocolError: 415 for another content type, 400 for a body that is no export, 501 without the package."""
    try:
        from google.protobuf import json_format, message
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
    except ImportError as error:
        raise ProtocolError(
            "metrics pushed by OTLP need the package opentelemetry-proto: pip install graylift[otel]", 501
        ) from error
    request: Any = service.ExportMetricsServiceRequest()
    try:
        match content_type.partition(";")[0].strip().lower():
            case "application/x-protobuf":
                request.ParseFromString(body)
            case "application/json":
                json_format.Parse(body, request, ignore_unknown_fields=True)
            case other:
                raise ProtocolError(f"expected {PROTOBUF} or {JSON}, got {other or 'no content type'}", 415)
    except (message.DecodeError, json_format.ParseError, UnicodeDecodeError) as error:
        raise ProtocolError(f"this is no export of metrics: {str(error)[:200]}") from error
    points: list[HistogramPoint] = []
    rejected: list[str] = []
    for of_resource in request.resource_metrics:
        resource = _texts(of_resource.resource.attributes)
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                for point, fault in _points(metric, resource):
                    if point is not None:
                        points.append(point)
                    if fault is not None:
                        rejected.append(f"{metric.name}: {fault}")
    return Export(tuple(points), tuple(rejected))


def answer_to(export: Export, content_type: str) -> bytes:
    """The response body for an export, in the encoding of its request: what was rejected is partial success."""
    from google.protobuf import json_format
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service

    response: Any = service.ExportMetricsServiceResponse()
    if export.rejected:
        response.partial_success.rejected_data_points = len(export.rejected)
        response.partial_success.error_message = "; ".join(dict.fromkeys(export.rejected))[:1000]
    if content_type.startswith(JSON):
        return json_format.MessageToJson(response, indent=None).encode()
    encoded: bytes = response.SerializeToString()
    return encoded


def _points(metric: Any, resource: Mapping[str, str]) -> Iterator[tuple[HistogramPoint | None, str | None]]:
    for kind, above in (("histogram", _explicit), ("exponential_histogram", _exponential)):
        if metric.WhichOneof("data") != kind:
            continue
        data = getattr(metric, kind)
        for point in data.data_points:
            if point.flags & _NO_VALUE:
                continue
            try:
                if data.aggregation_temporality not in (_DELTA, _CUMULATIVE):
                    raise ValueError("the temporality is neither delta nor cumulative")
                if not 0 < point.start_time_unix_nano <= point.time_unix_nano:
                    raise ValueError("a data point needs the time it began at and a later one it was read at")
                yield (
                    HistogramPoint(
                        name=metric.name,
                        resource=resource,
                        attributes=_texts(point.attributes),
                        start_s=point.start_time_unix_nano / _NANO,
                        at_s=point.time_unix_nano / _NANO,
                        is_delta=data.aggregation_temporality == _DELTA,
                        bounds=above(point),
                        count=point.count,
                    ),
                    None,
                )
            except ValueError as error:
                yield None, str(error)


def _explicit(point: Any) -> dict[float, int]:
    bounds, counts = tuple(point.explicit_bounds), tuple(point.bucket_counts)
    if len(counts) != len(bounds) + 1:
        raise ValueError(f"{len(bounds)} bounds and {len(counts)} counts; expected one count more")
    if sum(counts) != point.count:
        raise ValueError(f"its buckets hold {sum(counts)} values, and it says {point.count}")
    return {bound: sum(counts[number + 1 :]) for number, bound in enumerate(bounds) if math.isfinite(bound)}


def _exponential(point: Any) -> dict[float, int]:
    """Only powers of two are told: at every scale from 0 on they are bounds, and exact ones."""
    positive = point.positive
    if sum(positive.bucket_counts) + sum(point.negative.bucket_counts) + point.zero_count != point.count:
        raise ValueError(f"its buckets do not hold the {point.count} values that it says")
    if not 0 <= point.scale <= 20:
        raise ValueError(f"a scale of {point.scale} is too coarse to be compared; 0 to 20 can be")
    each = 2**point.scale  # buckets between a power of two and the next
    known: dict[float, int] = {}
    for power in range(-40, 41):
        if 2.0**power > point.zero_threshold:
            known[2.0**power] = sum(positive.bucket_counts[max(0, power * each - positive.offset) :])
    return known


def _texts(attributes: Sequence[Any]) -> dict[str, str]:
    """Attributes with a plain value, as text."""
    found: dict[str, str] = {}
    for one in attributes:
        kind = one.value.WhichOneof("value")
        if kind == "bool_value":
            found[one.key] = "true" if one.value.bool_value else "false"
        elif kind in ("string_value", "int_value", "double_value"):
            found[one.key] = str(getattr(one.value, kind))
    return found
