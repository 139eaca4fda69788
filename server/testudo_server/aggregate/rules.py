"""Aggregation rules. A row's votes are the number of clients behind it; a client's own word is never a weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from testudo_common.vectors import Vector


def mean(rows: npt.NDArray[np.float32], votes: Sequence[int]) -> Vector:
    """The mean of the clients behind ``rows``, summed in float64.

    Args:
        rows: ``float32[n, d]``, n at least 1: means of groups.
        votes: How many clients each row is the mean of, 1 or more; or the sum of their weights.

    Returns:
        ``float32[d]``.
    """
    weights = np.asarray(votes, dtype=np.float64) / sum(votes)  # [n]
    result: Vector = (weights @ rows.astype(np.float64)).astype(np.float32)
    return result
