"""Which of a model's inputs belong to which column of a table, and what they are in the column's own unit.

Knows no file and no row: ``data.py`` of the client makes inputs, this only says where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import Column, TableData

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class InputColumn:
    """One column, as the inputs ``start`` to ``stop`` of a flattened example.

    Attributes:
        name: Of the column.
        start: First of its inputs.
        width: Inputs without the one for "was empty": 1 for a number, or one a category; for what is no table, all.
        kind: ``number`` or ``category``.
        missing: Whether one more input says that the cell was empty.
        transform: ``log``: the input is of the number's logarithm.
        center: Subtracted from the (transformed) number.
        scale: It is divided by.
    """

    name: str
    start: int
    width: int = 1
    kind: Literal["number", "category"] = "number"
    missing: bool = False
    transform: Literal["none", "log"] = "none"
    center: float = 0.0
    scale: float = 1.0

    @property
    def stop(self) -> int:
        """One past the last of its inputs."""
        return self.start + self.width + self.missing

    @property
    def values(self) -> slice:
        """Its inputs, without the one for "was empty"."""
        return slice(self.start, self.start + self.width)

    def present(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """``bool[n]``: rows of ``float32[n, d]`` whose cell was not empty."""
        if not self.missing:
            return np.ones(len(inputs), dtype=np.bool_)
        return inputs[:, self.stop - 1] < 0.5

    def in_own_unit(self, inputs: npt.NDArray[np.float32]) -> Numbers:
        """``float64``, same shape: inputs of a number as the table has them."""
        values = inputs.astype(np.float64) * self.scale + self.center
        return np.exp(values) if self.transform == "log" else values

    def as_inputs(self, values: Numbers) -> npt.NDArray[np.float32]:
        """The inverse of :meth:`in_own_unit`."""
        plain = np.log(values) if self.transform == "log" else values
        return ((plain - self.center) / self.scale).astype(np.float32)


def columns_of_table(columns: Sequence[Column]) -> tuple[InputColumn, ...]:
    """Of a plan's columns, in their order."""
    found: list[InputColumn] = []
    for column in columns:
        place = InputColumn(
            name=column.name,
            start=found[-1].stop if found else 0,
            width=len(column.categories) or 1,
            kind=column.kind,
            missing=column.missing,
            transform=column.transform,
            center=column.center,
            scale=column.scale,
        )
        found.append(place)
    return tuple(found)


def input_columns(plan: FederationPlan) -> tuple[InputColumn, ...]:
    """Of a complete plan: its table's columns; without a table a column an input, or one for a whole image.

    Args:
        plan: With ``model.inputs`` stated, or with a table's columns.
    """
    if isinstance(plan.data, TableData):
        return columns_of_table(plan.data.columns or ())
    shape = plan.model.inputs or ()
    if len(shape) == 1:
        return tuple(InputColumn(f"input {place + 1}", place) for place in range(shape[0]))
    return (InputColumn("image", 0, width=prod(shape)),)
