"""Metrics as additive statistics: every metric of a report follows from sums that add up across clients.

Holds no model and no training; numpy only, so that the sums can later go inside a secure sum.
Sources: expected calibration error as in Guo et al. 2017 (arXiv:1706.04599, equation 3); the multi-class
score of Brier 1950; balanced accuracy and macro averages as scikit-learn defines them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from testudo_common.errors import DataError, ModelError

CONFIDENCE_BINS = 15
ROUNDING = 1e-5  # a softmax in float32 may leave 0..1 by this much

Floats = npt.NDArray[np.floating[Any]]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationSums:
    """Everything the classification metrics need, additive over examples.

    Attributes:
        confusion: ``int64[C, C]``, row the true class, column the predicted one.
        bin_count: ``int64[B]``, predictions whose confidence is in ``(b/B, (b+1)/B]``, for each of B bins b.
        bin_confidence: ``float64[B]``, sum of the confidences in each bin.
        bin_correct: ``int64[B]``, correct predictions in each bin.
        brier_sum: Sum of each example's squared distance from probabilities to one-hot target, 0..2.
    """

    confusion: Counts
    bin_count: Counts
    bin_confidence: npt.NDArray[np.float64]
    bin_correct: Counts
    brier_sum: float

    @classmethod
    def zero(cls, classes: int) -> Self:
        """The sums of no examples: where a fold over clients begins."""
        return cls.of(np.empty((0, classes)), np.empty(0, dtype=np.int64))

    @classmethod
    def of(cls, probabilities: Floats, targets: Counts) -> Self:
        """The sums of some predictions.

        Args:
            probabilities: ``float[n, C]`` in 0..1, each row summing to 1; the first largest predicts.
            targets: ``int64[n]`` class numbers in 0..C-1.

        Raises:
            DataError: The shapes do not fit together, or a target is no class.
            ModelError: The model's output is not a probability, for example because training diverged.
        """
        _check_classes(probabilities, targets)
        classes = probabilities.shape[1]
        exact = probabilities.astype(np.float64)  # [n, C]
        predicted = exact.argmax(axis=1)  # [n]
        confidence = np.clip(exact.max(axis=1, initial=0.0), 0.0, 1.0)  # [n]
        correct = predicted == targets
        # the rounding keeps a confidence of exactly b/B, such as 0.2, in the bin it closes
        bins = np.ceil(np.round(confidence * CONFIDENCE_BINS, 9)).astype(np.int64) - 1
        bins = np.clip(bins, 0, CONFIDENCE_BINS - 1)
        confusion = np.bincount(targets * classes + predicted, minlength=classes * classes)
        return cls(
            confusion=confusion.reshape(classes, classes).astype(np.int64),
            bin_count=np.bincount(bins, minlength=CONFIDENCE_BINS).astype(np.int64),
            bin_confidence=np.bincount(bins, weights=confidence, minlength=CONFIDENCE_BINS).astype(np.float64),
            bin_correct=np.bincount(bins[correct], minlength=CONFIDENCE_BINS).astype(np.int64),
            brier_sum=float(np.square(exact - np.eye(classes)[targets]).sum()),
        )

    def __add__(self, other: ClassificationSums) -> ClassificationSums:
        """The sums of both sets of examples.

        Raises:
            DataError: They are about different numbers of classes.
        """
        if self.confusion.shape != other.confusion.shape:
            raise DataError(f"sums over {len(self.confusion)} and {len(other.confusion)} classes cannot be added")
        return ClassificationSums(
            confusion=self.confusion + other.confusion,
            bin_count=self.bin_count + other.bin_count,
            bin_confidence=self.bin_confidence + other.bin_confidence,
            bin_correct=self.bin_correct + other.bin_correct,
            brier_sum=self.brier_sum + other.brier_sum,
        )

    @property
    def examples(self) -> int:
        """How many examples were summed."""
        return int(self.confusion.sum())

    def metrics(self) -> dict[str, float]:
        """Accuracy, balanced accuracy, macro precision, recall and F1, calibration error and Brier score.

        Balanced accuracy averages over the classes among the targets; the macro averages over the classes
        among targets or predictions, where a class with a zero denominator counts as 0. All lie in 0..1,
        Brier in 0..2.

        Raises:
            DataError: There are no examples.
        """
        count = self.examples
        if count == 0:
            raise DataError("no examples to compute a metric from")
        hits = np.diag(self.confusion).astype(np.float64)  # [C]
        true = self.confusion.sum(axis=1)  # [C]
        predicted = self.confusion.sum(axis=0)  # [C]
        present = true > 0
        involved = present | (predicted > 0)
        gap = np.abs(self.bin_correct - self.bin_confidence).sum()
        return {
            "accuracy": float(hits.sum() / count),
            "balanced_accuracy": float(_ratio(hits, true)[present].mean()),
            "precision": float(_ratio(hits, predicted)[involved].mean()),
            "recall": float(_ratio(hits, true)[involved].mean()),
            "f1": float(_ratio(2 * hits, true + predicted)[involved].mean()),
            "ece": float(gap / count),
            "brier": float(self.brier_sum / count),
        }


@dataclass(frozen=True, slots=True)
class RegressionSums:
    """Everything the regression metrics need, additive over examples.

    Attributes:
        n: Examples.
        squared_error_sum: Sum of squared errors, in the target's unit squared.
        absolute_error_sum: Sum of absolute errors, in the target's unit.
    """

    n: int
    squared_error_sum: float
    absolute_error_sum: float

    @classmethod
    def zero(cls) -> Self:
        """The sums of no examples: where a fold over clients begins."""
        return cls(0, 0.0, 0.0)

    @classmethod
    def of(cls, predictions: Floats, targets: Floats) -> Self:
        """The sums of some predictions.

        Args:
            predictions: ``float[n]``, in the target's unit.
            targets: ``float[n]``, in the same unit.

        Raises:
            DataError: The shapes differ, or a target is not finite.
            ModelError: A prediction is not finite, for example because training diverged.
        """
        if predictions.shape != targets.shape or targets.ndim != 1:
            raise DataError(f"predictions {predictions.shape} and targets {targets.shape} are not two vectors alike")
        if not np.isfinite(targets).all():
            raise DataError("a target is not a finite number")
        if not np.isfinite(predictions).all():
            raise ModelError("a prediction is not a finite number", remedy="Lower the learning rate")
        error = predictions.astype(np.float64) - targets.astype(np.float64)  # [n]
        return cls(len(error), float(np.square(error).sum()), float(np.abs(error).sum()))

    def __add__(self, other: RegressionSums) -> RegressionSums:
        """The sums of both sets of examples."""
        return RegressionSums(
            self.n + other.n,
            self.squared_error_sum + other.squared_error_sum,
            self.absolute_error_sum + other.absolute_error_sum,
        )

    @property
    def examples(self) -> int:
        """How many examples were summed."""
        return self.n

    def metrics(self) -> dict[str, float]:
        """RMSE and MAE in the target's unit, MSE in its square.

        Raises:
            DataError: There are no examples.
        """
        if self.n == 0:
            raise DataError("no examples to compute a metric from")
        mse = self.squared_error_sum / self.n
        return {"rmse": float(np.sqrt(mse)), "mae": self.absolute_error_sum / self.n, "mse": mse}


Sums = ClassificationSums | RegressionSums
"""Of one task's kind."""


def _check_classes(probabilities: Floats, targets: Counts) -> None:
    if probabilities.ndim != 2 or probabilities.shape[1] == 0 or targets.shape != probabilities.shape[:1]:
        raise DataError(f"probabilities {probabilities.shape} and targets {targets.shape} are not [n, classes] and [n]")
    if targets.size and not 0 <= targets.min() <= targets.max() < probabilities.shape[1]:
        raise DataError(f"a target is not one of the classes 0..{probabilities.shape[1] - 1}")
    sums = probabilities.sum(axis=1, dtype=np.float64)
    if not (np.all(np.abs(sums - 1) <= 100 * ROUNDING) and np.all(probabilities >= -ROUNDING)):  # NaN fails too
        raise ModelError(
            "the model's outputs are not probabilities",
            remedy="Apply a softmax to logits; where training diverged, lower the learning rate",
        )


def _ratio(numerator: npt.NDArray[np.float64], denominator: Counts) -> npt.NDArray[np.float64]:
    """Element-wise quotient, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
