"""Unseen clients that are adapted at once, against each by itself; and what becomes of the outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers import CLASSIFICATION, FEW_SHOT, REGRESSION, make_examples, make_plan
from testudo_client.inner_jobs import InnerJob
from testudo_client.train import Mechanism
from testudo_common.errors import DataError, ModelError
from testudo_common.learning.inner_loop import InnerLoop
from testudo_common.learning.learner import Learner, initial_vector
from testudo_common.learning.metrics import ClassificationSums, RegressionSums
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector
from testudo_simulations.adaptation import Adaptation, AtOnce, OneByOne, adapter_of
from testudo_simulations.engine import Engine, Trained
from testudo_simulations.evaluation import Evaluator, make_splits
from testudo_simulations.federations.base import Federation, UnseenClient

PRIVATE = ('privacy.unit="example"', "privacy.noise_multiplier=0", 'privacy.accountant="rdp"')
MORE_THAN_A_CHUNK = 7


class SmallEngine(Engine):
    """Takes three jobs at once, and says how many it was given."""

    def __init__(self, plan: FederationPlan) -> None:
        super().__init__(plan)
        self.given: list[int] = []

    def jobs_at_once(self, job: InnerJob) -> int:
        return 3

    def train(self, model: Vector, jobs: Sequence[InnerJob]) -> Trained:
        self.given.append(len(jobs))
        return super().train(model, jobs)


def adaptations(*, regression: bool = False, private: bool = False, steps: int = 3) -> Iterator[Adaptation]:
    """Of clients with few and with many examples; without privacy, one has none."""
    seeded = np.random.default_rng(0)
    for number in range(MORE_THAN_A_CHUNK):
        support = make_examples(2 * number + private, regression=regression, seed=number)
        queries = make_examples(number, seed=100 + number).inputs
        mechanism = Mechanism(0.0, 0.5, torch.Generator(), np.random.default_rng(number)) if private else None
        yield Adaptation(support, queries, InnerLoop(steps, 0.3, 0.5), seeded, mechanism)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("tables", [CLASSIFICATION, REGRESSION])
def test_at_once_is_one_by_one(tables: dict[str, Any], private: bool) -> None:
    plan = make_plan(*(PRIVATE if private else ()), tables=tables)
    model, regression = initial_vector(plan), plan.task.kind == "regression"
    engine = SmallEngine(plan)
    at_once = list(AtOnce(engine).outputs(model, adaptations(regression=regression, private=private)))
    alone = list(OneByOne(plan).outputs(model, adaptations(regression=regression, private=private)))
    assert engine.given == [3, 3, 1]
    assert [len(outputs) for outputs in at_once] == list(range(MORE_THAN_A_CHUNK))
    for ours, theirs in zip(at_once, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    untrained = next(iter(OneByOne(plan).outputs(model, [list(adaptations(steps=0))[-1]])))
    assert np.abs(untrained - alone[-1]).max() > 0.01


@pytest.mark.parametrize("at_once", [False, True])
def test_without_a_step_the_model_itself_is_asked_whatever_was_adapted_before(at_once: bool) -> None:
    plan = make_plan()
    learner = Learner(plan)
    adapter = adapter_of(plan, Engine(plan) if at_once else None)
    list(adapter.outputs(learner.vector(), adaptations()))
    asked = list(adaptations(steps=0))
    for each, outputs in zip(asked, adapter.outputs(learner.vector(), asked), strict=True):
        np.testing.assert_allclose(outputs, learner.outputs(each.queries), rtol=1e-5)


@pytest.mark.parametrize("at_once", [False, True])
def test_no_private_adaptation_without_examples_and_none_of_a_broken_model(at_once: bool) -> None:
    plan = make_plan(*PRIVATE)
    adapter = adapter_of(plan, Engine(plan) if at_once else None)
    (asked, *_) = adaptations(private=True)
    with pytest.raises(DataError, match="no examples"):
        list(adapter.outputs(initial_vector(plan), [replace(asked, support=make_examples(0))]))
    with pytest.raises(ModelError, match="the meta-model received is"):
        list(adapter.outputs(initial_vector(plan)[1:], [asked]))


# --- scores


def federation_of(plan: FederationPlan, **unseen: UnseenClient) -> Federation:
    return Federation(plan, {"trains": make_examples(seed=9)}, unseen)


def client(seed: int, *, regression: bool = False) -> UnseenClient:
    examples = make_examples(16, regression=regression, seed=seed)
    return UnseenClient(examples.take(slice(0, 10)), examples.take(slice(10, None)))


@pytest.mark.parametrize("centring", ["none", "targets", "inputs_and_targets"])
def test_scores_are_those_of_the_adapted_model_around_the_clients_own_centre(centring: str) -> None:
    settings = ("evaluation.shots=[4]", "evaluation.learning_rate=0.05", f"task.local_centring={centring}")
    plan = make_plan(*settings, tables=REGRESSION)
    far = client(1, regression=True)
    far = UnseenClient(*(Examples(each.inputs + 1, each.targets + 5) for each in (far.support, far.query)))  # type: ignore[union-attr]
    federation = federation_of(plan, near=client(0, regression=True), far=far)
    model, splits = initial_vector(plan), make_splits(federation)
    for name, score in zip(
        ("near", "far"), Evaluator(federation, splits, Engine(plan)).scores(model, 4, 2), strict=True
    ):
        ((support, query),) = splits[4][name]
        inputs = support.inputs.mean(axis=0) * (centring == "inputs_and_targets")
        target = support.targets.mean() * (centring != "none")
        weights, bias = model[:3].astype(float), float(model[3])
        for _ in range(2):
            error = (support.inputs - inputs) @ weights + bias - (support.targets - target)
            weights = weights - 0.05 * 2 * error @ (support.inputs - inputs) / len(error)
            bias -= 0.05 * 2 * error.mean()
        predicted = (query.inputs - inputs) @ weights + bias + target
        expected = RegressionSums.of(predicted.astype(np.float32), query.targets).metrics()
        assert score.client == name
        assert score.metrics == pytest.approx(expected, rel=1e-4)


def test_pairs_of_a_client_count_together() -> None:
    plan = make_plan("evaluation.episodes=5", "evaluation.queries=2", "evaluation.shots=[1]", tables=FEW_SHOT)
    federation = federation_of(plan, one=UnseenClient(make_examples(12)), other=UnseenClient(make_examples(12, seed=1)))
    splits, model, learner = make_splits(federation), initial_vector(plan), Learner(plan)
    scores = Evaluator(federation, splits, SmallEngine(plan)).scores(model, 1, 0)
    for score in scores:
        queries = [query for _, query in splits[1][score.client]]
        inputs, targets = (np.concatenate([getattr(q, name) for q in queries]) for name in ("inputs", "targets"))
        assert len(targets) == 5 * 4
        expected = ClassificationSums.of(learner.outputs(inputs), targets.astype(np.int64)).metrics()
        assert score.metrics == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_client_whose_training_diverges_has_no_number_and_the_others_have_theirs(at_once: bool) -> None:
    plan = make_plan("evaluation.shots=[4]", tables=REGRESSION)
    wild = client(1, regression=True)
    wild = UnseenClient(Examples(wild.support.inputs * np.float32(1e25), wild.support.targets), wild.query)
    federation = federation_of(plan, calm=client(0, regression=True), wild=wild, other=client(2, regression=True))
    evaluator = Evaluator(federation, make_splits(federation), Engine(plan) if at_once else None)
    calm, diverged, other = evaluator.scores(initial_vector(plan), 4, 5)
    assert np.isnan(list(diverged.metrics.values())).all()
    assert set(diverged.metrics) == set(calm.metrics)
    assert np.isfinite([*calm.metrics.values(), *other.metrics.values()]).all()
    broken = evaluator.scores(np.full(4, np.nan, dtype=np.float32), 4, 5)
    assert all(np.isnan(list(score.metrics.values())).all() for score in broken)
