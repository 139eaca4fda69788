"""What an owner's table is like, column by column, in numbers. Made from somebody's data: it stays at the owner.

One JSON file of mode 0600 in the owner's ``state`` folder. Text that the plan does not name is counted only.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from testudo_client.table import Table, is_absent, parse_number
from testudo_common.errors import UsageError
from testudo_common.files import make_private, write_atomically
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import Column, TableData

FILE = "profile.json"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ColumnProfile(_Frozen):
    """One column.

    Attributes:
        name: Of the column.
        kind: ``number`` or ``category``; a target of classes is a category.
        unit: As the plan has it.
        count: Cells that hold a usable value.
        missing: Cells that hold none.
        unusable: Cells that hold something else.
        mean: Of a number; None where there is none.
        sd: Standard deviation of a number.
        quantiles: Of a number, at 5, 25, 50, 75 and 95 %.
        shares: Of a category: category -> share of the usable cells, of all that the plan names.
    """

    name: str
    kind: Literal["number", "category"]
    unit: str = ""
    count: int
    missing: int
    unusable: int
    mean: float | None = None
    sd: float | None = None
    quantiles: tuple[float, ...] = ()
    shares: dict[str, float] = {}


class Profile(_Frozen):
    """A whole table.

    Attributes:
        version: Of this format.
        plan_digest: Of the plan it was read by, hex.
        rows: Of this owner.
        columns: The plan's inputs, in their order.
        target: What is predicted.
    """

    version: Literal[1] = 1
    plan_digest: str
    rows: int
    columns: tuple[ColumnProfile, ...]
    target: ColumnProfile


def profile_of(plan: FederationPlan, data: TableData, table: Table) -> Profile:
    """Count and average.

    Args:
        plan: Complete.
        data: Its table, with columns stated.
        table: Rows that have the plan's columns.
    """
    kind: Literal["number", "category"] = "number" if plan.task.kind == "regression" else "category"
    target = Column(name=data.target, kind=kind, unit=data.target_unit, categories=data.labels or ())
    columns = tuple(_of_column(column, table) for column in data.columns or ())
    return Profile(plan_digest=plan.digest, rows=len(table), columns=columns, target=_of_column(target, table))


def _of_column(column: Column, table: Table) -> ColumnProfile:
    cells = table.cells(column.name)
    missing = sum(map(is_absent, cells))
    if column.kind == "category":
        known = Counter(cell for cell in cells if cell in column.categories)
        count = known.total()
        shares = {category: known[category] / count for category in column.categories} if count else {}
        return ColumnProfile(
            name=column.name,
            kind="category",
            count=count,
            missing=missing,
            unusable=len(cells) - missing - count,
            shares=shares,
        )
    values = np.array([value for cell in cells if (value := parse_number(cell)) is not None], dtype=np.float64)
    rest = len(cells) - missing - len(values)
    if not len(values):
        return ColumnProfile(name=column.name, kind="number", unit=column.unit, count=0, missing=missing, unusable=rest)
    return ColumnProfile(
        name=column.name,
        kind="number",
        unit=column.unit,
        count=len(values),
        missing=missing,
        unusable=rest,
        mean=float(values.mean()),
        sd=float(values.std()),
        quantiles=tuple(np.quantile(values, QUANTILES).tolist()),
    )


def write_profile(state: Path, profile: Profile) -> Path:
    """Keep it in the owner's ``state`` folder; the path.

    Raises:
        UsageError: It cannot be written.
    """
    path = state / FILE
    try:
        make_private(state)
        write_atomically(path, profile.model_dump_json(indent=2).encode())
    except OSError as error:
        problem = f"the profile cannot be written: {error.strerror or 'no reason given'}"
        raise UsageError(problem, where=str(path), remedy="make room, or let this user write there") from error
    return path


def read_profile(state: Path) -> Profile | None:
    """The profile in the owner's ``state`` folder; None where there is none.

    Raises:
        UsageError: It is damaged.
    """
    path = state / FILE
    try:
        return Profile.model_validate_json(path.read_bytes()) if path.exists() else None
    except (OSError, ValidationError) as error:
        raise UsageError(
            "the profile is damaged", where=str(path), remedy="testudo-client inspect makes it anew"
        ) from error
