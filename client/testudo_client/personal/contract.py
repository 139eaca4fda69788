"""The feature contract: what a request to an own model has to hold, field by field, and how it becomes an input.

Made from the plan and the owner's training rows; hashed, so that a version and a caller can name the one they mean. It
takes the place of a feature store. Holds ranges and categories of somebody's data: it stays with the owner.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import rfc8785
from pydantic import BaseModel, ConfigDict

from testudo_client.data import number_as_input
from testudo_client.table import Table, parse_number
from testudo_common.errors import ContractError, Fault
from testudo_common.learning.tasks import Inputs
from testudo_common.plan.sections import Column, TableData

Value = float | int | str | None


class ContractField(BaseModel):
    """One field of a request.

    Attributes:
        column: As the plan has it: name, kind, unit, categories, whether it may be missing, and how it is encoded.
        low: Smallest number accepted; None for a category.
        high: Largest number accepted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    column: Column
    low: float | None = None
    high: float | None = None


class FeatureContract(BaseModel):
    """What requests to one version have to hold.

    Attributes:
        version: Of this format.
        fields: In the order of the model's inputs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1
    fields: tuple[ContractField, ...]

    @classmethod
    def of(cls, data: TableData, table: Table) -> FeatureContract:
        """Of the plan's columns, with ranges from the owner's rows: as far again as they spread, on either side.

        Args:
            data: With columns stated.
            table: Training rows.
        """
        return cls(fields=tuple(_field_of(column, table) for column in data.columns or ()))

    @property
    def digest(self) -> str:
        """SHA-256 of the contract as RFC 8785 canonical JSON, in hex."""
        return hashlib.sha256(rfc8785.dumps(self.model_dump(mode="json"))).hexdigest()

    def faults_of(self, row: Mapping[str, Value]) -> list[Fault]:
        """What is wrong with a row, a fault a field; the key is the field's name, and no value is repeated."""
        known = {field.column.name for field in self.fields}
        faults = [Fault(str(name), "not a field of the contract", "Take it out") for name in row if name not in known]
        return faults + [fault for field in self.fields if (fault := _fault_of(field, row)) is not None]

    def encode(self, rows: Sequence[Mapping[str, Value]]) -> Inputs:
        """``float32[n, width]``: rows as the plan's model reads them.

        Raises:
            ContractError: Of the first row at fault, with every fault in it.
        """
        for place, row in enumerate(rows):
            if faults := self.faults_of(row):
                raise ContractError(faults, row=place)
        widths = [(len(field.column.categories) or 1) + field.column.missing for field in self.fields]
        inputs = np.zeros((len(rows), sum(widths)), dtype=np.float32)
        start = 0
        for field, width in zip(self.fields, widths, strict=True):
            for place, row in enumerate(rows):
                _put(field.column, row.get(field.column.name), inputs[place, start : start + width])
            start += width
        return inputs


def _field_of(column: Column, table: Table) -> ContractField:
    if column.kind == "category":
        return ContractField(column=column)
    values = [value for cell in table.cells(column.name) if (value := parse_number(cell)) is not None]
    if not values:
        return ContractField(column=column)
    low, high = min(values), max(values)
    room = (high - low) or abs(high) or 1.0
    least = math.ulp(0.0) if column.transform == "log" else -math.inf
    return ContractField(column=column, low=max(low - room, least), high=high + room)


def _fault_of(field: ContractField, row: Mapping[str, Value]) -> Fault | None:
    column = field.column
    value = row.get(column.name)
    if value is None:
        return None if column.missing else Fault(column.name, "missing", "Every request needs it")
    if column.kind == "category":
        remedy = f"One of {', '.join(map(repr, column.categories))}"
        return None if value in column.categories else Fault(column.name, "not one of its categories", remedy)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Fault(column.name, "not a number", "Send a number, without quotes")
    if isinstance(problem := number_as_input(column, _finite(value)), str):
        return Fault(column.name, problem, "Send a number that the model can read")
    if field.low is not None and field.high is not None and not field.low <= value <= field.high:
        unit = f" {column.unit}" if column.unit else ""
        return Fault(column.name, "out of its range", f"From {field.low:g} to {field.high:g}{unit}")
    return None


def _finite(value: float) -> float | None:
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _put(column: Column, value: Value, inputs: Inputs) -> None:
    """Write one checked value into its inputs, which are zeros."""
    if value is None:
        inputs[-1] = 1.0
    elif column.kind == "category":
        inputs[column.categories.index(str(value))] = 1.0
    else:
        scaled = number_as_input(column, _finite(float(value)))
        assert not isinstance(scaled, str)  # it was checked
        inputs[0] = scaled
