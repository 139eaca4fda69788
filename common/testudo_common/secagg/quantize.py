"""Real vectors as whole numbers modulo 2^32, and the mean of a sum of them back. Knows no masks and no members.

What one client sends is, in this order: its update as fixed-point numbers, its weight where weights are not uniform,
and counts (for metrics) where the round has them. Everything is bounded, and the bounds are such that no sum within
a group can wrap: ``value bits + ceil(log2(members * max_weight)) + 1 <= 32``.

Rounding is stochastic (Gupta et al. 2015), so that the sum is unbiased; it comes after the noise of differential
privacy and costs no epsilon. Its randomness is a key stream, read as little-endian 16-bit words r: with
``factor = scale * weight * shrink`` in float64, a coordinate x becomes
``floor((trunc(x * factor * 2^16) + r) / 2^16)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg.masking import Words, key_stream

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
    """

    values: int
    max_norm: float
    value_bits: int
    max_weight: int = 1
    count_bounds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sensible = self.values >= 1 and 2 <= self.value_bits <= MAX_VALUE_BITS and self.max_weight >= 1
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

    def check_budget(self, members: int) -> None:
        """Check that a sum over ``members`` clients cannot wrap.

        Raises:
            ProtocolError: It could.
        """
        if members * max(self.count_bounds, default=0) >= 1 << (RING_BITS - 1):
            raise ProtocolError(
                Breach.RANGE,
                f"a count of up to {max(self.count_bounds)} does not fit into a sum over {members} clients",
                remedy="Lower the bounds of the counts, or sum over fewer clients",
            )
        needed = self.value_bits + math.ceil(math.log2(members * self.max_weight)) + 1
        if needed > RING_BITS:
            raise ProtocolError(
                Breach.RANGE,
                f"sums over {members} clients of weight up to {self.max_weight} need {needed} bits, and there are 32",
                remedy=f"Lower the value bits to {value_bits_for(members, self.max_weight)} or less",
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


def encode(layout: Layout, contribution: Contribution, rounding_key: bytes) -> Words:
    """A client's vector before it is masked.

    Args:
        layout: Agreed by all.
        contribution: This client's.
        rounding_key: 32 bytes from the operating system, used once.

    Returns:
        ``uint32[size]`` of its own.

    Raises:
        ProtocolError: The update is not a finite ``float32[d]``, or weight or counts are out of their bounds.
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
        vector[layout.size - len(layout.count_bounds) :] = _checked_counts(layout, contribution.counts)
    elif contribution.counts is not None:
        raise ProtocolError(Breach.VALUES, "counts in a round that has none")
    return vector


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
        counts: ``int64[k]``, sums of the counts.
    """

    mean: npt.NDArray[np.float32] = field(repr=False, compare=False)
    weight: int
    counts: npt.NDArray[np.int64] = field(repr=False, compare=False)


def decode(layout: Layout, total: Words, survivors: int) -> Opened:
    """The mean of an opened sum, checked against what honest clients can have sent.

    Args:
        layout: Agreed by all.
        total: ``uint32[size]``, the sum of the survivors' vectors modulo 2^32.
        survivors: How many there are.

    Raises:
        ProtocolError: A number is out of range (what a garbled mask leaves is uniform, and fails all but certainly),
            or the mean is longer than a mean of clipped updates can be.
    """
    weight = int(total[layout.values]) if layout.weighted else survivors
    counts = total[layout.size - len(layout.count_bounds) :].astype(np.int64)
    bounds = survivors * np.array(layout.count_bounds, dtype=np.int64)
    if not survivors <= weight <= survivors * layout.max_weight or (counts > bounds).any():
        raise ProtocolError(Breach.RANGE, "an opened weight or count is out of range")
    mean = np.empty(layout.values, dtype=np.float32)
    limit = weight * layout.largest
    square = 0.0
    for start in range(0, layout.values, _CHUNK):
        signed = total[start : min(start + _CHUNK, layout.values)].view(np.int32)
        if int(signed.max()) > limit or int(signed.min()) < -limit:
            raise ProtocolError(Breach.RANGE, "an opened number is out of range")
        chunk = signed.astype(np.float64) * (1.0 / (layout.scale * weight))
        square += float(np.dot(chunk, chunk))
        mean[start : start + len(chunk)] = chunk
    if math.sqrt(square) > layout.max_norm * (1 + 1e-6) + _rounding_norm(layout, survivors, weight):
        raise ProtocolError(Breach.NORM, "an opened mean is longer than clipped updates can make it")
    return Opened(mean, weight, counts)
