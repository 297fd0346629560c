"""What was observed on traffic: one record a request, summed into windows, handed over in interval reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from graylift.domain.histogram import EMPTY, Histogram
from graylift.domain.scores import ScoreCounts
from graylift.domain.shadow import ShadowWindow
from graylift.domain.tally import Tally
from graylift.domain.weights import Role

INTERVAL_S = 1.0
"""Evidence is cut into intervals of this many seconds, and judged once an interval: cadence, not statistics, decides
how many bad answers a dead candidate gives."""


class Outcome(Enum):
    """How a request went for the arm it was assigned to.

    OK:        the arm's first attempt gave a complete answer below 400
    FAILED:    it did not, even if a retry elsewhere saved the client
    ABANDONED: the client left before the end; nobody's failure, and no sample of anything
    """

    OK = "ok"
    FAILED = "failed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, as the gateway saw it end.

    ended_s:     epoch seconds of its end
    split:       which stage of which release assigned it (`RouteTo.split`); a string nobody parses
    arm, revision_id: where it was *assigned*; a retry elsewhere does not change that
    answered_by: revision that gave the final answer, None if nobody did
    label:       the label rule that sent it (`header=value`), None if it was drawn by weight or hash
    attempts:    1 without a retry
    status:      what the client got, 0 if nothing
    reason:      for a failure: what went wrong, in few words and of few kinds (`HTTP 500`, `connection reset`)
    ttfb_s, duration_s: from the first byte of the request to the first and to the last byte of the answer
    request_id: what scores of the answer and its shadow name it by, None if it has none
    ttft_s:   from when the request went to the server to the first token of content; None for what is no stream of
              tokens
    tpot_s:   of a stream, (its finish - first token) / (output tokens - 1); None below two tokens
    input_tokens, output_tokens: None where nobody counted them
    tokens_estimated: were they counted from the pieces of the stream, for want of the server's own count?
    finish:   why the model stopped, in its own word (`stop`, `length`), None if it does not say
    """

    ended_s: float
    service: str
    split: str
    arm: Role
    revision_id: str
    answered_by: str | None
    label: str | None
    attempts: int
    status: int
    outcome: Outcome
    reason: str | None
    ttfb_s: float | None
    duration_s: float
    request_bytes: int
    response_bytes: int
    request_id: str | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    tokens_estimated: bool = False
    finish: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """One score of one answer: how good it was, from 0 to 1, by somebody's measure.

    ended_s: epoch seconds; of the score, which may come long after its answer
    service, split, arm, revision_id, label: those of the request that was answered
    name:    of the measure, as the release file calls it
    """

    ended_s: float
    service: str
    split: str
    arm: Role
    revision_id: str
    label: str | None
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt that failed, retried or not. It says why; the failure itself is counted by the request's record."""

    ended_s: float
    revision_id: str
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Window:
    """All requests of one arm under one split that ended in one interval. Two windows of equal key add up.

    requests: with an outcome OK or FAILED (ABANDONED ones are counted apart and are no part of anything else)
    failed:   of these, FAILED
    unanswered: of these, those whose *client* got a failure too (not saved by a retry)
    latency:  duration_s of the OK ones (a FAILED one has no honest duration; the judge counts it as slower than all)
    ttfb:     ttfb_s of the OK ones
    reasons:  (reason, count) of the failures, ascending by reason
    ttft, tpot: ttft_s and tpot_s of the OK ones that have them
    input_tokens, output_tokens: of the OK ones together
    scores:   (name, scores) that came in this interval, ascending by name; of whatever share of the answers has any
    external: (metric, events) that were counted elsewhere, ascending by metric; such a window has no requests
    """

    service: str
    split: str
    arm: Role
    revision_id: str
    label: str | None
    requests: int = 0
    failed: int = 0
    unanswered: int = 0
    abandoned: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    latency: Histogram = EMPTY
    ttfb: Histogram = EMPTY
    reasons: tuple[tuple[str, int], ...] = ()
    ttft: Histogram = EMPTY
    tpot: Histogram = EMPTY
    input_tokens: int = 0
    output_tokens: int = 0
    scores: tuple[tuple[str, ScoreCounts], ...] = ()
    external: tuple[tuple[str, Tally], ...] = ()


@dataclass(frozen=True, slots=True)
class IntervalReport:
    """What one gateway saw in one interval; sent even when it saw nothing, so that silence differs from absence.

    gateway, sequence: together unique; sequence rises by 1 from report to report of a gateway
    start_s, length_s: the interval, epoch seconds
    table_version: of the routing table that was in force during the whole interval, None if it changed or is not known
    gap:      why evidence of this interval is missing or incomplete, None if it is whole
    unreadable: log lines that could not be understood
    service:  of what is counted elsewhere, whose metric it is (`gateway` then names the metric); None from a gateway
    shadows:  pairs of answers that were complete in this interval
    """

    gateway: str
    sequence: int
    start_s: float
    length_s: float
    table_version: int | None
    windows: tuple[Window, ...]
    gap: str | None = None
    unreadable: int = 0
    service: str | None = None
    shadows: tuple[ShadowWindow, ...] = ()
