"""The inner loop, local centring and the drawing of batches and episodes, against what can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import REGRESSION, make_examples, make_plan
from testudo_common.errors import DataError
from testudo_common.learning.inner_loop import InnerLoop, LocalCentre, PlainSGD, run_inner_loop
from testudo_common.learning.learner import Learner, batches
from testudo_common.learning.tasks import Examples, draw_episode, first_of_each_class
from testudo_common.vectors import Vector


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def regression_by_hand(start: Vector, examples: Examples, steps: int, rate: float) -> Vector:
    """Full-batch gradient descent on the squared error of ``x w + b``, in float64."""
    weight, bias = start[:-1].astype(np.float64), float(start[-1])
    inputs, targets = examples.inputs.astype(np.float64), examples.targets.astype(np.float64)
    for _ in range(steps):
        error = inputs @ weight + bias - targets
        weight = weight - rate * 2 * (error @ inputs) / len(error)
        bias = bias - rate * 2 * error.mean()
    return np.array([*weight, bias])


def test_steps_equal_the_hand_computation() -> None:
    learner = Learner(make_plan(tables=REGRESSION))
    examples = make_examples(regression=True)
    start = learner.vector()
    run_inner_loop(learner, examples, InnerLoop(3, 0.1), rng())
    np.testing.assert_allclose(learner.vector(), regression_by_hand(start, examples, 3, 0.1), rtol=1e-5, atol=1e-6)


def test_step_on_classes_equals_the_hand_computation() -> None:
    learner = Learner(make_plan())
    examples = make_examples()
    start = learner.vector()
    weight, bias = start[:6].reshape(2, 3).astype(np.float64), start[6:].astype(np.float64)
    raw = examples.inputs @ weight.T + bias
    error = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True) - np.eye(2)[examples.targets]
    weight = weight - 0.5 * error.T @ examples.inputs / len(examples)
    bias = bias - 0.5 * error.mean(axis=0)
    run_inner_loop(learner, examples, InnerLoop(1, 0.5), rng())
    np.testing.assert_allclose(learner.vector(), [*weight.reshape(-1), *bias], rtol=1e-5, atol=1e-6)


def test_batches_are_what_each_step_sees() -> None:
    learner = Learner(make_plan(tables=REGRESSION))
    examples = make_examples(regression=True)
    expected = learner.vector()
    for rows in batches(len(examples), 0.25, 5, rng(3)):
        expected = regression_by_hand(expected, examples.take(rows), 1, 0.1)
    run_inner_loop(learner, examples, InnerLoop(5, 0.1, 0.25), rng(3))
    np.testing.assert_allclose(learner.vector(), expected, rtol=1e-5, atol=1e-6)


def test_plain_sgd_is_torchs_to_the_bit() -> None:
    def stepped(kind: Callable[[list[torch.Tensor]], Any]) -> list[torch.Tensor]:
        first, second, unused = (torch.from_numpy(rng(seed).normal(size=(5, 3))).float() for seed in range(3))
        parameters = [first.requires_grad_(), second.requires_grad_(), unused.requires_grad_()]
        optimizer = kind(parameters)
        for _ in range(3):
            optimizer.zero_grad()
            (first * second).sin().sum().backward()
            optimizer.step()
        return parameters

    ours, torchs = stepped(lambda given: PlainSGD(given, 0.3)), stepped(lambda given: torch.optim.SGD(given, lr=0.3))
    assert all(torch.equal(*pair) for pair in zip(ours, torchs, strict=True))


def test_nothing_happens_without_examples() -> None:
    learner = Learner(make_plan())
    before = learner.vector()
    run_inner_loop(learner, make_examples(0), InnerLoop(3, 0.1), rng())
    np.testing.assert_array_equal(learner.vector(), before)


# --- batches


@given(st.integers(1, 40), st.floats(0.01, 1.0), st.integers(1, 60), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_every_example_once_before_any_twice(count: int, sample_rate: float, steps: int, seed: int) -> None:
    drawn = list(batches(count, sample_rate, steps, rng(seed)))
    assert len(drawn) == steps
    size = max(1, round(sample_rate * count))
    assert all(len(rows) == size == len(set(rows.tolist())) for rows in drawn)
    flat = np.concatenate(drawn)
    assert set(flat.tolist()) <= set(range(count))
    for start in range(0, len(flat), count):  # one pass over all examples after another
        one_pass = flat[start : start + count].tolist()
        assert len(set(one_pass)) == len(one_pass)


def test_batches_are_shuffled_and_seeded() -> None:
    orders = [np.concatenate(list(batches(50, 0.1, 10, rng(seed)))).tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


# --- local centring


@pytest.mark.parametrize("constant", [4.0, -256.0])
@pytest.mark.parametrize("mode", ["targets", "inputs_and_targets"])
def test_constant_on_a_clients_targets_moves_its_predictions_by_it(constant: float, mode: str) -> None:
    """A power of two, so that adding it and taking it off again is exact in float32."""

    def predict(examples: Examples, query: Examples) -> np.ndarray:
        learner = Learner(make_plan(tables=REGRESSION))
        centre = LocalCentre.of(examples, mode)
        run_inner_loop(learner, centre.subtract(examples), InnerLoop(5, 0.1), rng())
        return learner.outputs(centre.subtract(query).inputs).astype(np.float64) + centre.target

    whole_numbers = rng(1).integers(-8, 8, size=16).astype(np.float32)
    examples = Examples(make_examples(16).inputs, whole_numbers)
    query = make_examples(5, regression=True, seed=2)
    moved = Examples(examples.inputs, examples.targets + np.float32(constant))
    plain, shifted = predict(examples, query), predict(moved, query)
    np.testing.assert_allclose(shifted - plain, constant, rtol=0, atol=1e-12)


def test_centred_inputs_ignore_a_clients_offset() -> None:
    examples = make_examples(regression=True)
    moved = Examples(examples.inputs + np.float32(3), examples.targets)
    for one in (examples, moved):
        centred = LocalCentre.of(one, "inputs_and_targets").subtract(one)
        np.testing.assert_allclose(centred.inputs.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(centred.targets.mean(), 0, atol=1e-6)
        assert centred.inputs.dtype == centred.targets.dtype == np.float32
    first, second = (LocalCentre.of(one, "targets") for one in (examples, moved))
    assert not first.inputs.any()
    assert first.target == second.target


@pytest.mark.parametrize(
    ("support", "mode"),
    [(make_examples(regression=True), "none"), (make_examples(0, regression=True), "inputs_and_targets")],
    ids=["none", "no support"],
)
def test_no_centre(support: Examples, mode: str) -> None:
    centre = LocalCentre.of(support, mode)
    assert centre.target == 0.0
    np.testing.assert_array_equal(centre.inputs, np.zeros(3))
    query = make_examples(regression=True, seed=5)
    np.testing.assert_array_equal(centre.subtract(query).inputs, query.inputs)
    np.testing.assert_array_equal(centre.subtract(query).targets, query.targets)


def test_classes_are_not_centred() -> None:
    examples = make_examples()
    assert LocalCentre.of(examples, "targets").subtract(examples) is examples


# --- examples and episodes


def test_examples_must_pair_up() -> None:
    with pytest.raises(DataError, match="2 inputs but 3 targets"):
        Examples(np.zeros((2, 1), dtype=np.float32), np.zeros(3, dtype=np.float32))


def test_examples_are_never_printed() -> None:
    assert repr(Examples(np.full((1, 1), 7.25, dtype=np.float32), np.array([9]))) == "Examples()"


def test_first_of_each_class() -> None:
    examples = Examples(np.arange(7, dtype=np.float32)[:, np.newaxis], np.array([4, 4, 2, 4, 2, 9, 4]))
    assert first_of_each_class(examples, 2).inputs[:, 0].tolist() == [0, 1, 2, 4, 5]
    assert len(first_of_each_class(examples, 0)) == 0
    assert first_of_each_class(examples, 9).inputs[:, 0].tolist() == list(range(7))


def pool(per_class: list[int]) -> Examples:
    """Class number ``10 * i`` has ``per_class[i]`` examples; every input is a number of its own."""
    targets = np.repeat([10 * place for place in range(len(per_class))], per_class).astype(np.int64)
    return Examples(np.arange(len(targets), dtype=np.float32)[:, np.newaxis], targets)


@given(
    st.lists(st.integers(0, 8), min_size=2, max_size=8),
    st.integers(2, 4),
    st.integers(0, 4),
    st.integers(0, 3),
    st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_episode(per_class: list[int], ways: int, shots: int, queries: int, seed: int) -> None:
    examples = pool(per_class)
    usable = sum(size >= max(1, shots + queries) for size in per_class)
    if usable < ways:
        with pytest.raises(DataError, match=f"and there are {usable}"):
            draw_episode(examples, ways, shots, queries, rng(seed))
        return
    support, query = draw_episode(examples, ways, shots, queries, rng(seed))
    assert support.targets.tolist() == np.repeat(range(ways), shots).tolist()
    assert query.targets.tolist() == np.repeat(range(ways), queries).tolist()
    drawn = [*support.inputs[:, 0].astype(int), *query.inputs[:, 0].astype(int)]
    assert len(set(drawn)) == len(drawn), "support and query share no example"
    renumbered = [*support.targets, *query.targets]
    true_class = dict(zip(renumbered, examples.targets[drawn], strict=True))
    assert all(true_class[new] == examples.targets[row] for new, row in zip(renumbered, drawn, strict=True))
    assert len(set(true_class.values())) == len(true_class)


def test_episodes_differ_and_are_seeded() -> None:
    examples = pool([6] * 6)
    draws = [draw_episode(examples, 3, 2, 1, rng(seed))[0].inputs.tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_too_small_a_pool_says_what_to_lower() -> None:
    with pytest.raises(DataError, match=r"2 classes with 3 examples each.* lower task\.ways"):
        draw_episode(pool([2, 3]), 2, 2, 1, rng())
