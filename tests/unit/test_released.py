"""What is reported of opened metric sums: right, unbiased under noise, with the noise it has, and no small cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from testudo_common.errors import WireError
from testudo_common.learning.metric_counts import MetricCounts, clipped_errors
from testudo_common.learning.metrics import ClassificationSums
from testudo_common.learning.released import Released, release

CLASSES = 4
COUNTS = MetricCounts("classification", CLASSES, 64)
NUMBERS = MetricCounts("regression", 1, 64)


def predictions(n: int, seed: int = 0, skill: float = 2.0, classes: int = CLASSES) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, size=n)
    scores = rng.normal(size=(n, classes))
    scores[np.arange(n), targets] += skill
    exact = np.exp(2 * scores)
    return exact / exact.sum(axis=1, keepdims=True), targets


def total_of(n: int, seed: int = 0, counts: MetricCounts = COUNTS) -> tuple[ClassificationSums, Any]:
    """Many clients' exact sums together, from 500 examples each, and their total."""
    parts = [min(500, n - start) for start in range(0, n, 500)]
    own = [ClassificationSums.of(*predictions(size, seed + i)) for i, size in enumerate(parts)]
    total = np.sum([counts.encode(one) for one in own], axis=0, dtype=np.int64)
    return sum(own[1:], own[0]), total


def numbers_of(n: int) -> Any:
    rng = np.random.default_rng(1)
    own = [clipped_errors(rng.normal(size=500), rng.normal(size=500)) for _ in range(n // 500)]
    return np.sum([NUMBERS.encode(one) for one in own], axis=0, dtype=np.int64)


def noisy(total: Any, sigma: npt.NDArray[Any], rng: np.random.Generator) -> Any:
    return total + np.rint(rng.normal(scale=sigma)).astype(np.int64)


# --- exact sums


def test_exact_sums_give_the_metrics_of_the_pooled_predictions_and_no_noise() -> None:
    sums, total = total_of(2000)
    found = release(COUNTS, total, min_cell=1)
    assert dict(found.metrics) == pytest.approx(sums.metrics(), abs=1e-3)
    assert set(found.metrics) == set(sums.metrics())
    assert found.noise == {}
    assert set(found.withheld) <= {"bins"}, "an empty bin"


def test_exact_regression_sums_too() -> None:
    total = numbers_of(2000)
    found = release(NUMBERS, total, min_cell=1)
    assert dict(found.metrics) == pytest.approx(NUMBERS.decode(total).metrics(), rel=1e-9)
    assert (found.noise, found.withheld) == ({}, {})


def test_a_class_of_few_examples_is_in_no_average_over_classes() -> None:
    probabilities, targets = predictions(400)
    few = np.flatnonzero(targets == 0)[9:]
    kept = np.delete(np.arange(400), few)
    probabilities, targets = probabilities[kept], targets[kept]  # nine examples of class 0
    sums = ClassificationSums.of(probabilities, targets)
    found = release(COUNTS, COUNTS.encode(sums), min_cell=10)
    assert found.withheld["classes"] == 1
    rows = sums.confusion.astype(float)
    recall = np.diag(rows) / rows.sum(axis=1)
    precision = np.diag(rows) / rows.sum(axis=0)
    assert found.metrics["balanced_accuracy"] == pytest.approx(recall[1:].mean())
    assert found.metrics["precision"] == pytest.approx(precision[1:].mean())
    assert found.metrics["accuracy"] == pytest.approx(np.trace(rows) / rows.sum()), "over all examples"
    assert "classes" not in release(COUNTS, COUNTS.encode(sums), min_cell=9).withheld


def test_a_bin_of_few_examples_is_not_in_the_calibration_error() -> None:
    sums = ClassificationSums.of(*predictions(300))
    found = release(COUNTS, COUNTS.encode(sums), min_cell=10)
    shown = sums.bin_count >= 10
    gaps = np.abs(sums.bin_correct - sums.bin_confidence)[shown]
    assert 0 < shown.sum() < len(shown), "some bins are small, or this shows nothing"
    assert found.withheld["bins"] == (~shown).sum()
    assert found.metrics["ece"] == pytest.approx(gaps.sum() / sums.bin_count[shown].sum(), abs=1e-3)


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_fewer_examples_than_a_cell_must_have_report_nothing(kind: str) -> None:
    def of(n: int) -> Released:
        if kind == "numbers":
            return release(NUMBERS, NUMBERS.encode(clipped_errors(np.ones(n), np.zeros(n))), min_cell=10)
        return release(COUNTS, COUNTS.encode(ClassificationSums.of(*predictions(n))), min_cell=10)

    assert (of(9).metrics, of(9).withheld) == ({}, {"metrics": 7 if kind == "classes" else 3})
    assert of(10).metrics


def test_exact_sums_that_contradict_themselves_are_refused_and_noisy_ones_are_not() -> None:
    _, total = total_of(1000)
    total[0] += 1
    with pytest.raises(WireError, match="contradict"):
        release(COUNTS, total, 1)
    assert release(COUNTS, total, 1, COUNTS.noise(0.1)).metrics


@pytest.mark.parametrize("noise", [False, True])
def test_another_shape_is_refused(noise: bool) -> None:
    with pytest.raises(WireError, match="instead of int64"):
        release(COUNTS, np.zeros(3, np.int64), 1, COUNTS.noise(1.0) if noise else None)


# --- noisy sums


@pytest.mark.parametrize("classes", [2, 10])
def test_under_noise_metrics_are_unbiased_and_spread_as_said(classes: int) -> None:
    """Noise of z = 1 on 20,000 examples; each metric's mean over 400 draws, against its exact value."""
    counts = MetricCounts("classification", classes, 64)
    own = [ClassificationSums.of(*predictions(500, seed, classes=classes)) for seed in range(40)]
    total = np.sum([counts.encode(one) for one in own], axis=0, dtype=np.int64)
    exact = release(counts, total, 10).metrics
    sigma, rng = counts.noise(1.0), np.random.default_rng(5)
    draws = [release(counts, noisy(total, sigma, rng), 10, sigma) for _ in range(400)]
    for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "brier"):
        values = np.array([one.metrics[name] for one in draws])
        said = float(np.mean([one.noise[name] for one in draws]))
        assert values.std() == pytest.approx(said, rel=0.15), name
        assert abs(values.mean() - exact[name]) < 4 * said / np.sqrt(400) + 0.05 * said, name


def test_making_cells_feasible_first_would_be_biased() -> None:
    """Why values below zero are not raised to zero: with ten classes most cells hold little more than noise."""
    counts = MetricCounts("classification", 10, 64)
    own = [ClassificationSums.of(*predictions(500, seed, classes=10)) for seed in range(20)]
    total = np.sum([counts.encode(one) for one in own], axis=0, dtype=np.int64)
    exact = release(counts, total, 10).metrics["balanced_accuracy"]
    sigma, rng = counts.noise(3.0), np.random.default_rng(5)
    draws = [noisy(total, sigma, rng) for _ in range(200)]
    raised = np.mean([release(counts, np.maximum(one, 0), 10, sigma).metrics["balanced_accuracy"] for one in draws])
    ours = np.mean([release(counts, one, 10, sigma).metrics["balanced_accuracy"] for one in draws])
    assert abs(ours - exact) < 0.2 * abs(raised - exact)


def test_regression_under_noise_is_unbiased_and_spread_as_said() -> None:
    total = numbers_of(30_000)
    exact, sigma, rng = release(NUMBERS, total, 10).metrics, NUMBERS.noise(1.0), np.random.default_rng(5)
    draws = [release(NUMBERS, noisy(total, sigma, rng), 10, sigma) for _ in range(400)]
    for name in ("rmse", "mse", "mae"):
        values = np.array([one.metrics[name] for one in draws])
        said = float(np.mean([one.noise[name] for one in draws]))
        assert values.std() == pytest.approx(said, rel=0.15), name
        assert abs(values.mean() - exact[name]) < 0.3 * said, name


def test_noise_on_the_number_of_examples_is_said_and_less_than_either_count_alone_has() -> None:
    _, total = total_of(5000)
    sigma = COUNTS.noise(2.0)
    found = release(COUNTS, total, 10, sigma)
    assert found.noise["examples"] < min(CLASSES * sigma[0], np.sqrt(15) * sigma[0])


def test_what_is_mostly_noise_is_not_reported() -> None:
    _, total = total_of(600)
    sigma = COUNTS.noise(10.0)
    found = release(COUNTS, total, 10, sigma)
    assert "ece" not in found.metrics
    assert found.withheld["metrics"] >= 1
    assert release(NUMBERS, numbers_of(500), 10, NUMBERS.noise(10.0)).metrics.keys() <= {"mae"}
    drowned = release(COUNTS, total_of(60)[1], 10, sigma)
    assert (drowned.metrics, drowned.withheld) == ({}, {"metrics": 7})


def test_a_class_without_examples_is_not_reported_because_noise_gave_it_some() -> None:
    probabilities, targets = predictions(500)
    keep = targets != 0
    own = ClassificationSums.of(probabilities[keep], targets[keep])
    total = 20 * COUNTS.encode(own)
    sigma, rng = COUNTS.noise(3.0), np.random.default_rng(2)
    alone = [release(COUNTS, noisy(total, sigma, rng), 10, sigma).withheld.get("classes", 0) for _ in range(200)]
    assert np.mean(np.array(alone) == 1) > 0.95


def test_noisy_metrics_stay_where_they_can_be() -> None:
    _, total = total_of(400)
    sigma, rng = COUNTS.noise(2.0), np.random.default_rng(7)
    for _ in range(200):
        found = release(COUNTS, noisy(total, sigma, rng), 10, sigma)
        for name, value in found.metrics.items():
            assert 0 <= value <= (2 if name == "brier" else 1), name
