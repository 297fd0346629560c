"""The batching policy, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graylift.serve.policy import FIRST, LAST, NORMAL, BatchPolicy, Run, Wait, Waiting, gives_way, next_batch

policies = st.builds(BatchPolicy, st.integers(1, 9), st.sampled_from([0.0, 0.5, 3.0]))
queues = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.floats(0, 2)), max_size=12).map(
    lambda entries: [Waiting(rows, kind, since_s) for rows, kind, since_s in entries]
)


def test_nobody_waits_nothing_runs() -> None:
    assert next_batch(BatchPolicy(8, 1.0), [], 0.0) is None


def test_without_a_delay_a_free_context_takes_what_is_there() -> None:
    queue = [Waiting(1, "a", 0.0), Waiting(2, "b", 0.0), Waiting(3, "a", 0.0)]
    assert next_batch(BatchPolicy(8), queue, 0.0) == Run((0, 2))


def test_with_a_delay_it_waits_for_company_and_no_longer() -> None:
    policy, queue = BatchPolicy(4, 0.5), [Waiting(1, "a", 1.0), Waiting(2, "a", 1.4)]
    assert next_batch(policy, queue, 1.4) == Wait(1.5)
    assert next_batch(policy, queue, 1.5) == Run((0, 1))
    assert next_batch(policy, [*queue, Waiting(1, "a", 1.4)], 1.4) == Run((0, 1, 2))


@given(policies, queues, st.floats(0, 9))
def test_the_oldest_leads_a_run_of_its_kind_that_fits(policy: BatchPolicy, queue: list[Waiting], now: float) -> None:
    choice = next_batch(policy, queue, now)
    if not queue:
        assert choice is None
    elif isinstance(choice, Run):
        members = [queue[index] for index in choice.members]
        assert choice.members[0] == 0
        assert list(choice.members) == sorted(set(choice.members))
        assert {member.kind for member in members} == {queue[0].kind}
        assert sum(member.rows for member in members) <= max(policy.max_rows, queue[0].rows)
    else:
        assert choice == Wait(queue[0].since_s + policy.max_delay_s)
        assert choice.until_s > now


@given(policies, queues)
def test_whoever_waits_runs_within_as_many_turns_as_stand_before_it(policy: BatchPolicy, queue: list[Waiting]) -> None:
    now, last, turns = 10.0, queue[-1:], 0
    left = list(queue)
    while left:
        choice = next_batch(policy, left, now)
        assert isinstance(choice, Run), "everybody has waited long enough"
        left = [place for index, place in enumerate(left) if index not in choice.members]
        turns += 1
    assert turns <= len(queue)
    assert not last or turns >= 1


def test_company_costs_a_request_with_little_time_no_more_than_half_of_it() -> None:
    policy, queue = BatchPolicy(4, 0.5), [Waiting(1, "a", 1.0, until_s=1.2)]
    assert next_batch(policy, queue, 1.05) == Wait(1.1)
    assert next_batch(policy, queue, 1.1) == Run((0,))


def test_only_who_is_more_urgent_takes_the_last_place_of_a_full_queue() -> None:
    ranks = (FIRST, NORMAL, LAST)
    places = [
        (last, new) for last in ranks for new in ranks if gives_way(Waiting(1, "a", 0, last), Waiting(1, "a", 1, new))
    ]
    assert places == [(NORMAL, FIRST), (LAST, FIRST), (LAST, NORMAL)]
