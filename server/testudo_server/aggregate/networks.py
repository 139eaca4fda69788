"""Sorting networks, pruned to what a trimmed mean needs: which ranks are kept, not their order.

Batcher's odd-even merge sort (1968; Knuth, TAOCP 3, 5.3.4). A comparator (i, j) leaves the lesser value on wire i and
the greater on wire j. Going backwards, one whose two outputs are both kept, or both dropped, and compared no more,
changes nothing; of one output that nobody reads only the other is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from testudo_server.aggregate.base import Rows


class Step(NamedTuple):
    """A comparator: wires, and which of its outputs anybody reads."""

    low: int
    high: int
    wants_low: bool
    wants_high: bool


def batcher(n: int) -> Iterator[tuple[int, int]]:
    """The comparators that sort n wires, in order."""
    merged = 1
    while merged < n:
        reach = merged
        while reach >= 1:
            for start in range(reach % merged, n - reach, 2 * reach):
                for low in range(start, start + min(reach, n - start - reach)):
                    if low // (2 * merged) == (low + reach) // (2 * merged):
                        yield low, low + reach
            reach //= 2
        merged *= 2


@lru_cache(maxsize=64)
def steps_for(n: int, first: int, last: int) -> tuple[Step, ...]:
    """What brings the values of ranks ``first`` to ``last - 1`` onto the wires of these numbers, in any order."""
    kept = [first <= wire < last for wire in range(n)]
    compared = [False] * n
    steps: list[Step] = []
    for low, high in reversed(list(batcher(n))):
        wants = [compared[wire] or kept[wire] for wire in (low, high)]
        if not (compared[low] or compared[high]) and wants[0] == wants[1]:
            continue
        steps.append(Step(low, high, wants[0], wants[1]))
        compared[low] = compared[high] = True
    return tuple(reversed(steps))


def run_network(block: Rows, first: int, last: int, scratch: Rows) -> list[Rows]:
    """The values of the kept ranks in every column, as ``last - first`` arrays ``float32[w]``, in any order.

    Args:
        block: ``float32[n, w]``; read only.
        first: Least rank kept, from 0.
        last: One more than the greatest.
        scratch: ``float32[n + 2, at least w]``, overwritten; results may lie in it.
    """
    width = block.shape[1]
    wires = list(block)
    owned = [False] * len(wires)
    spare = [row[:width] for row in scratch]
    for low, high, wants_low, wants_high in steps_for(len(wires), first, last):
        a, b = wires[low], wires[high]
        if wants_low and wants_high:
            lesser = spare.pop()
            np.minimum(a, b, out=lesser)
            greater = b if owned[high] else spare.pop()
            np.maximum(a, b, out=greater)
            if owned[low]:
                spare.append(a)
            wires[low], wires[high] = lesser, greater
            owned[low] = owned[high] = True
            continue
        wanted, other, choose = (low, high, np.minimum) if wants_low else (high, low, np.maximum)
        out = wires[wanted] if owned[wanted] else spare.pop()
        choose(a, b, out=out)
        if owned[other]:
            spare.append(wires[other])
        wires[wanted], owned[wanted], owned[other] = out, True, False
    return wires[first:last]
