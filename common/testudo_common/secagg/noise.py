"""Noise in whole numbers, for clients to add inside a sum. Knows no plan, no epsilon and no member.

``discrete_gaussian`` draws from N_Z(0, sigma^2), ``P(x) ~ exp(-x^2 / (2 sigma^2))`` on the whole numbers (Canonne,
Kamath, Steinke 2020, arXiv:2004.00010): rounded Gaussians added up would not have a known Renyi divergence, and
floating point leaks (Mironov 2012). A sum of discrete Gaussians is not one, but with a sigma of 4 or more for each of n
clients the two are within ``10 * sum(exp(-2 pi^2 sigma^2 k / (k + 1)), k < n)``, less than n 2^-220, of each other in
every log-probability (Kairouz, Liu, Steinke 2021, arXiv:2102.06387). So a sum costs what a Gaussian of its variance
does.

How it draws: by inversion. 63 bits of the key stream are compared with the thresholds ``P(|x| >= k)``, one bit is the
sign. Thresholds have 103 bits; the last 40 are looked at where the first 63 do not decide. They are added up from the
tail as whole numbers, so that a step's probability keeps the relative precision of the float64 that it came from:
2^-44, and at 0, which is left what remains, 2^-51 sigma. The distribution drawn is within 2^-50 of the ideal one in
total variation, and within ``alpha 2^-84`` in Renyi divergence of order alpha (that adds up over coordinates: 10^9 of
them cost 2^-44 at alpha = 1024). What is left out in the tail, from 11.7 sigma on, has probability below 2^-85.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg.masking import key_stream
from testudo_common.secagg.primitives import derive, number

Integers = npt.NDArray[np.int64]
LEAST_DEVIATION = 4.0
MOST_DEVIATION = float(1 << 17)
"""The thresholds of one take 25 MB."""
TAIL_DEVIATIONS = 12.0
"""Noise beyond has probability 2^-102 a coordinate: discrete Gaussians are sub-Gaussian, as are sums of them."""
_FIRST_BITS = 63
_MORE_BITS = 40  # two million of them add up within 64 bits
_LEAST_LOG2 = -100
_CHUNK = 1 << 13


@dataclass(frozen=True, slots=True)
class SumNoise:
    """Standard deviations of noise, in whole steps: of a sum, or of one client's share of it.

    Attributes:
        values: In each coordinate of the update; 0 for none.
        counts: In each count; 0 for none.
    """

    values: float
    counts: tuple[float, ...] = ()

    def times(self, factor: float) -> SumNoise:
        """Every deviation ``factor`` times."""
        return SumNoise(self.values * factor, tuple(each * factor for each in self.counts))

    def check_share(self) -> None:
        """Check that one client can draw noise of these deviations.

        Raises:
            ProtocolError: One is too small for a sum of them to be like a Gaussian, or too large to be drawn.
        """
        drawn = [each for each in (self.values, *self.counts) if each != 0]
        if any(not each >= LEAST_DEVIATION for each in drawn):
            raise ProtocolError(
                Breach.RANGE,
                f"a client's share of the noise has a deviation of {min(drawn):.3g} steps, under {LEAST_DEVIATION:g}",
                remedy="Raise secure_aggregation.value_bits, or the noise",
            )
        if any(each > MOST_DEVIATION for each in drawn):
            raise ProtocolError(
                Breach.RANGE,
                f"a client's share of the noise has a deviation of {max(drawn):.3g} steps, over {MOST_DEVIATION:g}",
                remedy="Lower secure_aggregation.value_bits, or form larger groups",
            )


def discrete_gaussian(sigma: float, size: int, key: bytes) -> Integers:
    """Independent draws of N_Z(0, sigma^2).

    Args:
        sigma: Standard deviation (to 2^-220 at 4 and more) in whole steps; above 0, at most 2^17.
        size: How many, 0 or more.
        key: 32 bytes from the operating system, used once.

    Returns:
        ``int64[size]``.

    Raises:
        ProtocolError: ``sigma`` is out of its range.
    """
    if not 0 < sigma <= MOST_DEVIATION:
        raise ProtocolError(
            Breach.RANGE,
            f"noise of a deviation of {sigma:g} steps cannot be drawn",
            remedy=f"Use fewer value bits: up to {MOST_DEVIATION:g} steps can be",
        )
    first, more = _thresholds(sigma)
    stream = key_stream(key, "<u8", _CHUNK)
    drawn = np.empty(size, dtype=np.int64)
    for start in range(0, size, _CHUNK):
        words = next(stream)[: min(_CHUNK, size - start)].copy()
        below = (words >> np.uint64(1)).astype(np.int64)  # 63 bits
        reached = len(first) - np.searchsorted(first, below, side="right")  # thresholds above them
        undecided = np.flatnonzero(first[np.maximum(len(first) - 1 - reached, 0)] == below)
        if undecided.size:  # one draw in 2^40
            finer = (next(stream) >> np.uint64(64 - _MORE_BITS)).astype(np.int64)
            for place in undecided:
                equal = first == below[place]
                reached[place] += int(np.count_nonzero(more[equal] > finer[place]))
        negative = (words & np.uint64(1)).astype(bool)
        drawn[start : start + len(words)] = np.where(negative, -reached, reached)
    return drawn


@lru_cache(maxsize=4)
def _thresholds(sigma: float) -> tuple[Integers, Integers]:
    """``P(|x| >= k)`` for k from the last to 1, in units of 2^-63, and what is left of each in units of 2^-103."""
    last = math.ceil(sigma * math.sqrt(-2 * math.log(2) * _LEAST_LOG2))
    steps = np.arange(last, 0, -1, dtype=np.float64)  # the smallest first
    weights = np.exp(-((steps / sigma) ** 2) / 2)
    both_signs = 2 * weights / math.fsum([1.0, *(2 * weights).tolist()])
    scaled = both_signs * 2.0**_FIRST_BITS  # exact, as all that follows is
    whole = np.floor(scaled)
    rest = np.floor((scaled - whole) * 2.0**_MORE_BITS)
    more = np.cumsum(rest.astype(np.int64))
    first = np.cumsum(whole.astype(np.int64)) + (more >> _MORE_BITS)
    more &= (1 << _MORE_BITS) - 1
    first.flags.writeable = more.flags.writeable = False  # the cache hands them to everybody
    return first, more


def draw(noise: SumNoise, values: int, key: bytes) -> tuple[Integers, Integers]:
    """Noise for a vector: of its ``values`` coordinates, and of its counts.

    Args:
        noise: Deviations of one client's share.
        values: d.
        key: 32 bytes from the operating system, used once.

    Returns:
        ``int64[d]`` and ``int64[k]``.

    Raises:
        ProtocolError: See :meth:`SumNoise.check_share`.
    """
    noise.check_share()
    of_values = np.zeros(values, dtype=np.int64)
    if noise.values:
        of_values = discrete_gaussian(noise.values, values, derive(key, "noise of values"))
    of_counts = np.zeros(len(noise.counts), dtype=np.int64)
    for index, sigma in enumerate(sorted(set(noise.counts) - {0.0})):
        places = np.flatnonzero(np.array(noise.counts) == sigma)
        of_counts[places] = discrete_gaussian(sigma, len(places), derive(key, "noise of counts", number(index)))
    return of_values, of_counts


def longest(deviation: float, coordinates: int) -> float:
    """What the L2 norm of noise exceeds with probability 2^-40 at most.

    Source: Laurent and Massart 2000, lemma 1, which Hsu, Kakade and Zhang 2012 (arXiv:1110.2842) show for all
    sub-Gaussian vectors.
    """
    x = 40 * math.log(2)
    return deviation * math.sqrt(coordinates + 2 * math.sqrt(coordinates * x) + 2 * x)
