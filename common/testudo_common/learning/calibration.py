"""How sure an adapted model may be, as a federation finds out together: counts that add up, and what they say.

Trains nothing. Each owner that took no part in training adapts the meta-model as a newcomer would, scores examples that
it did not adapt on, and counts the scores in bins; sums of counts over owners travel inside the secure sum. From them
follow the likeliest temperature, and scores of nonconformity for sets and intervals.

Sources: temperature scaling, Guo et al. 2017, arXiv:1706.04599; conformal prediction from the scores of several
clients, Lu et al. 2023, arXiv:2305.17564; examples of one owner are worth fewer than as many of different ones: the
design effect of Kish 1965, section 5.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from testudo_common.errors import DataError
from testudo_common.learning.conformal import Conformal

Kind = Literal["classification", "regression"]
Numbers = npt.NDArray[np.float64]

LOG_TEMPERATURES = tuple(-0.5 + 0.25 * step for step in range(9))
"""At which a classifier's scores are counted: from 0.6 to 4.5."""
CLASS_EDGES = (
    0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.275,
    0.3, 0.325, 0.35, 0.375, 0.4, 0.425, 0.45, 0.475, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95,
    0.975, 0.99, 1.0,
)  # fmt: skip
"""Ends of the bins of the true class's probability; finer where the logarithm is steep."""
ERROR_EDGES = (*(0.1 * step for step in range(31)), 3.25, 3.5, 3.75, 4.0, 4.5, 5.0, 6.0, 8.0, math.inf)
"""Ends of the bins of an absolute error over its owner's scale."""
OWNER_COUNTS_AS = 6.0
"""Independent examples that all those of one owner are worth: one over the intraclass correlation, which was 0.16 to
0.24 for retailers and people's activities."""
OWN_WEIGHT = 0.25
"""What an owner's own out-of-fold score counts as beside those: neighbouring examples are alike."""
PRIOR_SPREAD = 0.15  # standard deviation of owners' log temperatures around the federation's
OWN_EVIDENCE = 0.5  # of an out-of-fold example, for the temperature
TYPICAL_ERROR, TYPICAL_WEIGHT = 0.5, 10.0  # prior of an owner's error scale, in scaled targets; worth so many examples


class CalibrationPrior(BaseModel):
    """What a federation knows about models adapted on one support size.

    Attributes:
        shots: Support examples a class, or of a client for regression; None: half of a client's examples.
        owners: That counted.
        log_temperature: The likeliest; 0 for regression.
        shares: One a bin of ``CLASS_EDGES`` (at that temperature) or ``ERROR_EDGES``, of 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    shots: int | None
    owners: int = Field(ge=1)
    log_temperature: float = 0.0
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...]


@dataclass(frozen=True)
class ScoreCounts:
    """How the scores of one support size are counted.

    Attributes:
        kind: Of the task.
    """

    kind: Kind

    @cached_property
    def shape(self) -> tuple[int, int]:
        """``(temperatures, bins)``; one temperature for regression."""
        edges = ERROR_EDGES if self.kind == "regression" else CLASS_EDGES
        return (1 if self.kind == "regression" else len(LOG_TEMPERATURES)), len(edges) - 1

    @property
    def size(self) -> int:
        """Counts in all."""
        temperatures, bins = self.shape
        return temperatures * bins

    def of_classes(self, logits: npt.NDArray[np.floating], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """``int64[T, B]``: the probability of each example's true class, at each temperature; one count an example.

        Args:
            logits: ``float[n, C]``, finite.
            targets: ``int64[n]``.
        """
        rows = [true_probability(logits, targets, math.exp(each)) for each in LOG_TEMPERATURES]
        return np.stack([_counted(row, CLASS_EDGES) for row in rows])

    def of_errors(self, errors: Numbers) -> npt.NDArray[np.int64]:
        """``int64[1, B]`` of absolute errors over their owner's scale, ``float64[n]``."""
        return _counted(errors, ERROR_EDGES)[None, :]

    def prior(self, counts: Numbers, shots: int | None, owners: int) -> CalibrationPrior | None:
        """What counts of ``owners`` owners say, ``float64[T, B]``, noisy or not; None where they say nothing.

        Args:
            counts: A cell that noise made negative counts as none.
            shots: As in :class:`CalibrationPrior`.
            owners: That the counts are of.
        """
        clean = np.maximum(counts, 0.0)
        totals = clean.sum(axis=1)
        if np.any(totals <= 0) or owners < 1:
            return None
        if self.kind == "regression":
            return CalibrationPrior(shots=shots, owners=owners, shares=tuple(clean[0] / totals[0]))
        middles = np.maximum(_middles(CLASS_EDGES), CLASS_EDGES[1] / 2)
        losses = -(clean * np.log(middles)).sum(axis=1) / totals  # [T]
        best = lowest_of_grid(np.array(LOG_TEMPERATURES), losses)
        return CalibrationPrior(
            shots=shots, owners=owners, log_temperature=best, shares=tuple(_between(clean / totals[:, None], best))
        )


def nearest_prior(priors: tuple[CalibrationPrior, ...], shots: float) -> CalibrationPrior | None:
    """The prior of the support size nearest to ``shots``, by ratio; one of half of the examples where no other is."""
    sized = [prior for prior in priors if prior.shots]
    if not sized:
        return next(iter(priors), None)
    return min(sized, key=lambda prior: abs(math.log(max(shots, 0.5) / (prior.shots or 1))))


def true_probability(logits: npt.NDArray[np.floating], targets: npt.NDArray[np.int64], temperature: float) -> Numbers:
    """``float64[n]``: the probability of the true class.

    Args:
        logits: ``float[n, C]``.
        targets: ``int64[n]``.
        temperature: Above 0.
    """
    return np.take_along_axis(tempered(logits, temperature).astype(np.float64), targets[:, None], axis=1)[:, 0]


def tempered(logits: npt.NDArray[np.floating], temperature: float) -> npt.NDArray[np.float32]:
    """``float32[n, C]``: probabilities of ``logits / temperature``.

    Args:
        logits: ``float[n, C]``.
        temperature: Above 0; 1 changes nothing, more is less sure.
    """
    scaled = logits.astype(np.float64) / temperature
    exponent = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)  # type: ignore[no-any-return]


def temperature_of(
    logits: npt.NDArray[np.floating], targets: npt.NDArray[np.int64], prior: CalibrationPrior | None
) -> float:
    """The likeliest temperature of an owner's model, from out-of-fold examples and the federation's prior.

    Without a prior it is around 1 and never below it: out-of-fold examples are neighbours of those trained on, and look
    easier than what is to come.

    Args:
        logits: ``float[n, C]`` of examples, each by a model that was not adapted on it; there may be none.
        targets: ``int64[n]``.
        prior: Of the support size.
    """
    centre = 0.0 if prior is None else prior.log_temperature
    grid = np.linspace(-1.0, 2.5, 141)
    losses = (grid - centre) ** 2 / (2 * PRIOR_SPREAD**2)
    if len(targets):
        floor = CLASS_EDGES[1] / 2
        losses += OWN_EVIDENCE * np.array(
            [-np.log(np.maximum(true_probability(logits, targets, math.exp(each)), floor)).sum() for each in grid]
        )
    best = float(grid[int(np.argmin(losses))])
    return math.exp(best if prior is not None else max(0.0, best))


def error_scale(errors: Numbers) -> float:
    """An owner's scale of errors: their root mean square, as far as there are enough of them.

    Args:
        errors: ``float64[n]``, out of fold, in the plan's scaled target; may be empty.
    """
    total = float(np.square(errors).sum()) + TYPICAL_WEIGHT * TYPICAL_ERROR**2
    return math.sqrt(total / (len(errors) + TYPICAL_WEIGHT))


def conformal_of_classes(scores: Numbers, prior: CalibrationPrior | None) -> Conformal:
    """Scores for sets: the federation's, and beside them the owner's own.

    Args:
        scores: ``float64[n]``, one minus the probability of the true class, out of fold and at the owner's temperature.
        prior: Of the support size; None: the owner's own alone.
    """
    if prior is None:
        return Conformal.of(scores)
    shared = 1.0 - _middles(CLASS_EDGES)
    return _together(scores, np.full(len(scores), OWN_WEIGHT), shared, prior)


def conformal_of_errors(errors: Numbers, prior: CalibrationPrior | None) -> Conformal:
    """Scores for intervals: the federation's, in units of the owner's scale; or the owner's own errors.

    Args:
        errors: ``float64[n]``, absolute, out of fold, in the plan's scaled target.
        prior: Of the support size.
    """
    if prior is None:
        return Conformal.of(errors)
    none = np.empty(0)
    return _together(none, none, _middles(ERROR_EDGES), prior, error_scale(errors))


def _together(
    own: Numbers, own_weights: Numbers, shared: Numbers, prior: CalibrationPrior, scale: float = 1.0
) -> Conformal:
    if len(shared) != len(prior.shares):
        raise DataError("the calibration prior is of another kind of task")
    weights = OWNER_COUNTS_AS * prior.owners * np.array(prior.shares)
    kept = weights > 0
    return Conformal.of(np.concatenate([own, shared[kept]]), np.concatenate([own_weights, weights[kept]]), scale)


def lowest_of_grid(places: Numbers, values: Numbers) -> float:
    """Where a smooth function is lowest: the vertex of the parabola through the lowest of evenly spaced points.

    Args:
        places: ``float64[g]``, ascending and evenly spaced, three or more.
        values: ``float64[g]``.
    """
    best = int(np.argmin(values))
    if best in {0, len(values) - 1}:
        return float(places[best])
    before, here, after = values[best - 1 : best + 2]
    curve = before - 2 * here + after
    return float(places[best] + (places[1] - places[0]) * (0.5 * (before - after) / curve if curve > 0 else 0.0))


def _counted(values: Numbers, edges: tuple[float, ...]) -> npt.NDArray[np.int64]:
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(places, minlength=len(edges) - 1).astype(np.int64)


def _middles(edges: tuple[float, ...]) -> Numbers:
    ends = np.array(edges)
    return np.asarray((ends[:-1] + ends[1:]) / 2, dtype=np.float64)


def _between(shares: Numbers, log_temperature: float) -> Numbers:
    """``float64[B]``: shares at a temperature between two of the grid, from those at both."""
    exact = (log_temperature - LOG_TEMPERATURES[0]) / (LOG_TEMPERATURES[1] - LOG_TEMPERATURES[0])
    low = min(int(exact), len(LOG_TEMPERATURES) - 2)
    part = exact - low
    mixed = (1 - part) * shares[low] + part * shares[low + 1]
    return np.asarray(mixed, dtype=np.float64)
