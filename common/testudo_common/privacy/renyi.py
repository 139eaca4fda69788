"""Renyi divergence of one step of the sampled Gaussian mechanism, at many orders at once, and the epsilon it bounds.

The sums are Opacus's (``accountants/analysis/rdp.py``), term by term and equal to rounding, but on arrays: there they
are added up in Python, at a hundred times the cost. Knows no events, no torch.
Sources: Mironov, Talwar, Zhang 2019, section 3.3; Balle et al. 2020, theorem 21 (from divergences to epsilon).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import binom, log_ndtr

Floats = npt.NDArray[np.float64]

_TERMS_AT_ONCE = 64
_SMALLEST_TERM = -30.0  # its logarithm: a series ends with the first term below it


def renyi_divergences(sample_rate: float, noise_multiplier: float, orders: Sequence[float]) -> Floats:
    """The divergence at every one of ``orders``, ``float64[orders]``.

    Args:
        sample_rate: q in (0, 1].
        noise_multiplier: sigma / C, above 0.
        orders: Each above 1.
    """
    alphas = np.asarray(orders, dtype=np.float64)
    if sample_rate == 1.0:
        return alphas / (2 * noise_multiplier**2)
    whole = alphas == np.floor(alphas)
    log_a = np.empty(len(alphas))
    log_a[whole] = _log_a_of_whole(sample_rate, noise_multiplier, alphas[whole])
    log_a[~whole] = _log_a_of_fractions(sample_rate, noise_multiplier, alphas[~whole])
    return log_a / (alphas - 1)


def smallest_epsilon(orders: Sequence[float], divergences: Floats, delta: float) -> float:
    """The best bound of all orders on epsilon; below 0 where 0 holds as well, ``inf`` where no order has a bound.

    Args:
        orders: Each above 1.
        divergences: Of everything that was done together, ``float64[orders]``.
        delta: In (0, 1).
    """
    alphas = np.asarray(orders, dtype=np.float64)
    bounds = divergences - (np.log(delta) + np.log(alphas)) / (alphas - 1) + np.log((alphas - 1) / alphas)
    return math.inf if np.isnan(bounds).all() else float(np.nanmin(bounds))


def _log_a_of_whole(q: float, sigma: float, alphas: Floats) -> Floats:
    sizes = alphas.astype(np.intp) + 1
    starts = np.cumsum(sizes) - sizes
    alpha = np.repeat(alphas, sizes)  # [terms of all orders], as everything below
    i = np.arange(len(alpha)) - np.repeat(starts, sizes)
    log_weights = np.log(binom(alpha, i)) + i * math.log(q) + (alpha - i) * math.log(1 - q)
    log_a: Floats = np.logaddexp.reduceat(log_weights + (i * i - i) / (2 * sigma**2), starts)
    return log_a


def _log_a_of_fractions(q: float, sigma: float, alphas: Floats) -> Floats:
    """Of each order two series, one for either side of where sampled and not sampled are equally likely."""
    middle = sigma**2 * math.log(1 / q - 1) + 0.5
    peaks, sums = np.full((2, len(alphas)), -np.inf), np.zeros((2, len(alphas)))  # a series is exp(peak) * sum
    first, unfinished = 0, np.arange(len(alphas))
    while len(unfinished):
        i = np.arange(first, first + _TERMS_AT_ONCE)
        alpha = alphas[unfinished, np.newaxis]
        j = alpha - i  # [u, t], as everything below unless it says otherwise
        weight = binom(alpha, i)
        below = i * math.log(q) + j * math.log(1 - q) + (i * i - i) / (2 * sigma**2) + log_ndtr((middle - i) / sigma)
        above = j * math.log(q) + i * math.log(1 - q) + (j * j - j) / (2 * sigma**2) + log_ndtr((j - middle) / sigma)
        terms = np.log(np.abs(weight)) + np.stack([below, above])  # [2, u, t]
        # Written so that a term that is no number ends a series too, which nothing else would.
        small = ~(terms.max(axis=0) >= _SMALLEST_TERM)
        terms[:, np.cumsum(small, axis=1) - small > 0] = -np.inf
        before = peaks[:, unfinished]  # [2, u]
        peak = np.maximum(before, terms.max(axis=2))
        added = (np.sign(weight) * np.exp(terms - peak[..., np.newaxis])).sum(axis=2)
        peaks[:, unfinished], sums[:, unfinished] = peak, sums[:, unfinished] * np.exp(before - peak) + added
        first, unfinished = first + _TERMS_AT_ONCE, unfinished[~small.any(axis=1)]
    log_a: Floats = np.logaddexp.reduce(peaks + np.log(sums), axis=0)
    return log_a
