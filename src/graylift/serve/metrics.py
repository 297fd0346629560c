"""What the model server counts, in Prometheus' text form at /metrics.

Names are Triton's where Triton has the thing, so that dashboards carry over; histograms, which Triton has not, say
where a request's time goes: queue, compute, all of it. Labels: `model` (the service), `version` (the revision's name).
It must not know HTTP. Told by `app` and `batcher`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, Histogram, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4.encode()

_LABELS = ("model", "version")
_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class _Total:
    """A number that only grows."""

    name: str
    text: str
    labels: dict[str, str]
    value: float = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount


class _Totals(Collector):
    """Counters whose names end as Triton's do: the library's own would append `_total`."""

    def __init__(self) -> None:
        self._totals: list[_Total] = []

    def add(self, name: str, text: str, labels: dict[str, str]) -> _Total:
        self._totals.append(_Total(name, text, labels))
        return self._totals[-1]

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for total in self._totals:
            family = families.setdefault(total.name, Metric(total.name, total.text, "untyped"))
            family.add_sample(total.name, total.labels, total.value)
        return families.values()


class Metrics:
    """One server's, in a registry of its own. Not safe between threads: the event loop alone tells it things."""

    def __init__(self, model: str, version: str) -> None:
        self._registry = CollectorRegistry()
        own = model, version

        totals = _Totals()
        self._registry.register(totals)

        def total(name: str, text: str, **labels: str) -> _Total:
            return totals.add(name, text, {"model": model, "version": version, **labels})

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, text, _LABELS, buckets=buckets, registry=self._registry).labels(*own)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, _LABELS, registry=self._registry).labels(*own)

        self._success = total("nv_inference_request_success", "Requests that got an answer below 400")
        self._failure = {
            reason: total(
                "nv_inference_request_failure",
                "Requests that did not: REJECTED by a full queue, CANCELED by their client, BACKEND: the model failed, "
                "OTHER: the request was wrong",
                reason=reason,
            )
            for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
        }
        self._rows = total("nv_inference_count", "Rows inferred")
        self._runs = total("nv_inference_exec_count", "Runs of the engine, each for one request or several")
        self._request_us = total("nv_inference_request_duration_us", "Time in the server, all requests added up")
        self._queue_us = total("nv_inference_queue_duration_us", "Time waited for a context, all requests added up")
        self._compute_us = total("nv_inference_compute_infer_duration_us", "Time computed, all requests added up")
        self._pending = gauge("nv_inference_pending_request_count", "Requests that wait for a context")
        self._contexts = gauge("graylift_contexts_in_use", "Execution contexts at work")
        self._memory = gauge("graylift_server_memory_bytes", "Resident memory of the server's process")
        self._peak = gauge("graylift_server_memory_peak_bytes", "The most it ever was")
        self._request_s = histogram("graylift_request_seconds", "Time in the server, from its whole body on", _SECONDS)
        self._queue_s = histogram("graylift_queue_seconds", "Time waited for a context, company included", _SECONDS)
        self._compute_s = histogram("graylift_compute_seconds", "Time of a run of the engine, with copies", _SECONDS)
        self._batch_rows = histogram("graylift_batch_rows", "Rows of a run", _ROWS)

    def answered(self, seconds: float) -> None:
        """A request got its answer, so long after its body was complete."""
        self._success.inc()
        self._request_us.inc(seconds * 1e6)
        self._request_s.observe(seconds)

    def failed(self, reason: str) -> None:
        """REJECTED, CANCELED, BACKEND or OTHER."""
        self._failure[reason].inc()

    def ran(self, rows: int, waited_s: Sequence[float], computed_s: float) -> None:
        """A run is over: with so many rows, for requests that had waited so long."""
        self._runs.inc()
        self._rows.inc(rows)
        self._batch_rows.observe(rows)
        self._compute_s.observe(computed_s)
        self._compute_us.inc(computed_s * len(waited_s) * 1e6)
        self._queue_us.inc(sum(waited_s) * 1e6)
        for seconds in waited_s:
            self._queue_s.observe(seconds)

    def text(self, *, waiting: int, running: int) -> bytes:
        """Everything, as a scrape wants it."""
        self._pending.set(waiting)
        self._contexts.set(running)
        resident, peak = _memory()
        self._memory.set(resident)
        self._peak.set(peak)
        return generate_latest(self._registry)


def _memory() -> tuple[int, int]:
    """(resident, peak) in bytes."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    peak_kib = next(
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        if line.startswith("VmHWM:")
    )
    return pages * _PAGE_BYTES, peak_kib * 1024
