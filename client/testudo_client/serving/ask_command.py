"""``testudo-client ask``: answers to the rows of a CSV file, with the version in use and without a server."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testudo_client.personal.contract import FeatureContract, Value
from testudo_client.personal.personalizer import Personalizer, Prediction
from testudo_client.personal.versions import VersionStore
from testudo_client.table import CellFault, Table, number_fault, parse_number, read_table, refuse
from testudo_common.errors import ContractError, Fault, UsageError
from testudo_common.files import write_atomically
from testudo_common.plan.sections import Column

_CHUNK_ROWS = 2048


@dataclass(frozen=True, slots=True)
class AskRequest:
    """What was asked for.

    Attributes:
        folder: The owner's.
        data: Rows, a CSV file; columns that the model does not read are kept and ignored.
        to: File for the answers; None: they are printed.
        force: Whether ``to`` may be overwritten.
        level: Nominal coverage of sets and intervals.
        as_json: Whether answers are JSON instead of CSV.
    """

    folder: Path
    data: Path
    to: Path | None = None
    force: bool = False
    level: float = 0.9
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of it.

    Attributes:
        version: Which answered.
        rows: How many rows were answered.
        sure: How many of each: sure, likely, not sure.
        text: The answers.
    """

    version: int
    rows: int
    sure: dict[str, int]
    text: str


def ask(request: AskRequest) -> Asked:
    """Answer all rows, or none.

    Raises:
        UsageError: No version is in use, or the answers would overwrite something.
        DataError: The file cannot be read, a column is missing, or cells break the contract: which, and where.
    """
    import torch

    torch.set_num_threads(1)
    if request.to is not None and request.to.exists() and not request.force:
        raise UsageError("there is such a file already", where=str(request.to), remedy="add --force, or name another")
    version = VersionStore(request.folder).current()
    table = read_table(request.data)
    rows = rows_of(version.contract, table)
    own = Personalizer(version, request.level)
    added = _columns(own)
    if taken := [name for name in added if name in table.columns] if not request.as_json else []:
        raise UsageError(
            f"the file has a column {taken[0]!r} already", where=str(request.data), remedy="rename it, or use --json"
        )
    try:
        predictions = list(_answered(own, rows))
    except ContractError:
        refuse(_faults_of(version.contract, table, rows), table.source)
        raise
    text = _json(own, table, predictions) if request.as_json else _csv(table, added, predictions)
    if request.to is not None:
        _write(request.to, text)
    counts = {sure: sum(one.sure == sure for one in predictions) for sure in ("sure", "likely", "not sure")}
    return Asked(version.record.id, len(rows), counts, text)


def rows_of(contract: FeatureContract, table: Table) -> list[dict[str, Value]]:
    """Rows of text as a contract takes them; text in a column of numbers stays text, and an empty cell is no value.

    Raises:
        DataError: A column is missing.
    """
    columns = [field.column for field in contract.fields]
    table.require(column.name for column in columns)
    values = [[_value_of(column, cell) for cell in table.cells(column.name)] for column in columns]
    names = [column.name for column in columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _faults_of(contract: FeatureContract, table: Table, rows: Sequence[dict[str, Value]]) -> list[CellFault]:
    each = zip(table.lines, rows, strict=True)
    return [
        CellFault(line, fault.key, _in_words(fault, row[fault.key]))
        for line, row in each
        for fault in contract.faults_of(row)
    ]


def _in_words(fault: Fault, value: Value) -> str:
    """What is wrong with a cell, and what may stand there, where that is more than a number."""
    if fault.problem == "missing":
        return "empty"
    if fault.problem == "not a number":
        return number_fault(str(value))
    if fault.remedy.startswith(("From ", "One of ")):
        return f"{fault.problem}, {fault.remedy[0].lower()}{fault.remedy[1:]}"
    return fault.problem


def _value_of(column: Column, cell: str) -> Value:
    if not cell:
        return None
    if column.kind == "category":
        return cell
    number = parse_number(cell)
    return cell if number is None else number


def _answered(own: Personalizer, rows: Sequence[dict[str, Value]]) -> Iterator[Prediction]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("answering", total=len(rows))
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = rows[start : start + _CHUNK_ROWS]
            yield from own.predict(chunk)
            bar.advance(task, len(chunk))


def _columns(own: Personalizer) -> list[str]:
    if own.version.own.regression:
        return ["predicted", "low", "high", "sure"]
    return ["predicted", "sure", "possible", *(f"p({label})" for label in own.version.own.labels)]


def _cells(one: Prediction) -> list[str]:
    if one.label is None:
        return [*(("" if value is None else f"{value:.6g}") for value in (one.value, one.low, one.high)), one.sure]
    shares = [f"{share:.4f}" for share in one.probabilities.values()]
    return [one.label, one.sure, " | ".join(one.possible), *shares]


def _csv(table: Table, added: Sequence[str], predictions: Sequence[Prediction]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*table.columns, *added])
    for row, one in zip(table.rows, predictions, strict=True):
        writer.writerow([*row, *_cells(one)])
    return out.getvalue()


def _json(own: Personalizer, table: Table, predictions: Sequence[Prediction]) -> str:
    answers = [{"line": line, **one.as_json()} for line, one in zip(table.lines, predictions, strict=True)]
    return json.dumps({"version": own.version.record.id, "level": own.level, "answers": answers}, indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        problem = f"the answers cannot be written: {error.strerror or 'no reason given'}"
        raise UsageError(problem, where=str(path), remedy="name a file in a folder of yours") from error
