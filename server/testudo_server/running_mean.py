"""A mean of vectors that come one by one, in any order, and are not kept. What counts as one is the exchange's.

The sum is of whole numbers of a step so small that it just cannot overflow. So it is the same to the last bit in
whatever order the vectors come; its step is 2^-62 of the most that it can come to.
Source: Hallberg, Adcroft 2014, "An order-invariant real-to-integer conversion sum" (Parallel Computing 40).
"""

from __future__ import annotations

import math

import numpy as np

from testudo_common.errors import AggregationError
from testudo_common.vectors import Vector

_SUM_BITS = 62  # rounding may take a sum over that, and a bit more is free
_TOLERANCE = 1e-6  # of adding up in float64 what the rows reach
_CHUNK = 1 << 14


class RunningMean:
    """The mean of the clients behind rows.

    Args:
        size: d.
        reach: The sum over all rows of votes times greatest absolute coordinate is at most this; 0 or more.
    """

    def __init__(self, size: int, reach: float) -> None:
        self._reach = reach
        self._scale = 2.0 ** (_SUM_BITS - math.frexp(reach)[1])
        self._total = np.zeros(size, dtype=np.int64)
        self._used = 0.0
        self._votes = 0

    def add(self, row: Vector, votes: int = 1) -> None:
        """Add a row.

        Args:
            row: ``float32[d]``, finite.
            votes: How many clients it is the mean of, 1 or more; or the sum of their weights.

        Raises:
            AggregationError: The rows reach farther than they were said to.
        """
        used = self._used + votes * max(float(row.max()), -float(row.min()))
        if not used <= self._reach * (1 + _TOLERANCE):
            raise AggregationError(
                f"the rows reach farther than {self._reach:g}", where="aggregation", remedy="reject what is too long"
            )
        for start in range(0, len(row), _CHUNK):
            fine = row[start : start + _CHUNK].astype(np.float64) * (votes * self._scale)
            self._total[start : start + _CHUNK] += np.rint(fine, out=fine).astype(np.int64)
        self._used = used
        self._votes += votes

    def result(self) -> Vector:
        """``float32[d]``, of all rows so far; there must be one."""
        result: Vector = (self._total / (self._votes * self._scale)).astype(np.float32)
        return result
