"""Metrics from additive sums, against scikit-learn; and that sums add, whatever the order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from testudo_common.errors import DataError, ModelError
from testudo_common.learning.metrics import CONFIDENCE_BINS, ClassificationSums, RegressionSums

seeds = st.integers(0, 2**32 - 1)


def predictions(seed: int, classes: int = 4, n: int = 60, true_classes: int | None = None):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.5), size=n)
    return probabilities, rng.integers(0, true_classes or classes, size=n)


@given(seeds, st.integers(1, 5), st.integers(1, 40))
def test_agrees_with_scikit_learn_also_where_classes_are_missing(seed, true_classes, n):
    probabilities, targets = predictions(seed, classes=6, n=n, true_classes=true_classes)
    predicted = probabilities.argmax(axis=1)
    found = ClassificationSums.of(probabilities, targets).metrics()
    macro = {"average": "macro", "zero_division": 0}
    recalls = [np.mean(predicted[targets == label] == label) for label in np.unique(targets)]
    assert found == pytest.approx(
        {
            "accuracy": oracle.accuracy_score(targets, predicted),
            # scikit-learn's own warns when a class is predicted only; its definition is the mean of recalls
            "balanced_accuracy": np.mean(recalls),
            "precision": oracle.precision_score(targets, predicted, **macro),
            "recall": oracle.recall_score(targets, predicted, **macro),
            "f1": oracle.f1_score(targets, predicted, **macro),
            "brier": np.square(probabilities - np.eye(6)[targets]).sum(axis=1).mean(),
            "ece": ece_by_definition(probabilities, targets),
        }
    )


def test_balanced_accuracy_is_that_of_scikit_learn():
    probabilities, targets = predictions(0)
    found = ClassificationSums.of(probabilities, targets).metrics()["balanced_accuracy"]
    assert found == pytest.approx(oracle.balanced_accuracy_score(targets, probabilities.argmax(axis=1)))


def test_two_class_brier_is_twice_that_of_scikit_learn():
    probabilities, targets = predictions(1, classes=2)
    found = ClassificationSums.of(probabilities, targets).metrics()["brier"]
    assert found == pytest.approx(2 * oracle.brier_score_loss(targets, probabilities[:, 1]))


def ece_by_definition(probabilities, targets):
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    total = 0.0
    for b in range(CONFIDENCE_BINS):
        inside = (confidence > b / CONFIDENCE_BINS) & (confidence <= (b + 1) / CONFIDENCE_BINS)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def test_known_answer():
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    found = ClassificationSums.of(probabilities, np.array([0, 1, 1, 1])).metrics()
    # the two at 0.8 are right half of the time: |1 - 1.6|; 0.6 is wrong: |0 - 0.6|; 0.7 is right: |1 - 0.7|
    assert found["ece"] == pytest.approx((0.6 + 0.6 + 0.3) / 4)
    assert found["brier"] == pytest.approx((0.08 + 0.72 + 0.18 + 1.28) / 4)
    assert found["accuracy"] == 0.5
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 / 3) / 2)


def test_a_confidence_on_a_border_closes_its_bin():
    for b in range(1, CONFIDENCE_BINS):
        confidence = b / CONFIDENCE_BINS
        others = np.full(20, (1 - confidence) / 20)
        if confidence <= others[0]:
            continue
        sums = ClassificationSums.of(np.array([[confidence, *others]]), np.array([0]))
        assert np.flatnonzero(sums.bin_count).tolist() == [b - 1]


def test_perfect_predictor():
    targets = np.array([0, 2, 2, 1])
    found = ClassificationSums.of(np.eye(3)[targets], targets).metrics()
    ones = {"accuracy", "balanced_accuracy", "precision", "recall", "f1"}
    assert found == {name: 1.0 if name in ones else 0.0 for name in found}
    assert RegressionSums.of(np.arange(3.0), np.arange(3.0)).metrics() == {"rmse": 0, "mae": 0, "mse": 0}


@given(seeds, st.integers(0, 60))
def test_sums_of_the_parts_are_the_sums_of_the_whole(seed, cut):
    probabilities, targets = predictions(seed)
    whole = ClassificationSums.of(probabilities, targets)
    parts = (
        ClassificationSums.zero(4)
        + ClassificationSums.of(probabilities[:cut], targets[:cut])
        + ClassificationSums.of(probabilities[cut:], targets[cut:])
    )
    assert parts.examples == whole.examples == 60
    np.testing.assert_array_equal(parts.confusion, whole.confusion)
    np.testing.assert_array_equal(parts.bin_count, whole.bin_count)
    np.testing.assert_array_equal(parts.bin_correct, whole.bin_correct)
    assert parts.metrics() == pytest.approx(whole.metrics())


@given(seeds)
def test_the_order_of_examples_changes_nothing(seed):
    probabilities, targets = predictions(seed)
    order = np.random.default_rng(seed).permutation(len(targets))
    whole = ClassificationSums.of(probabilities, targets).metrics()
    assert ClassificationSums.of(probabilities[order], targets[order]).metrics() == pytest.approx(whole)


@given(seeds)
def test_renaming_the_classes_changes_nothing(seed):
    probabilities, targets = predictions(seed)
    names = np.random.default_rng(seed).permutation(4)
    renamed = np.empty_like(probabilities)
    renamed[:, names] = probabilities
    whole = ClassificationSums.of(probabilities, targets).metrics()
    assert ClassificationSums.of(renamed, names[targets]).metrics() == pytest.approx(whole)


@given(seeds, st.integers(1, 30), st.integers(0, 30))
def test_regression_agrees_with_scikit_learn_and_adds(seed, n, cut):
    rng = np.random.default_rng(seed)
    found, targets = rng.normal(size=n), rng.normal(size=n).astype(np.float32)
    parts = (
        RegressionSums.zero()
        + RegressionSums.of(found[:cut], targets[:cut])
        + RegressionSums.of(found[cut:], targets[cut:])
    )
    mse = oracle.mean_squared_error(targets, found)
    expected = {"rmse": np.sqrt(mse), "mae": oracle.mean_absolute_error(targets, found), "mse": mse}
    assert parts.metrics() == pytest.approx(expected)
    assert parts.examples == n


@pytest.mark.parametrize(
    ("fault", "probabilities", "targets", "error"),
    [
        ("logits", [[2.0, -1.0]], [0], ModelError),
        ("not a number", [[np.nan, np.nan]], [0], ModelError),
        ("negative", [[1.5, -0.5]], [0], ModelError),
        ("target too large", [[0.5, 0.5]], [2], DataError),
        ("target negative", [[0.5, 0.5]], [-1], DataError),
        ("lengths differ", [[0.5, 0.5]], [0, 1], DataError),
        ("no classes", [[]], [0], DataError),
    ],
)
def test_refuses(fault, probabilities, targets, error):
    with pytest.raises(error):
        ClassificationSums.of(np.array(probabilities), np.array(targets))


def test_refuses_to_add_different_tasks_and_to_score_nothing():
    with pytest.raises(DataError):
        ClassificationSums.zero(3) + ClassificationSums.zero(4)
    for nothing in (ClassificationSums.zero(3), RegressionSums.zero()):
        with pytest.raises(DataError):
            nothing.metrics()
    with pytest.raises(ModelError):
        RegressionSums.of(np.array([np.inf]), np.array([0.0]))
    with pytest.raises(DataError):
        RegressionSums.of(np.array([0.0]), np.array([np.nan]))
    with pytest.raises(DataError):
        RegressionSums.of(np.zeros((2, 1)), np.zeros(2))


def test_float32_softmax_outputs_are_accepted():
    logits = np.random.default_rng(0).normal(scale=20, size=(500, 50)).astype(np.float32)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert ClassificationSums.of(probabilities, np.zeros(500, dtype=np.int64)).examples == 500
