"""Few-shot evaluation on clients that never trained: adapt on the support set, score on the query set.

Every arm and every baseline sees the same splits. Adaptation on the whole support set is private when the plan is,
at the plan's epsilon, as if its result were released; few-shot adaptation is not, since it stays with its owner.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from testudo_client.train import Mechanism, run_private_inner_loop
from testudo_common.errors import ModelError
from testudo_common.learning.inner_loop import InnerLoop, run_inner_loop
from testudo_common.learning.learner import Learner
from testudo_common.learning.metrics import ClassificationSums, RegressionSums
from testudo_common.learning.scoring import Sums, no_step, score_pair
from testudo_common.learning.tasks import Examples, draw_episode, first_of_each_class
from testudo_common.plan import FederationPlan
from testudo_common.privacy.planned import planned_noise_multiplier
from testudo_common.vectors import Vector
from testudo_simulations.federations.base import Federation, UnseenClient
from testudo_simulations.results import Arm, ClientScore

Pairs = list[tuple[Examples, Examples]]
Splits = Mapping[int | None, Mapping[str, Pairs]]


@dataclass(frozen=True, slots=True)
class Headline:
    """The metric a result is summed up with.

    Attributes:
        metric: Its name in the scores.
        higher_is_better: Its direction.
    """

    metric: str
    higher_is_better: bool


def headline_of(plan: FederationPlan) -> Headline:
    """The customary metric of the plan's federation and task."""
    if plan.task.kind == "regression":
        return Headline("mse" if plan.data.federation == "sine" else "rmse", higher_is_better=False)
    return Headline("balanced_accuracy" if plan.data.federation == "activity" else "accuracy", higher_is_better=True)


def make_splits(federation: Federation) -> Splits:
    """Support and query sets of every unseen client at every support size; fixed by the plan alone.

    None as size means the whole support set, where a client has a query set apart from it.
    """
    plan = federation.plan
    sizes: list[int | None] = list(plan.evaluation.shots)
    if all(client.query is not None for client in federation.unseen.values()):
        sizes.append(None)
    return {
        size: {name: _pairs(plan, name, client, size) for name, client in federation.unseen.items()} for size in sizes
    }


def _pairs(plan: FederationPlan, name: str, client: UnseenClient, size: int | None) -> Pairs:
    if plan.task.kind == "few_shot":
        assert plan.task.ways is not None and size is not None
        label = f"{plan.seed}|evaluation|{name}".encode()
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(label).digest()[:16], "big"))
        return [
            draw_episode(client.support, plan.task.ways, size, plan.evaluation.queries, rng)
            for _ in range(plan.evaluation.episodes)
        ]
    if client.query is None:
        assert size is not None
        return [(client.support.take(slice(0, size)), client.support.take(slice(size, None)))]
    if size is None:
        return [(client.support, client.query)]
    if plan.task.kind == "classification":
        return [(first_of_each_class(client.support, size), client.query)]
    return [(client.support.take(slice(0, size)), client.query)]


def in_target_unit(plan: FederationPlan, metrics: Mapping[str, float]) -> dict[str, float]:
    """Regression errors of a scaled target, back in the target's own unit."""
    unit = getattr(plan.data, "target_scale", None) or 1.0
    power = {"rmse": 1, "mae": 1, "mse": 2}
    return {name: value * unit ** power.get(name, 0) for name, value in metrics.items()}


def _metric_names(plan: FederationPlan) -> list[str]:
    if plan.task.kind == "regression":
        return list(RegressionSums.of(np.zeros(1), np.zeros(1)).metrics())
    return list(ClassificationSums.of(np.eye(2), np.arange(2)).metrics())


class Evaluator:
    """Scores models on the unseen clients of one federation.

    Args:
        federation: With a complete plan.
        splits: From :func:`make_splits`.
    """

    def __init__(self, federation: Federation, splits: Splits) -> None:
        self._plan = federation.plan
        self._splits = splits
        self._learner = Learner(federation.plan)
        self._headline = headline_of(federation.plan)
        self._metric_names = _metric_names(federation.plan)

    def scores(self, model: Vector, shots: int | None, steps: int, *, clients: int | None = None) -> list[ClientScore]:
        """Scores after ``steps`` steps of adaptation from ``model``; 0 steps is no adaptation.

        Args:
            model: ``float32[d]``.
            shots: A key of the splits.
            steps: Adaptation steps.
            clients: Only the first so many clients; None for all.
        """
        results = []
        for name, pairs in list(self._splits[shots].items())[:clients]:
            results.append(ClientScore(client=name, metrics=self._score_client(model, name, pairs, shots, steps)))
        return results

    def arm(
        self,
        name: str,
        label: str,
        model: Vector,
        shots: int | None,
        steps: int,
        *,
        family: Literal["meta", "federated"] = "meta",
    ) -> Arm:
        """The scores as an arm of the report."""
        return Arm(
            name=name,
            label=label,
            family=family,
            shots=shots,
            private=self._private(shots) and steps > 0,
            scores=self.scores(model, shots, steps),
        )

    def headline_mean(self, scores: list[ClientScore]) -> float:
        """Mean over clients of the headline metric."""
        return float(np.mean([score.metrics[self._headline.metric] for score in scores]))

    def share_hurt(self, adapted: list[ClientScore], before: list[ClientScore]) -> float:
        """Share of clients whose headline metric adaptation made worse."""
        sign = 1 if self._headline.higher_is_better else -1
        metric = self._headline.metric
        pairs = zip(adapted, before, strict=True)
        # Written so that a client whose training diverged (NaN) counts as hurt.
        return float(
            np.mean([not sign * after.metrics[metric] >= sign * start.metrics[metric] for after, start in pairs])
        )

    def _private(self, shots: int | None) -> bool:
        return self._plan.private and shots is None

    def _score_client(self, model: Vector, name: str, pairs: Pairs, shots: int | None, steps: int) -> dict[str, float]:
        label = f"{self._plan.seed}|adaptation|{name}|{shots}".encode()
        seeded = np.random.default_rng(int.from_bytes(hashlib.sha256(label).digest()[:16], "big"))
        sums: Sums | None = None
        for support, query in pairs:
            try:
                part = self._score_pair(model, support, query, shots, steps, seeded)
            except ModelError:
                # Its training diverged: that is a result, and the other clients have theirs.
                return dict.fromkeys(self._metric_names, math.nan)
            sums = part if sums is None else sums + part  # type: ignore[operator]  # both of one task's kind
        return in_target_unit(self._plan, sums.metrics()) if sums is not None else {}

    def _score_pair(
        self,
        model: Vector,
        support: Examples,
        query: Examples,
        shots: int | None,
        steps: int,
        seeded: np.random.Generator,
    ) -> Sums:
        def adapt(centred: Examples) -> None:
            self._adapt(centred, shots, steps, seeded)

        centring = self._plan.task.local_centring
        return score_pair(self._learner, model, support, query, centring, adapt if steps else no_step)

    def _adapt(self, support: Examples, shots: int | None, steps: int, seeded: np.random.Generator) -> None:
        rate = self._plan.evaluation.learning_rate or self._plan.inner.learning_rate
        sample_rate = self._plan.inner.sample_rate if shots is None else 1.0
        loop = InnerLoop(steps, rate, sample_rate)
        noise_multiplier = planned_noise_multiplier(self._plan, steps) if self._private(shots) else None
        if noise_multiplier is None:
            run_inner_loop(self._learner, support, loop, seeded)
            return
        mechanism = Mechanism.from_os(noise_multiplier, self._plan.privacy.max_grad_norm)
        run_private_inner_loop(self._learner, support, loop, mechanism)
