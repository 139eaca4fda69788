"""What every rule shares: types, what a rule answers, which rows may be used, and what f may be.

n rows of d coordinates, f of which may be anything. Throughout, kappa is the (f, kappa)-robustness of Allouah et al.
2023, "Fixing by Mixing" (arXiv 2302.01772), Definition 2: for every set S of n - f rows,
``|result - mean of S|^2 <= kappa * (mean over S of |x - mean of S|^2)``. No rule has a kappa under f / (n - 2f).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testudo_common.errors import AggregationError
from testudo_common.robustness.names import least_rows
from testudo_common.vectors import Vector, fault_of_vector

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mix:
    """What a pre-aggregator makes of m rows: other rows, each a combination of them.

    Attributes:
        matrix: ``float64[k, m]``, not negative; a row sums to 1, or to less where it clips.
        f: How many of the k rows may be bad.
        merged: Which of the m rows were counted as one, by their numbers; empty but for dedupe.
    """

    matrix: Floats
    f: int
    merged: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Aggregated:
    """What a chain makes of n rows.

    Attributes:
        vector: ``float32[d]``, finite.
        influence: ``float64[n]``, of sum 1, or less where something clips: the result is ``influence @ rows``. After a
            coordinate rule, under which a row has another weight on every coordinate, the mean of its weights on at
            most 4096 evenly spaced ones: see :func:`~testudo_server.aggregate.influence.influence_of_ranks`.
        f: What the rule itself was run with, after the pre-aggregators.
        merged: Rows that dedupe counted as one, by their numbers; for the log.
    """

    vector: Vector
    influence: Floats
    f: int
    merged: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that no rule may see.

    Attributes:
        row: Its number.
        reason: Such as ``not finite``; never a value.
    """

    row: int
    reason: str


def usable_rows(rows: Sequence[object] | Rows, size: int) -> tuple[Rows, tuple[int, ...], tuple[Rejected, ...]]:
    """Sort out what is not a finite ``float32[size]``: one NaN poisons a median, Krum and a geometric median alike.

    Args:
        rows: As they were received.
        size: d.

    Returns:
        ``float32[m, size]`` of the rows that are left (``rows`` itself where none had to go), their numbers, and the
        others with the reason. m may be 0.
    """
    faults = [fault_of_vector(row, size) for row in rows]
    kept = tuple(number for number, fault in enumerate(faults) if fault is None)
    rejected = tuple(Rejected(number, fault) for number, fault in enumerate(faults) if fault is not None)
    if isinstance(rows, np.ndarray) and not rejected and rows.ndim == 2:
        return rows, kept, rejected
    good = np.empty((len(kept), size), dtype=np.float32)
    for place, number in enumerate(kept):
        good[place] = np.asarray(rows[number], dtype=np.float32)
    return good, kept, rejected


def checked_rows(rows: Rows) -> Rows:
    """``rows``, in C order.

    Raises:
        AggregationError: Not ``float32[n, d]`` with n and d at least 1.
    """
    if not isinstance(rows, np.ndarray) or rows.dtype != np.float32 or rows.ndim != 2 or 0 in rows.shape:
        raise AggregationError("the rows are not float32[n, d]", where="aggregation", remedy="see usable_rows")
    return np.ascontiguousarray(rows)


def refuse_nonfinite(rows: Rows) -> None:
    """Name the rows that are not finite.

    Raises:
        AggregationError: There are some.
    """
    bad = [str(number) for number, row in enumerate(rows) if not np.isfinite(row).all()]
    if bad:
        raise AggregationError(
            f"not finite: row{'s' if len(bad) > 1 else ''} {', '.join(bad)}",
            where="aggregation",
            remedy="reject what is not finite before a rule runs (usable_rows)",
        )


def check_f(rule: str, n: int, f: int) -> None:
    """Refuse what the rule cannot withstand.

    Args:
        rule: Its name.
        n: Rows that the rule is given.
        f: Rows among them that may be bad.

    Raises:
        AggregationError: f is negative, 2f >= n, or n < 2f + 3 for Krum and Multi-Krum (Blanchard et al. 2017).
    """
    least = least_rows(rule, f)
    if f < 0 or n < least:
        raise AggregationError(
            f"{rule} needs at least {least} rows to withstand {f} bad ones, and there are {n}",
            where="aggregation",
            remedy="lower f, or aggregate more rows",
        )
