"""Linear pre-aggregators: L2 clipping, ARC, bucketing and NNM, each as a matrix on the rows. Dedupe is in dedupe.py.

Sources: Allouah et al. 2025, "Adaptive Gradient Clipping for Robust Federated Learning" (arXiv 2405.14432), ARC;
Karimireddy et al. 2022, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing" (arXiv 2006.09365);
Allouah et al. 2023, "Fixing by Mixing" (arXiv 2302.01772), nearest-neighbour mixing.
"""

from __future__ import annotations

import numpy as np

from testudo_server.aggregate.base import Floats, Mix
from testudo_server.aggregate.gram import Geometry


def clip(geometry: Geometry, f: int, *, max_norm: float) -> Mix:
    """Rows longer than ``max_norm`` are shortened to it. No kappa: honest ones may be."""
    return Mix(np.diag(_shortened(geometry.norms, max_norm)), f)


def arc(geometry: Geometry, f: int) -> Mix:
    """The floor(2 f (m - f) / m) longest rows are shortened to the longest of the others.

    Adds at most 2 f / (n - 2f) to the rule's kappa. In whole numbers: floats would round 2 f / m (m - f) down.
    """
    norms = geometry.norms
    clipped = 2 * f * (len(norms) - f) // len(norms)
    return Mix(np.diag(_shortened(norms, float(np.sort(norms)[len(norms) - clipped - 1]))), f)


def bucketing(m: int, f: int, *, size: int, rng: np.random.Generator) -> Mix:
    """Means of ``size`` rows each, drawn at random without replacement; the last bucket may be smaller.

    f stays what it is: every bad row may be in a bucket of its own. kappa as in
    :func:`~testudo_server.aggregate.bounds.bucketing_bound`.
    """
    order = rng.permutation(m)
    buckets = [order[start : start + size] for start in range(0, m, size)]
    matrix = np.zeros((len(buckets), m))
    for bucket, members in zip(matrix, buckets, strict=True):
        bucket[members] = 1.0 / len(members)
    return Mix(matrix, min(f, len(buckets)))


def nnm(geometry: Geometry, f: int) -> Mix:
    """Every row becomes the mean of the m - f rows nearest to it, itself among them; ties by row number.

    Brings a rule's kappa to at most 8 f / (n - f) (kappa + 1), which is of the best order there is.
    """
    m = len(geometry.distances)
    nearness = geometry.distances.copy()
    np.fill_diagonal(nearness, -1.0)
    matrix = np.zeros((m, m))
    np.put_along_axis(matrix, np.argsort(nearness, axis=1, kind="stable")[:, : m - f], 1.0 / (m - f), axis=1)
    return Mix(matrix, f)


def _shortened(norms: Floats, limit: float) -> Floats:
    """Factors that bring norms down to ``limit``, ``float64[m]``."""
    factors = np.ones(len(norms))
    np.divide(limit, norms, out=factors, where=norms > limit)
    return factors
