"""Our thresholds beside MAPIE's split conformal prediction: the same intervals, and the same sets."""

from __future__ import annotations

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from mapie.regression import SplitConformalRegressor
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from testudo_common.learning.conformal import Conformal

LEVELS = (0.5, 0.8, 0.9)


class Line(RegressorMixin, BaseEstimator):
    """Predicts the first input."""

    def fit(self, inputs: np.ndarray, targets: np.ndarray) -> Line:
        self.fitted_ = True
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return inputs[:, 0]


class Told(ClassifierMixin, BaseEstimator):
    """Its inputs are the probabilities."""

    def fit(self, inputs: np.ndarray, targets: np.ndarray) -> Told:
        self.classes_ = np.arange(inputs.shape[1])
        return self

    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        return inputs

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return inputs.argmax(axis=1)


@pytest.mark.parametrize("level", LEVELS)
def test_intervals_are_mapies(level: float) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 1))
    targets = inputs[:, 0] + rng.normal(size=60)
    oracle = SplitConformalRegressor(Line().fit(inputs, targets), confidence_level=level, prefit=True)
    _, ends = oracle.conformalize(inputs, targets).predict_interval(inputs[:5])
    half = Conformal.of(np.abs(targets - inputs[:, 0])).threshold(level)
    np.testing.assert_allclose(ends[:, 0, 0], inputs[:5, 0] - half)
    np.testing.assert_allclose(ends[:, 1, 0], inputs[:5, 0] + half)


@pytest.mark.parametrize("level", LEVELS)
def test_sets_are_mapies(level: float) -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(3), 80)
    targets = np.array([rng.choice(3, p=row) for row in probabilities])
    model = Told().fit(probabilities, targets)
    oracle = SplitConformalClassifier(model, confidence_level=level, conformity_score="lac", prefit=True)
    _, sets = oracle.conformalize(probabilities, targets).predict_set(probabilities[:40])
    ours = Conformal.of(1 - probabilities[np.arange(80), targets])
    np.testing.assert_array_equal(ours.sets(probabilities[:40].astype(np.float64), level), sets[:, :, 0])
