"""Aggregation rules. A row's votes are the number of clients behind it; a client's own word is never a weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from testudo_common.vectors import Vector
from testudo_server.running_mean import RunningMean


def mean(rows: npt.NDArray[np.float32], votes: Sequence[int]) -> Vector:
    """The mean of the clients behind ``rows``.

    Args:
        rows: ``float32[n, d]``, n at least 1: means of groups; finite.
        votes: How many clients each row is the mean of, 1 or more; or the sum of their weights.

    Returns:
        ``float32[d]``.
    """
    running = RunningMean(rows.shape[1], max(float(rows.max()), -float(rows.min())) * sum(votes))
    for row, count in zip(rows, votes, strict=True):
        running.add(row, count)
    return running.result()
