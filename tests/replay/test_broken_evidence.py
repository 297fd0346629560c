"""Recordings that are broken: never PASS and never FAIL by that, and always said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import BEGAN_S, Row, csv_file, requests, told

STABLE = requests(0, rate=60)
GOOD = requests(1, rate=20)
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def stable(tmp_path: Path) -> Path:
    return csv_file(tmp_path / "stable.csv", STABLE)


def inconclusive(stable: Path, candidate: Path, said: str) -> None:
    code, document = told(stable, candidate)
    assert (code, document["verdict"], document["decided_at"]) == (5, "INCONCLUSIVE", None)
    assert any(said in note for note in document["notes"]), document["notes"]


def test_an_empty_file(stable: Path, tmp_path: Path) -> None:
    inconclusive(stable, csv_file(tmp_path / "c.csv", []), "no rows")
    (tmp_path / "nothing.csv").write_text("")
    inconclusive(stable, tmp_path / "nothing.csv", "no rows")
    inconclusive(tmp_path / "nothing.csv", stable, "no rows")


@pytest.mark.parametrize("latency", [NAN, INF, -5.0])
def test_latencies_that_are_no_numbers_of_milliseconds(stable: Path, tmp_path: Path, latency: float) -> None:
    rows = [replace(row, latency_ms=latency) for row in GOOD]
    inconclusive(stable, csv_file(tmp_path / "c.csv", rows), "without a `latency_ms` from 0 on")


@pytest.mark.parametrize("status", [NAN, -1, 200.5, 70_000])
def test_a_status_that_is_none(stable: Path, tmp_path: Path, status: float) -> None:
    rows = [replace(row, status=status) for row in GOOD]  # type: ignore[arg-type]
    inconclusive(stable, csv_file(tmp_path / "c.csv", rows), "a `status` that is none")


def test_a_broken_row_takes_its_second_out_of_both_arms(stable: Path, tmp_path: Path) -> None:
    rows = list(GOOD)
    rows[40] = replace(rows[40], latency_ms=NAN)
    _, document = told(stable, csv_file(tmp_path / "c.csv", rows))
    assert any(note.startswith("1 of 200 intervals of 1 s are no evidence") for note in document["notes"])


def test_rows_without_a_time_belong_nowhere(stable: Path, tmp_path: Path) -> None:
    rows = [replace(row, time=NAN, status=500) for row in GOOD]
    inconclusive(stable, csv_file(tmp_path / "c.csv", rows), "have no time")


def test_a_file_that_stands_twice_in_itself(stable: Path, tmp_path: Path) -> None:
    failing = requests(2, rate=5, errors=0.10)
    inconclusive(stable, csv_file(tmp_path / "c.csv", [*failing, *failing]), "stand more than once")


def test_a_few_repeated_rows_are_no_evidence_and_the_rest_is(stable: Path, tmp_path: Path) -> None:
    code, document = told(stable, csv_file(tmp_path / "c.csv", [*GOOD[:100], *GOOD[99:]]))
    assert code == 0
    assert any("2 of" in note and "stand more than once" in note for note in document["notes"])
    assert any("1 of 200 intervals" in note for note in document["notes"])


def test_latencies_that_never_change_are_no_measurement(stable: Path, tmp_path: Path) -> None:
    for milliseconds in (1.0, 80.0, 5_000.0):
        rows = [replace(row, latency_ms=milliseconds) for row in GOOD]
        inconclusive(stable, csv_file(tmp_path / "c.csv", rows), "that is no measurement")


def test_a_clock_that_jumps_back_over_everything(stable: Path, tmp_path: Path) -> None:
    half = len(GOOD) // 2
    rows = [*(replace(row, time=row.time + 150) for row in GOOD[:half]), *GOOD[half:]]
    rows = [*rows[half:], *rows[:half], *[replace(row, time=row.time - 100) for row in rows[half:]]]
    _, document = told(stable, csv_file(tmp_path / "c.csv", rows))
    assert any("time goes back by" in note for note in document["notes"])
    assert any("are no evidence" in note for note in document["notes"])


def test_recordings_of_different_days_are_not_compared(stable: Path, tmp_path: Path) -> None:
    failing = requests(2, rate=20, errors=1.0, from_s=86_400)
    inconclusive(stable, csv_file(tmp_path / "c.csv", failing), "share no interval")


def test_a_long_silence_is_told(stable: Path, tmp_path: Path) -> None:
    rows = [*GOOD, Row(BEGAN_S + 5_000, 200, 80.0)]
    _, document = told(stable, csv_file(tmp_path / "c.csv", rows))
    assert any("no record for 4,8" in note for note in document["notes"])


spoilings = st.lists(
    st.tuples(st.integers(0, len(GOOD) - 1), st.sampled_from((NAN, INF, -1.0))), min_size=1, max_size=60
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spoilings)
def test_broken_rows_never_fail_a_good_candidate(stable: Path, tmp_path: Path, spoilt: list[tuple[int, float]]) -> None:
    rows = list(GOOD)
    for place, latency in spoilt:
        rows[place] = replace(rows[place], latency_ms=latency, status=200)
    code, document = told(stable, csv_file(tmp_path / "c.csv", rows))
    assert code != 3
    assert document["notes"]
