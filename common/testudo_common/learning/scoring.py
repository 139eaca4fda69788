"""Scores of a model on one support and query pair: start from the model, adapt on the support, score on the query.

Decides neither how to adapt, nor which examples are which, nor where the sums go. Source: Nichol, Achiam, Schulman
2018 (Reptile, section 6: few-shot evaluation).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from testudo_common.learning.inner_loop import LocalCentre
from testudo_common.learning.learner import Learner
from testudo_common.learning.metrics import ClassificationSums, Floats, RegressionSums
from testudo_common.learning.tasks import Examples
from testudo_common.vectors import Vector

Sums = ClassificationSums | RegressionSums
Adapt = Callable[[Examples], None]


def no_step(support: Examples) -> None:
    """Adapt by nothing: the scores are those of the model as it is."""


def score_pair(
    learner: Learner,
    model: Vector,
    support: Examples,
    query: Examples,
    local_centring: str,
    adapt: Adapt,
    regression_sums: Callable[[Floats, Floats], RegressionSums] = RegressionSums.of,
) -> Sums:
    """The sums of ``query`` after ``adapt``, which leaves ``learner`` adapted.

    Args:
        learner: Of the plan's model and task.
        model: ``float32[d]``, the shared parameters to start from.
        support: Its means are the local centre; also where nothing is adapted.
        query: Disjoint from ``support``.
        local_centring: The plan's ``task.local_centring``.
        adapt: Trains ``learner`` in place on the centred support set that it is given.
        regression_sums: Of predictions and targets, both ``float32[n]`` in the plan's scaled target.

    Raises:
        DataError: A target is no class, or not finite.
        ModelError: ``model`` does not fit, or training diverged.
    """
    centre = LocalCentre.of(support, local_centring)
    learner.start_from(model)
    adapt(centre.subtract(support))
    outputs = learner.outputs(centre.subtract(query).inputs)
    if not learner.regression:
        return ClassificationSums.of(outputs, query.targets.astype(np.int64))
    return regression_sums(outputs + np.float32(centre.target), query.targets.astype(np.float32))
