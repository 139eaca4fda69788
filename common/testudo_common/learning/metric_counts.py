"""Additive metric sums as bounded non-negative integers, so that they can travel inside a secure sum; and back.

Holds no mask and no model, and adds no noise: it says how much noise hides one example, and reads sums that carry it.
Sources: integers in a ring so large that their sum cannot leave it, as in Bonawitz et al. 2017 (eprint 2017/281);
several statistics as one Gaussian mechanism, each in units of its own noise, as in Dwork, Roth 2014, appendix A.

The layout, in this order; ``most`` is what one example adds at most, C are classes and B confidence bins:

    kind                      field               shape    most          written as
    classification, few_shot  confusion           [C, C]   1             integer
                              bin_count           [B]      1             integer
                              bin_confidence      [B]      1             fixed point
                              bin_correct         [B]      1             integer
                              brier_sum           []       2             fixed point
    regression                n                   []       1             integer
                              squared_error_sum   []       MAX_ERROR**2  fixed point
                              absolute_error_sum  []       MAX_ERROR     fixed point
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from testudo_common.errors import DataError, WireError
from testudo_common.learning.metrics import (
    CONFIDENCE_BINS,
    ROUNDING,
    ClassificationSums,
    Counts,
    Floats,
    RegressionSums,
)

MAX_QUERIES = 512  # examples one client counts at most: no owner of much data outweighs a whole cohort
MAX_ERROR = 16  # of one example, in units of the plan's scaled target: standard deviations, where it is standardised
NOISY_STEPS = 2**10  # that one example adds at most: rounding is then below a thousandth of any noise, which fits
LARGEST_SUM = 2**31 - 1  # of a coordinate; half of the ring of 2^32, so that garbled masks are likely to leave it


@dataclass(frozen=True, slots=True)
class _Part:
    """A row of the layout."""

    field: str
    shape: tuple[int, ...]
    most: int
    fixed_point: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class MetricCounts:
    """How the metric sums of one task are written as integers: ``encode`` at a client, ``decode`` of the total.

    Fixed point has, in each coordinate, the largest power of two as scale with which the sum over ``clients``
    clients stays within :data:`LARGEST_SUM`; a client's value is off by at most ``0.5 / scale``. At 2048 clients
    the scale is 2^10 for confidences, 2^9 for Brier, 4 for squared and 2^6 for absolute errors; at 16 clients it
    is 2^7 times that. Sums that carry noise never have finer steps than at 2048 clients, where there is room for the
    noise beside them. A client that lies within its bounds goes unnoticed, and weighs as MAX_QUERIES examples do.

    Attributes:
        kind: The plan's ``task.kind``.
        classes: The plan's ``model.outputs``: C, 2 or more; 1 for regression. ``size`` grows with its square.
        clients: The most whose vectors are ever summed; the same at both ends.
        noisy: Whether the sums will carry noise; the same at both ends.

    Raises:
        DataError: ``classes`` does not fit the kind, or so many clients leave no bit for a fraction.
    """

    kind: Literal["classification", "regression", "few_shot"]
    classes: int
    clients: int
    noisy: bool = False

    def __post_init__(self) -> None:
        fits = self.classes == 1 if self.kind == "regression" else self.classes >= 2
        if not fits:
            raise DataError(f"{self.kind} does not have {self.classes} outputs", where="model.outputs")
        largest = LARGEST_SUM // (MAX_QUERIES * max(part.most for part in self._parts))
        if not 1 <= self.clients <= largest:
            raise DataError(
                f"metrics of {self.clients} clients cannot be summed at once",
                remedy=f"sum over 1 to {largest} clients",
            )

    @property
    def size(self) -> int:
        """k, the number of integer coordinates."""
        return sum(part.size for part in self._parts)

    @property
    def scales(self) -> npt.NDArray[np.int64]:
        """``int64[k]``: what one of the sums' unit is written as; 1 where they are integers already."""
        return self._per_coordinate([self._scale(part) for part in self._parts])

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """``int64[k]``: the most that one example adds in each coordinate."""
        return self._per_coordinate([self._step(part) for part in self._parts])

    @property
    def bounds(self) -> npt.NDArray[np.int64]:
        """``int64[k]``: the most one client may send in each coordinate; the least is 0.

        A sum over n clients outside ``0..n * bounds`` holds a vector that :meth:`encode` did not make.
        """
        return MAX_QUERIES * self.steps

    def encode(self, sums: ClassificationSums | RegressionSums) -> npt.NDArray[np.int64]:
        """One client's ``sums`` as ``int64[k]``, each entry in ``0..bounds``; rounded to the nearest.

        A fixed-point sum above ``most`` for each of its examples counts as that much: :func:`clipped_errors`
        keeps one large error from standing for many.

        Raises:
            DataError: The sums are of another task, not finite, contradict themselves, or count more than
                MAX_QUERIES examples.
        """
        if fault := self._fault_of_sums(sums):
            raise DataError(f"the metric sums cannot be counted: {fault}")
        caps = _caps(sums)
        written = []
        for part in self._parts:
            values = np.ravel(getattr(sums, part.field))  # [part.size]
            if part.fixed_point:
                values = np.rint(np.clip(values, 0, caps[part.field]) * self._scale(part))
            written.append(values.astype(np.int64))
        return np.concatenate(written)

    def noise(self, noise_multiplier: float) -> Floats:
        """``float64[k]``: the standard deviation, in integer steps, of the noise in a sum of one half's vectors.

        Both halves with noise of their own, before and after adapting, are then one Gaussian mechanism with that noise
        multiplier z, where neighbouring data sets differ by one example of one client.

        Each part's noise is in proportion to ``M = most * scale``, the most that one example adds to it. In units of M,
        let u be what one example adds to one half. For classes, ``|u|^2 <= 4``: an integer 1 in confusion and in
        bin_count, confidence p, and either a correct prediction, where Brier is at most ``2 (1-p)^2``, so that
        ``|u|^2 <= 3 + p^2 + (1-p)^4 <= 4``; or a wrong one without bin_correct, so that ``|u|^2 <= 2 + p^2 + 1 <= 4``.
        For numbers, ``|u|^2 <= 3``. Both halves have twice that. An example more adds its u, and displaces the u' of
        one other query at most; neither has a negative entry, so ``|u - u'|^2 <= |u|^2 + |u'|^2``, four times the
        square of one half: a distance of 4, or of ``sqrt(12)``.

        Rounding moves a coordinate's difference by one step at most, in the fixed-point coordinates that the two
        examples change: two of bin_confidence and brier_sum, or both errors; in each half. The triangle inequality
        adds it. So with sensitivity D, the sum of both, noise of ``z * D * M`` in each part is enough.

        Args:
            noise_multiplier: z, above 0.
        """
        changed = {"bin_confidence": 2, "brier_sum": 1, "squared_error_sum": 1, "absolute_error_sum": 1}
        rounding = sum(2 * changed[part.field] / self._step(part) ** 2 for part in self._parts if part.fixed_point)
        one_half = 3 if self.kind == "regression" else 4
        sensitivity = math.sqrt(4 * one_half) + math.sqrt(rounding)
        return noise_multiplier * sensitivity * (1 + ROUNDING) * self.steps  # a softmax's sum is off by as much

    def read(self, total: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
        """Each field of a noisy sum, ``float64`` in its shape and unit; as noise leaves it, negative too.

        Values are not made feasible here: most cells of a confusion matrix hold little, and if each negative one
        counted as 0, sums over them would be far too large.

        Raises:
            WireError: It is not ``int64[k]``.
        """
        self._check_shape(total)
        return self.fields_of(total / self.scales)

    def fields_of(self, values: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
        """``values``, ``float64[k]``, by field, each in its shape."""
        ends = np.cumsum([part.size for part in self._parts])[:-1]
        return {
            part.field: one.reshape(part.shape) for part, one in zip(self._parts, np.split(values, ends), strict=True)
        }

    def decode(self, total: npt.NDArray[np.int64]) -> ClassificationSums | RegressionSums:
        """The sums over all clients whose vectors were added up to ``total``, ``int64[k]``.

        Raises:
            WireError: It is not ``int64[k]``, out of ``0..clients * bounds``, or contradicts itself, as no sum of
                vectors that :meth:`encode` made does: a sender lied, or a mask is left on it.
        """
        self._check_shape(total)
        if np.any(total < 0) or np.any(total > self.clients * self.bounds):
            raise WireError(f"the metric counts are out of the range of {self.clients} clients")
        values = self.fields_of(total / self.scales)  # exact: scales are powers of two, and sums below 2^31
        fields: dict[str, Any] = {
            part.field: _read(values[part.field] if part.fixed_point else values[part.field].astype(np.int64))
            for part in self._parts
        }
        sums = RegressionSums(**fields) if self.kind == "regression" else ClassificationSums(**fields)
        fault = _contradiction(sums, self.clients)
        if fault is None and any(np.any(fields[field] > cap) for field, cap in _caps(sums).items()):
            fault = "more than its examples can add up to"
        if fault:
            raise WireError(f"the metric counts contradict themselves: {fault}")
        return sums

    @property
    def _parts(self) -> tuple[_Part, ...]:
        if self.kind == "regression":
            return (
                _Part("n", (), 1, fixed_point=False),
                _Part("squared_error_sum", (), MAX_ERROR**2, fixed_point=True),
                _Part("absolute_error_sum", (), MAX_ERROR, fixed_point=True),
            )
        return (
            _Part("confusion", (self.classes, self.classes), 1, fixed_point=False),
            _Part("bin_count", (CONFIDENCE_BINS,), 1, fixed_point=False),
            _Part("bin_confidence", (CONFIDENCE_BINS,), 1, fixed_point=True),
            _Part("bin_correct", (CONFIDENCE_BINS,), 1, fixed_point=False),
            _Part("brier_sum", (), 2, fixed_point=True),
        )

    def _scale(self, part: _Part) -> int:
        if not part.fixed_point:
            return 1
        room = LARGEST_SUM // (self.clients * MAX_QUERIES * part.most)
        if self.noisy:
            room = min(room, NOISY_STEPS // part.most)
        return 1 << (room.bit_length() - 1)  # the largest power of two up to room

    def _step(self, part: _Part) -> int:
        return part.most * self._scale(part)

    def _check_shape(self, total: npt.NDArray[np.int64]) -> None:
        if total.dtype != np.int64 or total.shape != (self.size,):
            raise WireError(f"the metric counts are {total.dtype}{list(total.shape)} instead of int64[{self.size}]")

    def _per_coordinate(self, per_part: list[int]) -> npt.NDArray[np.int64]:
        return np.repeat(np.array(per_part, dtype=np.int64), [part.size for part in self._parts])

    def _fault_of_sums(self, sums: ClassificationSums | RegressionSums) -> str | None:
        """Why ``sums`` are not one client's sums of this task, or None if they are."""
        if isinstance(sums, RegressionSums) != (self.kind == "regression"):
            return f"{type(sums).__name__} are of another task than {self.kind}"
        for part in self._parts:
            values = np.asarray(getattr(sums, part.field))
            if values.shape != part.shape:
                return f"{part.field} has the shape {list(values.shape)} instead of {list(part.shape)}"
            if not np.isfinite(values).all():
                return f"{part.field} is not finite"
            if not part.fixed_point and (values.dtype.kind != "i" or np.any(values < 0)):
                return f"{part.field} is not a count"
        return _contradiction(sums, clients=1)


def clipped_errors(predictions: Floats, targets: Floats) -> RegressionSums:
    """:meth:`RegressionSums.of`, where an example's error counts as at most MAX_ERROR.

    Args:
        predictions: ``float[n]``, in the plan's scaled target.
        targets: ``float[n]``, in the same unit.

    Raises:
        DataError: The shapes differ, or a target is not finite.
        ModelError: A prediction is not finite, for example because training diverged.
    """
    RegressionSums.of(predictions, targets)  # refuses what is not finite, which clipping would hide
    errors = np.clip(predictions.astype(np.float64) - targets.astype(np.float64), -MAX_ERROR, MAX_ERROR)  # [n]
    return RegressionSums.of(errors, np.zeros(len(errors)))


def _read(values: npt.NDArray[Any]) -> npt.NDArray[Any] | int | float:
    """``values``; a number where their shape is ``()``."""
    return values if values.shape else values.item()


def _caps(sums: ClassificationSums | RegressionSums) -> dict[str, Counts | int]:
    """The most that each fixed-point field can be with the examples that ``sums`` count; exact in fixed point too."""
    if isinstance(sums, RegressionSums):
        return {"squared_error_sum": MAX_ERROR**2 * sums.n, "absolute_error_sum": MAX_ERROR * sums.n}
    return {"bin_confidence": sums.bin_count, "brier_sum": 2 * sums.examples}


def _contradiction(sums: ClassificationSums | RegressionSums, clients: int) -> str | None:
    """Which of its counts do not fit each other, or None; exact, since integers add up exactly."""
    if sums.examples > clients * MAX_QUERIES:
        return f"{sums.examples} examples, and a client counts at most {MAX_QUERIES}"
    if isinstance(sums, RegressionSums):
        return None
    if sums.bin_count.sum() != sums.examples:
        return "confusion and bins hold different numbers of examples"
    if sums.bin_correct.sum() != np.trace(sums.confusion) or np.any(sums.bin_correct > sums.bin_count):
        return "confusion and bins hold different numbers of correct predictions"
    return None
