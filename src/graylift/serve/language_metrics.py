"""What a server of a language model counts, in Prometheus' text form at /metrics.

Names are OpenTelemetry's for generative AI (dots as underscores, the unit at the end) where that has the thing. Labels:
`model` (the service), `version` (the revision's name), for which the convention has no word. It must not know HTTP.
Told by `writing`.

time to first token   from the whole body of the request to its first token: waiting and prefill included
time per output token (last token - first token) / (tokens - 1), once a request; none for an answer of one token
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from graylift.protocols.language import Finish, Usage

_LABELS = ("model", "version")
_FIRST_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKEN_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_REQUEST_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
"""As the server of tensors says it: a full queue, a client that left, the model, a wrong request."""


class LanguageMetrics:
    """One server's, in a registry of its own. Not safe between threads: the event loop alone tells it things."""

    def __init__(self, model: str, version: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        own = model, version

        def histogram(name: str, text: str, buckets: Sequence[float], *extra: str) -> Histogram:
            return Histogram(name, text, (*_LABELS, *extra), buckets=buckets, registry=self._registry)

        self._first_s = histogram(
            "gen_ai_server_time_to_first_token_seconds", "From the whole request to its first token", _FIRST_S
        ).labels(*own)
        self._token_s = histogram(
            "gen_ai_server_time_per_output_token_seconds", "Of the tokens after the first, once a request", _TOKEN_S
        ).labels(*own)
        self._request_s = histogram(
            "gen_ai_server_request_duration_seconds", "From the whole request to the end of its answer", _REQUEST_S
        ).labels(*own)
        usage = histogram("gen_ai_server_token_usage", "Tokens of a request", _TOKENS, "gen_ai_token_type")
        self._prompt, self._answer = usage.labels(*own, "input"), usage.labels(*own, "output")
        finished = Counter(
            "graylift_answers", "Whole answers, by why they ended", (*_LABELS, "finish"), registry=self._registry
        )
        self._finished = {finish: finished.labels(*own, finish.value) for finish in Finish}
        failed = Counter(
            "graylift_requests_failed",
            "Requests without a whole answer: REJECTED by a full queue, CANCELED by their client, BACKEND: the model "
            "failed, OTHER: the request was wrong",
            (*_LABELS, "reason"),
            registry=self._registry,
        )
        self._failed = {reason: failed.labels(*own, reason) for reason in REASONS}
        self._running = Gauge(
            "graylift_streams_running", "Answers being written", _LABELS, registry=self._registry
        ).labels(*own)
        self._waiting = Gauge(
            "nv_inference_pending_request_count", "Requests that wait for a stream", _LABELS, registry=self._registry
        ).labels(*own)

    def answered(self, usage: Usage, finish: Finish, first_s: float, seconds: float) -> None:
        """A whole answer, its first token so long after its request, and its end."""
        self._finished[finish].inc()
        self._first_s.observe(first_s)
        self._request_s.observe(seconds)
        self._prompt.observe(usage.prompt)
        self._answer.observe(usage.answer)
        if usage.answer > 1:
            self._token_s.observe((seconds - first_s) / (usage.answer - 1))

    def failed(self, reason: str) -> None:
        """One of REASONS."""
        self._failed[reason].inc()

    def text(self, *, waiting: int, running: int) -> bytes:
        """Everything, as a scrape wants it."""
        self._waiting.set(waiting)
        self._running.set(running)
        return generate_latest(self._registry)
