"""Rules that choose rows: Krum and Multi-Krum.

Source: Blanchard et al. 2017, "Machine Learning with Adversaries" (arXiv 1703.02757). A row's score is the sum of its
squared distances to the n - f - 2 nearest others. Implementations differ by one neighbour (ByzFL takes n - f - 1), so
the number is an argument. Equal scores go by row number, in a stable sort.
"""

from __future__ import annotations

import numpy as np

from testudo_server.aggregate.base import Floats
from testudo_server.aggregate.gram import Geometry


def krum_scores(geometry: Geometry, neighbours: int) -> Floats:
    """``float64[m]``: sums of squared distances to so many nearest other points."""
    others = geometry.distances.copy()
    np.fill_diagonal(others, np.inf)
    scores: Floats = np.sort(others, axis=1)[:, :neighbours].sum(axis=1)
    return scores


def krum(geometry: Geometry, f: int, *, neighbours: int | None = None) -> Floats:
    """All weight to the row of least score. n >= 2f + 3; kappa as in
    :func:`~testudo_server.aggregate.bounds.krum_bound`, which is under 5.83 (n - f) / (n - 2f - 1).

    Args:
        geometry: Of m points.
        f: Bad ones among them.
        neighbours: m - f - 2 where not given.

    Returns:
        ``float64[m]``, one of them 1.
    """
    return _chosen(geometry, f, 1, neighbours)


def multi_krum(geometry: Geometry, f: int, *, neighbours: int | None = None) -> Floats:
    """Equal weight to the m - f rows of least score; arguments as for :func:`krum`, n >= 2f + 3.

    kappa as in :func:`~testudo_server.aggregate.bounds.multi_krum_bound`: about 4 f / n where f is small beside n.
    """
    return _chosen(geometry, f, len(geometry.distances) - f, neighbours)


def _chosen(geometry: Geometry, f: int, count: int, neighbours: int | None) -> Floats:
    m = len(geometry.distances)
    scores = krum_scores(geometry, m - f - 2 if neighbours is None else neighbours)
    weights = np.zeros(m)
    weights[np.argsort(scores, kind="stable")[:count]] = 1.0 / count
    return weights
