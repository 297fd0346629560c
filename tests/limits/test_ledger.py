"""Budgets in virtual time: what can never be used beyond them, and that nobody is charged for nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from limits_parts import PLACES, REQUESTS, TOKENS, asking

from graylift.domain.limits import Admission, Charge, Reservation, Unit
from graylift.limits.ledger import Ledger


@dataclass
class Running:
    reservation: Reservation
    reserved: int


class TokensOfOneBudget(RuleBasedStateMachine):
    """Requests that reserve, run and settle, in a time that passes and jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.now_s = 1e6
        self.earliest_s = self.now_s
        self.gained = float(TOKENS.limit)
        """All that was ever in the budget: full at first, and what time brought."""
        self.used = 0
        self.overrun = 0
        self.running: list[Running] = []
        self.ids = 0

    @rule(tokens=st.integers(0, TOKENS.limit))
    def ask(self, tokens: int) -> None:
        self.ids += 1
        reservation = asking(str(self.ids), tokens=tokens)
        if self.ledger.reserve(reservation, self.now_s).is_granted:
            self.running.append(Running(reservation, tokens))

    @precondition(lambda self: self.running)
    @rule(which=st.randoms(use_true_random=False), share=st.floats(0, 1))
    def end_within_its_reservation(self, which: object, share: float) -> None:
        one = self.running.pop(which.randrange(len(self.running)))  # type: ignore[attr-defined]
        used = int(one.reserved * share)
        self.used += used
        self.ledger.settle(one.reservation, used, self.now_s)

    @precondition(lambda self: self.running)
    @rule(more=st.integers(1, 300))
    def end_beyond_its_reservation(self, more: int) -> None:
        one = self.running.pop()
        self.used += one.reserved + more
        self.overrun += more
        self.ledger.settle(one.reservation, one.reserved + more, self.now_s)

    @precondition(lambda self: self.running)
    @rule()
    def end_with_nobody_knowing_what_it_used(self) -> None:
        one = self.running.pop(0)
        self.used += one.reserved
        self.ledger.settle(one.reservation, None, self.now_s)

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.gained += min(TOKENS.limit, seconds * TOKENS.limit / TOKENS.per_s)

    @rule(seconds=st.floats(1, 5_000))
    def jump_back(self, seconds: float) -> None:
        self.now_s -= seconds

    @invariant()
    def what_was_used_or_is_promised_was_in_the_budget(self) -> None:
        promised = sum(one.reserved for one in self.running)
        assert self.used + promised <= self.gained + self.overrun + 1e-6


TestTokensOfOneBudget = TokensOfOneBudget.TestCase


@given(st.lists(st.integers(1, 600), min_size=20, max_size=20))
def test_twenty_that_ask_at_once_get_no_more_than_the_budget(reserves: list[int]) -> None:
    ledger = Ledger()
    granted = [n for i, n in enumerate(reserves) if ledger.reserve(asking(str(i), tokens=n), 0.0).is_granted]
    assert granted
    assert sum(granted) <= TOKENS.limit


@given(st.lists(st.tuples(st.integers(0, 600), st.floats(0, 1)), max_size=30), st.floats(0, 100))
def test_what_is_given_back_is_never_more_than_what_was_reserved(
    asked: list[tuple[int, float]], seconds: float
) -> None:
    ledger, now_s = Ledger(), 0.0
    for number, (tokens, used) in enumerate(asked):
        before = _level(ledger, now_s)
        reservation = asking(str(number), tokens=tokens)
        if ledger.reserve(reservation, now_s).is_granted:
            ledger.settle(reservation, int(tokens * used), now_s)
        assert _level(ledger, now_s) <= before
        now_s += seconds


def test_a_request_is_charged_by_all_of_its_budgets_or_by_none() -> None:
    ledger = Ledger()
    assert ledger.reserve(asking("a", tokens=600, requests=True, place=True), 0.0).is_granted
    refused = ledger.reserve(asking("b", tokens=1, requests=True, place=True), 0.0)
    assert _refused(refused) == [Unit.TOKENS]
    assert ledger.reserve(asking("c", requests=True, place=True), 0.0).standings[0].remaining == REQUESTS.limit - 2


def test_a_debt_is_paid_by_time_before_anybody_is_admitted_again() -> None:
    ledger = Ledger()
    one = asking("a", tokens=600)
    assert ledger.reserve(one, 0.0).is_granted
    ledger.settle(one, 700, 0.0)
    assert ledger.reserve(asking("b", tokens=1), 0.0).retry_after_s == 11
    assert not ledger.reserve(asking("b", tokens=1), 10.0).is_granted
    assert ledger.reserve(asking("b", tokens=1), 10.2).is_granted


def test_what_never_fits_is_told_so() -> None:
    refused = Ledger().reserve(asking("a", tokens=601), 0.0)
    assert not refused.is_granted
    assert refused.retry_after_s is None


def test_a_place_is_free_again_when_its_request_ends_or_can_no_longer_run() -> None:
    ledger = Ledger()
    three = [asking(name, place=True) for name in "abc"]
    assert all(ledger.reserve(one, 0.0).is_granted for one in three)
    assert not ledger.reserve(asking("d", place=True), 1.0).is_granted
    ledger.settle(three[0], None, 1.0)
    ledger.settle(three[0], None, 1.0)
    assert ledger.reserve(asking("e", place=True), 1.0).is_granted
    assert not ledger.reserve(asking("f", place=True), PLACES.per_s - 0.1).is_granted
    assert ledger.reserve(asking("g", place=True), PLACES.per_s).standings[0].remaining == 1


def test_more_time_than_one_fill_is_worth_one_fill() -> None:
    ledger = Ledger()
    assert ledger.reserve(asking("a", tokens=600), 0.0).is_granted
    assert ledger.reserve(asking("b", tokens=600), 1e9).is_granted
    assert not ledger.reserve(asking("c", tokens=1), 1e9).is_granted


def test_a_limit_that_was_lowered_holds_at_once() -> None:
    ledger = Ledger()
    assert ledger.reserve(asking("a", tokens=0), 0.0).is_granted
    lowered = replace(TOKENS, limit=100)
    assert not ledger.reserve(Reservation("b", (Charge(lowered, 101),)), 0.0).is_granted
    assert ledger.reserve(Reservation("c", (Charge(lowered, 100),)), 0.0).is_granted


def test_many_keys_take_no_more_room_than_the_ledger_has() -> None:
    ledger = Ledger(max_budgets=2)
    for name in ("a", "b", "c"):
        charge = Charge(replace(TOKENS, name=name), 600)
        assert ledger.reserve(Reservation(name, (charge,)), 0.0).is_granted
    kept = [Charge(replace(TOKENS, name=name), 1) for name in ("b", "c")]
    assert not any(ledger.reserve(Reservation("d", (charge,)), 0.0).is_granted for charge in kept)
    assert ledger.reserve(Reservation("e", (Charge(replace(TOKENS, name="a"), 600),)), 0.0).is_granted


@pytest.mark.parametrize(("seconds", "remaining"), [(0.0, 0), (30.0, 300), (60.0, 600), (3600.0, 600)])
def test_a_budget_refills_steadily(seconds: float, remaining: int) -> None:
    ledger = Ledger()
    assert ledger.reserve(asking("a", tokens=600), 0.0).is_granted
    assert _level(ledger, seconds) == remaining


def _level(ledger: Ledger, now_s: float) -> int:
    return ledger.reserve(asking("look", tokens=0), now_s).standings[0].remaining


def _refused(admission: Admission) -> list[Unit]:
    return [standing.charge.budget.unit for standing in admission.standings if standing.is_refusal]
