"""The noise floor: what simulated replicas wander by is found, and what is only the chance of sampling is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from judged_traffic import histogram, latencies

from graylift.analysis import wander
from graylift.domain.histogram import Histogram

BLOCKS = 120


def replica(rng: np.random.Generator, sd: float, answers: int, day: np.ndarray) -> dict[int, Histogram]:
    """Blocks of one replica that wanders with a memory of about five of them, on a day that all replicas share."""
    own, memory = rng.normal(0, sd), 0.8
    blocks = {}
    for block in range(BLOCKS):
        own = memory * own + math.sqrt(1 - memory**2) * rng.normal(0, sd)
        blocks[block] = histogram(latencies(rng, answers) * math.exp(own + day[block]))
    return blocks


def replicas(sd: float, count: int = 3, answers: int = 3_000, *, day: bool = False) -> list[dict[int, Histogram]]:
    rng = np.random.default_rng(5)
    rhythm = 0.2 * np.sin(np.linspace(0, 2 * math.pi, BLOCKS)) if day else np.zeros(BLOCKS)
    return [replica(rng, sd, answers, rhythm) for _ in range(count)]


@pytest.mark.parametrize(("tau", "answers"), [(0.5, 2_000), (0.99, 30_000)])
@pytest.mark.parametrize("sd", [0.05, 0.10])
def test_the_wander_of_replicas_is_found(tau: float, answers: int, sd: float) -> None:
    found = wander.wander(replicas(sd, answers=answers), tau)
    assert found is not None
    assert found.estimate == pytest.approx(sd, rel=0.25)
    assert found.estimate <= found.sd <= 1.5 * sd
    assert found.floor == pytest.approx(math.exp(3 * math.sqrt(2) * found.sd))


@pytest.mark.parametrize("tau", [0.5, 0.99])
def test_replicas_that_only_differ_by_chance_have_a_floor_near_one(tau: float) -> None:
    found = wander.wander(replicas(0.0), tau)
    assert found is not None
    assert found.floor < (1.05 if tau == 0.5 else 1.20)


def test_a_rhythm_that_all_replicas_share_is_no_wander() -> None:
    quiet = wander.wander(replicas(0.0, day=True), 0.5)
    assert quiet is not None
    assert quiet.floor < 1.05


def test_one_series_alone_shows_its_quick_changes() -> None:
    (alone,) = replicas(0.10, count=1)
    found = wander.wander([alone], 0.5)
    assert found is not None
    assert not found.compared
    # Neighbouring blocks share four fifths of the wander: only what changes between them can be seen.
    assert found.estimate == pytest.approx(0.10 * math.sqrt(1 - 0.8), rel=0.3)


def test_too_little_says_nothing() -> None:
    assert wander.wander([], 0.5) is None
    assert wander.wander(replicas(0.05, answers=wander.needed(0.99) - 1), 0.99) is None
    few = [{block: blocks[block] for block in range(wander.FEWEST - 1)} for blocks in replicas(0.05)]
    assert wander.wander(few, 0.5) is None


def test_the_sampling_variance_is_what_repeated_samples_show() -> None:
    rng = np.random.default_rng(1)
    for tau in (0.5, 0.9, 0.99):
        seen = [wander.log_quantile(histogram(latencies(rng, 4_000)), tau) for _ in range(300)]
        logs, variances = np.array(seen).T
        assert variances.mean() == pytest.approx(logs.var(), rel=0.35)
