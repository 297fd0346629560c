"""The memory of request ids: bounded, and every score counted once for its name."""

from __future__ import annotations

from graylift.domain.evidence import Outcome, RequestRecord
from graylift.domain.scores import Score, ScoreFate
from graylift.domain.weights import Role
from graylift.gateway.recent import RecentRequests

KNOWN = {"a": ("helpful", "polite")}


def ended(request_id: str | None, at_s: float = 1000.0, arm: Role = Role.CANDIDATE) -> RequestRecord:
    return RequestRecord(
        *(at_s, "a", "a-1/0", arm, "a.v2.0", "a.v2.0", "x-tenant=b", 1, 200, Outcome.OK, None, 0.1, 0.2, 3, 4),
        request_id=request_id,
    )


def fate_of(memory: RecentRequests, request_id: str, name: str = "helpful", now: float = 1001.0) -> ScoreFate:
    return memory.score(Score(request_id, name, 0.5), KNOWN, now)[0].fate


def test_a_score_takes_all_from_its_request_and_its_time_from_its_own() -> None:
    memory = RecentRequests()
    memory.remember(ended("r1"))
    _, record = memory.score(Score("r1", "helpful", 0.5), KNOWN, 1234.5)
    assert record is not None
    assert (record.ended_s, record.split, record.arm, record.label) == (1234.5, "a-1/0", Role.CANDIDATE, "x-tenant=b")
    assert (record.revision_id, record.name, record.value) == ("a.v2.0", "helpful", 0.5)


def test_one_score_for_each_name() -> None:
    memory = RecentRequests()
    memory.remember(ended("r1"))
    fates = [fate_of(memory, "r1", name) for name in ("helpful", "helpful", "polite", "polite")]
    assert fates == [ScoreFate.COUNTED, ScoreFate.REPEATED, ScoreFate.COUNTED, ScoreFate.REPEATED]


def test_the_oldest_are_forgotten_beyond_the_bound_and_after_their_time() -> None:
    memory = RecentRequests(most=2, longest_s=60.0)
    for number in range(3):
        memory.remember(ended(f"r{number}", 1000.0 + number))
    assert [fate_of(memory, f"r{number}") for number in range(3)] == [
        ScoreFate.UNKNOWN,
        ScoreFate.COUNTED,
        ScoreFate.COUNTED,
    ]
    assert fate_of(memory, "r1", "polite", now=1061.5) is ScoreFate.UNKNOWN
    assert fate_of(memory, "r2", "polite", now=1061.5) is ScoreFate.COUNTED


def test_requests_without_an_id_are_no_one_s() -> None:
    memory = RecentRequests()
    memory.remember(ended(None))
    assert fate_of(memory, "None") is ScoreFate.UNKNOWN


def test_a_line_read_again_does_not_make_an_id_a_shared_one() -> None:
    memory = RecentRequests()
    memory.remember(ended("r1"))
    memory.remember(ended("r1"))
    assert fate_of(memory, "r1") is ScoreFate.COUNTED
    memory.remember(ended("r1", arm=Role.STABLE))
    assert fate_of(memory, "r1", "polite") is ScoreFate.REFUSED
