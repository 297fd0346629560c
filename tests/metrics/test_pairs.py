"""The two halves of a shadowed request: they meet once, in any order; what never meets is told, and nothing grows."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.shadow import (
    Answer,
    Comparison,
    Example,
    Lost,
    Shadowed,
    ShadowLoss,
    ShadowPair,
    ShadowWindow,
    summed,
)
from graylift.domain.spec import KeepExamples, ServingProtocol, Tolerance
from graylift.domain.weights import Role
from graylift.metrics.intervals import Intervals
from graylift.metrics.pairs import MOST_WAITING, MOST_WAITING_BYTES, SETTLED_S, Matched, Pairing
from graylift.metrics.shadows import ShadowSums

ABOUT = Shadowed("a", "a-1/0", "a.v2.0", ServingProtocol.OPEN_INFERENCE, 5.0, Tolerance(), KeepExamples.NONE)
LATE_S = ABOUT.limit_s + SETTLED_S + 0.1


def answer(body: bytes = b"{}", status: int = 200) -> Answer:
    return Answer(status, (), body, 0.01)


def settled(pairing: Pairing, now: float) -> list[Matched | Lost]:
    return [one.why if isinstance(one, ShadowLoss) else one for one in pairing.settle(now)]


@pytest.mark.parametrize("order", list(itertools.permutations(("asked", "stable", "candidate"))))
def test_a_pair_is_complete_once_whatever_comes_first(order: tuple[str, ...]) -> None:
    pairing, found = Pairing(), []
    for number, part in enumerate(order):
        now = 0.1 * number
        if part == "asked":
            pairing.asked("r", ABOUT, b"question", now)
        else:
            found.append(pairing.answered("r", ABOUT, Role(part), answer(part.encode()), now))
    (pair,) = [one for one in found if one is not None]
    assert isinstance(pair, Matched)
    assert (pair.stable.body, pair.candidate and pair.candidate.body) == (b"stable", b"candidate")
    if order[2] != "asked":
        assert settled(pairing, LATE_S) == []


def test_a_candidate_that_was_never_asked_was_shed_and_that_is_known_soon() -> None:
    pairing = Pairing()
    pairing.answered("r", ABOUT, Role.STABLE, answer(), 1.0)
    assert settled(pairing, 1.0 + SETTLED_S - 0.1) == []
    assert settled(pairing, 1.0 + SETTLED_S) == [Lost.SHED]


def test_a_candidate_that_broke_off_makes_a_pair_without_its_answer() -> None:
    pairing = Pairing()
    pairing.asked("r", ABOUT, b"", 0.0)
    pairing.answered("r", ABOUT, Role.STABLE, answer(), 0.1)
    pairing.broken("r", "connection reset", 0.2)
    (pair,) = settled(pairing, 0.2 + SETTLED_S)
    assert isinstance(pair, Matched)
    assert (pair.candidate, pair.reason) == (None, "connection reset")


def test_a_copy_that_was_lost_is_not_held_against_the_candidate() -> None:
    pairing = Pairing()
    pairing.asked("r", ABOUT, b"", 0.0)
    pairing.answered("r", ABOUT, Role.STABLE, answer(), 0.1)
    assert settled(pairing, ABOUT.limit_s) == []
    assert settled(pairing, LATE_S) == [Lost.UNMATCHED]


def test_an_answer_of_the_candidate_whose_client_left_stable_is_no_pair() -> None:
    pairing = Pairing()
    pairing.asked("r", ABOUT, b"", 0.0)
    pairing.answered("r", ABOUT, Role.CANDIDATE, answer(), 0.1)
    assert settled(pairing, LATE_S) == [Lost.UNMATCHED]


def test_two_requests_of_one_id_are_never_taken_for_a_pair() -> None:
    pairing = Pairing()
    pairing.answered("r", ABOUT, Role.STABLE, answer(), 0.0)
    found = pairing.answered("r", ABOUT, Role.STABLE, answer(), 0.1)
    assert isinstance(found, ShadowLoss)
    assert found.why is Lost.UNMATCHED


def test_what_waits_is_bounded_in_number_and_in_bytes() -> None:
    pairing = Pairing()
    for number in range(MOST_WAITING + 10):
        pairing.answered(str(number), ABOUT, Role.STABLE, answer(), 0.0)
    assert settled(pairing, 0.1) == [Lost.CROWDED] * 10
    pairing = Pairing()
    large = b"x" * (MOST_WAITING_BYTES // 4)
    for number in range(6):
        pairing.answered(str(number), ABOUT, Role.STABLE, answer(large), 0.0)
    assert settled(pairing, 0.1) == [Lost.CROWDED] * 2
    # Whatever left made room: four more pairs complete without any other giving way.
    for number in range(2, 6):
        assert pairing.answered(str(number), ABOUT, Role.CANDIDATE, answer(), 0.2) is not None
    for number in range(4):
        pairing.answered(f"again {number}", ABOUT, Role.STABLE, answer(large), 0.3)
    assert settled(pairing, 0.4) == []


def pair(
    *, ours: bool = True, theirs: bool = True, agrees: bool = True, ratio: float = 1.0, drift: float = 0.0
) -> ShadowPair:
    both = ours and theirs
    return ShadowPair(
        ended_s=10.0,
        service="a",
        split="a-1/0",
        revision_id="a.v2.0",
        stable_failed=not theirs,
        candidate_failed=not ours,
        reason=None if ours else "HTTP 500",
        comparison=Comparison(drift, None if agrees else "words") if both else None,
        stable_s=0.1 if both else None,
        candidate_s=0.1 * ratio if both else None,
        example=Example("r", drift, "words", "", "s", "c") if both and not agrees else None,
    )


pairs = st.builds(
    pair,
    ours=st.booleans(),
    theirs=st.booleans(),
    agrees=st.booleans(),
    ratio=st.floats(0.1, 10),
    drift=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)


def window_of(records: list[ShadowPair]) -> ShadowWindow | None:
    sums = ShadowSums()
    for record in records:
        sums.add(record)
    return next(iter(sums.windows()), None)


@given(st.lists(pairs, max_size=30), st.integers(0, 30))
def test_windows_add_up_however_the_pairs_are_cut(records: list[ShadowPair], cut: int) -> None:
    parts = [window for part in (records[:cut], records[cut:]) if (window := window_of(part)) is not None]
    assert summed(parts) == window_of(records)


@given(st.lists(pairs, min_size=1, max_size=30))
def test_a_window_counts_every_pair_once(records: list[ShadowPair]) -> None:
    window = window_of(records)
    assert window is not None
    failed = window.only_candidate_failed + window.only_stable_failed + window.both_failed
    assert window.pairs == len(records)
    assert window.compared == window.pairs - failed == window.latency_ratio.count
    assert window.compared == window.agreeing + sum(times for _, times in window.differences)
    assert len(window.examples) <= 5
    assert list(window.examples) == sorted(window.examples, key=lambda one: -one.drift)


def test_pairs_and_losses_leave_with_the_interval_they_ended_in_and_survive_a_restart() -> None:
    intervals = Intervals(1.0, 10)
    intervals.add_shadow(pair())
    intervals.add_shadow(ShadowLoss(10.5, "a", "a-1/0", "a.v2.0", Lost.SHED))
    again = Intervals(1.0, 10, kept=intervals.open_intervals())
    again.add_shadow(pair(ours=False))
    (closed,) = again.close(20.0)
    (window,) = closed.shadows
    assert (closed.number, window.pairs, window.only_candidate_failed) == (10, 2, 1)
    assert Counter(dict(window.lost)) == {"shed": 1}
