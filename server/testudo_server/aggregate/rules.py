"""Aggregation rules. One row, one vote: a client's own count of its examples is never a weight."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testudo_common.vectors import Vector


def mean(rows: npt.NDArray[np.float32]) -> Vector:
    """The mean of ``rows`` (``float32[n, d]``, n at least 1), summed in float64: ``float32[d]``."""
    result: Vector = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return result
