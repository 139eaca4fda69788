"""Real vectors as whole numbers modulo 2^32, and the mean of a sum of them back. Knows no masks and no members.

What one client sends is, in this order: its update as fixed-point numbers, its weight where weights are not uniform,
and counts (for metrics) where the round has them. Everything is bounded, and the bounds are such that no sum within
a group can wrap: ``value bits + ceil(log2(members * max_weight)) + 1 <= 32``.

Rounding is stochastic (Gupta et al. 2015), so that the sum is unbiased; it comes after the noise of differential
privacy and costs no epsilon. Its randomness is a key stream, read as little-endian 16-bit words r: with
``factor = scale * weight * shrink`` in float64, a coordinate x becomes
``floor((trunc(x * factor * 2^16) + r) / 2^16)``.

Where the sum has noise (noise.py), each client adds its share of it to the whole numbers, after rounding. How much is
reckoned for vectors as long as rounding can make them (``Layout.longest``); counts travel in steps fine enough for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg.masking import Words, key_stream
from testudo_common.secagg.noise import TAIL_DEVIATIONS, SumNoise, draw, longest

RING_BITS = 32
MAX_VALUE_BITS = 24  # a float32 holds no more
_STEP_BITS = 16
_CHUNK = 1 << 13  # from 10,000 on, OpenBLAS wakes threads for one dot product, and they go on spinning


@dataclass(frozen=True, slots=True)
class Layout:
    """What a client's vector holds, and within which bounds.

    Attributes:
        values: d, coordinates of the update; 1 or more.
        max_norm: S, the largest L2 norm of one update.
        value_bits: Bits of one coordinate, its sign included; 2..24.
        max_weight: The largest weight of one client; 1: everybody weighs the same, and no weight travels.
        count_bounds: The largest value of each count that one client may add; empty without counts.
        count_steps: Whole numbers that one of each count travels as, for noise to be fine enough; empty: 1 each.
    """

    values: int
    max_norm: float
    value_bits: int
    max_weight: int = 1
    count_bounds: tuple[int, ...] = ()
    count_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.count_steps:
            object.__setattr__(self, "count_steps", (1,) * len(self.count_bounds))
        sensible = self.values >= 1 and 2 <= self.value_bits <= MAX_VALUE_BITS and self.max_weight >= 1
        sensible = (
            sensible and len(self.count_steps) == len(self.count_bounds) and min(self.count_steps, default=1) >= 1
        )
        if not (sensible and 0 < self.max_norm < math.inf and all(bound >= 0 for bound in self.count_bounds)):
            raise ProtocolError(Breach.VALUES, "a layout with nothing in it, or with bounds that are none")

    @property
    def size(self) -> int:
        """Words of one client's vector."""
        return self.values + self.weighted + len(self.count_bounds)

    @property
    def weighted(self) -> bool:
        """Whether weights travel."""
        return self.max_weight > 1

    @property
    def largest(self) -> int:
        """Q: a coordinate is in -Q..Q."""
        return (1 << (self.value_bits - 1)) - 1

    @property
    def scale(self) -> float:
        """Whole numbers a unit of the update: a coordinate of ``max_norm`` becomes Q."""
        return self.largest / self.max_norm

    @property
    def longest(self) -> float:
        """The largest L2 norm of one client's values, in steps: that of a clipped update, and rounding's.

        Rounding moves each coordinate by less than one step, and by 2^-16 of one more where fixed point was cut off.
        """
        return self.largest * (1 + 2**-30) + math.sqrt(self.values) * (1 + 2**-16)

    def check_budget(self, members: int, noise: SumNoise | None = None) -> None:
        """Check that a sum over ``members`` clients, with ``noise`` of these deviations on it, cannot wrap.

        Raises:
            ProtocolError: It could.
        """
        tails = _tails_of_counts(self, noise)
        for bound, steps, tail in zip(self.count_bounds, self.count_steps, tails, strict=True):
            # without noise half of the ring is left free, so that what a garbled mask leaves is likely to show
            if members * bound * steps + 4 * int(tail) >= 1 << (RING_BITS - (not tail)):
                raise ProtocolError(
                    Breach.RANGE,
                    f"a count of up to {bound} does not fit into a sum over {members} clients",
                    remedy="Lower the bounds of the counts, or sum over fewer clients",
                )
        if noise is not None:
            self._check_room(members, TAIL_DEVIATIONS * noise.values)
        needed = self.value_bits + math.ceil(math.log2(members * self.max_weight)) + 1
        if needed > RING_BITS:
            raise ProtocolError(
                Breach.RANGE,
                f"sums over {members} clients of weight up to {self.max_weight} need {needed} bits, and there are 32",
                remedy=f"Lower the value bits to {value_bits_for(members, self.max_weight)} or less",
            )

    def _check_room(self, members: int, tail: float) -> None:
        if members * self.max_weight * self.largest + tail >= 1 << (RING_BITS - 1):
            raise ProtocolError(
                Breach.RANGE,
                f"a sum over {members} clients with its noise does not fit into 32 bits",
                remedy=f"Lower secure_aggregation.value_bits, which are {self.value_bits}, or the noise",
            )


def value_bits_for(members: int, max_weight: int) -> int:
    """The most bits a coordinate may have, at most 24, so that a sum over ``members`` clients cannot wrap."""
    return min(MAX_VALUE_BITS, RING_BITS - 1 - math.ceil(math.log2(members * max_weight)))


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one client puts into the sum.

    Attributes:
        update: ``float32[d]``; clipped to ``max_norm`` here.
        weight: 1..max_weight.
        counts: ``int64[k]``, each in 0..bound; None for no counts.
    """

    update: npt.NDArray[np.float32] = field(repr=False, compare=False)
    weight: int = 1
    counts: npt.NDArray[np.int64] | None = field(default=None, repr=False, compare=False)


def encode(
    layout: Layout,
    contribution: Contribution,
    rounding_key: bytes,
    share: SumNoise | None = None,
    noise_key: bytes | None = None,
) -> Words:
    """A client's vector before it is masked.

    Args:
        layout: Agreed by all.
        contribution: This client's.
        rounding_key: 32 bytes from the operating system, used once.
        share: Deviations of this client's share of the sum's noise; None for a sum without.
        noise_key: 32 more bytes from the operating system, used once; needed for a share of noise.

    Returns:
        ``uint32[size]`` of its own.

    Raises:
        ProtocolError: The update is not a finite ``float32[d]``, weight or counts are out of their bounds, or such
            noise cannot be drawn.
    """
    update = contribution.update
    if not isinstance(update, np.ndarray) or update.dtype != np.float32 or update.shape != (layout.values,):
        raise ProtocolError(Breach.VALUES, f"the update is not float32[{layout.values}]")
    if not 1 <= contribution.weight <= layout.max_weight:
        raise ProtocolError(Breach.VALUES, f"a weight must be 1 to {layout.max_weight}")
    vector = np.zeros(layout.size, dtype=np.uint32)
    factor = layout.scale * contribution.weight * _shrink(update, layout.max_norm)
    _round(update, factor, layout.largest * contribution.weight, rounding_key, vector)
    if layout.weighted:
        vector[layout.values] = contribution.weight
    if layout.count_bounds:
        counts = _checked_counts(layout, contribution.counts) * np.array(layout.count_steps, dtype=np.int64)
        vector[layout.size - len(layout.count_bounds) :] = counts
    elif contribution.counts is not None:
        raise ProtocolError(Breach.VALUES, "counts in a round that has none")
    if share is not None:
        _add_noise(layout, share, noise_key, vector)
    return vector


def _add_noise(layout: Layout, share: SumNoise, key: bytes | None, into: Words) -> None:
    if key is None or len(share.counts) not in (0, len(layout.count_bounds)):
        raise ProtocolError(Breach.VALUES, "noise without a key, or for other counts than there are")
    of_values, of_counts = draw(share, layout.values, key)
    into[: layout.values] += of_values.astype(np.uint32)  # modulo 2^32
    if share.counts:
        into[layout.size - len(of_counts) :] += of_counts.astype(np.uint32)


def _shrink(update: npt.NDArray[np.float32], max_norm: float) -> float:
    """The factor, at most 1, that clips ``update`` to L2 norm ``max_norm``."""
    square = 0.0
    for start in range(0, len(update), _CHUNK):
        chunk = update[start : start + _CHUNK].astype(np.float64)
        square += float(np.dot(chunk, chunk))
    if not math.isfinite(square):  # a float32's square fits into a float64, so one of them is not finite
        raise ProtocolError(Breach.VALUES, "the update is not finite")
    norm = math.sqrt(square)
    return 1.0 if norm <= max_norm else max_norm / norm


def _round(update: npt.NDArray[np.float32], factor: float, largest: int, key: bytes, into: Words) -> None:
    """``update * factor`` clipped to -largest..largest and rounded up or down at random, unbiased, chunk by chunk."""
    stream = key_stream(key, "<u2", _CHUNK)
    steps = 1 << _STEP_BITS
    for start in range(0, len(update), _CHUNK):
        chunk = update[start : start + _CHUNK]
        fine = chunk.astype(np.float64) * (factor * steps)
        np.clip(fine, -largest * steps, largest * steps, out=fine)
        numbers = fine.astype(np.int64)  # toward zero: a bias of at most 2^-16 of one step
        numbers += next(stream)[: len(chunk)]
        numbers >>= _STEP_BITS
        into[start : start + len(chunk)] = numbers  # modulo 2^32


def _rounding_norm(layout: Layout, survivors: int, weight: int) -> float:
    """The most that rounding adds to the norm of a mean, but with probability 2^-40.

    A coordinate of the sum is off by independent errors of the survivors, each in an interval of one step and so of
    variance 1/4 at most. A norm is convex and 1-Lipschitz, so it exceeds its mean, at most half of
    ``sqrt(d * survivors)`` steps, by 11 ``sqrt(survivors)`` with probability exp(-11^2 / 4) (Talagrand 1996).
    """
    steps = (math.sqrt(layout.values) / 2 + 11) * math.sqrt(survivors)
    return steps / (layout.scale * weight)


def _checked_counts(layout: Layout, counts: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
    bounds = np.array(layout.count_bounds, dtype=np.int64)
    if counts is None or counts.shape != bounds.shape or counts.dtype != np.int64:
        raise ProtocolError(Breach.VALUES, f"the counts are not int64[{len(bounds)}]")
    if (counts < 0).any() or (counts > bounds).any():
        raise ProtocolError(Breach.VALUES, "a count is out of its bounds")
    return counts


@dataclass(frozen=True, slots=True)
class Opened:
    """What a group's sum says.

    Attributes:
        mean: ``float32[d]``, the weighted mean of the updates.
        weight: Sum of the weights; without weights the number of survivors.
        counts: ``int64[k]``, sums of the counts; with noise to the nearest, and so below 0 or above their bounds at
            times.
    """

    mean: npt.NDArray[np.float32] = field(repr=False, compare=False)
    weight: int
    counts: npt.NDArray[np.int64] = field(repr=False, compare=False)


def decode(layout: Layout, total: Words, survivors: int, share: SumNoise | None = None) -> Opened:
    """The mean of an opened sum, checked against what honest clients can have sent.

    Args:
        layout: Agreed by all.
        total: ``uint32[size]``, the sum of the survivors' vectors modulo 2^32.
        survivors: How many there are.
        share: Deviations of the noise that each of them added; None for none.

    Raises:
        ProtocolError: A number is out of range (what a garbled mask leaves is uniform, and fails all but certainly),
            or the mean is longer than a mean of clipped updates, with its noise, can be.
    """
    noise = SumNoise(0.0) if share is None else share.times(math.sqrt(survivors))
    weight = int(total[layout.values]) if layout.weighted else survivors
    if not survivors <= weight <= survivors * layout.max_weight:
        raise ProtocolError(Breach.RANGE, "an opened weight is out of range")
    counts = _opened_counts(layout, total, survivors, noise)
    mean = np.empty(layout.values, dtype=np.float32)
    limit = weight * layout.largest + TAIL_DEVIATIONS * noise.values
    square = 0.0
    for start in range(0, layout.values, _CHUNK):
        signed = total[start : min(start + _CHUNK, layout.values)].view(np.int32)
        if int(signed.max()) > limit or int(signed.min()) < -limit:
            raise ProtocolError(Breach.RANGE, "an opened number is out of range")
        chunk = signed.astype(np.float64) * (1.0 / (layout.scale * weight))
        square += float(np.dot(chunk, chunk))
        mean[start : start + len(chunk)] = chunk
    by_noise = longest(noise.values, layout.values) / (layout.scale * weight)
    if math.sqrt(square) > layout.max_norm * (1 + 1e-6) + _rounding_norm(layout, survivors, weight) + by_noise:
        raise ProtocolError(Breach.NORM, "an opened mean is longer than clipped updates can make it")
    return Opened(mean, weight, counts)


def _opened_counts(layout: Layout, total: Words, survivors: int, noise: SumNoise) -> npt.NDArray[np.int64]:
    tails = np.array(_tails_of_counts(layout, noise), dtype=np.int64)
    steps = np.array(layout.count_steps, dtype=np.int64)
    raw = total[layout.size - len(layout.count_bounds) :].astype(np.int64)
    signed = (raw + tails) % (1 << RING_BITS) - tails  # noise may have taken it below 0
    most = survivors * np.array(layout.count_bounds, dtype=np.int64) * steps
    if (signed > most + tails).any():
        raise ProtocolError(Breach.RANGE, "an opened count is out of range")
    return (2 * signed + steps) // (2 * steps)


def _tails_of_counts(layout: Layout, noise: SumNoise | None) -> tuple[int, ...]:
    """How far noise takes each count, in steps."""
    deviations = noise.counts if noise is not None and noise.counts else (0.0,) * len(layout.count_bounds)
    return tuple(math.ceil(TAIL_DEVIATIONS * each) for each in deviations)
