"""Rows to try an exported file on: the owner's, or made up from the contract where there are none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from testudo_client.personal.contract import ContractField, FeatureContract, Value
from testudo_common.learning.tasks import Inputs

MADE_UP = 512
_RANGE = 12  # standard deviations in a range
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
    """Rows that keep the contract: each number normal around the middle of its range, as the model reads it.

    Args:
        contract: Its ranges are at least three times as wide as the rows were, and twelve of the plan's scales.
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
        low, high = _ends(one)
        drawn = rng.normal((low + high) / 2, (high - low) / _RANGE, size=count)
        cells = [_within(one, math.exp(value) if column.transform == "log" else value) for value in drawn.tolist()]
    if not column.missing:
        return cells
    empty = rng.random(count) < _EMPTY
    return [None if gone else cell for cell, gone in zip(cells, empty, strict=True)]


def _ends(one: ContractField) -> tuple[float, float]:
    """Of the range, or of its logarithms; the lower one not where a logarithm is all but minus infinity."""
    low, high = (-1.0 if one.low is None else one.low), (1.0 if one.high is None else one.high)
    if one.column.transform != "log":
        return low, high
    last = math.log(high)
    return max(math.log(low) if low > 0 else -math.inf, last - _RANGE * one.column.scale), last


def _within(one: ContractField, value: float) -> float:
    return float(np.clip(value, one.low, one.high)) if one.low is not None and one.high is not None else value
