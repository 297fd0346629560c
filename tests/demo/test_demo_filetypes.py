from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graylift.demo import filetypes
from graylift.demo.filetypes import BLOCK, PADDING, SIDE, choose_samples, expected_labels, tokens_of


def test_a_short_file_is_padded_behind_its_beginning_and_before_its_end(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"\n\n  hello world \n")
    row = tokens_of(path)
    assert row is not None
    head, tail = b"hello world \n", b"\n\n  hello world"
    assert row.dtype == np.int32
    assert bytes(row[: len(head)].tolist()) == head
    assert bytes(row[-len(tail) :].tolist()) == tail
    assert (row[len(head) : 2 * SIDE - len(tail)] == PADDING).all()


def test_of_a_long_file_only_the_two_ends_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"A" * BLOCK + b"x" * 10_000 + b"Z" * BLOCK)
    row = tokens_of(path)
    assert row is not None
    assert bytes(row.tolist()) == b"A" * SIDE + b"Z" * SIDE


def test_white_space_beyond_a_block_is_not_looked_through(tmp_path: Path) -> None:
    path = tmp_path / "blank"
    path.write_bytes(b" " * BLOCK + b"text that nobody sees from the front" + b"y" * BLOCK)
    assert tokens_of(path) is None


@pytest.mark.parametrize(("content", "told"), [(b"", False), (b"  \n1234567", False), (b"  \n12345678", True)])
def test_a_file_with_fewer_than_eight_bytes_is_not_for_the_model(tmp_path: Path, content: bytes, told: bool) -> None:
    path = tmp_path / "tiny"
    path.write_bytes(content)
    assert (tokens_of(path) is not None) is told


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=8, max_size=3 * BLOCK))
def test_padding_appears_just_where_bytes_are_missing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    row = tokens_of(path)
    if row is not None:
        head, tail = content[:BLOCK].lstrip(), content[-BLOCK:].rstrip()
        assert row.shape == (2 * SIDE,)
        assert (row[:SIDE] == PADDING).sum() == max(0, SIDE - len(head))
        assert (row[SIDE:] == PADDING).sum() == max(0, SIDE - len(tail))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(60):
        kind = ("py", "txt", "c")[number % 3]
        (tmp_path / f"{number}.{kind}").write_text(f"file {number}\n" * (3 if number % 2 else 500))
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "link.py").symlink_to(tmp_path / "0.py")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "tiny").write_text("x")
    return tmp_path


def test_files_are_chosen_by_length_and_kind_and_the_same_every_time(folder: Path) -> None:
    chosen = choose_samples([str(folder)], count=20, share_short=0.25)
    assert [sample.is_short for sample in chosen].count(True) == 5
    assert len(chosen) == len({sample.path for sample in chosen}) == 20
    again = choose_samples([str(folder)], count=20, share_short=0.25)
    assert [sample.path for sample in again] == [sample.path for sample in chosen]


def test_no_kind_of_file_crowds_out_the_others(folder: Path) -> None:
    chosen = choose_samples([str(folder)], count=60, share_short=0.5, most_of_a_kind=4)
    assert len(chosen) == 24, "three suffixes, short and long, four of each"


def test_links_pipes_and_tiny_files_are_passed_over(folder: Path) -> None:
    chosen = choose_samples([str(folder)], count=1000, share_short=0.5)
    assert len(chosen) == 60


def test_no_more_of_a_folder_is_walked_than_the_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filetypes, "MOST_VISITED", 10)
    assert len(choose_samples([str(folder)], count=1000, share_short=0.5)) <= 10


def test_this_machine_has_the_files_that_the_demo_needs() -> None:
    chosen = choose_samples(filetypes.FOLDERS, count=100, share_short=0.3)
    assert [sample.is_short for sample in chosen].count(True) == 30
    assert len(chosen) == 100


def test_a_suffix_allows_the_labels_that_know_it_and_none_says_nothing() -> None:
    labels, extensions = ("c", "cpp", "python"), {"c": ("c", "h"), "cpp": ("h", "cpp"), "python": ("py",)}
    assert expected_labels(Path("x.H"), labels, extensions).tolist() == [True, True, False]
    assert not expected_labels(Path("Makefile"), labels, extensions).any()
