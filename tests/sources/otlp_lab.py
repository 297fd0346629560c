"""Exports as an OpenTelemetry SDK writes them, made with opentelemetry-proto."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

DELTA, CUMULATIVE = 1, 2
BOUNDS = (0.1, 0.5, 1.0)


def export(
    revision: str,
    points: Sequence[dict[str, Any]],
    *,
    name: str = "queue",
    temporality: int = CUMULATIVE,
    kind: str = "histogram",
    instance: str = "a",
) -> ExportMetricsServiceRequest:
    """One export of one process; `points` are fields of data points, with the times in seconds."""
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    _attributes(of_resource.resource, {"service.version": revision, "service.instance.id": instance})
    metric = of_resource.scope_metrics.add().metrics.add(name=name)
    data = getattr(metric, kind)
    data.aggregation_temporality = temporality
    for fields in points:
        point = data.data_points.add()
        point.start_time_unix_nano = int(fields["start"] * 1e9)
        point.time_unix_nano = int(fields["at"] * 1e9)
        _attributes(point, fields.get("attributes", {"model": "tiny"}))
        if kind == "histogram":
            point.explicit_bounds.extend(fields.get("bounds", BOUNDS))
            point.bucket_counts.extend(fields["counts"])
        else:
            point.scale = fields.get("scale", 0)
            point.positive.offset = fields["offset"]
            point.positive.bucket_counts.extend(fields["counts"])
        point.count = fields.get("count", sum(fields["counts"]))
    return request


def as_json(request: ExportMetricsServiceRequest) -> bytes:
    return json_format.MessageToJson(request).encode()


def _attributes(owner: Any, values: dict[str, str]) -> None:
    for key, value in values.items():
        one = owner.attributes.add(key=key)
        one.value.string_value = value
