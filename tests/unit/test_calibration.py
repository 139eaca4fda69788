"""Calibration: temperatures and scores that a federation counts together, and what an owner makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testudo_common.errors import DataError
from testudo_common.learning.calibration import (
    CLASS_EDGES,
    ERROR_EDGES,
    LOG_TEMPERATURES,
    OWNER_COUNTS_AS,
    CalibrationPrior,
    ScoreCounts,
    conformal_of_classes,
    conformal_of_errors,
    error_scale,
    lowest_of_grid,
    nearest_prior,
    temperature_of,
    tempered,
)
from testudo_common.learning.calibration_counts import MAX_SCORED, CalibrationCounts
from testudo_common.learning.conformal import Conformal


def sharpened(temperature: float, count: int = 4000, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right about their probabilities once they are divided by ``temperature``, and true classes."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (count, classes))
    draws = rng.random((count, 1))
    targets = (draws > tempered(logits, 1.0).cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)
    return (logits * temperature).astype(np.float32), targets.astype(np.int64)


@pytest.mark.parametrize("temperature", [0.75, 1.0, 1.6, 3.0])
def test_the_temperature_that_spoilt_the_logits_is_found_from_counts(temperature: float) -> None:
    logits, targets = sharpened(temperature)
    counts = ScoreCounts("classification")
    prior = counts.prior(counts.of_classes(logits, targets).astype(float), 5, 3)
    assert prior is not None
    assert prior.log_temperature == pytest.approx(math.log(temperature), abs=0.06)
    assert sum(prior.shares) == pytest.approx(1)


def test_counts_of_two_owners_are_the_counts_of_both_together() -> None:
    logits, targets = sharpened(1.3, 200)
    counts = ScoreCounts("classification")
    apart = counts.of_classes(logits[:80], targets[:80]) + counts.of_classes(logits[80:], targets[80:])
    np.testing.assert_array_equal(apart, counts.of_classes(logits, targets))
    assert apart.sum() == 200 * len(LOG_TEMPERATURES)


def test_an_owner_with_much_evidence_leaves_the_prior_and_one_without_stays() -> None:
    logits, targets = sharpened(2.5)
    prior = CalibrationPrior(shots=5, owners=4, shares=(1 / 39,) * 39)
    assert temperature_of(logits[:0], targets[:0], prior) == pytest.approx(1.0)
    assert temperature_of(logits, targets, prior) == pytest.approx(2.5, rel=0.1)
    assert 1.0 < temperature_of(logits[:20], targets[:20], prior) < 2.5


def test_without_a_prior_nobody_becomes_surer_than_the_model() -> None:
    logits, targets = sharpened(0.5, 500)
    assert temperature_of(logits, targets, None) == 1.0


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_a_threshold_is_the_order_statistic_of_split_conformal(level: float) -> None:
    scores = np.random.default_rng(0).random(99)
    place = math.ceil(100 * level)  # Vovk et al. 2005: the ceil((n + 1) level)-th smallest
    assert Conformal.of(scores).threshold(level) == np.sort(scores)[place - 1]


def test_too_few_scores_exclude_nothing() -> None:
    assert Conformal.of(np.array([0.1] * 8)).threshold(0.9) == math.inf
    assert Conformal.of(np.array([0.1] * 9)).threshold(0.9) == pytest.approx(0.1)


def test_many_owners_weigh_more_than_the_owners_own_scores() -> None:
    shares = np.zeros(len(CLASS_EDGES) - 1)
    shares[20] = 1.0
    own = np.full(20, 0.01)
    few, many = (CalibrationPrior(shots=5, owners=n, shares=tuple(shares)) for n in (1, 100))
    middle = 1 - (CLASS_EDGES[20] + CLASS_EDGES[21]) / 2
    assert conformal_of_classes(own, many).threshold(0.5) == pytest.approx(middle)
    assert conformal_of_classes(own, few).weights.sum() == pytest.approx(20 * 0.25 + OWNER_COUNTS_AS)


def test_intervals_are_in_units_of_the_owners_own_scale() -> None:
    shares = np.zeros(len(ERROR_EDGES) - 1)
    shares[15] = 1.0
    prior = CalibrationPrior(shots=8, owners=50, shares=tuple(shares))
    calm, wild = np.full(40, 0.1), np.full(40, 2.0)
    assert conformal_of_errors(wild, prior).threshold(0.9) == pytest.approx(1.55 * error_scale(wild))
    assert error_scale(calm) < error_scale(wild) and error_scale(np.empty(0)) == 0.5


def test_a_prior_of_the_other_kind_of_task_is_refused() -> None:
    with pytest.raises(DataError, match="another kind"):
        conformal_of_classes(np.empty(0), CalibrationPrior(shots=5, owners=3, shares=(1.0,)))


def test_the_nearest_support_size_is_nearest_by_ratio() -> None:
    one, ten, half = (CalibrationPrior(shots=n, owners=2, shares=(1.0,)) for n in (1, 10, None))
    assert nearest_prior((one, ten), 3) is one and nearest_prior((one, ten), 4) is ten
    assert nearest_prior((half,), 7) is half and nearest_prior((), 7) is None


@given(st.floats(-2, 2), st.floats(0.1, 5))
def test_the_lowest_point_of_a_parabola_is_found_between_the_grids(place: float, curve: float) -> None:
    grid = np.linspace(-3, 3, 13)
    assert lowest_of_grid(grid, curve * (grid - place) ** 2) == pytest.approx(place, abs=1e-6)


SIZED = CalibrationCounts("classification", (1, 5))
HALF = CalibrationCounts("classification", (None,))


def counted(seed: int, count: int = 30) -> np.ndarray:
    logits, targets = sharpened(1.0 + seed, count)
    return SIZED.scores.of_classes(logits, targets)


def test_sums_of_owners_say_what_each_size_says() -> None:
    total = SIZED.encode([None, counted(0)]) + SIZED.encode([counted(1), counted(2)])
    assert total.shape == (SIZED.size,) and np.all(total <= 2 * np.array(SIZED.bounds))
    found = SIZED.priors(total, owners=2, min_cell=10)
    assert [(prior.shots, prior.owners) for prior in found] == [(1, 1), (5, 2)]
    assert found[1] == SIZED.scores.prior((counted(0) + counted(2)).astype(float), 5, 2)


@pytest.mark.parametrize("fault", ["negative", "unequal", "too many owners", "too few examples"])
def test_a_sum_that_contradicts_itself_says_nothing(fault: str) -> None:
    total, least = SIZED.encode([None, counted(0)]), 10
    start = SIZED.size // 2
    match fault:
        case "negative":
            total[start + 1] -= MAX_SCORED
        case "unequal":
            total[start + 1] += 1
        case "too many owners":
            total[start] = 3
        case _:
            least = 31
    assert SIZED.priors(total, owners=2, min_cell=least) == ()


def test_more_than_one_owner_may_count_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be counted"):
        SIZED.encode([None, np.full(SIZED.scores.shape, MAX_SCORED, dtype=np.int64)])


@given(st.integers(0, 10_000), st.integers(2, 40))
def test_one_example_moves_the_counts_by_no_more_than_the_noise_covers(seed: int, count: int) -> None:
    """It adds itself and displaces one other, or makes its owner one that counts."""
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(0, 3, (count, 3)).astype(np.float32), rng.integers(0, 3, count)
    scores = HALF.scores
    here = HALF.encode([scores.of_classes(logits[:-1], targets[:-1])])
    other = HALF.encode([scores.of_classes(np.delete(logits, 0, axis=0), np.delete(targets, 0))])
    first = HALF.encode([scores.of_classes(logits[:1], targets[:1])])
    sensitivity = HALF.noise(1.0)[0]
    assert np.linalg.norm(here - other) <= sensitivity
    assert np.linalg.norm(first - HALF.encode([None])) <= sensitivity


def test_noise_is_not_known_for_several_sizes() -> None:
    with pytest.raises(DataError, match="one support size"):
        SIZED.noise(1.0)


def test_a_noisy_sum_of_many_still_tells_the_temperature() -> None:
    logits, targets = sharpened(2.0)
    parts = [HALF.scores.of_classes(logits[i::10], targets[i::10]) for i in range(10)]
    total = np.sum([HALF.encode([part]) for part in parts], axis=0)
    noise = float(HALF.noise(2.0)[0])
    noisy = total + np.rint(np.random.default_rng(0).normal(0, noise, total.shape)).astype(np.int64)
    (found,) = HALF.priors(noisy, owners=10, min_cell=10, noise=noise)
    assert found.log_temperature == pytest.approx(math.log(2.0), abs=0.15)
    assert HALF.priors(noisy // 100, owners=10, min_cell=10, noise=noise) == ()
