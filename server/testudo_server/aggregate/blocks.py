"""Columns in blocks, at which all arithmetic is done, whatever the size of a chunk: hence the same bits for all.

What is summed or multiplied together depends on the block's place alone, a chunk is only how many blocks a thread takes
at once, and partial sums are added in the order of columns. Blocks are so small that they stay in the cache, and that
OpenBLAS does not give parts of a sum to threads of its own (at 8192 columns of 100 rows it does, and rounds otherwise).
Its products may round otherwise at other widths too, even where every column is a sum of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

import numpy as np

from testudo_common.vectors import Vector
from testudo_server.aggregate.base import Floats, Rows, refuse_nonfinite

BLOCK = 4096  # columns
WIDE_BLOCK = 2 * BLOCK  # where no two columns meet in a sum
_WIDEST_BLOCK = 8 * WIDE_BLOCK  # where rows are only added up, at the speed of memory

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Work:
    """How the work is cut up; nothing of it changes a bit of a result.

    Attributes:
        chunk: Columns a thread takes at once, rounded up to whole blocks; 1 or more.
        threads: In the pool, 1 or more. NumPy lets go of the interpreter where it works.
    """

    chunk: int = 65536
    threads: int = 1


def over_chunks(d: int, work: Work, do: Callable[[range], _T], block: int = WIDE_BLOCK) -> Iterator[_T]:
    """``do`` of every chunk of d columns; results in the order of columns.

    Args:
        d: Columns.
        work: How they are cut.
        do: Given the columns of a chunk; called from the pool's threads.
        block: Columns of the blocks that a chunk is made of.
    """
    size = -(-max(1, work.chunk) // block) * block
    chunks = [range(start, min(start + size, d)) for start in range(0, d, size)]
    if work.threads <= 1 or len(chunks) == 1:
        yield from map(do, chunks)
        return
    with ThreadPoolExecutor(work.threads) as pool:
        yield from pool.map(do, chunks)


def blocks_of(columns: range, width: int = BLOCK) -> Iterator[slice]:
    """The blocks of a chunk."""
    for start in range(columns.start, columns.stop, width):
        yield slice(start, min(start + width, columns.stop))


def combine(weights: Floats, rows: Rows, work: Work) -> Vector:
    """``weights @ rows`` as ``float32[d]``, in float32 products; a row that has all the weight is copied.

    Args:
        weights: ``float64[n]``, not negative, of sum 1 or less.
        rows: ``float32[n, d]``.
        work: How columns are cut.

    Raises:
        AggregationError: A row is not finite.
    """
    used = np.flatnonzero(weights)
    if len(used) == 1 and weights[used[0]] == 1.0:
        refuse_nonfinite(rows[used])
        only: Vector = rows[used[0]].copy()
        return only
    short = weights.astype(np.float32)  # [n]
    result = np.empty(rows.shape[1], dtype=np.float32)

    def do(columns: range) -> bool:
        with np.errstate(all="ignore"):
            for block in blocks_of(columns, _WIDEST_BLOCK):
                np.matmul(short, rows[:, block], out=result[block])
            # Finite only if all of it is; while it is in the cache.
            return isfinite(result[columns.start : columns.stop].sum())

    if not all(list(over_chunks(rows.shape[1], work, do, _WIDEST_BLOCK))):
        # A bad row, or rounding at the end of float32, or nothing but the sum over columns.
        refuse_nonfinite(rows)
        wrong = np.flatnonzero(~np.isfinite(result))
        result[wrong] = weights @ rows[:, wrong].astype(np.float64)
    return result
