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
import numpy.typing as npt
import rfc8785
from pydantic import BaseModel, ConfigDict

from testudo_client.data import number_as_input
from testudo_client.table import FLOAT32_MAX, Table, parse_number
from testudo_common.errors import ContractError, Fault
from testudo_common.learning.tasks import Inputs
from testudo_common.plan.sections import Column, TableData

_SCALES = 6.0  # around the centre, which the federation takes for possible
_LARGEST_LOG = 80.0
Value = float | int | str | None
FEW = 8  # rows that are read faster cell by cell
SHOWN = 64  # characters of an unknown field's name
LISTED = 10  # categories that are named in a remedy


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

        A range is never narrower than six of the plan's scales around its centre: an owner of few rows has not seen all
        that the federation has.

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
        found = [_read(field, row.get(field.column.name)) for field in self.fields]
        return self._unknown(row) + [fault for fault in found if isinstance(fault, Fault)]

    def encode(self, rows: Sequence[Mapping[str, Value]]) -> Inputs:
        """``float32[n, width]``: rows as the plan's model reads them; a row is read the same way alone or among others.

        Raises:
            ContractError: Of the first row at fault, with every fault in it.
        """
        widths = [_width_of(field) for field in self.fields]
        inputs = np.zeros((len(rows), sum(widths)), dtype=np.float32)
        if len(rows) >= FEW and self._encode_columns(rows, inputs):
            return inputs
        for place, row in enumerate(rows):
            faults, start = self._unknown(row), 0
            for field, width in zip(self.fields, widths, strict=True):
                found = _read(field, row.get(field.column.name))
                if isinstance(found, Fault):
                    faults.append(found)
                else:
                    inputs[place, start + found[0]] = found[1]
                start += width
            if faults:
                raise ContractError(faults, row=place)
        return inputs

    def _unknown(self, row: Mapping[str, Value]) -> list[Fault]:
        known = {field.column.name for field in self.fields}
        if row.keys() <= known:
            return []
        return [Fault(_shown(name), "not a field of the contract", "Take it out") for name in row if name not in known]

    def _encode_columns(self, rows: Sequence[Mapping[str, Value]], inputs: Inputs) -> bool:
        """Fill ``inputs`` a column at a time; False where a row may be at fault, and which one is not known."""
        known = {field.column.name for field in self.fields}
        if any(not row.keys() <= known for row in rows):
            return False
        start = 0
        for field in self.fields:
            width = _width_of(field)
            values = [row.get(field.column.name) for row in rows]
            if not _put_column(field, values, inputs[:, start : start + width]):
                return False
            start += width
        return True


def _field_of(column: Column, table: Table) -> ContractField:
    if column.kind == "category":
        return ContractField(column=column)
    values = [value for cell in table.cells(column.name) if (value := parse_number(cell)) is not None]
    if not values:
        return ContractField(column=column)
    low, high = min(values), max(values)
    room = (high - low) or abs(high) or 1.0
    least = math.ulp(0.0) if column.transform == "log" else -math.inf
    usual = [_value_at(column, end) for end in (-_SCALES, _SCALES)]
    return ContractField(column=column, low=max(min(low - room, usual[0]), least), high=max(high + room, usual[1]))


def _value_at(column: Column, scaled: float) -> float:
    """The number that the model reads as ``scaled``."""
    value = column.center + scaled * column.scale
    return math.exp(min(value, _LARGEST_LOG)) if column.transform == "log" else value


def _width_of(field: ContractField) -> int:
    return (len(field.column.categories) or 1) + field.column.missing


def _shown(name: str) -> str:
    """A name that somebody else chose, short enough for an answer."""
    return name if len(name) <= SHOWN else f"{name[:SHOWN]}..."


def one_of(words: Sequence[str]) -> str:
    """``One of 'a', 'b'``, short enough for an answer."""
    shown = ", ".join(map(repr, words[:LISTED]))
    return f"One of {shown}" if len(words) <= LISTED else f"One of {shown}, and {len(words) - LISTED} more"


def _read(field: ContractField, value: Value) -> tuple[int, float] | Fault:
    """Which of the field's inputs a value sets, and to what, the others being 0; or what is wrong with it."""
    column = field.column
    if value is None:
        absent = len(column.categories) or 1
        return (absent, 1.0) if column.missing else Fault(column.name, "missing", "Every request needs it")
    if column.kind == "number":
        return _read_number(field, value)
    if value in column.categories:
        return column.categories.index(str(value)), 1.0
    return Fault(column.name, "not one of its categories", one_of(column.categories))


def _read_number(field: ContractField, value: Value) -> tuple[int, float] | Fault:
    column = field.column
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Fault(column.name, "not a number", "Send a number, without quotes")
    number = _finite(value)
    scaled = "not a finite number" if number is None else number_as_input(column, number)
    if number is None or isinstance(scaled, str):
        return Fault(column.name, str(scaled), "Send a number that the model can read")
    if field.low is not None and field.high is not None and not field.low <= number <= field.high:
        unit = f" {column.unit}" if column.unit else ""
        return Fault(column.name, "out of its range", f"From {field.low:g} to {field.high:g}{unit}")
    return 0, scaled


def _finite(value: float) -> float | None:
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _put_column(field: ContractField, values: list[Value], inputs: Inputs) -> bool:
    """Write the values of one column into their inputs, which are zeros; False where one may be at fault."""
    column, there, at = field.column, values, np.arange(len(values))
    if None in values:
        if not column.missing:
            return False
        absent = np.array([value is None for value in values])
        inputs[absent, -1] = 1.0
        there, at = [value for value in values if value is not None], at[~absent]
    if column.kind == "category":
        places = {category: place for place, category in enumerate(column.categories)}
        if not all(type(value) is str and value in places for value in there):
            return False
        inputs[at, [places[str(value)] for value in there]] = 1.0
        return True
    scaled = _numbers(field, there)
    if scaled is not None:
        inputs[at, 0] = scaled
    return scaled is not None


def _numbers(field: ContractField, values: list[Value]) -> npt.NDArray[np.float64] | None:
    """Numbers as the model's inputs; None where one may be at fault."""
    column = field.column
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    low, high = (-math.inf, math.inf) if field.low is None or field.high is None else (field.low, field.high)
    good = (numbers >= low) & (numbers <= high)
    if column.transform == "log":
        good &= numbers > 0
        # numpy's own logarithm may round another way
        numbers = np.array([math.log(number) for number in numbers.tolist()]) if good.all() else numbers
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (numbers - column.center) / column.scale
    good &= np.abs(scaled) <= FLOAT32_MAX  # neither is NaN
    return scaled if good.all() else None
