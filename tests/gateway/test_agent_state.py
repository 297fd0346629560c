"""What an agent keeps: reports and checkpoint change together, and stay in bounds visibly."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.histogram import EMPTY, Histogram
from graylift.domain.scores import ScoreCounts
from graylift.domain.weights import Role
from graylift.errors import GatewayError
from graylift.gateway.state import DROPPED, AgentState, Checkpoint, Tables
from graylift.gateway.tail import LogPosition
from graylift.metrics.intervals import Interval
from graylift.metrics.reports import Gap, InForce

WINDOW = Window(
    "a",
    "a-1/0",
    Role.CANDIDATE,
    "a.v2.0",
    "h=v",
    3,
    1,
    1,
    0,
    7,
    9,
    Histogram(((-5, 2),)),
    Histogram(),
    (("x", 1),),
    Histogram(((-9, 1),)),
    Histogram(((-400, 1),)),
    12,
    34,
    (("helpful", ScoreCounts(((250, 2), (1000, 1)))),),
)


def checkpoint(sequence: int) -> Checkpoint:
    return Checkpoint(
        position=LogPosition(5, 77),
        length_s=1.0,
        first=1000,
        open=(Interval(1000, (WINDOW,), (("a.v2.0", "x", 2),), 1),),
        sequence=sequence,
        seen_s=1000.25,
        envoy="12:345",
        write_failed=0,
        in_force=(InForce(3, 990.0),),
        gaps=(Gap(999.0, "why"),),
    )


def report(sequence: int, gap: str | None = None) -> IntervalReport:
    return IntervalReport("g", sequence, float(sequence), 1.0, 3, (WINDOW,), gap, 0)


def test_what_is_kept_is_found_again_after_a_restart(tmp_path: Path) -> None:
    state = AgentState(tmp_path / "agent.db", 10)
    assert state.checkpoint() is None
    assert state.tables() == Tables()
    state.advance(checkpoint(2), [report(1)])
    state.keep_tables(Tables(token=4, refused="no"))
    state.close()
    again = AgentState(tmp_path / "agent.db", 10)
    assert again.checkpoint() == checkpoint(2)
    assert again.tables() == Tables(token=4, refused="no")
    assert again.reports(None, 10) == (report(1),)
    again.close()


def test_a_report_of_before_there_were_tokens_and_scores_is_still_read(tmp_path: Path) -> None:
    new = ("ttft", "tpot", "input_tokens", "output_tokens", "scores")
    state = AgentState(tmp_path / "agent.db", 10)
    state.advance(checkpoint(2), [report(1)])
    with sqlite3.connect(tmp_path / "agent.db") as db:
        (text,) = db.execute("SELECT document FROM reports").fetchone()
        document = json.loads(text)
        for window in document["windows"]:
            for name in new:
                del window[name]
        db.execute("UPDATE reports SET document = ?", (json.dumps(document),))
    db.close()
    bare = replace(WINDOW, ttft=EMPTY, tpot=EMPTY, input_tokens=0, output_tokens=0, scores=())
    assert state.reports(None, 10) == (replace(report(1), windows=(bare,)),)
    state.close()


def test_reports_that_were_fetched_are_forgotten(tmp_path: Path) -> None:
    state = AgentState(tmp_path / "agent.db", 10)
    state.advance(checkpoint(4), [report(1), report(2), report(3)])
    assert [one.sequence for one in state.reports(None, 2)] == [1, 2]
    assert [one.sequence for one in state.reports(2, 10)] == [3]
    assert [one.sequence for one in state.reports(None, 10)] == [3]
    state.close()


def test_reports_that_are_dropped_leave_a_visible_gap(tmp_path: Path) -> None:
    state = AgentState(tmp_path / "agent.db", 2)
    state.advance(checkpoint(4), [report(1), report(2, gap="Envoy ended"), report(3)])
    state.advance(checkpoint(4), [])
    assert [(one.sequence, one.gap) for one in state.reports(None, 10)] == [(2, f"Envoy ended; {DROPPED}"), (3, None)]
    state.close()


def test_neither_reports_nor_checkpoint_change_when_one_of_them_cannot_be_written(tmp_path: Path) -> None:
    state = AgentState(tmp_path / "agent.db", 10)
    state.advance(checkpoint(2), [report(1)])
    with pytest.raises(GatewayError, match=r"agent\.db cannot be read or written"):
        state.advance(checkpoint(3), [report(2), report(1)])
    assert state.checkpoint() == checkpoint(2)
    assert state.reports(None, 10) == (report(1),)
    state.close()


def test_a_state_that_is_no_database_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "agent.db").write_bytes(b"no database " * 100)
    with pytest.raises(GatewayError, match=r"agent\.db cannot be read or written"):
        AgentState(tmp_path / "agent.db", 10)


def test_a_state_of_another_version_is_refused_with_the_cure(tmp_path: Path) -> None:
    AgentState(tmp_path / "agent.db", 10).close()
    with sqlite3.connect(tmp_path / "agent.db") as db:
        db.execute("INSERT INTO documents VALUES ('tables', '{\"token\": \"many\"}')")
    db.close()
    state = AgentState(tmp_path / "agent.db", 10)
    with pytest.raises(GatewayError, match="Start the gateway with the version that wrote it"):
        state.tables()
    state.close()
