"""A file of recorded requests -> `Table`: CSV, JSON lines or Parquet, a million rows in seconds.

What has no meaning at all (text where a number belongs, no header, a time in milliseconds) is refused, all of it at
once with its line; what has a form but no sense (NaN, a negative latency) is passed on and marked by `records`.
pyarrow is imported only for a Parquet file.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from graylift.errors import CommandRefused

NUMBERS = ("status", "latency_ms", "ttft_ms", "tpot_ms", "output_tokens", "weight")
"""The columns with a meaning of their own, beside `time` and `replica`. Any other column of numbers may be a score."""
INSTALL_PARQUET = "pip install 'graylift[parquet]'"

_MOST_SHOWN = 10
_LATEST_S = 1e11
"""Epoch seconds beyond this are milliseconds or finer: the year 5138."""
_JSON_LINES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, slots=True)
class Table:
    """A file's rows, column by column, in the order of the file. NaN stands for what a row does not say.

    lines:  where each row stands in the file, from 1 (of Parquet, the number of the row)
    twins:  of each row, whether another row of the file says exactly the same
    replica: which replica answered, if the file says so
    others: columns of numbers that have no meaning of their own and were not asked for
    """

    name: str
    lines: NDArray[np.int64]
    time_s: NDArray[np.float64]
    numbers: dict[str, NDArray[np.float64]]
    twins: NDArray[np.bool_]
    replica: tuple[str, ...] | None = None
    others: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.time_s)


@dataclass(frozen=True, slots=True)
class _Raw:
    """Rows as they stand: one sequence of cells for each column."""

    names: tuple[str, ...]
    columns: tuple[Sequence[Any], ...]
    lines: NDArray[np.int64]
    twins: NDArray[np.bool_]


class _Problems:
    """What is wrong with a file, collected while it is read."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, what: str, cure: str) -> None:
        self._found.append((line, f"{self._name}:{line}: {what}\n  {cure}"))

    def refuse_if_any(self) -> None:
        if not self._found:
            return
        shown = [text for _, text in sorted(self._found)[:_MOST_SHOWN]]
        more = len(self._found) - len(shown)
        rest = [f"and {more:,} more"] if more else []
        raise CommandRefused("the recorded requests cannot be read\n" + "\n".join((*shown, *rest)))


def read(path: Path, scores: Collection[str] = ()) -> Table:
    """scores: the columns that are read as such, where the file has them.

    CommandRefused if the file cannot be read or is no table of requests; the text names every line at fault.
    """
    name = str(path)
    kind = path.suffix.lower()
    readers: dict[str, Callable[[Path, _Problems], _Raw]] = {
        ".csv": _csv,
        ".parquet": _parquet,
        **dict.fromkeys(_JSON_LINES, _json_lines),
    }
    if kind not in readers:
        raise CommandRefused(f"{name}: expected a file that ends in {', '.join(readers)}, got `{kind or 'no ending'}`")
    problems = _Problems(name)
    try:
        raw = readers[kind](path, problems)
    except OSError as exc:
        raise CommandRefused(f"{name} cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise CommandRefused(f"{name} is not UTF-8 (byte {exc.start:,}): save it as UTF-8") from exc
    problems.refuse_if_any()
    return _table(name, raw, problems, (*NUMBERS, *scores))


def _csv(path: Path, problems: _Problems) -> _Raw:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            names = tuple(name.strip() for name in next(reader, ()))
            numbered = [(reader.line_num, row) for row in reader if row]
        except csv.Error as exc:
            problems.add(reader.line_num, f"this is no CSV: {exc}", "quote text that holds commas or quotes")
            return _Raw((), (), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    for line, row in numbered:
        if len(row) != len(names):
            problems.add(line, f"expected {len(names)} fields as in the header, got {len(row)}", "complete the row")
    problems.refuse_if_any()
    rows = [row for _, row in numbered]
    columns: tuple[Sequence[Any], ...] = tuple(zip(*rows, strict=True)) if rows else ((),) * len(names)
    lines = np.fromiter((line for line, _ in numbered), np.int64, len(numbered))
    return _Raw(names, columns, lines, _twins(map(tuple, rows), len(rows)))


def _json_lines(path: Path, problems: _Problems) -> _Raw:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    texts: list[bytes] = []
    with path.open("rb") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row: Any = orjson.loads(text)
            except orjson.JSONDecodeError as exc:
                problems.add(line, f"this is no JSON: {exc}", "write one object a line, finite numbers or null")
                continue
            if not isinstance(row, dict):
                problems.add(line, "expected an object", 'write {"time": ..., "status": ..., "latency_ms": ...}')
                continue
            rows.append(cast("dict[str, Any]", row))
            lines.append(line)
            texts.append(text.strip())
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    columns = tuple([row.get(name) for row in rows] for name in names)
    return _Raw(names, columns, np.array(lines, np.int64), _twins(texts, len(texts)))


def _parquet(path: Path, problems: _Problems) -> _Raw:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as exc:
        raise CommandRefused(f"{path}: Parquet files need pyarrow, which is not installed: {INSTALL_PARQUET}") from exc
    arrow: Any = pa
    parquet: Any = pq
    try:
        table = parquet.read_table(path)
    except arrow.ArrowInvalid as exc:
        problems.add(1, f"this is no Parquet file: {exc}", "write it anew")
        return _Raw((), (), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    names = tuple(str(name) for name in table.column_names)
    columns: tuple[Sequence[Any], ...] = tuple(table.column(name).to_pylist() for name in names)
    count = int(table.num_rows)
    return _Raw(names, columns, np.arange(1, count + 1), _twins(zip(*columns, strict=True), count))


def _twins(rows: Iterable[Any], count: int) -> NDArray[np.bool_]:
    """Of each row, whether an equal one stands elsewhere."""
    hashes = np.fromiter(map(hash, rows), np.int64, count)
    _, place, seen = np.unique(hashes, return_inverse=True, return_counts=True)
    return seen[place] > 1


def _table(name: str, raw: _Raw, problems: _Problems, meant: Sequence[str]) -> Table:
    cells = dict(zip(raw.names, raw.columns, strict=True))
    if len(raw.lines) and "time" not in cells:
        problems.add(1, f"no column is called `time`; there are: {', '.join(raw.names)}", _TIME_CURE)
    twice = sorted({column for column in raw.names if raw.names.count(column) > 1})
    for column in twice:
        problems.add(1, f"two columns are called `{column}`", "delete or rename one of them")
    problems.refuse_if_any()
    times = _numbers(cells.get("time", ()), raw.lines, problems, "time", _seconds, _TIME_CURE)
    for index in np.flatnonzero(np.abs(times) > _LATEST_S):
        problems.add(
            int(raw.lines[index]), f"`time` {times[index]:.0f} is no number of seconds", "divide milliseconds by 1000"
        )
    known = {
        column: _numbers(cells[column], raw.lines, problems, column, _number, "write a number, or nothing")
        for column in meant
        if column in cells
    }
    problems.refuse_if_any()
    return Table(
        name=name,
        lines=raw.lines,
        time_s=times,
        numbers=known,
        twins=raw.twins,
        replica=tuple(map(str, cells["replica"])) if "replica" in cells else None,
        others=tuple(
            column for column in raw.names if column not in (*meant, "time", "replica") and _is_numeric(cells[column])
        ),
    )


_TIME_CURE = "write epoch seconds (1732450000.25) or ISO 8601 (2026-11-24T12:00:00.25Z; without an offset it is UTC)"


def _numbers(
    cells: Sequence[Any],
    lines: NDArray[np.int64],
    problems: _Problems,
    column: str,
    convert: Callable[[Any], float],
    cure: str,
) -> NDArray[np.float64]:
    """All cells at once where all are plain numbers, else one by one."""
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except (TypeError, ValueError, OverflowError):
        pass
    numbers = np.full(len(cells), math.nan)
    for index, cell in enumerate(cells):
        try:
            numbers[index] = convert(cell)
        except (TypeError, ValueError, OverflowError):
            problems.add(int(lines[index]), f"`{column}` is {_short(cell)}", cure)
    return numbers


def _number(cell: Any) -> float:
    if cell is None or cell == "":
        return math.nan
    if isinstance(cell, bool):
        raise TypeError(cell)
    return float(cell)


def _seconds(cell: Any) -> float:
    """Epoch seconds of a number or a moment; without an offset a moment is UTC."""
    if isinstance(cell, datetime):
        moment = cell
    else:
        try:
            return _number(cell)
        except ValueError:
            moment = datetime.fromisoformat(cell.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _is_numeric(cells: Sequence[Any]) -> bool:
    try:
        return any(math.isfinite(_number(cell)) for cell in cells[:1000])
    except (TypeError, ValueError):
        return False


def _short(cell: Any) -> str:
    text = str(cell)
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"
