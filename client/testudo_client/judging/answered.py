"""Answers beside what was true, and each row's part in every metric; sums of those parts are all a metric needs.

Pure functions of arrays. The metrics are those of ``testudo_common.learning.metrics``, here for many sums at once, so
that a bootstrap does not go through the rows again and again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from testudo_client.personal.own_model import Classes, Intervals
from testudo_common.learning.metrics import CONFIDENCE_BINS, ClassificationSums, RegressionSums

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows, what was true of them, and what was answered.

    Attributes:
        targets: ``int64[n]`` class numbers, or ``float64[n]`` in the target's unit.
        answers: In the same order.
        clients: ``intp[n]``, 0 and up: whose each row is.
        sure: Whether sets or intervals mean anything: there were scores to make them from.
    """

    targets: npt.NDArray[Any] = field(repr=False)
    answers: Classes | Intervals = field(repr=False)
    clients: Places = field(repr=False)
    sure: bool = True

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def regression(self) -> bool:
        """Whether the answers are numbers."""
        return isinstance(self.answers, Intervals)

    @property
    def losses(self) -> Numbers:
        """``float64[n]``: 1 for a wrong class and 0 for the right one; or the absolute error, in the target's unit."""
        if isinstance(self.answers, Intervals):
            errors: Numbers = np.abs(self.answers.values - self.targets)
            return errors
        wrong: Numbers = (self.answers.probabilities.argmax(axis=1) != self.targets).astype(np.float64)
        return wrong

    def take(self, rows: Places) -> Answered:
        """These rows only."""
        if isinstance(self.answers, Intervals):
            found: Classes | Intervals = Intervals(
                self.answers.values[rows], self.answers.low[rows], self.answers.high[rows]
            )
        else:
            found = Classes(self.answers.probabilities[rows], self.answers.sets[rows])
        return Answered(self.targets[rows], found, self.clients[rows], self.sure)


@dataclass(frozen=True, slots=True)
class Parts:
    """Each row's part in the sums.

    Attributes:
        rows: Sparse ``float64[n, f]``.
        classes: C; None for regression.
        sure: As of the answers.
    """

    rows: sparse.csr_matrix = field(repr=False)
    classes: int | None
    sure: bool

    @classmethod
    def of(cls, judged: Answered) -> Parts:
        """Of every row.

        Raises:
            DataError: Targets and answers do not fit together.
            ModelError: An answer is not finite, or not a probability.
        """
        answers, targets = judged.answers, judged.targets
        if isinstance(answers, Intervals):
            RegressionSums.of(answers.values, targets)  # refuses what cannot be scored
            error = np.abs(answers.values - targets)
            covered = (answers.low <= targets) & (targets <= answers.high)
            width = answers.high - answers.low if judged.sure else np.zeros(len(targets))
            columns = np.stack([np.ones(len(targets)), np.square(error), error, covered, width], axis=1)
            return cls(sparse.csr_matrix(columns), None, judged.sure)
        ClassificationSums.of(answers.probabilities, targets)
        return cls(_class_parts(answers, targets), answers.probabilities.shape[1], judged.sure)

    def metrics(self, sums: Numbers) -> dict[str, Numbers]:
        """Metric -> ``float64[r]`` of sums ``float64[r, f]``, NaN for no rows."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return _number_metrics(sums, self.sure) if self.classes is None else _class_metrics(sums, self)


def _class_parts(answers: Classes, targets: npt.NDArray[np.int64]) -> sparse.csr_matrix:
    """Columns: hits, true and predicted of each class; confidence and hits of each bin; rows, Brier, covered, size."""
    exact = answers.probabilities.astype(np.float64)
    count, classes = exact.shape
    predicted = exact.argmax(axis=1)
    correct = (predicted == targets).astype(np.float64)
    confidence = np.clip(exact.max(axis=1, initial=0.0), 0.0, 1.0)
    bins = np.clip(np.ceil(np.round(confidence * CONFIDENCE_BINS, 9)).astype(np.intp) - 1, 0, CONFIDENCE_BINS - 1)
    rows = np.arange(count)
    brier = np.square(exact - np.eye(classes)[targets]).sum(axis=1)
    last = np.stack([np.ones(count), brier, answers.sets[rows, targets], answers.sets.sum(axis=1)], axis=1)
    blocks = [
        _one_hot(targets, classes, correct),
        _one_hot(targets, classes),
        _one_hot(predicted, classes),
        _one_hot(bins, CONFIDENCE_BINS, confidence),
        _one_hot(bins, CONFIDENCE_BINS, correct),
        sparse.csr_matrix(last),
    ]
    return sparse.csr_matrix(sparse.hstack(blocks))


def _one_hot(places: npt.NDArray[Any], width: int, values: Numbers | None = None) -> sparse.csr_matrix:
    given = np.ones(len(places)) if values is None else values
    return sparse.csr_matrix((given, (np.arange(len(places)), places)), shape=(len(places), width))


def _class_metrics(sums: Numbers, parts: Parts) -> dict[str, Numbers]:
    assert parts.classes is not None
    edges = np.cumsum([parts.classes] * 3 + [CONFIDENCE_BINS] * 2)
    hits, true, predicted, confidence, correct, last = np.split(sums, edges, axis=1)
    count, brier, covered, size = last.T
    present, involved = true > 0, (true > 0) | (predicted > 0)
    found = {
        "accuracy": hits.sum(axis=1) / count,
        "balanced_accuracy": _mean_where(_ratio(hits, true), present),
        "precision": _mean_where(_ratio(hits, predicted), involved),
        "recall": _mean_where(_ratio(hits, true), involved),
        "f1": _mean_where(_ratio(2 * hits, true + predicted), involved),
        "ece": np.abs(correct - confidence).sum(axis=1) / count,
        "brier": brier / count,
    }
    return {**found, "coverage": covered / count, "set_size": size / count} if parts.sure else found


def _number_metrics(sums: Numbers, sure: bool) -> dict[str, Numbers]:
    count, squared, absolute, covered, width = sums.T
    found = {"rmse": np.sqrt(squared / count), "mae": absolute / count, "mse": squared / count}
    return {**found, "coverage": covered / count, "interval_width": width / count} if sure else found


def _ratio(numerator: Numbers, denominator: Numbers) -> Numbers:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _mean_where(values: Numbers, kept: npt.NDArray[np.bool_]) -> Numbers:
    means: Numbers = (values * kept).sum(axis=1) / kept.sum(axis=1)
    return means
