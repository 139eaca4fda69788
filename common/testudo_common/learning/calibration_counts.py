"""What newcomers count of their scores, as whole numbers inside a secure sum; and what an opened sum says.

The layout, for each support size in turn; T are temperatures and B bins (see
:class:`~testudo_common.learning.calibration.ScoreCounts`):

    owners  []      1 if this owner had examples enough for the size, else 0
    scores  [T, B]  one count an example at each temperature

Holds no mask and adds no noise. Source of the noise: Gaussian mechanism, Dwork, Roth 2014, appendix A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testudo_common.errors import DataError
from testudo_common.learning.calibration import CalibrationPrior, Kind, ScoreCounts

MAX_SCORED = 512  # examples one owner counts at most for one support size: none outweighs all others
_CLEAR = 2.0  # standard deviations by which a number has to stand out from its noise


@dataclass(frozen=True, slots=True)
class CalibrationCounts:
    """How one owner's scores travel.

    Attributes:
        kind: Of the task.
        sizes: Support examples a class, or of a client for regression; None: half of a client's examples.
    """

    kind: Kind
    sizes: tuple[int | None, ...]

    @property
    def scores(self) -> ScoreCounts:
        """How those of one size are counted."""
        return ScoreCounts(self.kind)

    @property
    def size(self) -> int:
        """k, the number of counts."""
        return len(self.sizes) * (1 + self.scores.size)

    @property
    def bounds(self) -> tuple[int, ...]:
        """The most that one owner adds to each count."""
        return (1, *(MAX_SCORED,) * self.scores.size) * len(self.sizes)

    def noise(self, noise_multiplier: float) -> npt.NDArray[np.float64]:
        """``float64[k]``: standard deviation that makes the counts a Gaussian mechanism with this noise multiplier.

        One example more adds 1 at each of T temperatures, displaces one other query at most, which takes 1 from each,
        and may make its owner one that has enough: an L2 distance of ``sqrt(2 T + 1)`` for a size. Where neighbouring
        data sets matter there is one size: half of the examples.

        Raises:
            DataError: There are several sizes, between which an example moves from support to query.
        """
        if len(self.sizes) != 1:
            raise DataError("noise is known for one support size only")
        sensitivity = math.sqrt(2 * self.scores.shape[0] + 1)
        return np.full(self.size, noise_multiplier * sensitivity)

    def encode(self, counted: list[npt.NDArray[np.int64] | None]) -> npt.NDArray[np.int64]:
        """``int64[k]``.

        Args:
            counted: ``int64[T, B]`` for each size; None: too few examples.

        Raises:
            DataError: More than MAX_SCORED examples, or another number of sizes.
        """
        parts: list[npt.NDArray[np.int64]] = []
        for _, scores in zip(self.sizes, counted, strict=True):
            if scores is None:
                parts.append(np.zeros(1 + self.scores.size, dtype=np.int64))
                continue
            if scores.shape != self.scores.shape or scores.min() < 0 or scores.sum(axis=1).max() > MAX_SCORED:
                raise DataError("the scores cannot be counted")
            parts.append(np.concatenate([[1], scores.reshape(-1)]))
        return np.concatenate(parts)

    def priors(
        self, total: npt.NDArray[np.int64], owners: int, min_cell: int, noise: float | None = None
    ) -> tuple[CalibrationPrior, ...]:
        """What a sum says, size by size; a size about which it says too little is left out.

        Args:
            total: ``int64[k]``, opened, of ``owners`` owners.
            owners: Whose counts it is the sum of.
            min_cell: Nothing is said of fewer examples in all.
            noise: Standard deviation of the noise in each count; None: it is exact, and a contradiction in it, which no
                honest owner makes, leaves the size out.
        """
        found = []
        for size, one in zip(self.sizes, np.split(total, len(self.sizes)), strict=True):
            scores = one[1:].reshape(self.scores.shape).astype(np.float64)
            each = scores.sum(axis=1)  # [T], alike where they are exact
            counted = owners if noise is not None else int(one[0])
            spread = 0.0 if noise is None else noise * math.sqrt(self.scores.shape[1])
            exact = np.all(scores >= 0) and np.all(each == each[0]) and 0 < counted <= owners
            if (noise is None and not exact) or each.min() < max(min_cell, _CLEAR * spread):
                continue
            if (prior := self.scores.prior(scores, size, counted)) is not None:
                found.append(prior)
        return tuple(found)
