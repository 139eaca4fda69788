"""Rules that iterate on weights: the geometric median and centred clipping. Neither looks at the rows again.

Sources: Pillutla et al. 2022, "Robust Aggregation for Federated Learning" (arXiv 1912.13445), smoothed Weiszfeld;
Karimireddy et al. 2021, "Learning from History" (arXiv 2012.10333), centred clipping.
"""

from __future__ import annotations

import numpy as np

from testudo_server.aggregate.base import Floats
from testudo_server.aggregate.gram import Geometry

# Both are shares of the radius around the medoid that holds n - f rows. An absolute smoothing turns the median of small
# updates into their mean; and of a median over all pairs, bad rows can be in more than half.
_SMOOTHING = 1e-6
_CONVERGED = 1e-9
_MOST_ITERATIONS = 1000


def geometric_median(geometry: Geometry, f: int, *, smoothing: float = _SMOOTHING) -> Floats:
    """Weights of the point of least summed distance, by Weiszfeld's iteration until it stands still.

    kappa <= 4 (1 + f / (n - 2f))^2 (Allouah et al. 2023), for f < n / 2. f only says which rows
    to begin at, and what a small distance is.

    Args:
        geometry: Of m points.
        f: Bad ones among them.
        smoothing: Distances under so much of the radius of the m - f points around the medoid count as that.

    Returns:
        ``float64[m]`` of sum 1.
    """
    m = len(geometry.distances)
    roots = np.sqrt(geometry.distances)
    medoid = int(np.argmin(roots.sum(axis=1)))
    near = np.argsort(roots[medoid], kind="stable")[: m - f]
    scale = float(roots[medoid, near[-1]])
    weights = np.zeros(m)
    weights[near] = 1.0 / (m - f)
    if scale == 0.0:  # more than half of the points are one
        return weights
    products = geometry.around(medoid)  # [m, m]
    for _ in range(_MOST_ITERATIONS):
        toward = products @ weights
        squared = products.diagonal() - 2.0 * toward + weights @ toward
        closeness = 1.0 / np.maximum(np.sqrt(np.maximum(squared, 0.0)), smoothing * scale)
        following = closeness / closeness.sum()
        change = following - weights
        weights = following
        if change @ products @ change <= (_CONVERGED * scale) ** 2:
            break
    return weights


def centred_clipping(geometry: Geometry, f: int, *, radius: float | None = None, iterations: int = 20) -> Floats:
    """Weights of a centre that begins at zero and moves by the mean of the differences, each cut to a radius.

    Nothing is kept between calls: whoever wants to begin at the last round's result subtracts it first. A bad row moves
    the centre by radius / m an iteration at most. No kappa without knowledge of the honest rows' spread.

    Args:
        geometry: Of m points.
        f: Bad ones among them; f < m / 2 holds the median distance within the honest ones.
        radius: L2 norm; in each iteration the median distance from the centre where not given.
        iterations: 1 or more.

    Returns:
        ``float64[m]`` of sum 1 or less.
    """
    del f
    gram = geometry.gram
    m = len(gram)
    weights = np.zeros(m)
    for _ in range(iterations):
        toward = gram @ weights
        away = np.sqrt(np.maximum(gram.diagonal() - 2.0 * toward + weights @ toward, 0.0))
        limit = float(np.median(away)) if radius is None else radius
        kept = np.minimum(1.0, np.divide(limit, away, out=np.ones(m), where=away > 0.0))  # [m]
        weights = weights * (1.0 - kept.mean()) + kept / m
    return weights
