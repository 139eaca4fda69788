"""Stated bounds: the kappa of a chain, before anything is aggregated. What it is a bound of: see base.py.

A bound is for the worst rows there are; on most it is far from tight. One of 1 says: no farther from the honest mean,
in the square, than an honest row is on average.

Sources: Allouah et al. 2023, "Fixing by Mixing" (arXiv 2302.01772), for trimmed mean, median, geometric median and NNM;
Allouah et al. 2025 (arXiv 2405.14432) for ARC; Farhadkhani et al. 2022 (arXiv 2205.12173) for MDA's diameter. Those of
Krum, Multi-Krum and bucketing are worked out where they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from testudo_server.aggregate.base import check_f
from testudo_server.aggregate.compose import Settings, check_names


def kappa_bound(names: Sequence[str], n: int, f: int, *, bucket_size: int | None = None) -> float:
    """The kappa that a chain is known to have, for any rows and any set of n - f honest ones among them.

    Args:
        names: As for :func:`~testudo_server.aggregate.compose.chain`.
        n: Rows, 1 or more.
        f: How many of them may be bad.
        bucket_size: bucketing: rows a bucket; that of ``Settings`` where not given.

    Returns:
        0 or more. ``math.inf`` where none is known: of the mean, unless f is 0; of centred clipping, which knows
        nothing of the honest rows' spread; of CAF, whose paper has one in terms of the honest covariance's greatest
        eigenvalue, with constants that are not checked here; of whatever follows clip, which moves honest rows too, or
        dedupe, which rests on an assumption about them.

    Raises:
        AggregationError: There is no such chain, or it cannot withstand f of n.
    """
    check_names(names)
    check_f(names[0], n, f)
    if names[0] == "bucketing":
        size = Settings().bucket_size if bucket_size is None else bucket_size
        buckets = -(-n // size)
        after = kappa_bound(names[1:], buckets, min(f, buckets), bucket_size=size)
        return bucketing_bound(after, n, f, size)
    if len(names) == 1:
        return _RULES[names[0]](n, f) if names[0] in _RULES else math.inf
    after = kappa_bound(names[1:], n, f, bucket_size=bucket_size)
    if names[0] == "nnm":
        return nnm_bound(after, n, f)
    return after + 2 * f / (n - 2 * f) if names[0] == "arc" else math.inf


def trimmed_mean_bound(n: int, f: int) -> float:
    """6 f / (n - 2f) (1 + f / (n - 2f)) (Allouah et al. 2023)."""
    lowest = f / (n - 2 * f)
    return 6 * lowest * (1 + lowest)


def median_bound(n: int, f: int) -> float:
    """4 (1 + f / (n - 2f))^2, of the geometric median too (Allouah et al. 2023).

    A point of least summed distance is within ``2 / (n - 2f)`` times the honest rows' summed distance of their mean.
    """
    return 4 * (1 + f / (n - 2 * f)) ** 2


def krum_bound(n: int, f: int) -> float:
    """(1 + sqrt(2c))^2 s / (n - 2f - 1), where s = n - f and c = (s - 2) / (s - 1).

    Allouah et al. 2023 have 6 (1 + f / (n - 2f)), for sums over n - f - 1 nearest others. Ours are over n - f - 2
    (Blanchard et al. 2017), and one honest row fewer is certain to be among them, so that their way leads to a little
    more. With v the honest rows' mean squared deviation: an honest row's score is at most c times its summed squared
    distance to all honest ones, hence the least score at most 2 c s v. The chosen row and its honest neighbours are
    n - 2f - 1 or more; so many times its squared distance to the honest mean is at most
    ``(sqrt(score) + sqrt(s v))^2``.
    """
    s = n - f
    return (1 + math.sqrt(2 * (s - 2) / (s - 1))) ** 2 * s / (n - 2 * f - 1)


def multi_krum_bound(n: int, f: int) -> float:
    """(sqrt(f / s) + sqrt(f / h) (sqrt(c (s + f) / s) + sqrt(f / s)))^2, where h = n - 2f - 1; s and c as for Krum.

    Let b <= f bad rows be chosen, in the place of as many honest ones. These deviate by sqrt(b s v) at most, summed.
    None of the b has a greater score than any of the honest ones left out, so that bad scores sum to
    ``c (s * s v + b s v)`` at most; and each bad row has h honest neighbours, so that ``h`` times their summed squared
    distances to the honest mean is at most ``(sqrt(summed scores) + sqrt(b s v))^2``.
    """
    s, h = n - f, n - 2 * f - 1
    share = math.sqrt(f / s)
    return (share + math.sqrt(f / h) * (math.sqrt((s - 2) / (s - 1) * (s + f) / s) + share)) ** 2


def mda_bound(n: int, f: int) -> float:
    """8 f^2 / (n - f): 2 f / (n - f) of the honest diameter, which is sqrt(2 (n - f)) deviations at most."""
    return 8 * f**2 / (n - f)


def nnm_bound(kappa: float, n: int, f: int) -> float:
    """Of NNM before a rule of this kappa: 8 f / (n - f) (kappa + 1) (Allouah et al. 2023)."""
    return 8 * f / (n - f) * (kappa + 1) if math.isfinite(kappa) else math.inf


def bucketing_bound(kappa: float, n: int, f: int, size: int) -> float:
    """Of buckets, however they are drawn, before a rule of this kappa: (kappa + 1) (n - f) / (r (m - f)).

    m is the number of buckets and r the rows in the smallest. Of the m - f buckets without a bad row, squared distances
    to the honest mean average at most ``(n - f) / (r (m - f))`` times those of the rows, and that is the sum of their
    own spread and of their mean's distance. Karimireddy et al. 2022 (arXiv 2006.09365) have better ones, in
    expectation over the draw.
    """
    buckets = -(-n // size)
    smallest = n % size or size
    return (kappa + 1) * (n - f) / (smallest * (buckets - f))


def _mean_bound(_n: int, f: int) -> float:
    return math.inf if f else 0.0


_RULES: dict[str, Callable[[int, int], float]] = {
    "mean": _mean_bound,
    "median": median_bound,
    "trimmed_mean": trimmed_mean_bound,
    "krum": krum_bound,
    "multi_krum": multi_krum_bound,
    "geometric_median": median_bound,
    "mda": mda_bound,
    "caf": _mean_bound,  # without bad rows it is the mean
}
