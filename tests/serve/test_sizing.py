"""What is chosen from measured costs, and that the choice holds what it promises, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graylift.serve.policy import BatchPolicy, Run, Waiting, next_batch
from graylift.serve.sizing import Cost, Throughput, choose_contexts, choose_rows

TRANSFORMER = [Cost(1, 0.004), Cost(2, 0.006), Cost(4, 0.010), Cost(8, 0.018), Cost(16, 0.036), Cost(32, 0.072)]
"""Gains up to 8 rows, and no more beyond."""


def test_the_smallest_batch_with_nearly_the_best_speed_is_chosen() -> None:
    assert choose_rows(TRANSFORMER).number == 8
    assert choose_rows(TRANSFORMER).why == "8 rows take 18 ms, 444 rows/s where one by one gives 250"
    assert choose_rows([Cost(1, 0.01), Cost(2, 0.02), Cost(4, 0.041)]).number == 1


def test_a_latency_target_makes_it_smaller() -> None:
    assert choose_rows(TRANSFORMER, 0.036).number == 8
    assert choose_rows(TRANSFORMER, 0.035).number == 4
    hopeless = choose_rows(TRANSFORMER, 0.007)
    assert hopeless.number == 1
    assert "8 ms where 7 ms were asked for" in hopeless.why


def test_as_few_contexts_are_chosen_as_give_nearly_the_best() -> None:
    choice = choose_contexts([Throughput(1, 100), Throughput(2, 180), Throughput(4, 185)])
    assert (choice.number, choice.why) == (2, "1: 100 rows/s, 2: 180 rows/s, 4: 185 rows/s")
    assert choose_contexts([Throughput(1, 100), Throughput(2, 60)]).number == 1


gaps = st.lists(st.floats(0, 0.03), min_size=1, max_size=80)


@given(gaps, st.sampled_from([0.009, 0.015, 0.036, 0.1]))
def test_while_the_server_keeps_up_every_request_meets_the_target(gaps: list[float], target_s: float) -> None:
    rows = choose_rows(TRANSFORMER, target_s).number
    seconds = next(cost.seconds for cost in TRANSFORMER if cost.rows == rows)
    arrivals = kept_up(gaps, rows, seconds)
    for came_s, ended_s in simulated(arrivals, rows):
        assert ended_s - came_s <= target_s + 1e-9


def kept_up(gaps: list[float], rows: int, seconds: float) -> list[float]:
    """Arrivals, delayed where needed so that in no time of a run more come than one run takes."""
    arrivals: list[float] = []
    for gap in gaps:
        came_s = (arrivals[-1] if arrivals else 0.0) + gap
        if len(arrivals) >= rows:
            came_s = max(came_s, arrivals[-rows] + seconds)
        arrivals.append(came_s)
    return arrivals


def simulated(arrivals: list[float], rows: int) -> list[tuple[float, float]]:
    """(came, answered) of each request, on one context that takes as long as was measured."""
    cost = {count: next(c.seconds for c in TRANSFORMER if c.rows >= count) for count in range(1, rows + 1)}
    queue: list[Waiting] = []
    answered: list[tuple[float, float]] = []
    now, rest = 0.0, list(arrivals)
    while rest or queue:
        if not queue:
            now = max(now, rest[0])
        while rest and rest[0] <= now:
            queue.append(Waiting(1, "a", rest.pop(0)))
        choice = next_batch(BatchPolicy(rows), queue, now)
        assert isinstance(choice, Run)
        members = [queue[index] for index in choice.members]
        queue = [place for index, place in enumerate(queue) if index not in choice.members]
        now += cost[len(members)]
        answered += [(member.since_s, now) for member in members]
    return answered
