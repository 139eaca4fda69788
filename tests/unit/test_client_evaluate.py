"""What a client counts about a model it received, against a score by hand; and that it never breaks the sum."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import CLASSIFICATION, FEW_SHOT, REGRESSION, make_examples, make_plan
from testudo_client.evaluate import federated_sums
from testudo_common.errors import ModelError
from testudo_common.learning.inner_loop import InnerLoop, run_inner_loop
from testudo_common.learning.learner import Learner
from testudo_common.learning.metric_counts import MAX_ERROR, MAX_QUERIES, MetricCounts
from testudo_common.learning.metrics import ClassificationSums, RegressionSums
from testudo_common.learning.tasks import Examples, draw_episode
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector

CLASSES = make_plan()
NUMBERS = make_plan(tables=REGRESSION)
EPISODES = make_plan("evaluation.queries=2", tables=FEW_SHOT)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


KEY = bytes(range(32))


def sums_of(
    plan: FederationPlan, examples: Examples, seed: int = 0, model: Vector | None = None, key: bytes = KEY, **more: Any
) -> tuple[Any, Any]:
    learner = Learner(plan)
    model = learner.vector() if model is None else model
    return federated_sums(learner, model, examples, plan, rng(seed), split_key=key, **more)


def halves(examples: Examples) -> tuple[Examples, Examples]:
    """By the HMAC of each example, written down apart from the code under test; in its order."""
    tags = [
        hmac.new(KEY, x.tobytes() + y.tobytes(), hashlib.sha256).digest()
        for x, y in zip(examples.inputs, examples.targets, strict=True)
    ]
    order = sorted(range(len(tags)), key=lambda row: tags[row])
    support = [row for row in order if tags[row][0] % 2 == 0]
    query = [row for row in order if tags[row][0] % 2 == 1]
    return examples.take(np.array(support, dtype=np.intp)), examples.take(np.array(query, dtype=np.intp))


# --- what is counted


def test_classes_before_and_after_are_scored_as_by_hand() -> None:
    learner, examples = Learner(CLASSES), make_examples(30)
    support, query = halves(examples)
    start = ClassificationSums.of(learner.outputs(query.inputs), query.targets)
    run_inner_loop(learner, support, InnerLoop(2, 0.5, 1.0), rng())
    adapted = ClassificationSums.of(learner.outputs(query.inputs), query.targets)
    before, after = sums_of(CLASSES, examples)
    assert before.examples == after.examples == len(query)
    assert before.metrics() == start.metrics() != adapted.metrics()
    assert after.metrics() == adapted.metrics()


@pytest.mark.parametrize("mode", ["none", "targets", "inputs_and_targets"])
def test_numbers_are_scored_around_the_supports_own_means(mode: str) -> None:
    plan = make_plan(f"task.local_centring={mode}", tables=REGRESSION)
    plain = make_examples(21, regression=True)
    examples = Examples(plain.inputs + np.float32(0.5), plain.targets + np.float32(3))
    support, query = halves(examples)
    input_mean = support.inputs.mean(axis=0) if mode == "inputs_and_targets" else np.zeros(3, dtype=np.float32)
    target_mean = np.float32(0) if mode == "none" else support.targets.mean()
    learner = Learner(plan)
    found = []
    for steps in (0, 2):
        centred = Examples(support.inputs - input_mean, support.targets - target_mean)
        run_inner_loop(learner, centred, InnerLoop(steps, 0.1), rng())
        found.append(RegressionSums.of(learner.outputs(query.inputs - input_mean) + target_mean, query.targets))
    sums = sums_of(plan, examples)
    assert [one.n for one in sums] == [len(query), len(query)]
    for one, expected in zip(sums, found, strict=True):
        assert one.metrics() == pytest.approx(expected.metrics(), rel=1e-5)


def test_an_episode_is_scored_as_by_hand() -> None:
    examples = make_examples(12)
    support, query = draw_episode(examples, 2, 1, 2, rng())
    learner = Learner(EPISODES)
    run_inner_loop(learner, support, InnerLoop(2, 0.5), rng())
    expected = ClassificationSums.of(learner.outputs(query.inputs), query.targets)
    before, after = sums_of(EPISODES, examples)
    assert before.examples == after.examples == 4
    np.testing.assert_array_equal(after.confusion, expected.confusion)
    assert after.metrics() == pytest.approx(expected.metrics())


def test_adapting_helps_where_there_is_something_to_learn() -> None:
    inputs = make_examples(60).inputs
    examples = Examples(inputs, (inputs[:, 0] > 0).astype(np.int64))
    before, after = sums_of(make_plan("inner.steps=40"), examples)
    assert after.metrics()["accuracy"] > before.metrics()["accuracy"]
    assert after.metrics()["accuracy"] > 0.9


def test_depends_on_the_key_and_on_nothing_the_learner_did_before() -> None:
    learner, examples = Learner(CLASSES), make_examples(30)
    model = learner.vector()
    found = [
        federated_sums(learner, model, examples, CLASSES, rng(), split_key=key)[1].metrics()
        for key in (KEY, KEY, bytes(32))
    ]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("plan", "examples"),
    [
        (CLASSES, make_examples(3000)),
        (NUMBERS, make_examples(3000, regression=True)),
        (make_plan("evaluation.queries=1000", tables=FEW_SHOT), make_examples(3000)),
    ],
    ids=["classes", "numbers", "episodes"],
)
def test_counts_no_more_queries_than_are_allowed(plan: FederationPlan, examples: Examples) -> None:
    before, after = sums_of(plan, examples)
    assert before.examples == after.examples == MAX_QUERIES
    if isinstance(after, ClassificationSums):
        assert after.confusion.sum(axis=1).min() > MAX_QUERIES / 3, "a sample of all classes"


def test_one_wild_target_counts_as_the_largest_error_only() -> None:
    plain = make_examples(20, regression=True)
    _, query = halves(plain)
    place = int(np.flatnonzero((plain.inputs == query.inputs[0]).all(axis=1))[0])
    targets = plain.targets.copy()
    targets[place] = 1e30
    usual, wild = (sums_of(NUMBERS, Examples(plain.inputs, own))[1] for own in (plain.targets, targets))
    assert wild.n == usual.n
    assert 0 < wild.absolute_error_sum - usual.absolute_error_sum <= MAX_ERROR
    assert 0 < wild.squared_error_sum - usual.squared_error_sum <= MAX_ERROR**2


# --- what never breaks the sum


def no_examples(sums: tuple[Any, Any], plan: FederationPlan) -> bool:
    outputs = plan.model.outputs
    assert outputs is not None
    counts = MetricCounts(plan.task.kind, outputs, 4)
    return [one.examples for one in sums] == [0, 0] and not any(counts.encode(one).any() for one in sums)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("tables", [CLASSIFICATION, REGRESSION, FEW_SHOT], ids=["classes", "numbers", "episodes"])
def test_too_few_examples_count_as_none(tables: dict[str, Any], count: int) -> None:
    plan = make_plan(tables=tables)
    assert no_examples(sums_of(plan, make_examples(count, regression=tables is REGRESSION)), plan)


def split_in_two(regression: bool, key: bytes) -> bool:
    """Whether of two examples each half gets one: half of all keys do that."""
    plan = NUMBERS if regression else CLASSES
    return [one.examples for one in sums_of(plan, make_examples(2, regression=regression), key=key)] == [1, 1]


@pytest.mark.parametrize("regression", [True, False])
def test_two_examples_are_enough_if_one_is_in_each_half(regression: bool) -> None:
    assert 5 < sum(split_in_two(regression, bytes([number])) for number in range(30)) < 25


def test_a_pool_too_small_for_an_episode_counts_as_none() -> None:
    assert no_examples(sums_of(EPISODES, make_examples(5)), EPISODES)


@pytest.mark.parametrize("tables", [CLASSIFICATION, REGRESSION, FEW_SHOT], ids=["classes", "numbers", "episodes"])
def test_a_client_whose_training_diverged_counts_none_before_or_after(tables: dict[str, Any]) -> None:
    examples = make_examples(40, regression=tables is REGRESSION)
    # a deep model: softmax keeps a linear one finite at any rate
    deep = ("model.name=mlp", "inner.steps=5")
    assert min(one.examples for one in sums_of(make_plan(*deep, tables=tables), examples)) >= 10
    diverging = make_plan(*deep, "inner.learning_rate=1e30", tables=tables)
    assert no_examples(sums_of(diverging, examples), diverging)


@pytest.mark.parametrize("fault", ["inputs", "targets"])
def test_an_example_that_is_not_finite_counts_nothing_and_spoils_what_is_learned_from_it_only(fault: str) -> None:
    plain, others = make_examples(20, regression=True), make_examples(16, regression=True, seed=1)
    usual = sums_of(NUMBERS, plain)
    getattr(others, fault)[:] = np.nan
    queries = 0
    for place in range(len(others)):
        other = others.take(slice(place, place + 1))
        more = Examples(
            *(np.concatenate(pair) for pair in ((plain.inputs, other.inputs), (plain.targets, other.targets)))
        )
        is_query = len(halves(other)[1]) == 1
        sums = sums_of(NUMBERS, more)
        assert sums == usual if is_query else no_examples(sums, NUMBERS), "a query, or training diverged"
        queries += is_query
    assert 0 < queries < len(others)


@given(st.integers(0, 30), st.integers(0, 2**32 - 1), st.sampled_from([CLASSES, NUMBERS, EPISODES]))
@settings(deadline=None, max_examples=40)
def test_whatever_is_counted_can_be_sent(count: int, seed: int, plan: FederationPlan) -> None:
    outputs = plan.model.outputs
    assert outputs is not None
    counts = MetricCounts(plan.task.kind, outputs, 64)
    examples = make_examples(count, regression=plan is NUMBERS, seed=seed)
    model = rng(seed).normal(scale=1e3, size=Learner(plan).size).astype(np.float32)
    before, after = sums_of(plan, examples, seed, model)
    assert before.examples == after.examples
    for one in (before, after):
        vector = counts.encode(one)
        assert ((vector >= 0) & (vector <= counts.bounds)).all()
        assert counts.decode(vector).examples == one.examples


# --- what is not the client's fault


@pytest.mark.parametrize("fault", ["too long", "not finite", "float64"])
def test_a_model_that_does_not_fit_is_refused(fault: str) -> None:
    learner = Learner(CLASSES)
    good = learner.vector()
    bad: Any = {
        "too long": np.append(good, good[0]),
        "not finite": good * np.float32(np.nan),
        "float64": good.astype(np.float64),
    }
    with pytest.raises(ModelError, match="meta-model received"):
        federated_sums(learner, bad[fault], make_examples(), CLASSES, rng(), split_key=KEY)
