"""How far one example can move a client's scores: never further than the noise is reckoned for, whatever the data.

Distances are in units of the noise of multiplier 1, both halves together: 1 is what MetricCounts.noise claims.
The adapted model is held fixed here, since DP-SGD is what hides an example of the support side; a test at the end holds
that a query does not touch it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import REGRESSION, make_plan
from testudo_client import evaluate
from testudo_client.evaluate import federated_sums
from testudo_client.split import support_and_query
from testudo_client.train import Mechanism, run_private_inner_loop
from testudo_common.learning.learner import Learner
from testudo_common.learning.metric_counts import MAX_QUERIES, MetricCounts, clipped_errors
from testudo_common.learning.metrics import ClassificationSums
from testudo_common.learning.tasks import Examples
from testudo_common.vectors import Vector

PRIVATE = ("privacy.unit=example", "privacy.noise_multiplier=0")
CLASSES = make_plan(*PRIVATE, "model.outputs=3")
NUMBERS = make_plan(*PRIVATE, tables=REGRESSION)
LEARNERS = {plan.task.kind: Learner(plan) for plan in (CLASSES, NUMBERS)}
FEW = 3  # queries that count, so that small data sets displace some


def counts_of(plan: Any) -> MetricCounts:
    return MetricCounts(plan.task.kind, plan.model.outputs, 16)


def mechanism(seed: int = 0) -> Mechanism:
    return Mechanism(0.0, 1.0, torch.Generator(), np.random.default_rng(seed))


def encoded(plan: Any, examples: Examples, before: Vector, after: Vector, key: bytes) -> Any:
    """``int64[2k]``: what the client would put into the secure sum, if adapting led to ``after``."""

    def adapt(learner: Learner, *_: Any, **__: Any) -> None:
        learner.start_from(after)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "run_private_inner_loop", adapt)
        sums = federated_sums(
            LEARNERS[plan.task.kind],
            before,
            examples,
            plan,
            np.random.default_rng(0),
            split_key=key,
            mechanism=mechanism(),
        )
    return np.concatenate([counts_of(plan).encode(one) for one in sums])


def distance(plan: Any, one: Any, other: Any) -> float:
    noise = counts_of(plan).noise(1.0)
    return float(np.linalg.norm((one - other) / np.concatenate([noise, noise])))


def furthest(of: Callable[[Examples], Any], plan: Any, examples: Examples) -> float:
    """To any data set with one example less."""
    whole, rows = of(examples), np.arange(len(examples))
    return max(distance(plan, whole, of(examples.take(np.delete(rows, row)))) for row in rows)


def data_of(plan: Any, rng: np.random.Generator, size: int) -> Examples:
    """Drawn from a pool so small that some examples are equal; some targets are wild."""
    inputs = rng.normal(size=(8, 3)).astype(np.float32) * rng.choice([0, 1, 30], size=(8, 1)).astype(np.float32)
    rows = rng.integers(0, 8, size=size)
    if plan is NUMBERS:
        targets = (rng.normal(size=8) * rng.choice([1, 20, 1e6], size=8)).astype(np.float32)
        return Examples(inputs[rows], targets[rows])
    return Examples(inputs[rows], rng.integers(0, 3, size=8)[rows])


def models_of(plan: Any, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """Also such as make every score a tie, or all of them certain."""
    scale, size = rng.choice([0.0, 1e-7, 1.0, 100.0], size=2), LEARNERS[plan.task.kind].size
    return tuple((rng.normal(size=size) * one).astype(np.float32) for one in scale)  # type: ignore[return-value]


@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.sampled_from([CLASSES, NUMBERS]), st.sampled_from([FEW, 512]))
@settings(deadline=None, max_examples=60)
def test_no_neighbour_is_further_than_the_noise_is_reckoned_for(seed: int, size: int, plan: Any, most: int) -> None:
    rng = np.random.default_rng(seed)
    examples, (before, after), key = data_of(plan, rng, size), models_of(plan, rng), rng.bytes(32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "MAX_QUERIES", most)
        assert furthest(lambda own: encoded(plan, own, before, after, key), plan, examples) <= 1


def shuffled(examples: Examples, _key: bytes, most: int) -> tuple[Examples, Examples]:
    """How halves were drawn before: by a seeded permutation of the rows."""
    rows = np.random.default_rng(0).permutation(len(examples))
    half = (len(rows) + 1) // 2
    return examples.take(rows[:half]), examples.take(rows[half:][:most])


@pytest.mark.parametrize("plan", [CLASSES, NUMBERS], ids=["classes", "numbers"])
def test_with_halves_by_a_seeded_shuffle_some_neighbour_is_further(plan: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(evaluate, "support_and_query", shuffled)
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        examples, (before, after) = data_of(plan, rng, 14), models_of(plan, rng)
        found.append(furthest(partial(lambda b, a, own: encoded(plan, own, b, a, b""), before, after), plan, examples))
    assert max(found) > 1.2


def test_scoring_queries_in_one_batch_would_let_the_last_bits_of_all_of_them_change(monkeypatch: Any) -> None:
    """Why queries are scored one by one: a batch of another size gives the same example other bits."""
    plan = make_plan("model.name=mlp", "model.inputs=[784]", "model.outputs=10")
    learner = Learner(plan)
    inputs = np.random.default_rng(0).normal(size=(40, 784)).astype(np.float32)
    alone = np.concatenate([learner.outputs(inputs[row : row + 1]) for row in range(40)])
    assert (learner.outputs(inputs) != alone).any()
    centre = evaluate.LocalCentre(np.zeros(784, dtype=np.float32), 0.0)
    np.testing.assert_array_equal(evaluate._outputs(learner, inputs, centre), alone)
    np.testing.assert_array_equal(evaluate._outputs(learner, inputs[:7], centre), alone[:7])


# --- the encoding alone, at its edges


def one_prediction(probabilities: list[float], target: int) -> ClassificationSums:
    return ClassificationSums.of(np.array([probabilities]), np.array([target]))


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 10]), st.sampled_from([2, 16, 2048]))
@settings(deadline=None, max_examples=200)
def test_no_two_predictions_in_place_of_each_other_are_further_apart(seed: int, classes: int, clients: int) -> None:
    rng, counts = np.random.default_rng(seed), MetricCounts("classification", classes, clients)
    concentration = np.full(classes, rng.choice([0.02, 0.3, 5.0]))
    rest, one, other = (
        ClassificationSums.of(rng.dirichlet(concentration, size=n), rng.integers(0, classes, size=n)) for n in (9, 1, 1)
    )
    assert np.linalg.norm((counts.encode(rest + one) - counts.encode(rest + other)) / counts.noise(1.0)) <= 2**-0.5
    assert np.linalg.norm((counts.encode(rest + one) - counts.encode(rest)) / counts.noise(1.0)) <= 0.5


@given(st.lists(st.floats(-40, 40), min_size=3, max_size=12), st.sampled_from([2, 16, 2048]))
@settings(deadline=None, max_examples=200)
def test_no_two_errors_in_place_of_each_other_are_further_apart(errors: list[float], clients: int) -> None:
    counts, off = MetricCounts("regression", 1, clients), np.array(errors)
    one, other = (counts.encode(clipped_errors(own, np.zeros(len(own)))) for own in (off[:-1], off[1:]))
    assert np.linalg.norm((one - other) / counts.noise(1.0)) <= 2**-0.5


def test_the_claim_is_all_but_reached() -> None:
    """Two predictions, both correct, one certain and one in the bin below: noise could be lower by two per cent."""
    counts = MetricCounts("classification", 2, 16)
    one, other = one_prediction([1.0, 0.0], 0), one_prediction([1 - 0.933, 0.933], 1)
    both = np.linalg.norm((counts.encode(one) - counts.encode(other)) / counts.noise(1.0)) * 2**0.5
    assert 0.98 < both <= 1


@pytest.mark.parametrize("plan", [CLASSES, NUMBERS], ids=["classes", "numbers"])
@pytest.mark.parametrize("z", [0.5, 3.0])
def test_noise_is_in_proportion_to_its_multiplier_and_to_what_an_example_adds(plan: Any, z: float) -> None:
    counts = counts_of(plan)
    np.testing.assert_allclose(counts.noise(z), z * counts.noise(1.0))
    np.testing.assert_allclose(counts.noise(z) / counts.steps, counts.noise(z)[0])
    np.testing.assert_allclose(counts.noise(1.0)[0], 4 if plan is CLASSES else 12**0.5, rtol=2e-3)
    np.testing.assert_array_equal(counts.bounds, MAX_QUERIES * counts.steps)


# --- what the adapted model depends on


def adapted(examples: Examples, key: bytes, monkeypatch: Any) -> Vector:
    """The model after DP-SGD on the support half; the number of examples, which is public to it, is held fixed."""
    learner, found = Learner(CLASSES), []

    def adapt(own: Learner, support: Examples, loop: Any, how: Mechanism, expected_examples: float) -> None:
        run_private_inner_loop(own, support, loop, how, expected_examples=10.0)
        found.append(own.vector())

    monkeypatch.setattr(evaluate, "run_private_inner_loop", adapt)
    federated_sums(
        learner,
        learner.vector(),
        examples,
        CLASSES,
        np.random.default_rng(0),
        split_key=key,
        mechanism=mechanism(),
    )
    return found[0]


def test_a_query_does_not_touch_the_adapted_model_and_an_example_to_learn_from_does(monkeypatch: Any) -> None:
    key, rng = bytes(32), np.random.default_rng(1)
    examples = Examples(rng.normal(size=(20, 3)).astype(np.float32), rng.integers(0, 3, size=20))
    support, query = support_and_query(examples, key, 512)
    assert min(len(support), len(query)) > 3
    whole = adapted(examples, key, monkeypatch)
    same = []
    for row in range(len(examples)):
        less = examples.take(np.delete(np.arange(20), row))
        same.append(np.array_equal(adapted(less, key, monkeypatch), whole))
        is_query = (query.inputs == examples.inputs[row]).all(axis=1).any()
        assert same[-1] or not is_query
    assert not all(same)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_private_client_with_an_empty_half_still_takes_its_steps(size: int, monkeypatch: Any) -> None:
    """Else one example of the support side would decide whether all queries count."""
    rng = np.random.default_rng(1)
    examples = Examples(rng.normal(size=(size, 3)).astype(np.float32), rng.integers(0, 3, size=size))
    key = next(key for key in (bytes([n]) for n in range(99)) if len(support_and_query(examples, key, 9)[0]) == 0)
    learner = Learner(CLASSES)
    sums = federated_sums(learner, learner.vector(), examples, CLASSES, rng, split_key=key, mechanism=mechanism())
    assert [one.examples for one in sums] == [size, size]
