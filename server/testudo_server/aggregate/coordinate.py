"""Coordinate rules: the mean of some ranks, coordinate by coordinate. Median and trimmed mean.

Never ``total - top - bottom``: one entry of 1e20 cancels everything. Kept values are added in float64, so that the mean
lies within them to the bit.

Sources: Yin et al. 2018, "Byzantine-Robust Distributed Learning" (arXiv 1803.01498); kappa from Allouah et al. 2023.
"""

from __future__ import annotations

import numpy as np

from testudo_common.vectors import Vector
from testudo_server.aggregate.base import Floats, Rows, refuse_nonfinite
from testudo_server.aggregate.blocks import BLOCK, WIDE_BLOCK, Work, blocks_of, over_chunks
from testudo_server.aggregate.networks import run_network

_MOST_WIRES = 48  # from there a sort of the transposed block is faster
_PADDING = 16  # columns; rows a power of two apart fall on the same lines of the cache
_SORTED_COLUMNS = BLOCK // 4  # transposed, they stay in the cache


def median_ranks(n: int, f: int) -> range:
    """The middle rank, or the middle two. kappa <= 4 (1 + f / (n - 2f))^2, for f < n / 2."""
    del f
    return range((n - 1) // 2, n // 2 + 1)


def trimmed_ranks(n: int, f: int) -> range:
    """All but the f least and the f greatest. kappa <= 6 f / (n - 2f) (1 + f / (n - 2f)), for f < n / 2."""
    return range(f, n - f)


def mean_of_ranks(rows: Rows, ranks: range, work: Work, matrix: Floats | None = None) -> Vector:
    """In every column, the mean of the values that have these ranks.

    Args:
        rows: ``float32[n, d]``.
        ranks: Consecutive, from 0.
        work: How columns are cut.
        matrix: ``float64[m, n]``: take ``matrix @ rows`` in place of the rows, in float32 products.

    Returns:
        ``float32[d]``.

    Raises:
        AggregationError: A row is not finite.
    """
    result = np.empty(rows.shape[1], dtype=np.float32)
    short = None if matrix is None else matrix.astype(np.float32)
    m = len(rows) if short is None else len(short)

    def do(columns: range) -> bool:
        width = min(WIDE_BLOCK, len(columns))
        scratch = np.empty((m + 2, width + _PADDING), dtype=np.float32)
        mixed = None if short is None else np.empty((m, width + _PADDING), dtype=np.float32)
        total = np.empty(width)
        for block in blocks_of(columns, WIDE_BLOCK):
            values = rows[:, block]
            size = values.shape[1]
            with np.errstate(all="ignore"):
                if short is not None and mixed is not None:
                    values = np.matmul(short, values, out=mixed[:, :size])
                if m <= _MOST_WIRES:
                    finite = _sum_by_network(values, ranks, scratch, total[:size])
                else:
                    finite = _sum_by_sorting(values, ranks, total[:size])
                if not finite:
                    return False
                np.divide(total[:size], len(ranks), out=total[:size])
                result[block] = total[:size]
        return True

    if not all(list(over_chunks(rows.shape[1], work, do))):
        refuse_nonfinite(rows)
    return result


def _sum_by_network(values: Rows, ranks: range, scratch: Rows, total: Floats) -> bool:
    """Put the sums of the kept ranks into ``total``; False, and nothing to rely on, where a value is not finite."""
    if not np.isfinite(values).all():
        return False
    kept = run_network(values, ranks.start, ranks.stop, scratch)
    total[:] = kept[0]
    for wire in kept[1:]:
        np.add(total, wire, out=total)
    return True


def _sum_by_sorting(values: Rows, ranks: range, total: Floats) -> bool:
    """The same. What is not finite is at the ends of what is sorted: NaN comes last."""
    finite = True
    for part in blocks_of(range(values.shape[1]), _SORTED_COLUMNS):
        columns = np.ascontiguousarray(values[:, part].T)  # [w, m]
        columns.sort(axis=1)
        finite = finite and bool(np.isfinite(columns[:, [0, -1]]).all())
        kept = columns[:, ranks.start : ranks.stop].astype(np.float64)
        np.matmul(kept, np.ones(len(ranks)), out=total[part])
    return finite
