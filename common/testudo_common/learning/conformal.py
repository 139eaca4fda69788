"""Conformal prediction from scores of nonconformity: a threshold for a level, sets of classes, intervals of numbers.

Trains nothing and draws nothing. Sources: Vovk, Gammerman, Shafer 2005 (split conformal: the threshold is the
``ceil((n + 1) level)``-th smallest score); Sadinle, Lei, Wasserman 2019 (sets of all classes whose probability is at
least one minus the threshold); Lu et al. 2023, arXiv:2305.17564 (scores of several clients).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Conformal:
    """Scores of examples that the model was not trained on; never printed, since they are somebody's data.

    A score is one minus the probability of the true class, or the absolute error in units of ``scale``.

    Attributes:
        scores: ``float64[m]``, ascending.
        weights: ``float64[m]``, above 0: what each counts as; 1 for an example of the owner's own.
        scale: What a score of an error is multiplied by, in the plan's scaled target; 1 for classes.
    """

    scores: Numbers = field(repr=False, compare=False)
    weights: Numbers = field(repr=False, compare=False)
    scale: float = 1.0

    @classmethod
    def of(cls, scores: Numbers, weights: Numbers | None = None, scale: float = 1.0) -> Conformal:
        """In any order; every weight is 1 where none are given."""
        given = np.ones(len(scores)) if weights is None else weights
        order = np.argsort(scores, kind="stable")
        return cls(scores[order].astype(np.float64), given[order].astype(np.float64), scale)

    def threshold(self, level: float) -> float:
        """The score that the next example does not exceed with probability ``level``; infinite for too few scores.

        Args:
            level: Nominal coverage, in (0, 1).
        """
        needed = level * (self.weights.sum() + 1.0) - _ROUNDING  # the next example counts as well
        reached = np.cumsum(self.weights)
        place = int(np.searchsorted(reached, needed))
        return math.inf if place >= len(reached) else float(self.scores[place]) * self.scale

    def sets(self, probabilities: npt.NDArray[np.float32], level: float) -> npt.NDArray[np.bool_]:
        """``bool[n, C]``: the classes that cannot be excluded at ``level``.

        Args:
            probabilities: ``float32[n, C]``.
            level: Nominal coverage, in (0, 1).
        """
        least = 1.0 - self.threshold(level)
        return probabilities.astype(np.float64) >= least - _ROUNDING
