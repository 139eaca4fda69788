"""Strong baselines that need no federation, scored on the same unseen clients and splits as every other arm.

They are not private: the pooled ones see all training data in one place, which is what a federation avoids. A
result that beats only a weak local model proves nothing, so these are tuned where tuning is cheap.
One module a task kind; scoring is here.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

import numpy as np

from testudo_common.learning.metrics import ClassificationSums, RegressionSums, Sums
from testudo_common.learning.tasks import Examples
from testudo_simulations.baselines.base import Floats, Pair, Panel, Splits
from testudo_simulations.federations.base import Federation
from testudo_simulations.results import Arm, ClientScore

MAX_CLIENTS = 2000
"""That baselines learn from: of a larger federation so many are drawn, and the labels say so."""


def run_baselines(federation: Federation, splits: Splits, rng: np.random.Generator) -> list[Arm]:
    """Fit the baselines of the plan's task kind, and score them on every unseen client.

    Args:
        federation: With a complete plan; targets in training and in ``splits`` are in the same unit.
        splits: Shots -> client id -> (support, query) pairs; the score of a client pools its pairs.
        rng: Seeds forests, networks and tuning; the same generator gives the same arms.

    Returns:
        For every support size an arm for each baseline that can predict with so much support. Regression
        errors are in the unit of the targets given. What is pooled is of 2000 clients at the most; then its label says
        of how many.
    """
    panel = _fit_sample(federation, rng)
    arms: list[Arm] = []
    for shots, clients in splits.items():
        scores: dict[str, list[ClientScore]] = {name: [] for name in panel.labels}
        for client, pairs in clients.items():
            for name, metrics in _score_client(panel, pairs).items():
                scores[name].append(ClientScore(client=client, metrics=metrics))
        arms += [
            Arm(name=name, label=label, family="baseline", shots=shots, private=False, scores=scores[name])
            for name, label in panel.labels.items()
            if scores[name]
        ]
    return arms


def _fit_sample(federation: Federation, rng: np.random.Generator) -> Panel:
    """The panel of all training clients, or of so many as are pooled: nobody has the memory for a hundred thousand."""
    if len(federation.training) <= MAX_CLIENTS:
        return fit_panel(federation, rng)
    drawn = rng.choice(np.array(list(federation.training)), MAX_CLIENTS, replace=False)
    training = {client: federation.training[client] for client in sorted(map(str, drawn))}
    panel = fit_panel(replace(federation, training=training), rng)
    labels = {
        name: label if name.startswith(_LEARN_FROM_THE_SUPPORT) else f"{label}, of {MAX_CLIENTS} clients"
        for name, label in panel.labels.items()
    }
    return replace(panel, labels=labels)


_LEARN_FROM_THE_SUPPORT = ("local_", "nearest_")
"""How the names begin of baselines that pool nothing but what they are tuned on."""


def fit_panel(federation: Federation, rng: np.random.Generator) -> Panel:
    """The baselines of the plan's task kind, fitted on all training clients at once."""
    plan = federation.plan
    # each kind has its own slow imports: scikit-learn's forests, scipy, torch
    match plan.task.kind:
        case "classification":
            from testudo_simulations.baselines import classification

            return classification.fit(federation.training, plan.model.outputs or 0, rng)
        case "regression":
            from testudo_simulations.baselines import regression

            return regression.fit(federation.training, rng)
        case "few_shot":
            from testudo_simulations.baselines import few_shot

            return few_shot.fit(federation.training, plan.task.ways or 0, rng)


def _score_client(panel: Panel, pairs: list[Pair]) -> Mapping[str, dict[str, float]]:
    parts: dict[str, list[Sums]] = {}
    for support, query in pairs:
        if len(query):
            for name, predictions in panel.predict(support, query.inputs).items():
                parts.setdefault(name, []).append(_sums(predictions, query))
    totals = {name: reduce(operator.add, sums) for name, sums in parts.items()}
    return {name: total.metrics() for name, total in totals.items()}


def _sums(predictions: Floats, query: Examples) -> Sums:
    if predictions.ndim == 2:
        return ClassificationSums.of(predictions, query.targets.astype(np.int64))
    return RegressionSums.of(predictions, query.targets.astype(np.float64))


__all__ = ["run_baselines"]
