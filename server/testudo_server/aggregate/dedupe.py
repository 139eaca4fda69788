"""Dedupe: near-copies count once. For meta-updates, where honest ones are almost orthogonal and similarity is odd.

Colluders that send the same vector form the densest cluster, to which Krum, NNM, MDA and the geometric median are
drawn. Here rows fall into clusters in which *every* pair has a cosine over a limit (complete link). While honest rows
are not so similar to each other, a cluster of k rows holds one of them at most: k - 1 bad ones are used up, and what
they leave is one bad row, for the honest member may be drowned among them. So f shrinks by k - 2, and clusters of two
are left alone. Where f shrank by k - 1, four bad rows could each pair up with an honest one, and four bad rows stood
against an f of none. With single link, one bad row between three orthogonal honest ones has cosine 0.58 to each, would
merge them all, and f would shrink for it.

A cluster's row is the mean of its members, each shortened to the shortest: a copy of an honest row at a thousand times
its length must not replace it.

What it rests on is an assumption: two honest rows that happen to be that similar are merged as well, and f is one too
small then. No kappa for the same reason.
"""

from __future__ import annotations

import numpy as np

from testudo_server.aggregate.base import Floats, Mix
from testudo_server.aggregate.gram import Geometry

SIMILAR = 0.5
LOW_MEDIAN = 0.25
_FEWEST = 3  # rows of a cluster


def cosines_of(geometry: Geometry) -> Floats:
    """``float64[m, m]``; 0 for a row of zeros."""
    norms = geometry.norms
    inverse = np.divide(1.0, norms, out=np.zeros(len(norms)), where=norms > 0.0)
    cosines: Floats = geometry.gram * inverse * inverse[:, None]
    return cosines


def dedupe(geometry: Geometry, f: int, *, similar: float = SIMILAR, low_median: float = LOW_MEDIAN) -> Mix:
    """Clusters of three near-copies or more become a row each, and f shrinks by the rows that are gone, less one for
    each of them.

    Nothing is merged where rows are alike anyhow: where the median cosine is over ``low_median``, or where more than f
    rows would go, so that honest ones must be among them.

    Args:
        geometry: Of n points.
        f: Bad ones among them.
        similar: Cosine over which two rows are copies.
        low_median: Median cosine of all pairs up to which a copy is odd.
    """
    cosines = cosines_of(geometry)
    n = len(cosines)
    pairs = cosines[np.triu_indices(n, 1)]
    found = _complete_link(cosines, similar) if len(pairs) and np.median(pairs) <= low_median else []
    merged = tuple(tuple(members) for members in found if len(members) >= _FEWEST)
    gone = sum(len(members) - 1 for members in merged)
    if not 0 < gone <= f:
        return Mix(np.eye(n), f)
    norms = geometry.norms
    alone = sorted(set(range(n)).difference(*merged))
    matrix = np.zeros((n - gone, n))
    for row, members in zip(matrix, sorted([*map(list, merged), *([row] for row in alone)]), strict=True):
        row[members] = (norms[members].min() / norms[members] if len(members) > 1 else 1.0) / len(members)
    return Mix(matrix, f - gone + len(merged), merged)


def _complete_link(cosines: Floats, similar: float) -> list[list[int]]:
    """Clusters, by their least row; the two that are most alike are joined first, while their least alike pair is."""
    links = cosines.copy()
    np.fill_diagonal(links, -np.inf)
    clusters = {row: [row] for row in range(len(links))}
    while True:
        first, second = sorted(divmod(int(np.argmax(links)), len(links)))
        if links[first, second] <= similar:
            return [sorted(members) for members in clusters.values()]
        clusters[first] += clusters.pop(second)
        least = np.minimum(links[first], links[second])
        links[first] = links[:, first] = least
        links[first, first] = -np.inf
        links[second] = links[:, second] = -np.inf
