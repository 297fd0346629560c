"""Lines of Envoy's access log as records. The lines are real ones; the real log is read in the other files."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.evidence import AttemptRecord, Outcome, RequestRecord
from graylift.domain.weights import Role
from graylift.envoy.access_log import ATTEMPT_FORMAT, REQUEST_FORMAT, parse

REQUEST: dict[str, Any] = {
    "attempts": 1,
    "cluster": "candidate/ft.v2.bb",
    "details": "via_upstream",
    "duration_us": 1560,
    "end": "1795402569.524388",
    "flags": "-",
    "waited_us": 420,
    "route": {"attempt_limit_us": 2e6, "label": "x-tenant=internal", "service": "ft", "split": "s1"},
    "rx": 2,
    "server": "ft.v2.bb",
    "start": "1795402569.522790",
    "status": 200,
    "ttfb_us": 1510,
    "tx": 13,
    "request_id": "0b2c1e9e-8d1f-4f0e-9d3a-3a0f5a1c7b52",
    "answered_us": 900,
    "llm": None,
}
ATTEMPT: dict[str, Any] = {
    "attempt_end": "1795402569.572331",
    "details": None,
    "flags": "-",
    "server": "ft.v2.bb",
    "status": 500,
}


def request(**changed: Any) -> RequestRecord:
    record = parse(orjson.dumps(REQUEST | changed))
    assert isinstance(record, RequestRecord)
    return record


def attempt(**changed: Any) -> AttemptRecord:
    record = parse(orjson.dumps(ATTEMPT | changed))
    assert isinstance(record, AttemptRecord)
    return record


def test_the_formats_ask_for_what_the_parser_reads() -> None:
    assert REQUEST.keys() == REQUEST_FORMAT.keys()
    assert ATTEMPT.keys() == ATTEMPT_FORMAT.keys()


def test_a_good_request() -> None:
    assert request() == RequestRecord(
        ended_s=1795402569.524388,
        service="ft",
        split="s1",
        arm=Role.CANDIDATE,
        revision_id="ft.v2.bb",
        answered_by="ft.v2.bb",
        label="x-tenant=internal",
        attempts=1,
        status=200,
        outcome=Outcome.OK,
        reason=None,
        ttfb_s=0.00151,
        duration_s=0.00156,
        request_bytes=2,
        response_bytes=13,
        request_id="0b2c1e9e-8d1f-4f0e-9d3a-3a0f5a1c7b52",
    )


FAILED, ABANDONED, OK = Outcome.FAILED, Outcome.ABANDONED, Outcome.OK
REFUSED = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
GONE = "downstream_remote_disconnect"


@pytest.mark.parametrize(
    ("changed", "outcome", "reason"),
    [
        ({"status": 399}, OK, None),
        ({"status": 400}, FAILED, "HTTP 400"),
        ({"status": 429}, FAILED, "HTTP 429"),
        ({"status": 503}, FAILED, "HTTP 503"),
        ({"status": 503, "flags": "UF", "details": REFUSED}, FAILED, "connection refused"),
        ({"status": 503, "flags": "UF", "details": "x{connection_timeout}"}, FAILED, "timeout"),
        ({"status": 503, "flags": "UC", "details": "x{connection_termination}"}, FAILED, "connection reset"),
        ({"status": 200, "flags": "UPE", "details": "x{protocol_error}"}, FAILED, "connection reset"),
        ({"status": 504, "flags": "UT", "details": "response_timeout"}, FAILED, "timeout"),
        ({"status": 503, "flags": "UH", "details": "no_healthy_upstream", "server": None}, FAILED, "no healthy server"),
        ({"status": 503, "flags": "UO", "details": "x{overflow}"}, FAILED, "overload"),
        ({"status": 500, "flags": "XX", "details": "new_in_a_later_envoy"}, FAILED, "HTTP 500"),
        ({"status": 0, "flags": "DC", "details": GONE}, ABANDONED, None),
        ({"status": 200, "flags": "DC", "details": GONE}, ABANDONED, None),
        ({"status": 408, "flags": "SI", "details": "stream_idle_timeout", "server": None}, ABANDONED, None),
        ({"status": 400, "flags": "DPE", "details": "http1.codec_error", "server": None}, ABANDONED, None),
        ({"status": 413, "details": "request_payload_too_large", "server": None}, ABANDONED, None),
        ({"attempts": 2, "server": "ft.v1.aa"}, FAILED, None),
        ({"attempts": 2, "server": "ft.v1.aa", "waited_us": 1_999_657}, FAILED, "timeout"),
        ({"attempts": 2, "status": 500, "flags": "URX"}, FAILED, None),
        ({"attempts": 2, "status": 0, "flags": "DC", "details": GONE}, FAILED, None),
        ({"server": "ft.v1.aa"}, FAILED, "no healthy server"),
        ({"server": "ft.v1.aa", "status": 0, "flags": "DC", "details": GONE}, FAILED, "no healthy server"),
    ],
)
def test_the_arm_is_charged_for_its_first_attempt(
    changed: dict[str, Any], outcome: Outcome, reason: str | None
) -> None:
    record = request(**changed)
    assert (record.outcome, record.reason) == (outcome, reason)
    assert record.revision_id == "ft.v2.bb"


def test_nobody_answered_what_no_server_answered_in_full() -> None:
    assert request(status=503, flags="UC", details="x{connection_termination}").answered_by is None
    assert request(status=200, flags="UPE", details="x{protocol_error}").answered_by is None
    assert request(status=500).answered_by == "ft.v2.bb"
    assert request(attempts=2, server="ft.v1.aa").answered_by == "ft.v1.aa"


def test_a_request_without_a_last_byte_lasted_until_its_end() -> None:
    record = request(duration_us=None, ttfb_us=None, flags="DC", details=GONE, status=0)
    assert record.duration_s == pytest.approx(0.001598, abs=1e-6)
    assert record.ttfb_s is None
    stepped_back = request(duration_us=None, end="1795402000.0", flags="DC", details=GONE)
    assert stepped_back.duration_s == 0.0


def test_stable_and_unlabelled() -> None:
    record = request(cluster="stable/ft.v1.aa", server="ft.v1.aa", route={"service": "ft", "split": "s1"})
    assert (record.arm, record.revision_id, record.label, record.outcome) == (Role.STABLE, "ft.v1.aa", None, OK)


@pytest.mark.parametrize(
    ("changed", "status", "reason"),
    [
        ({}, 500, "HTTP 500"),
        ({"status": 0, "flags": "UC"}, 0, "connection reset"),
        ({"status": 0, "flags": "UF", "details": "delayed_connect_error:_Connection_refused"}, 0, "connection refused"),
        ({"status": 0, "flags": "UF"}, 0, "timeout"),
        ({"status": 200, "flags": "UPE"}, 200, "connection reset"),
    ],
)
def test_a_failed_attempt_has_its_reason(changed: dict[str, Any], status: int, reason: str) -> None:
    assert attempt(**changed) == AttemptRecord(1795402569.572331, "ft.v2.bb", status, reason)


def test_lines_that_are_no_evidence() -> None:
    assert parse(orjson.dumps(REQUEST | {"route": None, "cluster": None, "server": None, "attempts": 0})) is None
    assert parse(orjson.dumps(ATTEMPT | {"status": 0, "flags": "DC"})) is None


@pytest.mark.parametrize("missing", REQUEST)
def test_a_line_without_one_of_its_fields_is_unreadable(missing: str) -> None:
    with pytest.raises(ValueError, match="no line of our access log"):
        parse(orjson.dumps({name: value for name, value in REQUEST.items() if name != missing}))


@pytest.mark.parametrize("missing", ATTEMPT)
def test_an_attempt_without_one_of_its_fields_is_unreadable(missing: str) -> None:
    with pytest.raises(ValueError, match="no line of our access log"):
        parse(orjson.dumps({name: value for name, value in ATTEMPT.items() if name != missing}))


@given(st.integers(0, len(orjson.dumps(REQUEST)) - 1))
def test_a_line_cut_anywhere_is_unreadable(length: int) -> None:
    with pytest.raises(ValueError):
        parse(orjson.dumps(REQUEST)[:length])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.binary() | JSON.map(orjson.dumps))
def test_any_bytes_are_an_unreadable_line_and_never_another_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        parse(line)


@given(st.dictionaries(st.sampled_from(sorted(REQUEST)), JSON, min_size=1, max_size=3))
def test_fields_of_any_other_kind_give_a_sound_record_or_an_unreadable_line(changed: dict[str, Any]) -> None:
    try:
        record = parse(orjson.dumps(REQUEST | changed))
    except ValueError:
        return
    if record is not None:
        assert isinstance(record, RequestRecord)
        assert record.duration_s >= 0
        assert record.ended_s > 0
        hash(record)


STREAM: dict[str, Any] = {
    "done": True,
    "estimated": False,
    "finish": "stop",
    "first_us": 101_322.0,
    "followed": True,
    "input_tokens": 7.0,
    "last_us": 301_322.0,
    "output_tokens": 11.0,
    "stream": True,
}


def test_tokens_are_timed_from_when_the_request_went_to_the_server() -> None:
    record = request(llm=STREAM, answered_us=8_678)
    assert record.ttft_s == pytest.approx(0.11)
    assert record.tpot_s == pytest.approx(0.02)  # ten times between the first and the last of eleven
    assert (record.input_tokens, record.output_tokens, record.tokens_estimated, record.finish) == (7, 11, False, "stop")


def test_one_token_has_no_time_per_token() -> None:
    assert request(llm=STREAM | {"output_tokens": 1.0}).tpot_s is None


@pytest.mark.parametrize(
    ("gone", "added", "line", "outcome", "reason"),
    [
        ((), {}, {}, Outcome.OK, None),
        (("done", "finish"), {}, {}, Outcome.FAILED, "truncated stream"),
        (("done",), {}, {}, Outcome.FAILED, "no [DONE]"),
        (("finish",), {}, {}, Outcome.FAILED, "no finish reason"),
        ((), {"error": True}, {}, Outcome.FAILED, "error inside HTTP 200"),
        ((), {}, {"details": "downstream_remote_disconnect", "flags": "DC"}, Outcome.OK, None),
        (("done",), {}, {"details": "downstream_remote_disconnect", "flags": "DC"}, Outcome.ABANDONED, None),
        (("done",), {"error": True}, {"details": "x", "flags": "DC"}, Outcome.FAILED, "error inside HTTP 200"),
        ((), {}, {"attempts": 2}, Outcome.FAILED, None),
        ((), {"finish": "length"}, {}, Outcome.OK, None),
    ],
)
def test_a_stream_counts_by_how_it_ended(
    gone: tuple[str, ...], added: dict[str, Any], line: dict[str, Any], outcome: Outcome, reason: str | None
) -> None:
    llm = {name: value for name, value in STREAM.items() if name not in gone} | added
    record = request(llm=llm, **line)
    assert (record.outcome, record.reason) == (outcome, reason)
