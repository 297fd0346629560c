"""The reader of the access log gives every whole line exactly once, whatever happens to the file or to the reader."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.gateway import tail
from graylift.gateway.tail import LogPosition, LogReader, end_line

steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 5)),
        st.tuples(st.just("write half"), st.integers(1, 3)),
        st.tuples(st.just("read"), st.integers(1, 3)),
        st.tuples(st.just("keep"), st.just(0)),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("rotate"), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
def test_every_line_is_read_once_through_rotation_and_crashes(plan: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "access.log"
        writer = path.open("ab", buffering=0)
        reader = LogReader(path, LogPosition(0, 0))
        kept: tuple[LogPosition, list[bytes]] = (reader.position, [])
        seen: list[bytes] = []
        written = 0
        half = b""
        for what, count in plan:
            match what:
                case "write":
                    for _ in range(count):
                        writer.write(half + b"%d\n" % written if not half else b"\n")
                        half = b""
                        written += 1
                case "write half" if not half:
                    half = b"%d" % written
                    writer.write(half)
                case "read":
                    for _ in range(count):
                        seen += reader.read().lines
                case "keep":
                    kept = (reader.position, list(seen))
                    reader.forget()
                case "crash":
                    reader.close()
                    reader = LogReader(path, kept[0])
                    seen = list(kept[1])
                case "rotate" if not half:
                    reader.rotate(0)
                case "reopen" if not half and reader.is_missing:
                    writer.close()
                    writer = path.open("ab", buffering=0)
                case _:
                    pass
        if half:
            writer.write(b"\n")
            written += 1
        for _ in range(10):
            read = reader.read()
            assert read.lost is None
            assert not read.broken
            seen += read.lines
        assert seen == [b"%d" % number for number in range(written)]
        reader.close()
        writer.close()


def test_a_line_is_given_only_once_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(b"one\ntw")
    reader = LogReader(log, LogPosition(0, 0))
    assert reader.read().lines == (b"one",)
    assert reader.read().at_end
    with log.open("ab") as more:
        more.write(b"o\n")
    assert reader.read().lines == (b"two",)
    reader.close()


def test_a_log_that_is_cut_is_read_from_its_start_and_said_to_have_lost_lines(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(b"one\ntwo\n")
    reader = LogReader(log, LogPosition(0, 0))
    reader.read()
    os.truncate(log, 0)
    with log.open("ab") as more:
        more.write(b"new\n")
    read = reader.read()
    assert read.lines == (b"new",)
    assert read.lost == "access.log was cut from 8 to 4 bytes"
    reader.close()


def test_a_log_that_was_replaced_while_nobody_read_it_is_said_to_have_lost_lines(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(b"old\n")
    position = LogPosition(log.stat().st_ino, 4)
    (tmp_path / "new").write_bytes(b"new\n")
    (tmp_path / "new").replace(log)
    reader = LogReader(log, position)
    read = reader.read()
    assert read.lines == (b"new",)
    assert read.lost is not None
    assert "deleted or replaced" in read.lost
    reader.close()


def test_a_log_that_nobody_counted_before_is_read_from_what_comes_next(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(b"old\n")
    reader = LogReader(log, None)
    with log.open("ab") as more:
        more.write(b"new\n")
    assert reader.read().lines == (b"new",)
    reader.close()


def test_a_file_that_was_moved_aside_is_deleted_only_when_it_is_read_to_its_end(tmp_path: Path) -> None:
    log, aside = tmp_path / "access.log", tmp_path / "access.log.1"
    log.write_bytes(b"one\n")
    reader = LogReader(log, LogPosition(0, 0))
    reader.read()
    reader.rotate(1)
    log.write_bytes(b"two\n")
    reader.forget()
    assert aside.exists()
    assert [line for _ in range(3) for line in reader.read().lines] == [b"two"]
    reader.forget()
    assert not aside.exists()
    reader.close()


def test_a_line_longer_than_a_chunk_is_broken_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "CHUNK_BYTES", 8)
    log = tmp_path / "access.log"
    log.write_bytes(b"x" * 20 + b"\ngood\n")
    reader = LogReader(log, LogPosition(0, 0))
    reads = [reader.read() for _ in range(6)]
    assert sum(read.broken for read in reads) == 2
    assert reads[-1].at_end
    assert [line for read in reads for line in read.lines][-1] == b"good"
    reader.close()


def test_a_half_line_left_by_a_killed_envoy_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(b"one\ntw")
    end_line(log)
    end_line(log)
    assert log.read_bytes() == b"one\ntw\n"
    end_line(tmp_path / "none")
