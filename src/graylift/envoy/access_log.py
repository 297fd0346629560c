"""Envoy's access log: the format it is told to write, and its lines as records.

Called by `bootstrap.py` (the formats) and by `gateway/`, which tails the log. Of what a client sent only the size
enters a line, and the id that its answer can be scored by: no other header, no path, no body.

The outcome of a request belongs to the arm it was *assigned* to (the route's cluster says which), whoever answered:
OK only if that arm's first attempt gave a complete answer below 400. A 4xx of a model counts as its failure: both
arms get the same clients, so a difference between the arms is the model's.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import orjson

from graylift.domain.evidence import AttemptRecord, Outcome, RequestRecord
from graylift.domain.shadow import BrokenShadow
from graylift.envoy.llm import NAMESPACE
from graylift.envoy.names import CANNOT_COMPUTE, arm_from_name

REQUEST_FORMAT = {
    "start": "%START_TIME(%s.%6f)%",
    "end": "%EMIT_TIME(%s.%6f)%",
    "route": "%METADATA(ROUTE:graylift)%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "server": "%UPSTREAM_METADATA(graylift:revision)%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "waited_us": "%COMMON_DURATION(DS_RX_END:US_TX_BEG:us)%",
    "ttfb_us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_BEG:us)%",
    "duration_us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "rx": "%BYTES_RECEIVED%",
    "tx": "%BYTES_SENT%",
    "request_id": "%REQ(X-REQUEST-ID):128%",
    "answered_us": "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%",
    "llm": f"%DYNAMIC_METADATA({NAMESPACE})%",
}
"""One line a request, written at its end. `server` is the revision asked last; `waited_us` passed between the last byte
of the request and the beginning of the last attempt; `request_id` is Envoy's, or the client's own, cut at 128 bytes.
`answered_us` passed from the beginning of the last attempt to the first byte of its answer, and `llm` is what `llm.lua`
saw of both, None where it is not attached."""

ATTEMPT_FORMAT = {
    "attempt_end": "%EMIT_TIME(%s.%6f)%",
    "server": "%UPSTREAM_METADATA(graylift:revision)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
"""One line an attempt that failed, retried or not."""

SHADOW_FORMAT = {
    "shadow_end": "%EMIT_TIME(%s.%6f)%",
    "id": "%REQ(X-REQUEST-ID)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
"""One line a shadowed request that the candidate did not answer to its end: no copy tells of what broke off."""

Record: TypeAlias = RequestRecord | AttemptRecord | BrokenShadow

REFUSED, RESET, TIMEOUT = "connection refused", "connection reset", "timeout"
NO_SERVER, OVERLOAD = "no healthy server", "overload"
SILENT = "silent for too long"
ERROR_INSIDE = "error inside HTTP 200"
TRUNCATED, NO_FINISH, NO_DONE = "truncated stream", "no finish reason", "no [DONE]"

# Envoy's response flags, in the order in which they explain a failure.
_REASONS = {
    "UH": NO_SERVER,
    "NC": NO_SERVER,
    "UO": OVERLOAD,
    "OM": OVERLOAD,
    "UT": TIMEOUT,
    "UMSDR": TIMEOUT,
    "UF": REFUSED,
    "UC": RESET,
    "UR": RESET,
    "LR": RESET,
    "UPE": RESET,
}
# The client left, broke the protocol, or stopped sending; or it asked for more than its limits (RL), or nobody could
# say whether it did (RLSE).
_NO_SAMPLE = frozenset({"DC", "DPE", "SI", "RL", "RLSE"})


def parse(line: bytes) -> Record | None:
    """The record of one line; None for a line that is evidence of nothing: a request to no service (a health check
    of the gateway, an unknown path, bytes that are no HTTP) or an attempt that the client cut short.

    ValueError with the reason if the line cannot be understood; it was then cut, or not written by our formats.
    """
    try:
        fields = orjson.loads(line)
        if fields.keys() == REQUEST_FORMAT.keys():
            return _request(fields)
        if fields.keys() == ATTEMPT_FORMAT.keys():
            return _attempt(fields)
        if fields.keys() == SHADOW_FORMAT.keys():
            return _broken_shadow(fields)
        raise ValueError("it has other fields")
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise ValueError(f"no line of our access log: {type(exc).__name__}: {exc}") from exc


def _request(fields: dict[str, Any]) -> RequestRecord | None:
    route = fields["route"]
    if route is None:
        return None
    role, revision_id = arm_from_name(fields["cluster"])
    server, attempts, status = fields["server"], int(fields["attempts"]), int(fields["status"])
    llm: dict[str, Any] = fields["llm"] or {}
    by_upstream = fields["details"] == "via_upstream" or _is_complete(llm)
    outcome, reason = Outcome.OK, None
    if attempts > 1:
        # The first attempt failed. Why, its own line says, unless its time was up, which has no line.
        outcome = Outcome.FAILED
        waited_us = fields["waited_us"]
        # Not exactly the limit: the two are read from clocks that Envoy updates at different moments.
        is_late = waited_us is not None and waited_us >= 0.95 * route["attempt_limit_us"]
        reason = TIMEOUT if is_late else None
    elif server is not None and server != revision_id:
        outcome, reason = Outcome.FAILED, NO_SERVER
    elif llm.get("error"):
        outcome, reason = Outcome.FAILED, ERROR_INSIDE
    elif not by_upstream or status >= 400:
        outcome, reason = _unanswered(status, fields["flags"], fields["details"], by_upstream)
    elif llm.get("followed") and not _is_complete(llm):
        outcome, reason = Outcome.FAILED, _what_is_missing(llm)
    ended_s = _epoch_s(fields["end"])
    ttfb_us, duration_us = fields["ttfb_us"], fields["duration_us"]
    return RequestRecord(
        ended_s=ended_s,
        service=_text(route["service"]),
        split=_text(route["split"]),
        arm=role,
        revision_id=_text(revision_id),
        answered_by=_text(server) if by_upstream else None,
        label=_text(route["label"]) if "label" in route else None,
        attempts=attempts,
        status=status,
        outcome=outcome,
        reason=reason,
        ttfb_s=None if ttfb_us is None else _duration_s(ttfb_us),
        # Without a last byte it lasted until Envoy gave up; the wall clock may have stepped back meanwhile.
        duration_s=max(0.0, ended_s - _epoch_s(fields["start"])) if duration_us is None else _duration_s(duration_us),
        request_bytes=int(fields["rx"]),
        response_bytes=int(fields["tx"]),
        request_id=None if fields["request_id"] is None else _text(fields["request_id"]),
        **_tokens(llm, fields["answered_us"]),
    )


def _is_complete(llm: dict[str, Any]) -> bool:
    """Was it a stream of tokens that came to its end? Some clients leave as soon as they have seen that."""
    return "done" in llm and "finish" in llm


def _what_is_missing(llm: dict[str, Any]) -> str:
    if "done" in llm:
        return NO_FINISH
    return NO_DONE if "finish" in llm else TRUNCATED


def _tokens(llm: dict[str, Any], answered_us: int | None) -> dict[str, Any]:
    """What is known of the tokens of an answer, as fields of its record."""
    into, out, finish = llm.get("input_tokens"), llm.get("output_tokens"), llm.get("finish")
    first_us, last_us = llm.get("first_us"), llm.get("last_us")
    ttft_s = tpot_s = None
    if first_us is not None and last_us is not None and answered_us is not None:
        # The filter's times begin with the answer.
        ttft_s = _duration_s(answered_us + first_us)
        if out is not None and out > 1:
            tpot_s = _duration_s(last_us - first_us) / (out - 1)
    return {
        "ttft_s": ttft_s,
        "tpot_s": tpot_s,
        "input_tokens": None if into is None else int(into),
        "output_tokens": None if out is None else int(out),
        "tokens_estimated": bool(llm.get("estimated", False)),
        "finish": None if finish is None else _text(finish),
    }


def _unanswered(status: int, flags: str, details: str | None, by_upstream: bool) -> tuple[Outcome, str | None]:
    """What it means for the arm that its only attempt gave no complete answer below 400."""
    if by_upstream:
        return Outcome.FAILED, f"HTTP {status}"
    if _by_client(flags, status):
        return Outcome.ABANDONED, None
    return Outcome.FAILED, _reason(flags, details) or f"HTTP {status}"


def _by_client(flags: str, status: int) -> bool:
    """Did the client end it, or did Envoy refuse it (too large, malformed, over a limit) before any model saw it?"""
    refused = flags == "-" and 400 <= status < 500 and status != CANNOT_COMPUTE
    return refused or not _NO_SAMPLE.isdisjoint(flags.split(","))


def _attempt(fields: dict[str, Any]) -> AttemptRecord | None:
    status, flags = int(fields["status"]), fields["flags"]
    if _by_client(flags, status):
        return None
    return AttemptRecord(
        ended_s=_epoch_s(fields["attempt_end"]),
        revision_id=_text(fields["server"]),
        status=status,
        reason=_reason(flags, fields["details"]) or f"HTTP {status}",
    )


def _broken_shadow(fields: dict[str, Any]) -> BrokenShadow | None:
    status, flags = int(fields["status"]), fields["flags"]
    if _by_client(flags, status):
        return None
    reason = _reason(flags, fields["details"]) or f"HTTP {status}"
    return BrokenShadow(_epoch_s(fields["shadow_end"]), _text(fields["id"]), reason)


def _reason(flags: str, details: str | None) -> str | None:
    present = flags.split(",")
    if details is not None and "per_try_idle_timeout" in details:
        return SILENT
    reason = next((_REASONS[flag] for flag in _REASONS if flag in present), None)
    # A connection that got no answer in time fails with the same flag; of an attempt Envoy then says no more at all.
    return TIMEOUT if reason is REFUSED and (details is None or "timeout" in details) else reason


def _epoch_s(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e11:
        raise ValueError(f"{text} is no time")
    return seconds


def _duration_s(microseconds: int) -> float:
    if microseconds < 0:
        raise ValueError(f"{microseconds} us is no duration")
    return microseconds / 1e6


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a text, got {value!r:.40}")
    return value
