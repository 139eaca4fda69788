"""Metric sums as bounded integers: encoding, adding and decoding is adding, whatever the clients hold."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testudo_common.errors import DataError, ModelError, WireError
from testudo_common.learning.metric_counts import (
    LARGEST_SUM,
    MAX_ERROR,
    MAX_QUERIES,
    NOISY_STEPS,
    MetricCounts,
    clipped_errors,
)
from testudo_common.learning.metrics import CONFIDENCE_BINS, ClassificationSums, RegressionSums

CLASSES = 3
FIXED_POINT = {"bin_confidence", "brier_sum", "squared_error_sum", "absolute_error_sum"}
CLASSIFICATION = MetricCounts("classification", CLASSES, 16)
REGRESSION = MetricCounts("regression", 1, 16)

seeds = st.integers(0, 2**32 - 1)
examples_of_clients = st.lists(st.integers(0, 40), min_size=1, max_size=16)


def predictions(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.dirichlet(np.full(CLASSES, 0.5), size=n), rng.integers(0, CLASSES, size=n)


def errors(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(scale=4, size=n), rng.normal(size=n)


def agree(found: Any, expected: Any, counts: MetricCounts, clients: int) -> None:
    """Exactly for integers; fixed point within what ``clients`` roundings to the nearest may add up to."""
    assert type(found) is type(expected)
    scales = {field: counts.scales[place] for field, place in first_places(counts).items()}
    for field in fields(found):
        one, other = np.asarray(getattr(found, field.name)), np.asarray(getattr(expected, field.name))
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        off = 0.5 * clients / scales[field.name] + 1e-9 if field.name in FIXED_POINT else 0
        np.testing.assert_allclose(one, other, rtol=0, atol=off, err_msg=field.name)


def first_places(counts: MetricCounts) -> dict[str, int]:
    """Where each field begins, written down apart from the code under test."""
    if counts.kind == "regression":
        return {"n": 0, "squared_error_sum": 1, "absolute_error_sum": 2}
    squares = counts.classes**2
    names = ["bin_count", "bin_confidence", "bin_correct", "brier_sum"]
    return {"confusion": 0} | {name: squares + place * CONFIDENCE_BINS for place, name in enumerate(names)}


# --- a sum of encoded sums is the sum


@given(seeds, examples_of_clients, st.sampled_from([16, 300, 2048]), st.sampled_from(["classification", "few_shot"]))
@settings(deadline=None)
def test_classification_adds(seed: int, sizes: list[int], clients: int, kind: Any) -> None:
    rng = np.random.default_rng(seed)
    counts = MetricCounts(kind, CLASSES, clients)
    own = [predictions(rng, n) for n in sizes]
    sums = [ClassificationSums.of(*pair) for pair in own]
    found = counts.decode(sum(counts.encode(one) for one in sums))
    agree(found, reduce(add, sums), counts, len(sums))
    agree(found, ClassificationSums.of(*map(np.concatenate, zip(*own, strict=True))), counts, len(sums))


@given(seeds, examples_of_clients, st.sampled_from([16, 300, 2048]))
@settings(deadline=None)
def test_regression_adds(seed: int, sizes: list[int], clients: int) -> None:
    rng = np.random.default_rng(seed)
    counts = MetricCounts("regression", 1, clients)
    own = [errors(rng, n) for n in sizes]
    sums = [clipped_errors(*pair) for pair in own]
    found = counts.decode(sum(counts.encode(one) for one in sums))
    agree(found, reduce(add, sums), counts, len(sums))
    agree(found, clipped_errors(*map(np.concatenate, zip(*own, strict=True))), counts, len(sums))


@given(seeds, st.lists(st.integers(1, 40), min_size=1, max_size=16))
@settings(deadline=None)
def test_metrics_are_those_of_pooled_predictions(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    own = [predictions(rng, n) for n in sizes]
    total = sum(CLASSIFICATION.encode(ClassificationSums.of(*pair)) for pair in own)
    pooled = ClassificationSums.of(*map(np.concatenate, zip(*own, strict=True))).metrics()
    found = CLASSIFICATION.decode(total).metrics()
    for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1"):
        assert found[name] == pooled[name]
    # per example, a client of one example or more: half of a unit of 2^-17 in each of 15 bins; of 2^-16 for Brier
    assert found["ece"] == pytest.approx(pooled["ece"], rel=0, abs=CONFIDENCE_BINS * 2.0**-18)
    assert found["brier"] == pytest.approx(pooled["brier"], rel=0, abs=2.0**-17)


@given(seeds, st.lists(st.integers(1, 40), min_size=1, max_size=16))
@settings(deadline=None)
def test_regression_metrics_are_those_of_pooled_predictions(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    own = [(found.clip(-7, 7), targets.clip(-7, 7)) for found, targets in (errors(rng, n) for n in sizes)]
    total = sum(REGRESSION.encode(RegressionSums.of(*pair)) for pair in own)
    pooled = RegressionSums.of(*map(np.concatenate, zip(*own, strict=True))).metrics()
    found = REGRESSION.decode(total).metrics()
    assert found["mse"] == pytest.approx(pooled["mse"], rel=0, abs=2.0**-10)  # half of a unit of 2^-9
    assert found["mae"] == pytest.approx(pooled["mae"], rel=0, abs=2.0**-14)


def test_known_answer() -> None:
    counts = MetricCounts("regression", 1, 2048)
    assert counts.encode(RegressionSums(3, 10.2, 4.01)).tolist() == [3, 41, 257]  # 4 * 10.2, 64 * 4.01, to the nearest
    assert counts.decode(np.array([3, 41, 257])) == RegressionSums(3, 10.25, 4.015625)


def test_layout() -> None:
    """What a client sends, coordinate by coordinate, does not change unnoticed: both ends must have the same."""
    one = ClassificationSums.of(np.array([[0.25, 0.75]]), np.array([0]))
    vector = MetricCounts("classification", 2, 2048).encode(one)
    expected = np.zeros(4 + 3 * CONFIDENCE_BINS + 1, dtype=np.int64)
    expected[1] = 1  # the true class 0 taken for class 1
    in_bin = 11  # 0.75 is in (11/15, 12/15]
    expected[4 + in_bin] = 1
    expected[4 + CONFIDENCE_BINS + in_bin] = 0.75 * 2**10
    expected[-1] = 2 * 0.75**2 * 2**9
    np.testing.assert_array_equal(vector, expected)


# --- bounds


@given(st.integers(1, 8191), st.sampled_from([("classification", 2), ("few_shot", 20), ("regression", 1)]))
def test_no_coordinate_leaves_half_the_ring_and_no_bit_is_wasted(clients: int, task: Any) -> None:
    counts = MetricCounts(*task, clients)
    assert counts.bounds.dtype == counts.scales.dtype == np.int64
    assert counts.bounds.shape == counts.scales.shape == (counts.size,)
    assert (clients * counts.bounds <= LARGEST_SUM).all()
    fixed = np.zeros(counts.size, dtype=bool)
    places = {**first_places(counts), "end": counts.size}
    for (field, start), stop in zip(places.items(), list(places.values())[1:], strict=False):
        fixed[start:stop] = field in FIXED_POINT
    assert (2 * clients * counts.bounds[fixed] > LARGEST_SUM).all()
    assert (counts.scales[~fixed] == 1).all()
    assert (counts.scales & (counts.scales - 1) == 0).all()


@pytest.mark.parametrize(("clients", "shift"), [(2048, 0), (16, 7)])
def test_scales_are_what_the_docstring_says(clients: int, shift: int) -> None:
    classification, regression = (MetricCounts("few_shot", 5, clients), MetricCounts("regression", 1, clients))
    places = first_places(classification)
    assert classification.scales[places["bin_confidence"]] == 2 ** (10 + shift)
    assert classification.scales[places["brier_sum"]] == 2 ** (9 + shift)
    assert regression.scales.tolist() == [1, 4 * 2**shift, 2 ** (6 + shift)]


def test_worst_classifier_with_all_its_queries_is_at_its_bounds() -> None:
    """Every prediction wrong with all confidence; a float32 softmax may even leave 0..1 a little."""
    wrong = np.tile(np.array([[1.000_01, -0.000_01, 0.0]]), (MAX_QUERIES, 1))
    vector = CLASSIFICATION.encode(ClassificationSums.of(wrong, np.ones(MAX_QUERIES, dtype=np.int64)))
    assert ((vector >= 0) & (vector <= CLASSIFICATION.bounds)).all()
    reached = np.flatnonzero(vector == CLASSIFICATION.bounds)
    places = first_places(CLASSIFICATION)
    last_bin = CONFIDENCE_BINS - 1
    expected = [CLASSES, places["bin_count"] + last_bin, places["bin_confidence"] + last_bin, places["brier_sum"]]
    assert reached.tolist() == expected


@pytest.mark.parametrize("error", [16.0, -16.5, 3e38, -3e38])
def test_worst_regressor_with_all_its_queries_is_at_its_bounds(error: float) -> None:
    found = np.full(MAX_QUERIES, error, dtype=np.float32)
    vector = REGRESSION.encode(clipped_errors(found, np.zeros(MAX_QUERIES, dtype=np.float32)))
    np.testing.assert_array_equal(vector, REGRESSION.bounds)


@given(
    st.integers(0, MAX_QUERIES),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_whatever_the_error_sums_the_vector_is_within_its_bounds_and_decodes(n: int, squares: float, one: float):
    vector = REGRESSION.encode(RegressionSums(n, squares, one))
    assert ((vector >= 0) & (vector <= REGRESSION.bounds)).all()
    assert REGRESSION.decode(vector).examples == n


def test_as_many_clients_as_can_be_all_at_their_bounds() -> None:
    counts = MetricCounts("regression", 1, 2048)
    worst = RegressionSums(MAX_QUERIES, MAX_QUERIES * MAX_ERROR**2, MAX_QUERIES * MAX_ERROR)
    total = 2048 * counts.encode(worst)
    ring = total.astype(np.uint32).astype(np.int64)  # what a sum mod 2^32 keeps of it
    assert counts.decode(ring).metrics() == {"rmse": MAX_ERROR, "mae": MAX_ERROR, "mse": MAX_ERROR**2}


def test_one_large_error_counts_as_the_largest_only() -> None:
    sums = clipped_errors(np.array([1e30, 2.0]), np.array([0.0, 0.5]))
    assert sums == RegressionSums(2, MAX_ERROR**2 + 1.5**2, MAX_ERROR + 1.5)


@given(seeds)
def test_errors_within_the_clip_are_left_as_they_are(seed: int) -> None:
    found, targets = (values.clip(-7, 7) for values in errors(np.random.default_rng(seed), 20))
    assert clipped_errors(found, targets) == RegressionSums.of(found, targets)


# --- no examples


@pytest.mark.parametrize(
    ("counts", "zero"), [(CLASSIFICATION, ClassificationSums.zero(CLASSES)), (REGRESSION, RegressionSums.zero())]
)
def test_who_counts_no_examples_changes_nothing(counts: MetricCounts, zero: Any) -> None:
    assert not counts.encode(zero).any()
    assert counts.encode(zero).shape == (counts.size,)
    assert counts.decode(counts.encode(zero)).examples == 0


# --- refused


@pytest.mark.parametrize(
    ("kind", "classes", "clients"),
    [
        ("classification", 1, 8),
        ("few_shot", 0, 8),
        ("regression", 2, 8),
        ("regression", 1, 0),
        ("regression", 1, 16_384),
        ("classification", 2, 2_097_152),
    ],
)
def test_refuses_what_cannot_be_written(kind: Any, classes: int, clients: int) -> None:
    with pytest.raises(DataError):
        MetricCounts(kind, classes, clients)


@pytest.mark.parametrize(
    ("kind", "classes", "clients"), [("regression", 1, 16_383), ("classification", 2, 2_097_151), ("few_shot", 2, 1)]
)
def test_the_largest_and_the_smallest_number_of_clients_can(kind: Any, classes: int, clients: int) -> None:
    assert MetricCounts(kind, classes, clients).scales.min() == 1


def one_client() -> ClassificationSums:
    return ClassificationSums.of(*predictions(np.random.default_rng(0), 20))


@pytest.mark.parametrize(
    ("fault", "counts", "sums"),
    [
        ("another task", CLASSIFICATION, RegressionSums.zero()),
        ("another task", REGRESSION, ClassificationSums.zero(CLASSES)),
        ("shape", CLASSIFICATION, ClassificationSums.zero(CLASSES + 1)),
        ("shape", CLASSIFICATION, replace(one_client(), bin_correct=np.zeros(3, dtype=np.int64))),
        ("shape", CLASSIFICATION, replace(one_client(), confusion=one_client().confusion.reshape(-1, 1))),
        ("not finite", CLASSIFICATION, replace(one_client(), brier_sum=np.nan)),
        ("not finite", REGRESSION, RegressionSums(1, np.inf, 0.0)),
        ("not a count", REGRESSION, RegressionSums(-1, 0.0, 0.0)),
        ("not a count", CLASSIFICATION, replace(one_client(), confusion=one_client().confusion / 2)),
        ("513 examples", REGRESSION, RegressionSums(513, 1.0, 1.0)),
        ("different numbers of examples", CLASSIFICATION, replace(one_client(), bin_count=one_client().bin_count + 1)),
        (
            "different numbers of correct",
            CLASSIFICATION,
            replace(one_client(), bin_correct=0 * one_client().bin_correct),
        ),
    ],
)
def test_refuses_to_encode(fault: str, counts: MetricCounts, sums: Any) -> None:
    with pytest.raises(DataError, match=fault):
        counts.encode(sums)


def changed(total: np.ndarray, field: str, by: int) -> np.ndarray:
    """Another number in the first entry of a field that is not zero, or in the first one."""
    start = first_places(CLASSIFICATION)[field]
    other = total.copy()
    other[start + int(np.argmax(total[start:] > 0))] += by
    return other


TOTAL = CLASSIFICATION.encode(one_client())


@pytest.mark.parametrize(
    ("fault", "total"),
    [
        ("instead of int64", TOTAL[:-1]),
        ("instead of int64", np.append(TOTAL, 0)),
        ("instead of int64", TOTAL[np.newaxis]),
        ("instead of int64", TOTAL.astype(np.uint32)),
        ("instead of int64", TOTAL.astype(np.float64)),
        ("out of the range", TOTAL - 1),
        ("out of the range", TOTAL + 16 * CLASSIFICATION.bounds + 1),
        ("out of the range", np.random.default_rng(0).integers(0, 2**32, size=CLASSIFICATION.size)),
        ("examples", 16 * CLASSIFICATION.bounds),
        ("different numbers of examples", changed(TOTAL, "confusion", 1)),
        ("different numbers of examples", changed(TOTAL, "bin_count", -1)),
        ("different numbers of correct", changed(TOTAL, "bin_correct", 1)),
        ("more than its examples", changed(TOTAL, "bin_confidence", 2**17 * 21)),
        ("more than its examples", changed(TOTAL, "brier_sum", 2**16 * 41)),
    ],
)
def test_refuses_to_decode(fault: str, total: np.ndarray) -> None:
    with pytest.raises(WireError, match=fault):
        CLASSIFICATION.decode(total)


def test_refuses_correct_predictions_in_a_bin_that_holds_none() -> None:
    places = first_places(CLASSIFICATION)
    moved = changed(TOTAL, "bin_correct", -1)
    assert TOTAL[places["bin_count"]] == 0, "no confidence under 1/15 with three classes"
    moved[places["bin_correct"]] += 1
    with pytest.raises(WireError, match="different numbers of correct"):
        CLASSIFICATION.decode(moved)


@pytest.mark.parametrize("total", [[0, 1, 0], [0, 0, 1], [1, 2**9 * MAX_ERROR**2 + 1, 0]])
def test_refuses_errors_of_nobody(total: list[int]) -> None:
    with pytest.raises(WireError, match="more than its examples"):
        REGRESSION.decode(np.array(total))


def test_clipping_hides_no_divergence() -> None:
    for bad in (np.inf, -np.inf, np.nan):
        with pytest.raises(ModelError):
            clipped_errors(np.array([bad]), np.zeros(1))
    with pytest.raises(DataError):
        clipped_errors(np.zeros(1), np.array([np.inf]))
    with pytest.raises(DataError):
        clipped_errors(np.zeros(3), np.zeros(1))


# --- sums that carry noise


@pytest.mark.parametrize("clients", [2, 16, 2048])
@pytest.mark.parametrize(("kind", "classes"), [("classification", 3), ("regression", 1)])
def test_steps_of_noisy_sums_are_coarse_enough_for_the_noise_and_fine_beside_it(
    kind: Any, classes: int, clients: int
) -> None:
    exact, noisy = MetricCounts(kind, classes, clients), MetricCounts(kind, classes, clients, noisy=True)
    assert (noisy.steps <= NOISY_STEPS).all()
    assert (noisy.scales <= exact.scales).all()
    assert noisy.steps[-1] == NOISY_STEPS
    fixed = noisy.scales > 1
    assert (noisy.noise(0.5)[fixed] > 500).all(), "a step of rounding is nothing beside it"
    assert (exact.scales == noisy.scales).all() == (clients == 2048)


def test_a_noisy_sum_is_read_as_it_is() -> None:
    """Below zero too: whoever adds cells up would be biased else."""
    sums = ClassificationSums.of(*predictions(np.random.default_rng(0), 30))
    total = CLASSIFICATION.encode(sums)
    off = np.where(np.arange(len(total)) % 2, -1000, 2000)
    found = CLASSIFICATION.read(total + off)
    places = first_places(CLASSIFICATION)
    for name, place in places.items():
        value, shift = np.ravel(getattr(sums, name))[0], off[place] / CLASSIFICATION.scales[place]
        assert np.ravel(found[name])[0] == pytest.approx(value + shift, abs=1 / CLASSIFICATION.scales[place])
    assert (found["bin_count"] < 0).any()
    with pytest.raises(WireError, match="instead of int64"):
        CLASSIFICATION.read(total[1:])
