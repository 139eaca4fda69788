"""Few-shot evaluation on clients that never trained: adapt on the support set, score on the query set.

Every arm and every baseline sees the same splits. Adaptation on the whole support set is private when the plan is,
at the plan's epsilon, as if its result were released; few-shot adaptation is not, since it stays with its owner.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Literal

import numpy as np

from testudo_client.train import Mechanism
from testudo_common.errors import ModelError
from testudo_common.learning.inner_loop import InnerLoop, LocalCentre
from testudo_common.learning.metrics import ClassificationSums, RegressionSums, Sums
from testudo_common.learning.tasks import Examples, draw_episode, first_of_each_class
from testudo_common.plan import FederationPlan
from testudo_common.privacy.planned import planned_noise_multiplier
from testudo_common.vectors import Vector
from testudo_simulations.adaptation import Adaptation, Outputs, adapter_of
from testudo_simulations.engine import Engine
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
        engine: Adapts all clients at once; None: each by itself.
    """

    def __init__(self, federation: Federation, splits: Splits, engine: Engine | None) -> None:
        self._plan = federation.plan
        self._splits = splits
        self._adapter = adapter_of(federation.plan, engine)
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
        chosen = list(self._splits[shots].items())[:clients]
        if not np.isfinite(model).all():
            return [ClientScore(client=name, metrics=self._diverged()) for name, _ in chosen]
        asked = (each for name, pairs in chosen for each in self._adaptations(name, pairs, shots, steps))
        outputs = self._adapter.outputs(model, asked)
        return [
            ClientScore(client=name, metrics=self._metrics(pairs, list(islice(outputs, len(pairs)))))
            for name, pairs in chosen
        ]

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

    def _adaptations(self, name: str, pairs: Pairs, shots: int | None, steps: int) -> Iterator[Adaptation]:
        label = f"{self._plan.seed}|adaptation|{name}|{shots}".encode()
        seeded = np.random.default_rng(int.from_bytes(hashlib.sha256(label).digest()[:16], "big"))
        rate = self._plan.evaluation.learning_rate or self._plan.inner.learning_rate
        loop = InnerLoop(steps, rate, self._plan.inner.sample_rate if shots is None else 1.0)
        private = self._private(shots) and steps > 0
        noise_multiplier = planned_noise_multiplier(self._plan, steps) if private else None
        for support, query in pairs:
            centre = self._centre(support)
            mechanism = None
            if noise_multiplier is not None:
                mechanism = Mechanism.from_os(noise_multiplier, self._plan.privacy.max_grad_norm)
            queries = centre.subtract(query).inputs
            yield Adaptation(centre.subtract(support), queries, loop, seeded, mechanism)

    def _metrics(self, pairs: Pairs, outputs: Sequence[Outputs]) -> dict[str, float]:
        """Of a client, over its pairs together, ``outputs`` being those of its adapted models."""
        if not pairs:
            return {}
        try:
            parts = [self._sums(*pair, own) for pair, own in zip(pairs, outputs, strict=True)]
        except ModelError:
            # Its training diverged: that is a result, and the other clients have theirs.
            return self._diverged()
        total: Sums = reduce(operator.add, parts)
        return in_target_unit(self._plan, total.metrics())

    def _diverged(self) -> dict[str, float]:
        return dict.fromkeys(self._metric_names, math.nan)

    def _sums(self, support: Examples, query: Examples, outputs: Outputs) -> Sums:
        if self._plan.task.kind != "regression":
            return ClassificationSums.of(outputs, query.targets.astype(np.int64))
        centre = np.float32(self._centre(support).target)
        return RegressionSums.of(outputs + centre, query.targets.astype(np.float32))

    def _centre(self, support: Examples) -> LocalCentre:
        return LocalCentre.of(support, self._plan.task.local_centring)
