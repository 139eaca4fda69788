"""CAF, the covariance-bound-agnostic filter: take weight from what sticks out along the direction of most variance.

Source: Allouah et al. 2025, "Towards Trustworthy Federated Learning with Untrusted Participants" (arXiv 2505.01874).
Its error depends on the greatest eigenvalue of the honest covariance, not on its trace: what DP noise
costs it does not grow with d. Here the eigenproblem is that of the Gram matrix, of size n, and solved exactly: a random
power iteration answers differently each time.
"""

from __future__ import annotations

import numpy as np

from testudo_server.aggregate.base import Floats
from testudo_server.aggregate.gram import Geometry

_NO_WEIGHT = 1e-12


def caf(geometry: Geometry, f: int) -> Floats:
    """Weights of the mean with the least top eigenvalue on the way, for f < n / 2. No kappa is stated here.

    Weights begin at 1. While they sum to more than n - 2f, each shrinks by ``1 - t / max t``: t is the row's squared
    projection, and the maximum is over rows that have weight left. Over all rows it would hang, on one antipodal pair.

    Args:
        geometry: Of m points.
        f: Bad ones among them.

    Returns:
        ``float64[m]`` of sum 1.
    """
    m = len(geometry.distances)
    products = geometry.around(int(np.argmin(np.sqrt(geometry.distances).sum(axis=1))))  # [m, m]
    counts = np.ones(m)
    best, least = np.full(m, 1.0 / m), np.inf
    while counts.sum() > m - 2 * f:
        active = np.flatnonzero(counts)
        shares = counts[active] / counts.sum()
        value, squared = _top_direction(products[np.ix_(active, active)], shares)
        if value < least:
            least = value
            best = np.zeros(m)
            best[active] = shares
        top = squared.max()
        if top <= 0.0:  # all that is left is one point
            break
        counts[active] *= 1.0 - squared / top
        counts[counts < _NO_WEIGHT] = 0.0
    return best


def _top_direction(products: Floats, shares: Floats) -> tuple[float, Floats]:
    """The top eigenvalue of the weighted covariance, and each point's squared projection on its direction, [k].

    Args:
        products: ``float64[k, k]``, inner products around any base.
        shares: ``float64[k]``, positive, of sum 1.
    """
    toward = products @ shares
    centred = products - toward - toward[:, None] + shares @ toward
    roots = np.sqrt(shares)
    values, vectors = np.linalg.eigh(centred * np.outer(roots, roots))
    value = float(values[-1])
    if value <= 0.0:
        return 0.0, np.zeros(len(shares))
    # Of the covariance's unit eigenvector u = sum_j sqrt(p_j) v_j (x_j - mean) / sqrt(value).
    squared: Floats = (centred @ (roots * vectors[:, -1])) ** 2 / value
    return value, squared
