"""What the model server counts, in Prometheus' text form at /metrics.

Names are Triton's where Triton has the thing, so that dashboards carry over; histograms, which Triton has not, say
where a request's time goes, from its bytes to its answer's. Labels: `model` (the service), `version` (the revision's
name). It must not know HTTP. Told by the fronts, `inference` and `batcher`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from graylift.serve.stacking import Split
from graylift.serve.tallies import Distribution, Tallies, Total

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4.encode()

_LABELS = ("model", "version")
_SECONDS = tuple(digit * 10.0**power for power in range(-5, 2) for digit in (1, 2, 5))
"""From 10 us, which copies of small tensors take, to 50 s."""
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Metrics:
    """One server's, in a registry of its own. Not safe between threads: the event loop alone tells it things."""

    def __init__(self, model: str, version: str) -> None:
        self._registry = CollectorRegistry()
        own = {"model": model, "version": version}
        tallies = Tallies()
        self._registry.register(tallies)

        def total(name: str, text: str, **labels: str) -> Total:
            return tallies.total(name, text, {**own, **labels})

        def seconds(name: str, text: str) -> Distribution:
            return tallies.distribution(name, text, own, _SECONDS)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, _LABELS, registry=self._registry).labels(*own.values())

        self._success = total("nv_inference_request_success", "Requests that got an answer")
        self._failure = {
            reason: total(
                "nv_inference_request_failure",
                "Requests that did not: REJECTED by a full queue or because their time was up, CANCELED by their "
                "client, BACKEND: the model failed, OTHER: the request was wrong",
                reason=reason,
            )
            for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
        }
        self._rows = total("nv_inference_count", "Rows inferred")
        self._runs = total("nv_inference_exec_count", "Runs of the engine, each for one request or several")
        self._request_us = total("nv_inference_request_duration_us", "Time in the server, all requests added up")
        self._queue_us = total("nv_inference_queue_duration_us", "Time waited for a context, all requests added up")
        self._input_us = total(
            "nv_inference_compute_input_duration_us", "Time of copying inputs together, all requests added up"
        )
        self._compute_us = total("nv_inference_compute_infer_duration_us", "Time computed, all requests added up")
        self._output_us = total(
            "nv_inference_compute_output_duration_us", "Time of taking outputs apart, all requests added up"
        )
        self._pending = gauge("nv_inference_pending_request_count", "Requests that wait for a context")
        self._contexts = gauge("graylift_contexts_in_use", "Execution contexts at work")
        self._all_contexts = gauge("graylift_contexts", "Execution contexts there are")
        self._max_rows = gauge("graylift_batch_rows_max", "Rows that may share a run")
        self._memory = gauge("graylift_server_memory_bytes", "Resident memory of the server's process")
        self._peak = gauge("graylift_server_memory_peak_bytes", "The most it ever was")
        self._request_s = seconds("graylift_request_seconds", "Time in the server, from its whole body on")
        self._parse_s = seconds("graylift_parse_seconds", "Time of reading a request's bytes")
        self._queue_s = seconds("graylift_queue_seconds", "Time waited for a context, company included")
        self._input_s = seconds("graylift_compute_input_seconds", "Time of copying a run's inputs together")
        self._compute_s = seconds("graylift_compute_seconds", "Time of a run of the engine")
        self._output_s = seconds("graylift_compute_output_seconds", "Time of taking a run's outputs apart")
        self._handover_s = seconds("graylift_handover_seconds", "Time of a run's way to its thread and back")
        self._render_s = seconds("graylift_render_seconds", "Time of writing an answer's bytes")
        self._batch_rows = tallies.distribution("graylift_batch_rows", "Rows of a run", own, _ROWS)

    def serves(self, engine: str, runtime: str, revision: str, *, contexts: int, max_rows: int) -> None:
        """What is served, once that is settled. engine: its digest"""
        labels = (*_LABELS, "engine", "runtime", "revision")
        info = Gauge("graylift_engine_info", "Always 1: which engine answers", labels, registry=self._registry)
        info.labels(self._success.labels["model"], self._success.labels["version"], engine, runtime, revision).set(1)
        self._all_contexts.set(contexts)
        self._max_rows.set(max_rows)

    def parsed(self, seconds: float) -> None:
        self._parse_s.observe(seconds)

    def rendered(self, seconds: float) -> None:
        self._render_s.observe(seconds)

    def answered(self, seconds: float) -> None:
        """A request got its answer, so long after its body was complete."""
        self._success.inc()
        self._request_us.inc(seconds * 1e6)
        self._request_s.observe(seconds)

    def failed(self, reason: str) -> None:
        """REJECTED, CANCELED, BACKEND or OTHER."""
        self._failure[reason].inc()

    def ran(self, rows: int, waited_s: Sequence[float], split: Split, *, away_s: float) -> None:
        """A run is over: with so many rows, for requests that had waited so long.

        away_s: from when it was given to its context until its end was heard of
        """
        self._runs.inc()
        self._rows.inc(rows)
        self._batch_rows.observe(rows)
        self._input_s.observe(split.input_s)
        self._compute_s.observe(split.compute_s)
        self._output_s.observe(split.output_s)
        self._handover_s.observe(max(0.0, away_s - split.input_s - split.compute_s - split.output_s))
        requests_us = len(waited_s) * 1e6
        self._input_us.inc(split.input_s * requests_us)
        self._compute_us.inc(split.compute_s * requests_us)
        self._output_us.inc(split.output_s * requests_us)
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
