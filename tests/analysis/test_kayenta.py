"""Kayenta's rules, held to what is documented of them and to the test's own definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graylift.analysis.kayenta import Classification, Classified, classify, score


def test_the_shift_is_the_median_of_all_differences() -> None:
    rng = np.random.default_rng(0)
    for count in (5, 21, 60):
        ours, theirs = rng.normal(10.3, 1, count), rng.normal(10, 1, count + 4)
        differences = [a - b for a, b in itertools.product(ours, theirs)]
        found = classify(ours.tolist(), theirs.tolist())
        assert found.estimate == pytest.approx(np.median(differences), abs=0.02)


def test_the_interval_of_the_shift_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    found = [classify(rng.normal(11, 1, 40).tolist(), rng.normal(10, 1, 40).tolist()) for _ in range(300)]
    held = sum(one.low <= 1.0 <= one.high for one in found if one.low is not None and one.high is not None)
    assert held >= 0.95 * len(found)


def test_a_value_worked_out_by_hand() -> None:
    # 20 points each, all of the candidate's above all of stable's: W = 400, mean 200, sd = sqrt(400 * 41 / 12).
    ours, theirs = [30.0 + i for i in range(20)], [float(i) for i in range(20)]
    found = classify(ours, theirs)
    assert found.classification is Classification.HIGH
    assert found.estimate == pytest.approx(30.0, abs=0.51)
    assert found.low == pytest.approx(25.5, abs=1.5)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([], [1.0], Classification.NODATA),
        ([1.0], [], Classification.NODATA),
        ([2.0, 3.0], [2.0, 3.0], Classification.PASS),
        ([2.0, 3.0], [3.0, 2.0], Classification.PASS),
        ([0.0] * 30, [0.0] * 29, Classification.PASS),
        ([9.0 + i / 100 for i in range(30)], [1.0 + i / 100 for i in range(30)], Classification.HIGH),
        ([1.0 + i / 100 for i in range(30)], [9.0 + i / 100 for i in range(30)], Classification.LOW),
        ([9.0, 9.1], [1.0, 1.1], Classification.HIGH),  # two points are enough, as in R's interval
    ],
)
def test_classes(ours: list[float], theirs: list[float], expected: Classification) -> None:
    assert classify(ours, theirs).classification is expected


def test_the_score_is_the_share_that_passed_of_what_has_data() -> None:
    def of(*classes: Classification) -> float | None:
        return score({str(i): Classified(one, (9, 9)) for i, one in enumerate(classes)})

    passed, high, low, nodata = Classification.PASS, Classification.HIGH, Classification.LOW, Classification.NODATA
    assert of(passed, high, nodata) == 50.0
    assert of(passed, low) == 100.0
    assert of(nodata) is None
