"""What a plan leaves open about a table, filled in from it: kinds of columns, categories, scales, labels.

Kinds, scales and the target's scale come from clients that train. Which categories, labels and gaps there
are comes from all of them: that is the vocabulary that the parties to a plan agree on, not a statistic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from testudo_client.table import Table, is_absent, parse_number
from testudo_common.errors import DataError
from testudo_common.plan.sections import Column, TableData

MAX_CATEGORIES = 50
MAX_LABELS = 1000


def resolve_table(data: TableData, task_kind: str, training: Sequence[Table], everyone: Sequence[Table]) -> TableData:
    """The section with nothing left open; what it states is kept as it is.

    Args:
        data: Complete or not.
        task_kind: ``classification`` or ``regression``.
        training: Rows of each client that trains, one or more.
        everyone: Rows of each client, unseen ones too.

    Raises:
        DataError: A column has too many categories, none has two values, or the target has the wrong kind.
    """
    changes: dict[str, object] = {}
    if data.columns is None:
        changes["columns"] = _columns(data, training, everyone)
    if task_kind == "classification" and data.labels is None:
        changes["labels"] = labels_of([cell for rows in everyone for cell in rows.cells(data.target)], data.target)
    if task_kind == "regression" and (data.target_center is None or data.target_scale is None):
        center, scale = _center_and_scale(_transformed(_numbers(data.target, training), data.target_transform))
        changes["target_center"] = center if data.target_center is None else data.target_center
        changes["target_scale"] = (scale or 1.0) if data.target_scale is None else data.target_scale
    return TableData.model_validate({**data.model_dump(), **changes})


def labels_of(cells: Iterable[str], column: str) -> tuple[str, ...]:
    """The classes among the cells of a target column, sorted, as numbers if all of them are numbers.

    Raises:
        DataError: Fewer than two, or so many that the target is no class.
    """
    labels = _sorted({cell for cell in cells if not is_absent(cell)})
    if not 2 <= len(labels) <= MAX_LABELS:
        raise DataError(
            f"the target column {column!r} has {len(labels)} different values, not 2 to {MAX_LABELS} classes",
            remedy='Name another data.target, or write task.kind = "regression"',
        )
    return labels


def scaled_columns(columns: Iterable[Column], training: Sequence[Table]) -> tuple[Column, ...]:
    """The columns, numbers with the mean and standard deviation of clients that train (1 if that is 0)."""
    scaled = []
    for column in columns:
        if column.kind == "number":
            center, scale = _center_and_scale(_transformed(_numbers(column.name, training), column.transform))
            scaled.append(column.model_copy(update={"center": center, "scale": scale or 1.0}))
        else:
            scaled.append(column)
    return tuple(scaled)


def _columns(data: TableData, training: Sequence[Table], everyone: Sequence[Table]) -> tuple[Column, ...]:
    taken = {data.client, data.target, data.order}
    found = [_column(name, training, everyone) for name in everyone[0].columns if name not in taken]
    kept = tuple(column for column in found if column is not None)
    if not kept:
        raise DataError(
            "no input column has two different values",
            where=everyone[0].source,
            remedy="Add columns to the table, beside its client and target columns",
        )
    return scaled_columns(kept, training)


def _column(name: str, training: Sequence[Table], everyone: Sequence[Table]) -> Column | None:
    """A column as its cells suggest, not yet scaled; None if it says the same of every row."""
    cells = {cell for rows in everyone for cell in rows.cells(name)}
    missing = "" in cells
    if all(is_absent(cell) for rows in training for cell in rows.cells(name)):
        return None
    if _is_number(name, training):
        constant = len(set(_numbers(name, training))) < 2
        return None if constant and not missing else Column(name=name, missing=missing)
    categories = _sorted({cell for cell in cells if not is_absent(cell)})
    if len(categories) > MAX_CATEGORIES:
        raise DataError(
            f"column {name!r} is not a number for most clients, and {len(categories)} categories are more "
            f"than {MAX_CATEGORIES}",
            where=everyone[0].source,
            remedy="List the input columns to use in the plan, under data.columns",
        )
    if not categories or (len(categories) < 2 and not missing):
        return None
    return Column(name=name, kind="category", categories=categories, missing=missing)


def _is_number(name: str, training: Sequence[Table]) -> bool:
    """Whether most clients have only numbers there, so that one bad cell costs one client, not the column."""
    clean = told = 0
    for rows in training:
        cells = [cell for cell in rows.cells(name) if not is_absent(cell)]
        told += bool(cells)
        clean += bool(cells) and all(parse_number(cell) is not None for cell in cells)
    return 2 * clean > told


def _sorted(values: set[str]) -> tuple[str, ...]:
    numbers = {value: parse_number(value) for value in values}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(values, key=lambda value: (numbers[value] or 0.0, value)))
    return tuple(sorted(values))


def _numbers(name: str, tables: Iterable[Table]) -> list[float]:
    parsed = (parse_number(cell) for rows in tables for cell in rows.cells(name))
    return [value for value in parsed if value is not None]


def _transformed(values: Iterable[float], transform: str) -> list[float]:
    """As the model sees them; what has no logarithm is left out here, and refused where it is encoded."""
    return [math.log(value) for value in values if value > 0] if transform == "log" else list(values)


def _center_and_scale(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, exactly rounded sums so that a plan has one digest on every machine."""
    if not values:
        return 0.0, 0.0
    center = math.fsum(values) / len(values)
    variance = math.fsum((value - center) * (value - center) for value in values) / len(values)
    # below the rounding error of the mean, the values are one and the same
    scale = math.sqrt(variance)
    return center, scale if scale > 1e-12 * abs(center) else 0.0
