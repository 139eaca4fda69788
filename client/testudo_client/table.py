"""A CSV file as text: read whole, checked for shape, and sorted by time. What the cells mean is data.py's.

What is raised names file, line and column, never the value of a cell, since a message may end up in a log or
with the coordinator. Format: RFC 4180, UTF-8, a header; spaces around a cell are dropped.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from testudo_common.errors import DataError

FAULTS_SHOWN = 5
NAMES_SHOWN = 12
FLOAT32_MAX = float(np.finfo(np.float32).max)
_MONTH = re.compile(r"\d{4}-\d{2}")
_NOT_A_NUMBER = "not a finite number"
_NUMBER_FAULTS = (
    (re.compile(r"[-+]?\d+,\d+"), "a number with a comma: write a point before decimals, and nothing before thousands"),
    (
        re.compile(r"[-+]?\d{1,3}(?:[ .,'\u00a0\u2009\u202f]\d{3})+(?:[.,]\d+)?"),
        "a number with thousands separators: write digits only, and a point before decimals",
    ),
    (re.compile(r"(?i)n/?a|null|none|nil|missing|unknown|-+|\?+|\.+"), "a word for no value: leave the cell empty"),
    (
        re.compile(r"[-+]?\d[\d.,]*\s*(?:%|[^\W\d_]\S*|[$€£¥°]\S*)|[$€£¥]\s*[-+]?\d[\d.,]*"),
        "a number with a unit: write the number alone",
    ),
)
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, slots=True)
class CellFault:
    """A cell that cannot be used: where it is, and why, but not what it holds."""

    line: int
    column: str
    problem: str

    def __str__(self) -> str:
        return f"line {self.line}: the value of column {self.column!r} is {self.problem}"


def refuse(faults: Sequence[CellFault], source: str) -> None:
    """Raise for faults, if there are any.

    Raises:
        DataError: With the first five and how many more.
    """
    if not faults:
        return
    more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    raise DataError(
        "; ".join(map(str, faults[:FAULTS_SHOWN])) + more,
        where=source,
        remedy="Correct these cells, or take their rows out",
    )


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under named columns; never printed, since they are somebody's data.

    Attributes:
        source: The file's name, for errors.
        columns: Names of the header, all different, none empty.
        lines: Line of the file that each row begins on.
        rows: One tuple of ``len(columns)`` cells a row.
    """

    source: str
    columns: tuple[str, ...]
    lines: tuple[int, ...] = field(repr=False)
    rows: tuple[tuple[str, ...], ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def cells(self, column: str) -> list[str]:
        """The cells of one column, a row each.

        Raises:
            DataError: There is no such column.
        """
        self.require([column])
        place = self.columns.index(column)
        return [row[place] for row in self.rows]

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """``float64[n]``: the cells of one column as numbers.

        Raises:
            DataError: There is no such column, or a cell is not a finite number.
        """
        cells = self.cells(column)
        values = [parse_number(cell) for cell in cells]
        found = zip(self.lines, cells, values, strict=True)
        faults = [CellFault(line, column, number_fault(cell)) for line, cell, value in found if value is None]
        refuse(faults, self.source)
        return np.array([value for value in values if value is not None], dtype=np.float64)

    def take(self, places: Sequence[int]) -> Table:
        """The rows at ``places``, in that order."""
        lines = tuple(self.lines[place] for place in places)
        return Table(self.source, self.columns, lines, tuple(self.rows[place] for place in places))

    def require(self, names: Iterable[str]) -> None:
        """Check that the table has the columns ``names``.

        Raises:
            DataError: With the first that are missing, the first columns there are, and the likeliest slip.
        """
        missing = [name for name in dict.fromkeys(names) if name not in self.columns]
        if not missing:
            return
        close = difflib.get_close_matches(missing[0], self.columns, n=1)
        guess = f"Did you mean {close[0]!r}? " if close else ""
        raise DataError(
            f"there is no column {_some(missing, ' and no column ')}",
            where=self.source,
            remedy=f"{guess}The columns are {_some(self.columns, ', ')}",
        )


def _some(names: Sequence[str], between: str) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return between.join(map(repr, names[:NAMES_SHOWN])) + more


def read_table(path: Path) -> Table:
    """Read a CSV file, or one compressed as ``.gz``.

    Raises:
        DataError: It is not there, not UTF-8, empty, not CSV, or its rows and header do not fit together.
    """
    source = str(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError("damaged, or not a gzip file", where=source, remedy="Copy it again") from error
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise DataError(problem, where=source, remedy="Check the path") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = f"line {line}: not UTF-8 text"
        raise DataError(problem, where=source, remedy='Save it as "CSV UTF-8"') from error
    return _parse(text, source)


def _parse(text: str, source: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: tuple[str, ...] = ()
    lines: list[int] = []
    rows: list[tuple[str, ...]] = []
    line = 1
    try:
        for row in reader:
            cells = tuple(cell.strip() for cell in row)
            if not row:
                pass  # a blank line separates nothing
            elif not columns:
                columns = _header(cells, line, source)
            elif cells == columns:
                problem = f"line {line}: the header again"
                raise DataError(problem, where=source, remedy="Take that line out; two files were joined, perhaps")
            elif len(cells) != len(columns):
                raise DataError(
                    f"line {line}: {len(cells)} cells under {len(columns)} columns",
                    where=source,
                    remedy="Every row needs as many cells as the header; quote a cell that holds a comma, and write"
                    " a point before decimals",
                )
            else:
                lines.append(line)
                rows.append(cells)
            line = reader.line_num + 1
    except csv.Error as error:
        problem = f"line {line}: not CSV: {error}"
        raise DataError(problem, where=source, remedy="Correct that line") from error
    if not rows:
        problem = "the file has a header and no rows" if columns else "the file is empty"
        raise DataError(problem, where=source, remedy="Write a header line, and one line an example")
    return Table(source, columns, tuple(lines), tuple(rows))


def _header(names: tuple[str, ...], line: int, source: str) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    problem = remedy = ""
    if twice:
        problem, remedy = f"column {twice[0]!r} stands in the header twice", "Rename one of them"
    elif "" in names:
        problem = f"column {names.index('') + 1} of the header has no name"
        remedy = "Name it, or take it out; a row number is not an input"
    elif len(names) == 1 and (found := [mark for mark in _SEPARATORS if mark in names[0]]):
        problem = f"the cells are separated by {_SEPARATORS[found[0]]}, not by commas"
        remedy = 'Save it as "CSV (comma delimited)", with a point before decimals'
    elif all(parse_number(name) is not None for name in names):
        problem, remedy = (
            "there is no header: all its names are numbers",
            "Write the columns' names into the first line",
        )
    if problem:
        raise DataError(f"line {line}: {problem}", where=source, remedy=remedy)
    return names


def parse_number(cell: str) -> float | None:
    """The finite number that a cell holds, within float32's range; None if it holds anything else."""
    if "_" in cell:  # Python reads 1_000 as a number, CSV does not
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) <= FLOAT32_MAX else None


def number_fault(cell: str) -> str:
    """Why a cell that :func:`parse_number` cannot read is no number, in words, without the cell."""
    with suppress(ValueError):
        float(cell)  # a number for Python, such as 1e999 or 1_000
        return _NOT_A_NUMBER
    return next((problem for pattern, problem in _NUMBER_FAULTS if pattern.fullmatch(cell)), _NOT_A_NUMBER)


def is_absent(cell: str) -> bool:
    """Whether a cell of text holds no value: empty, or the ``nan`` that other programs write for empty."""
    return cell.lower() in {"", "nan"}


def order_rows(table: Table, column: str) -> Table:
    """The rows sorted by ``column``; rows with equal values stay in file order.

    Args:
        table: Rows of one client.
        column: As :func:`order_keys` reads it.

    Raises:
        DataError: As :func:`order_keys` does.
    """
    return table.take(sorted(range(len(table)), key=order_keys(table, column).__getitem__))


def order_keys(table: Table, column: str) -> list[float]:
    """What rows are sorted by, one a row: numbers, or seconds since 1970.

    Args:
        table: Rows of one client.
        column: Of numbers, or of ISO 8601 dates or times (``2024-05``, ``2024-05-31``, ``2024-05-31T12:00``).

    Raises:
        DataError: There is no such column, or its cells are neither all numbers nor all dates; text sorted as
            text could put tomorrow before today without a word.
    """
    cells = table.cells(column)
    numbers = [parse_number(cell) for cell in cells]
    keys = numbers if any(number is not None for number in numbers) else [_timestamp(cell) for cell in cells]
    problem = "neither a number nor an ISO date, or not the one that other rows hold"
    pairs = zip(table.lines, keys, strict=True)
    refuse([CellFault(line, column, problem) for line, key in pairs if key is None], table.source)
    return [key for key in keys if key is not None]


def _timestamp(cell: str) -> float | None:
    try:
        moment = datetime.fromisoformat(f"{cell}-01" if _MONTH.fullmatch(cell) else cell)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
