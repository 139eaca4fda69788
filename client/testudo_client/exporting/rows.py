"""Rows to try an exported file on: the owner's, or made up from the contract where there are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from testudo_client.personal.contract import ContractField, FeatureContract, Value
from testudo_common.learning.tasks import Inputs

MADE_UP = 512
_EMPTY = 0.1  # share of cells that are empty where that is allowed


@dataclass(frozen=True, slots=True)
class TrialRows:
    """What files are tried on.

    Attributes:
        inputs: ``float32[n, *input_shape]``, encoded.
        targets: ``int64[n]``, or ``float64[n]`` in the target's unit; None of rows that were made up.
    """

    inputs: Inputs = field(repr=False)
    targets: npt.NDArray[Any] | None = field(repr=False)

    @property
    def origin(self) -> Literal["data", "made up"]:
        """Where they are from."""
        return "made up" if self.targets is None else "data"


def made_up(contract: FeatureContract, rng: np.random.Generator, count: int = MADE_UP) -> TrialRows:
    """Rows that keep the contract: each number around the middle of its range, most within the rows it was made from.

    Args:
        contract: Its ranges are three times as wide as the rows were.
        rng: Seeded.
        count: Rows.
    """
    columns = {one.column.name: _cells(one, rng, count) for one in contract.fields}
    rows: list[dict[str, Value]] = [{name: cells[row] for name, cells in columns.items()} for row in range(count)]
    return TrialRows(contract.encode(rows), None)


def _cells(one: ContractField, rng: np.random.Generator, count: int) -> list[Value]:
    column = one.column
    if column.kind == "category":
        cells: list[Value] = rng.choice(list(column.categories), size=count).tolist()
    else:
        low = -1.0 if one.low is None else one.low
        high = 1.0 if one.high is None else one.high
        drawn = rng.normal((low + high) / 2, (high - low) / 6, size=count)
        cells = np.clip(drawn, low, high).tolist()
    if not column.missing:
        return cells
    empty = rng.random(count) < _EMPTY
    return [None if gone else cell for cell, gone in zip(cells, empty, strict=True)]
