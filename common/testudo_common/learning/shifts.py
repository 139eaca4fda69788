"""Named shifts: how the data that a model meets may come to differ from the data it learnt from.

Pure functions of examples, for measuring how a model stands them and how soon they are noticed; nothing here is
trained, and nothing detects. Each takes a severity, which 0 (or 1 for a factor) makes the identity, and touches only
the columns it is given. Sources: Hendrycks and Dietterich 2019, arXiv:1903.12261 (corruptions with severities);
Rabanser, Guennemann, Lipton 2019, arXiv:1810.11953 (noise, shifts of labels, and tests for them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testudo_common.errors import DataError
from testudo_common.learning.columns import InputColumn
from testudo_common.learning.tasks import Examples, Inputs

Columns = Sequence[InputColumn]
Apply = Callable[[Examples, Columns, float, np.random.Generator], Examples]


def noise(examples: Examples, columns: Columns, severity: float, rng: np.random.Generator) -> Examples:
    """Every number gets normal noise of ``severity`` times its column's standard deviation: a worse instrument."""
    inputs, flat = _copied(examples)
    for column in _numbers(columns):
        rows = column.present(flat)
        block = flat[rows, column.values]
        spread = block.std(dtype=np.float64)
        flat[rows, column.values] = block + (severity * spread * rng.standard_normal(block.shape)).astype(np.float32)
    return Examples(inputs, examples.targets)


def scale(examples: Examples, columns: Columns, severity: float, rng: np.random.Generator) -> Examples:
    """One number, drawn, is ``severity`` times what it was, in its own unit: another unit, or dearer prices."""
    inputs, flat = _copied(examples)
    (column,) = _drawn(columns, 1, rng)
    rows = column.present(flat)
    flat[rows, column.values] = column.as_inputs(severity * column.in_own_unit(flat[rows, column.values]))
    return Examples(inputs, examples.targets)


def spread(examples: Examples, columns: Columns, severity: float, rng: np.random.Generator) -> Examples:
    """One number, drawn, lies ``severity`` times as far from its column's mean: more different cases."""
    inputs, flat = _copied(examples)
    (column,) = _drawn(columns, 1, rng)
    rows = column.present(flat)
    block = flat[rows, column.values]
    if block.size:
        mean = block.mean(dtype=np.float64)
        flat[rows, column.values] = (mean + severity * (block - mean)).astype(np.float32)
    return Examples(inputs, examples.targets)


def mean_shift(examples: Examples, columns: Columns, severity: float, rng: np.random.Generator) -> Examples:
    """One number, drawn, moves by ``severity`` standard deviations of its column: an offset, or an older clientele."""
    inputs, flat = _copied(examples)
    (column,) = _drawn(columns, 1, rng)
    rows = column.present(flat)
    flat[rows, column.values] += np.float32(severity * flat[rows, column.values].std(dtype=np.float64))
    return Examples(inputs, examples.targets)


def missing(examples: Examples, columns: Columns, severity: float, rng: np.random.Generator) -> Examples:
    """A share ``severity`` of one column, drawn, is not there: coded as empty where it may be, else its mean.

    A category that may not be empty becomes its column's most frequent one.
    """
    inputs, flat = _copied(examples)
    column = columns[int(rng.integers(len(columns)))]
    gone = rng.random(len(flat)) < severity
    block = flat[:, column.values]
    if column.missing:
        flat[gone, column.start : column.stop] = 0.0
        flat[gone, column.stop - 1] = 1.0
    elif column.kind == "category":
        flat[gone, column.values] = np.eye(column.width, dtype=np.float32)[int(block.sum(axis=0).argmax())]
    else:
        flat[gone, column.values] = block.mean(axis=0, dtype=np.float64).astype(np.float32)
    return Examples(inputs, examples.targets)


def swap(examples: Examples, columns: Columns, severity: float, rng: np.random.Generator) -> Examples:
    """In a share ``severity`` of the rows two numbers, drawn, stand in each other's place: a sensor mounted askew.

    In the columns' own units; a number that its new column cannot hold (not above 0, for a logarithm) stays.
    """
    inputs, flat = _copied(examples)
    one, other = _drawn(columns, 2, rng)
    rows = one.present(flat) & other.present(flat) & (rng.random(len(flat)) < severity)
    first, second = one.in_own_unit(flat[:, one.values]), other.in_own_unit(flat[:, other.values])
    for column, values in ((one, second), (other, first)):
        if column.transform == "log":
            rows &= (values > 0).all(axis=1)
    flat[rows, one.values], flat[rows, other.values] = one.as_inputs(second[rows]), other.as_inputs(first[rows])
    return Examples(inputs, examples.targets)


def labels(examples: Examples, _columns: Columns, severity: float, rng: np.random.Generator) -> Examples:
    """Rows are drawn again, with replacement: those of one class, drawn, ``severity`` times as likely as the others.

    Of a regression: those above the median. What a row holds does not change, only how often it comes.
    """
    targets = examples.targets
    if len(examples) == 0:
        return examples
    regression = targets.dtype == np.float32
    chosen = targets > np.median(targets) if regression else targets == rng.choice(np.unique(targets))
    weights = np.where(chosen, severity, 1.0)
    if weights.sum() == 0.0:  # nothing but rows that are never drawn
        return examples
    return examples.take(rng.choice(len(examples), size=len(examples), p=weights / weights.sum()))


@dataclass(frozen=True, slots=True)
class Shift:
    """A shift by its name.

    Attributes:
        name: Key of ``SHIFTS``.
        what: What happens, in words, with ``{severity}`` in it.
        severity: Customary.
        numbers: Columns of numbers that it needs.
        apply: ``(examples, columns, severity, rng)`` to examples of the same shape; those given are not changed.
    """

    name: str
    what: str
    severity: float
    numbers: int
    apply: Apply

    def fits(self, columns: Columns) -> bool:
        """Whether there are columns enough of the kind it touches."""
        return bool(columns) and len(_numbers(columns)) >= self.numbers

    def __call__(
        self, examples: Examples, columns: Columns, rng: np.random.Generator, severity: float | None = None
    ) -> Examples:
        """``examples`` after the shift.

        Args:
            examples: ``float32[n, *input_shape]``.
            columns: That it may touch, one or more.
            rng: Seeded; which column, rows and noise.
            severity: None: the customary one.

        Raises:
            DataError: There are too few columns of numbers.
        """
        if not self.fits(columns):
            raise DataError(
                f"the shift {self.name!r} needs {max(self.numbers, 1)} columns of numbers, and these have"
                f" {len(_numbers(columns))}",
                remedy="Leave it out",
            )
        return self.apply(examples, columns, self.severity if severity is None else severity, rng)


_ALL = (
    Shift("noise", "numbers get noise of {severity:g} of their spread", 0.5, 1, noise),
    Shift("scale", "one number is {severity:g} times what it was, in its own unit", 1.5, 1, scale),
    Shift("spread", "one number lies {severity:g} times as far from its mean", 1.5, 1, spread),
    Shift("mean_shift", "one number moves by {severity:g} standard deviations", 0.5, 1, mean_shift),
    Shift("missing", "a share of {severity:g} of one column is missing", 0.3, 0, missing),
    Shift("swap", "two numbers are swapped in a share of {severity:g} of the rows", 1.0, 2, swap),
    Shift("labels", "one class (or what is above the median) is {severity:g} times as likely", 4.0, 0, labels),
)
SHIFTS: dict[str, Shift] = {shift.name: shift for shift in _ALL}


def _numbers(columns: Columns) -> list[InputColumn]:
    return [column for column in columns if column.kind == "number"]


def _drawn(columns: Columns, count: int, rng: np.random.Generator) -> list[InputColumn]:
    numbers = _numbers(columns)
    return [numbers[place] for place in rng.choice(len(numbers), size=count, replace=False)]


def _copied(examples: Examples) -> tuple[Inputs, npt.NDArray[np.float32]]:
    """The inputs again, and a flat view ``float32[n, d]`` of them, to be written to."""
    inputs = np.array(examples.inputs, dtype=np.float32, order="C")
    return inputs, inputs.reshape(len(inputs), int(np.prod(inputs.shape[1:])))
