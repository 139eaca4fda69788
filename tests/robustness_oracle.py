"""Poisoned clients in groups, counted a second way: whole numbers of placements, by a generating function.

``(1 + x)^(N - n) * product over groups of (1 + y * ((1 + x)^size - 1))``: the coefficient of x^bad y^k is the number
of ways to poison ``bad`` of N clients so that k groups hold one. No float, and nothing of what it is to check.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, pairwise


def by_counting(sizes: Sequence[int], bad: int, clients: int) -> list[Fraction]:
    """P(k groups hold a poisoned client), k = 0..g."""
    ways = [[math.comb(clients - sum(sizes), outside) for outside in range(bad + 1)]]  # ways[k][placed]
    for size in sizes:
        inside = [0, *(math.comb(size, placed) for placed in range(1, bad + 1))]
        longer = [[*row] for row in [*ways, [0] * (bad + 1)]]
        for k, row in enumerate(ways):
            for placed, count in enumerate(row):
                for more in range(1, min(size, bad - placed) + 1):
                    longer[k + 1][placed + more] += count * inside[more]
        ways = longer
    return [Fraction(row[bad], math.comb(clients, bad)) for row in ways]


def by_enumeration(sizes: Sequence[int], bad: int, clients: int) -> list[Fraction]:
    """The same, every placement looked at."""
    bounds = [sum(sizes[:group]) for group in range(len(sizes) + 1)]
    counts = [0] * (len(sizes) + 1)
    for places in combinations(range(clients), bad):
        counts[sum(any(start <= place < stop for place in places) for start, stop in pairwise(bounds))] += 1
    return [Fraction(count, math.comb(clients, bad)) for count in counts]


def half_bad(sizes: Sequence[int], bad: int, clients: int) -> Fraction:
    """P(half or more of the groups hold one)."""
    chances = by_counting(sizes, bad, clients)
    return sum((chance for k, chance in enumerate(chances) if 2 * k >= len(sizes)), Fraction(0))
