"""Coordinate rules: the mean of some ranks, coordinate by coordinate. Median and trimmed mean.

Never ``total - top - bottom``: one entry of 1e20 cancels everything. The mean of the kept values lies within them to
the bit: it is taken in float64, or brought back between the least and the greatest of them.

Sources: Yin et al. 2018, "Byzantine-Robust Distributed Learning" (arXiv 1803.01498); kappa from Allouah et al. 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import numpy as np

from testudo_common.vectors import Vector
from testudo_server.aggregate.base import Floats, Rows, refuse_nonfinite
from testudo_server.aggregate.blocks import BLOCK, WIDE_BLOCK, Work, blocks_of, over_chunks
from testudo_server.aggregate.networks import run_network

_MOST_WIRES = 40  # above, a sort of the transposed block is faster
_PADDING = 16  # columns; rows a power of two apart fall on the same lines of the cache
_SORTED_COLUMNS = BLOCK // 2  # transposed, they stay in the cache
_LINE = 16  # of the cache, in float32


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
    ready = _by_network if m <= _MOST_WIRES else _by_sorting

    def do(columns: range) -> None:
        take = ready(m, ranks, short)
        for block in blocks_of(columns, WIDE_BLOCK):
            with np.errstate(all="ignore"):
                finite = take(rows[:, block], result[block])
            if not finite:  # a row, or what rounding made of mixed rows at the end of float32
                refuse_nonfinite(rows)
                wide = rows[:, block].astype(np.float64)
                wide = wide if matrix is None else matrix @ wide
                result[block] = np.sort(wide, axis=0)[ranks.start : ranks.stop].mean(axis=0)

    for _ in over_chunks(rows.shape[1], work, do):
        pass
    return result


_Take = Callable[[Rows, Vector], bool]  # a block and where its means go; False, and nothing there, if it is not finite


def _by_network(m: int, ranks: range, short: Rows | None) -> _Take:
    """For few rows: ranks are selected between rows, for all columns of a block at once."""
    scratch = np.empty((m + 2, WIDE_BLOCK + _PADDING), dtype=np.float32)
    mixed = None if short is None else np.empty((m, WIDE_BLOCK + _PADDING), dtype=np.float32)
    total = np.empty(WIDE_BLOCK)
    ones = np.ones(WIDE_BLOCK, dtype=np.float32)

    def take(values: Rows, out: Vector) -> bool:
        size = values.shape[1]
        if short is not None and mixed is not None:
            values = np.matmul(short, values, out=mixed[:, :size])
        # A sum is finite only if all of it is; if it is not, it may have overflowed.
        if not np.isfinite(values @ ones[:size]).all() and not np.isfinite(values).all():
            return False
        kept = run_network(values, ranks.start, ranks.stop, scratch)
        total[:size] = kept[0]
        for wire in kept[1:]:
            np.add(total[:size], wire, out=total[:size])
        np.divide(total[:size], len(ranks), out=total[:size])
        out[:] = total[:size]
        return True

    return take


def _by_sorting(m: int, ranks: range, short: Rows | None) -> _Take:
    """For many: columns are sorted one by one, each in lines of the cache of its own."""
    buffer = np.empty((_SORTED_COLUMNS, -(-m // _LINE) * _LINE), dtype=np.float32)
    shares = np.full(len(ranks), 1.0 / len(ranks), dtype=np.float32)

    def take(values: Rows, out: Vector) -> bool:
        for part in blocks_of(range(values.shape[1]), _SORTED_COLUMNS):
            columns = buffer[: part.stop - part.start, :m]  # [w, m]
            if short is None:
                columns[:] = values[:, part].T
            else:
                np.matmul(values[:, part].T, short.T, out=columns)
            columns.sort(axis=1)
            # What is not finite is at the ends, NaN comes last; a sum is finite only if all of it is.
            if not isfinite(columns[:, 0].sum() + columns[:, -1].sum()) and not np.isfinite(columns[:, [0, -1]]).all():
                return False
            least, greatest = columns[:, ranks.start], columns[:, ranks.stop - 1]
            if len(ranks) <= 2:
                out[part] = np.add(least, greatest, dtype=np.float64) / 2.0
                continue
            np.matmul(columns[:, ranks.start : ranks.stop], shares, out=out[part])
            np.maximum(out[part], least, out=out[part])
            np.minimum(out[part], greatest, out=out[part])
        return True

    return take
