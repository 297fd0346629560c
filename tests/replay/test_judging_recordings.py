"""`graylift judge`: recordings get the verdict that a release would have got, in whatever form they were written."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recordings import BEGAN_S, Row, csv_file, refusal, requests, told
from typer.testing import CliRunner

from graylift.analysis import judge
from graylift.cli.main import app
from graylift.domain.evidence import Outcome, RequestRecord
from graylift.domain.histogram import bin_of
from graylift.domain.spec import Stage
from graylift.domain.weights import Role, Weights
from graylift.metrics.intervals import Intervals
from graylift.replay.course import bins_of
from graylift.spec import DEFAULT

STABLE = requests(0, rate=60)
GOOD = requests(1, rate=20)
FAILING = requests(2, rate=5, errors=0.10)
SLOW = requests(3, rate=20, slower=1.6)

RELEASE = """\
apiVersion: graylift.dev/v1
kind: Release
metadata: {name: file-type}
spec:
  protocol: open-inference
  stable: {revision: v1, model: {onnx: nowhere/v1.onnx}}
  candidate: {revision: v2, model: {onnx: nowhere/v2.onnx}}
  stages:
    - {weight: 5, observe: 10m, minRequests: 100, promoteIfWithin: {errors: 10pp}}
    - {weight: 50, observe: 1h}
    - {weight: 100, watch: 30m}
  judge:
    metrics:
      - {name: errors, rollbackIfWorse: 2pp, promoteIfWithin: 5pp}
"""


@pytest.fixture
def stable(tmp_path: Path) -> Path:
    return csv_file(tmp_path / "stable.csv", STABLE)


@pytest.mark.parametrize(("rows", "code", "verdict"), [(GOOD, 0, "PASS"), (FAILING, 3, "FAIL"), (SLOW, 3, "FAIL")])
def test_the_verdict_is_the_exit_code_and_has_its_numbers(
    stable: Path, tmp_path: Path, rows: list[Row], code: int, verdict: str
) -> None:
    exit_code, document = told(stable, csv_file(tmp_path / "candidate.csv", rows))
    assert (exit_code, document["verdict"]) == (code, verdict)
    assert BEGAN_S < document["decided_at"] < BEGAN_S + 200
    assert 0 < document["candidate_n"] <= len(rows)
    names = [metric["name"] for metric in document["metrics"]]
    assert names == [check.name for check in DEFAULT.checks]
    assert all(metric["sentence"] for metric in document["metrics"])
    assert document["notes"] == []


def test_too_little_is_inconclusive_and_says_how_much_is_missing(stable: Path, tmp_path: Path) -> None:
    code, document = told(stable, csv_file(tmp_path / "candidate.csv", GOOD[:60]))
    assert (code, document["verdict"], document["decided_at"]) == (5, "INCONCLUSIVE", None)
    assert "more needed" in document["metrics"][0]["sentence"]


def test_the_replay_says_what_the_controllers_own_way_says(stable: Path, tmp_path: Path) -> None:
    """Record by record through `metrics` and the judge, a look every second, against the replay on arrays."""
    intervals = Intervals(1.0, int(BEGAN_S))
    for role, rows in ((Role.STABLE, STABLE), (Role.CANDIDATE, GOOD)):
        for row in rows:
            ok = row.status == 200
            intervals.add(
                RequestRecord(
                    ended_s=row.time,
                    service="s",
                    split="one",
                    arm=role,
                    revision_id=role.value,
                    answered_by=role.value,
                    label=None,
                    attempts=1,
                    status=row.status,
                    outcome=Outcome.OK if ok else Outcome.FAILED,
                    reason=None if ok else "HTTP 500",
                    ttfb_s=None,
                    duration_s=row.latency_ms / 1000,
                    request_bytes=0,
                    response_bytes=0,
                )
            )
    state = judge.enter(DEFAULT, judge.start(DEFAULT), Stage(Weights(2_500), 0.0), "one", sticky=True)
    decided = None
    for interval in intervals.close(BEGAN_S + 1_000):
        state = judge.observe(DEFAULT, state, interval.windows)
        if judge.judge(DEFAULT, state).passed:
            decided = interval.number + 1.0
            break
    _, document = told(stable, csv_file(tmp_path / "candidate.csv", GOOD))
    expected = judge.judge(DEFAULT, state)
    assert document["decided_at"] == decided
    assert (document["candidate_n"], document["stable_n"]) == (expected.candidate_n, expected.stable_n)
    assert [metric["sentence"] for metric in document["metrics"]] == [v.sentence for v in expected.verdicts]


def test_many_durations_are_binned_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    seconds = np.concatenate((rng.lognormal(-3, 3, 20_000), [0.0, 1e-9, 1e-6, 1e6]))
    assert bins_of(seconds).tolist() == [bin_of(value) for value in seconds.tolist()]


def test_every_form_of_the_same_recording_gives_the_same_verdict(stable: Path, tmp_path: Path) -> None:
    rows = [row.cells() for row in FAILING]
    plain = told(stable, csv_file(tmp_path / "c.csv", FAILING))
    iso = [{**row, "time": datetime.fromtimestamp(row["time"], UTC).isoformat().replace("+00:00", "Z")} for row in rows]
    lines = tmp_path / "c.jsonl"
    lines.write_text("\n".join(map(json.dumps, iso)))
    parquet = tmp_path / "c.parquet"
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    moments = tmp_path / "moments.parquet"
    stamped = [{**row, "time": datetime.fromtimestamp(row["time"], UTC)} for row in rows]
    pq.write_table(pa.Table.from_pylist(stamped), moments)
    assert [told(stable, path) for path in (lines, parquet, moments)] == [plain] * 3


def test_the_order_of_rows_changes_nothing_but_what_is_told(stable: Path, tmp_path: Path) -> None:
    _, sorted_rows = told(stable, csv_file(tmp_path / "a.csv", GOOD))
    _, reversed_rows = told(stable, csv_file(tmp_path / "b.csv", GOOD[::-1]))
    near = sorted(GOOD, key=lambda row: row.time + random.Random(row.time).uniform(0, 20))
    _, shuffled = told(stable, csv_file(tmp_path / "c.csv", near))
    assert "newest first" in reversed_rows.pop("notes")[0]
    assert "out of order" in shuffled.pop("notes")[0]
    sorted_rows.pop("notes")
    assert sorted_rows == reversed_rows == shuffled


def test_weights_are_stages_and_the_last_one_decides(tmp_path: Path) -> None:
    stable = [
        *requests(0, rate=60, weight=0, seconds=60),
        *requests(1, rate=57, weight=5, from_s=60),
        *requests(2, rate=30, weight=50, from_s=260),
    ]
    healthy = requests(3, rate=3, weight=5, from_s=60)
    files = (
        csv_file(tmp_path / "s.csv", stable),
        csv_file(tmp_path / "c.csv", [*healthy, *requests(4, rate=30, weight=50, from_s=260)]),
    )
    rules = tmp_path / "release.yaml"
    rules.write_text(RELEASE)
    code, document = told(*files, "--spec", str(rules))
    assert code == 0
    assert [stage["weight"] for stage in document["stages"]] == [5.0, 50.0]
    assert all(stage["passed_at"] for stage in document["stages"])
    assert document["stages"][0]["candidate_n"] >= 100  # minRequests of the file
    assert document["decided_at"] > BEGAN_S + 260
    short = csv_file(tmp_path / "short.csv", [*healthy, *requests(4, rate=30, weight=50, from_s=260, seconds=0.5)])
    code, document = told(files[0], short, "--spec", str(rules))
    assert (code, document["verdict"]) == (5, "INCONCLUSIVE")
    assert document["stages"][0]["passed_at"]


def test_a_split_that_is_not_the_recorded_weight_cannot_pass(tmp_path: Path) -> None:
    stable = csv_file(tmp_path / "s.csv", requests(0, rate=60, weight=50))
    code, document = told(stable, csv_file(tmp_path / "c.csv", requests(1, rate=20, weight=50)))
    assert code == 5
    assert any("the split is off" in note for note in document["notes"])


def test_without_a_latency_only_errors_are_judged_and_nothing_passes(tmp_path: Path) -> None:
    def bare(path: Path, rows: list[Row]) -> Path:
        path.write_text("time,status\n" + "\n".join(f"{row.time},{row.status}" for row in rows))
        return path

    stable = bare(tmp_path / "s.csv", STABLE)
    code, document = told(stable, bare(tmp_path / "g.csv", GOOD))
    assert code == 5
    assert [metric["verdict"] for metric in document["metrics"]] == ["PASS", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert "no measured `latency_ms`" in document["metrics"][1]["sentence"]
    assert told(stable, bare(tmp_path / "b.csv", FAILING))[0] == 3


def test_scores_and_token_times_are_named_as_not_judged(stable: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    rows = "\n".join(f"{r.time},{r.status},{r.latency_ms},12,0.9" for r in GOOD)
    path.write_text(f"time,status,latency_ms,ttft_ms,helpful\n{rows}\n")
    _, document = told(stable, path)
    assert [note.split("`")[1] for note in document["notes"]] == ["ttft_ms", "helpful"]


def test_for_people_it_says_verdict_sentences_and_notes(stable: Path, tmp_path: Path) -> None:
    candidate = csv_file(tmp_path / "c.csv", FAILING)
    result = CliRunner().invoke(app, ["judge", "--stable", str(stable), "--candidate", str(candidate)])
    assert result.exit_code == 3
    first, second, *_ = result.stdout.splitlines()
    assert first.startswith("FAIL at 2025-11-24 12:0")
    assert "rollback limit 0.5pp" in second


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("status,latency_ms\n200,3\n", ("no column is called `time`", "ISO 8601")),
        ("time,status\n1,200\nnoon,200\n3,200,9\n", (":4: expected 2 fields",)),
        ("time,status\nnoon,200\n2,fine\n", (":2: `time` is `noon`", ":3: `status` is `fine`", "write a number")),
        ("time,status\n1763985600123,200\n", (":2: `time`", "divide milliseconds by 1000")),
        ("time,time,status\n1,1,200\n", ("two columns are called `time`",)),
        ('time,status\n1,"200\n', ("no CSV",)),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_line_and_cure(
    stable: Path, tmp_path: Path, text: str, said: tuple[str, ...]
) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    message = refusal(stable, path)
    for words in said:
        assert words in message
    assert "wrong.csv:" in message


def test_wrong_json_lines_are_all_named(stable: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"time": 1, "status": 200}\nnot json\n[1]\n')
    message = refusal(stable, path)
    assert ":2: this is no JSON" in message
    assert ":3: expected an object" in message


def test_files_that_are_not_there_or_of_another_kind_are_refused(stable: Path, tmp_path: Path) -> None:
    assert "cannot be read" in refusal(stable, tmp_path / "missing.csv")
    assert "expected a file that ends in" in refusal(stable, tmp_path / "c.xlsx")
    wrong = tmp_path / "c.parquet"
    wrong.write_bytes(b"PAR?")
    assert "no Parquet" in refusal(stable, wrong)


def test_kayentas_rules_are_there_for_comparison_and_say_that_they_bound_nothing(tmp_path: Path) -> None:
    stable = csv_file(tmp_path / "s.csv", requests(0, rate=10, seconds=2_400))
    good = csv_file(tmp_path / "g.csv", requests(1, rate=5, seconds=2_400))
    bad = csv_file(tmp_path / "b.csv", requests(2, rate=5, seconds=2_400, errors=0.1, slower=1.5))
    code, document = told(stable, good, "--method", "kayenta")
    assert (code, document["verdict"], document["score"]) == (0, "PASS", 100.0)
    code, document = told(stable, bad, "--method", "kayenta")
    assert (code, document["verdict"]) == (3, "FAIL")
    assert document["metrics"][0]["classification"] == "High"
    assert document["metrics"][0]["points"] == [40, 40]
    said = (
        CliRunner()
        .invoke(app, ["judge", "--stable", str(stable), "--candidate", str(bad), "--method", "kayenta"])
        .stdout
    )
    assert "bound no error rate" in said
