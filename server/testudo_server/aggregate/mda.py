"""MDA, minimum diameter averaging: the mean of the n - f rows whose greatest distance is least. Exact.

n - f rows of a diameter up to t are what is left when a vertex cover of size f is taken away from the graph of all
pairs farther apart than t; t is found by bisection. The search is exponential in f at worst and has a budget.

Sources: El Mhamdi et al. 2018, "The Hidden Vulnerability of Distributed Learning in Byzantium" (arXiv 1802.07927);
Farhadkhani et al. 2022, "Byzantine Machine Learning Made Easy by Resilient Averaging" (arXiv 2205.12173).
"""

from __future__ import annotations

import numpy as np

from testudo_common.errors import AggregationError
from testudo_server.aggregate.base import Floats
from testudo_server.aggregate.gram import Geometry

NODE_BUDGET = 200_000


def mda(geometry: Geometry, f: int, *, node_budget: int = NODE_BUDGET) -> Floats:
    """Equal weight to the m - f rows of least diameter, for f < n / 2.

    The result is within 2 f / (n - f) times the honest rows' diameter of their mean: chosen and honest rows share one
    at least, and differ in f. So kappa <= 8 f^2 / (n - f). Of several sets of the same diameter, which is usual, the
    one that holds the rows of least summed squared distance (see :func:`preference`).

    Args:
        geometry: Of m points.
        f: Bad ones among them.
        node_budget: Branches of the search.

    Returns:
        ``float64[m]``, m - f of them 1 / (m - f).

    Raises:
        AggregationError: The budget was not enough.
    """
    m = len(geometry.distances)
    order = preference(geometry.distances)
    distances = geometry.distances[np.ix_(order, order)]
    limits = np.unique(distances)  # sorted; 0 among them
    search = _CoverSearch(node_budget)
    low, high = 0, len(limits) - 1  # the greatest distance is always enough
    while low < high:
        middle = (low + high) // 2
        if search.covered(_farther_than(distances, limits[middle]), (1 << m) - 1, f):
            high = middle
        else:
            low = middle + 1
    kept = _first_kept(search, _farther_than(distances, limits[low]), f)
    weights = np.zeros(m)
    weights[order[kept[: m - f]]] = 1.0 / (m - f)
    return weights


def preference(distances: Floats) -> np.ndarray:
    """``int[m]``: rows by their summed squared distances, so that ties do not depend on who came first."""
    return np.argsort(distances.sum(axis=1), kind="stable")


def _farther_than(distances: Floats, limit: float) -> list[int]:
    """A bit set of its neighbours for every vertex."""
    packed = np.packbits(distances > limit, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _first_kept(search: _CoverSearch, graph: list[int], f: int) -> list[int]:
    """Vertices outside a cover of size f, each as early as can be; there is such a cover."""
    left, budget, kept = (1 << len(graph)) - 1, f, []
    for vertex, neighbours in enumerate(graph):
        if not left >> vertex & 1:
            continue
        left &= ~(1 << vertex)
        others = neighbours & left
        if others.bit_count() <= budget and search.covered(graph, left & ~others, budget - others.bit_count()):
            kept.append(vertex)
            left &= ~others
            budget -= others.bit_count()
        else:
            budget -= 1
    return kept


class _CoverSearch:
    """Whether a graph has a vertex cover of some size: bounded search tree, one budget for all questions.

    Args:
        node_budget: Branches in all.
    """

    def __init__(self, node_budget: int) -> None:
        self._nodes_left = node_budget

    def covered(self, graph: list[int], left: int, size: int) -> bool:
        """Whether ``size`` vertices touch every edge among the vertices of the bit set ``left``.

        Raises:
            AggregationError: The budget was not enough.
        """
        while True:
            self._nodes_left -= 1
            if self._nodes_left < 0:
                raise AggregationError(
                    "the search for the set of least diameter took too long",
                    where="mda",
                    remedy="take another rule, a smaller f, or a greater node budget",
                )
            degrees = {v: (graph[v] & left).bit_count() for v in _bits(left)}
            degrees = {vertex: degree for vertex, degree in degrees.items() if degree}
            if not degrees:
                return True
            top = max(degrees, key=degrees.__getitem__)
            if sum(degrees.values()) > 2 * size * degrees[top]:
                return False
            leaf = next((vertex for vertex, degree in degrees.items() if degree == 1), None)
            if degrees[top] > size or leaf is not None:  # the first must be in the cover; a leaf's neighbour may be
                taken = 1 << top if degrees[top] > size else graph[leaf or 0] & left
                left, size = left & ~taken, size - 1
                continue
            left = sum(1 << vertex for vertex in degrees)
            if _matching(graph, left) > size:
                return False
            if self.covered(graph, left & ~(1 << top), size - 1):
                return True
            neighbours = graph[top] & left
            left, size = left & ~neighbours, size - degrees[top]


def _matching(graph: list[int], left: int) -> int:
    """Edges of a greedy matching: a cover has a vertex of each."""
    count = 0
    for vertex in _bits(left):
        if left >> vertex & 1 and (others := graph[vertex] & left):
            left &= ~(1 << vertex | others & -others)
            count += 1
    return count


def _bits(mask: int) -> list[int]:
    found = []
    while mask:
        lowest = mask & -mask
        found.append(lowest.bit_length() - 1)
        mask ^= lowest
    return found
