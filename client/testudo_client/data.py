"""A data owner's rows as the inputs and targets that the plan states; table.py reads the file.

Knows no network and no model. An owner and a simulation use the same code, so that a model meets the same
encoding in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from testudo_client.table import (
    FLOAT32_MAX,
    CellFault,
    Table,
    number_fault,
    order_rows,
    parse_number,
    read_table,
    refuse,
)
from testudo_common.errors import DataError, Fault, PlanError
from testudo_common.learning.tasks import Examples, Inputs, Targets
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import Column, TableData


def model_shape(data: TableData, task_kind: str) -> tuple[tuple[int], int]:
    """Shape of one input, and the number of outputs, of a model for the table that ``data`` states.

    Raises:
        PlanError: ``data`` leaves its columns or its labels open.
    """
    columns, labels = _stated(data, task_kind)
    width = sum((len(column.categories) or 1) + column.missing for column in columns)
    return (width,), len(labels) or 1


def examples_of_rows(data: TableData, task_kind: str, table: Table) -> Examples:
    """Rows as examples, in their order.

    Args:
        data: With ``columns`` stated, and ``labels`` for classification.
        task_kind: ``classification`` or ``regression``.
        table: Rows; columns that ``data`` does not name are ignored.

    Returns:
        ``float32[n, width]`` inputs, columns in the plan's order: ``(value - center) / scale`` of a number,
        one 0/1 input a category, and after either one more for "was empty" where ``missing`` is allowed (the
        others are then 0). Targets ``int64[n]``, places in ``labels``; or ``float32[n]``, centred and scaled.

    Raises:
        PlanError: ``data`` leaves its columns or its labels open.
        DataError: A column is missing, or cells cannot be used: the first few, and how many more.
    """
    columns, _ = _stated(data, task_kind)
    table.require([data.target, *(column.name for column in columns)])
    faults: list[CellFault] = []
    examples = Examples(encode_inputs(columns, table, faults), encode_targets(data, task_kind, table, faults))
    refuse(sorted(faults, key=line_of), table.source)
    return examples


def encode_inputs(columns: Sequence[Column], table: Table, faults: list[CellFault]) -> Inputs:
    """``float32[n, width]``, as :func:`examples_of_rows` has them; adds to ``faults``, and what is at fault is 0.

    Args:
        columns: One or more, all of them in the table.
        table: Rows.
        faults: Of the cells that cannot be used.
    """
    return np.concatenate([_inputs_of(column, table, faults) for column in columns], axis=1)


def encode_targets(data: TableData, task_kind: str, table: Table, faults: list[CellFault]) -> Targets:
    """``int64[n]`` or ``float32[n]``, as :func:`examples_of_rows` has them; adds to ``faults``, their rows are -1 or 0.

    Args:
        data: With ``labels`` stated for classification; its target is in the table.
        task_kind: ``classification`` or ``regression``.
        table: Rows.
        faults: Of the cells that cannot be used.
    """
    if task_kind != "regression":
        return _class_numbers(data.target, data.labels or (), table, faults)
    center, scale = data.target_center or 0.0, data.target_scale or 1.0
    column = Column(name=data.target, transform=data.target_transform, center=center, scale=scale)
    return _inputs_of(column, table, faults)[:, 0]


def _inputs_of(column: Column, table: Table, faults: list[CellFault]) -> npt.NDArray[np.float32]:
    """``float32[n, width of this column]``; adds to ``faults``, and the rows at fault are zeros."""
    width = len(column.categories) or 1
    block = np.zeros((len(table), width + column.missing), dtype=np.float32)
    places = {category: place for place, category in enumerate(column.categories)}
    for row, (line, cell) in enumerate(zip(table.lines, table.cells(column.name), strict=True)):
        if not cell and column.missing:
            block[row, width] = 1.0
        elif not cell:
            faults.append(CellFault(line, column.name, "empty"))
        elif column.kind == "category":
            if cell in places:
                block[row, places[cell]] = 1.0
            else:
                faults.append(CellFault(line, column.name, "not one of the plan's categories"))
        else:
            number = parse_number(cell)
            scaled = number_fault(cell) if number is None else number_as_input(column, number)
            if isinstance(scaled, str):
                faults.append(CellFault(line, column.name, scaled))
            else:
                block[row, 0] = scaled
    return block


def number_as_input(column: Column, value: float | None) -> float | str:
    """A number as the model's input, or what is wrong with it, in words; None stands for what is no number."""
    if value is not None and column.transform == "log":
        if value <= 0:
            return "not above zero"
        value = math.log(value)
    scaled = math.nan if value is None else (value - column.center) / column.scale
    return scaled if abs(scaled) <= FLOAT32_MAX else "not a finite number"


def _class_numbers(
    column: str, labels: tuple[str, ...], table: Table, faults: list[CellFault]
) -> npt.NDArray[np.int64]:
    """``int64[n]``: places in ``labels``; adds to ``faults``, and the rows at fault are -1."""
    places = {label: place for place, label in enumerate(labels)}
    cells = table.cells(column)
    faults += [
        CellFault(line, column, "not one of the plan's labels" if cell else "empty")
        for line, cell in zip(table.lines, cells, strict=True)
        if cell not in places
    ]
    return np.array([places.get(cell, -1) for cell in cells], dtype=np.int64)


def line_of(fault: CellFault) -> int:
    """To sort by."""
    return fault.line


def _stated(data: TableData, task_kind: str) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Columns and labels (none for regression) of a complete plan."""
    columns, labels = data.columns or (), data.labels or ()
    needed: dict[str, tuple[object, ...]] = {"data.columns": columns}
    if task_kind != "regression":
        needed["data.labels"] = labels
    remedy = "State it in the plan; testudo-simulate writes a complete one"
    if faults := [Fault(key, "left open", remedy) for key, value in needed.items() if not value]:
        raise PlanError(faults, source="the plan")
    return columns, labels


def load_owner_examples(plan: FederationPlan, path: Path, client: str | None = None) -> Examples:
    """The rows of :func:`load_owner_table` as examples, in that order. Raises as it does."""
    table = load_owner_table(plan, path, client)
    assert isinstance(plan.data, TableData)  # it was read
    return examples_of_rows(plan.data, plan.task.kind, table)


def load_owner_table(plan: FederationPlan, path: Path, client: str | None = None) -> Table:
    """One data owner's rows, sorted by ``data.order`` if the plan has it.

    Args:
        plan: With ``data.federation = "csv"``, complete.
        path: The owner's file. It may hold only this owner's rows, and then needs no client column.
        client: Take only the rows of this client.

    Raises:
        PlanError: The plan is for other data, or not complete, or its model does not fit its columns.
        DataError: The file cannot be used, holds several clients and none was named, or too few rows.
    """
    if not isinstance(plan.data, TableData):
        problem = f"{plan.data.federation!r} has no table of a data owner"
        raise PlanError([Fault("data.federation", problem, 'Write "csv"')], source=plan.name)
    data = plan.data
    made = dict(zip(("inputs", "outputs"), model_shape(data, plan.task.kind), strict=True))
    faults = [
        Fault(f"model.{key}", f"{stated} is stated, but the data has {value}", "Correct it, or take it out")
        for key, value in made.items()
        if (stated := getattr(plan.model, key)) not in (None, value)
    ]
    if faults:
        raise PlanError(faults, source=plan.name)
    table = rows_of_owner(read_table(path), data.client, client)
    if len(table) < data.min_rows:
        raise DataError(
            f"{len(table)} rows, and the plan asks for {data.min_rows} (data.min_rows)",
            where=str(path),
            remedy="Bring more rows, or stay out of this federation",
        )
    return order_rows(table, data.order) if data.order else table


def rows_of_owner(table: Table, column: str, client: str | None) -> Table:
    """The rows of one data owner.

    Args:
        table: Of one owner, or with a client column.
        column: That says whose row it is.
        client: Whose rows; None: all of them, which have to be one owner's.

    Raises:
        DataError: There are several owners and none was named, or none of that name.
    """
    if client is None:
        if column in table.columns and len(set(table.cells(column))) > 1:
            raise DataError(
                f"column {column!r} names several clients",
                where=table.source,
                remedy="Name one with --client, or keep the rows of one data owner in the file",
            )
        return table
    rows = table.take([row for row, cell in enumerate(table.cells(column)) if cell == client])
    if not rows:
        problem = f"no row has {client!r} in column {column!r}"
        raise DataError(problem, where=table.source, remedy="Check the spelling")
    return rows


__all__ = [
    "Table",
    "examples_of_rows",
    "load_owner_examples",
    "load_owner_table",
    "model_shape",
    "order_rows",
    "read_table",
]
