"""What a load saw: per revision, and of itself. Frozen values and their JSON; the counting is `bench.load`'s.

Latencies count from the moment a request was *due*, not from the moment it was sent, so that a server that stalls is
charged for everyone who had to wait. The schedule lag (sent minus due) says whether the generator itself kept up.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from graylift.domain.histogram import Histogram

LAG_LIMIT_S = 0.05
"""Schedule lag p99 above which the latencies tell of the generator and its machine as much as of the server."""


@dataclass(frozen=True, slots=True)
class StreamReport:
    """The streamed answers of one revision.

    first:     due to first content
    per_token: (last content - first content) / (tokens - 1), once an answer
    tokens, written_s: of all of them, the times from due to last content added up: tokens / written_s is what one
               client gets
    finishes:  (why they ended, count), ascending
    """

    first: Histogram
    per_token: Histogram
    tokens: int
    written_s: float
    finishes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class RevisionReport:
    """The answers of one revision.

    revision: as the answer's header named it; None for answers without it
    statuses: (HTTP status, count), ascending
    latency:  due to last byte, of the answers below 400
    scored, score_sum: how many answers were scored, and the sum of their scores (each in [0, 1])
    streams:  None if no answer was one
    """

    revision: str | None
    statuses: tuple[tuple[int, int], ...]
    latency: Histogram
    scored: int
    score_sum: float
    streams: StreamReport | None = None

    @property
    def answers(self) -> int:
        return sum(count for _, count in self.statuses)

    @property
    def failed(self) -> int:
        """Answers of status 400 or above."""
        return sum(count for status, count in self.statuses if status >= 400)

    @property
    def score(self) -> float | None:
        """Mean score, None if nothing was scored."""
        return self.score_sum / self.scored if self.scored else None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A load, over. Every due request is in exactly one of: answers, errors, shed, abandoned, not_due.

    rate_per_s, elapsed_s: what was asked for, and how long it took, from the first due time to the last answer
    scheduled: requests of the whole schedule
    shed:      due while `max_in_flight` others were under way, so never sent
    abandoned: cut off by a stop
    not_due:   of the rest of the schedule, when the load was stopped early or ran out of requests
    errors:    (what went wrong, count) of the requests without an answer, ascending
    lag:       sent minus due
    """

    rate_per_s: float
    elapsed_s: float
    scheduled: int
    shed: int
    abandoned: int
    not_due: int
    errors: tuple[tuple[str, int], ...]
    revisions: tuple[RevisionReport, ...]
    lag: Histogram

    @property
    def sent(self) -> int:
        return self.scheduled - self.shed - self.not_due

    @property
    def failed(self) -> int:
        """Requests that were sent and got an answer of status 400 or above, or none."""
        return sum(revision.failed for revision in self.revisions) + sum(count for _, count in self.errors)

    @property
    def on_schedule(self) -> bool:
        """Did the generator keep its own times well enough for its latencies to be believed? An empty load did."""
        p99 = self.lag.quantile(0.99)
        return p99 is None or p99 <= LAG_LIMIT_S


def json_from_report(report: LoadReport) -> str:
    """The report for scripts: one JSON object, durations in milliseconds."""
    document = {
        "rate_per_s": report.rate_per_s,
        "elapsed_s": round(report.elapsed_s, 3),
        "scheduled": report.scheduled,
        "sent": report.sent,
        "sent_per_s": round(report.sent / report.elapsed_s, 2) if report.elapsed_s > 0 else None,
        "failed": report.failed,
        "shed": report.shed,
        "abandoned": report.abandoned,
        "not_due": report.not_due,
        "errors": dict(report.errors),
        "revisions": [
            {
                "revision": revision.revision,
                "answers": revision.answers,
                "failed": revision.failed,
                "statuses": {str(status): count for status, count in revision.statuses},
                "latency_ms": _milliseconds(revision.latency),
                "scored": revision.scored,
                "score": None if revision.score is None else round(revision.score, 4),
                **({} if revision.streams is None else {"streams": _document_of(revision.streams)}),
            }
            for revision in report.revisions
        ],
        "schedule_lag_ms": _milliseconds(report.lag),
        "on_schedule": report.on_schedule,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _document_of(streams: StreamReport) -> dict[str, object]:
    return {
        "first_token_ms": _milliseconds(streams.first),
        "per_token_ms": _milliseconds(streams.per_token),
        "tokens": streams.tokens,
        "tokens_per_s": round(streams.tokens / streams.written_s, 2) if streams.written_s else None,
        "finishes": dict(streams.finishes),
    }


def _milliseconds(histogram: Histogram) -> dict[str, float | None]:
    quantiles = {name: histogram.quantile(q) for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    return {name: None if seconds is None else round(seconds * 1e3, 3) for name, seconds in quantiles.items()}
