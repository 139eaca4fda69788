"""What a data owner finds out about a received meta-model: its scores on own examples, before and after adapting.

Returns sums for a secure sum, and sends nothing. They are computed from the examples without noise, so they are for
no eyes but those of whoever opens the sum over many clients. Source: Nichol et al. 2018, section 6; the pair of scores
as in federated evaluation of personalisation (Wang et al. 2019, arXiv:1910.10252).
"""

from __future__ import annotations

import numpy as np

from testudo_common.errors import DataError, ModelError
from testudo_common.learning.inner_loop import InnerLoop, run_inner_loop
from testudo_common.learning.learner import Learner
from testudo_common.learning.metric_counts import MAX_QUERIES, clipped_errors
from testudo_common.learning.metrics import ClassificationSums, RegressionSums
from testudo_common.learning.scoring import Adapt, Sums, no_step, score_pair
from testudo_common.learning.tasks import Examples, draw_episode
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector


def federated_sums(
    learner: Learner, model: Vector, examples: Examples, plan: FederationPlan, seeded: np.random.Generator
) -> tuple[Sums, Sums]:
    """The sums of ``model`` as it is, and after ``inner.steps`` whole-support steps of the inner loop, without noise.

    Half of the examples are the support set, the others the query set, drawn by ``seeded``; one episode for few_shot.
    Both sums are over the same query examples, MAX_QUERIES at most, and a regression error counts as at most
    MAX_ERROR. Both are zero, a client that counts no examples, where there are too few of them or training diverged.

    Args:
        learner: The plan's; left with other parameters.
        model: ``float32[d]``.
        examples: The owner's own.
        plan: With ``model.outputs`` stated.
        seeded: For what is no secret: which half an example falls into.

    Raises:
        ModelError: ``model`` does not fit the plan, which is its sender's fault.
    """
    learner.start_from(model)

    def adapt(support: Examples) -> None:
        run_inner_loop(learner, support, InnerLoop(plan.inner.steps, plan.inner.learning_rate), seeded)

    def score(support: Examples, query: Examples, adapt: Adapt) -> Sums:
        return score_pair(learner, model, support, query, plan.task.local_centring, adapt, clipped_errors)

    try:
        support, query = _support_and_query(examples, plan, seeded)
        return score(support, query, no_step), score(support, query, adapt)
    except (DataError, ModelError):
        # Were only the second zero, the two would be about different clients and could not be compared.
        return _no_examples(plan), _no_examples(plan)


def _support_and_query(
    examples: Examples, plan: FederationPlan, seeded: np.random.Generator
) -> tuple[Examples, Examples]:
    """Support and query set, both shuffled halves of ``examples`` or one episode; at most MAX_QUERIES queries.

    Raises:
        DataError: There are too few examples for both.
    """
    task = plan.task
    if task.kind == "few_shot":
        assert task.ways is not None and task.shots is not None  # the plan was checked
        support, query = draw_episode(examples, task.ways, task.shots, plan.evaluation.queries, seeded)
        return support, query.take(seeded.permutation(len(query))[:MAX_QUERIES])
    if len(examples) < 2:
        raise DataError(f"{len(examples)} examples cannot be split into a support and a query set")
    rows = seeded.permutation(len(examples))
    half = (len(rows) + 1) // 2
    return examples.take(rows[:half]), examples.take(rows[half:][:MAX_QUERIES])


def _no_examples(plan: FederationPlan) -> Sums:
    if plan.task.kind == "regression":
        return RegressionSums.zero()
    assert plan.model.outputs is not None  # the learner was built
    return ClassificationSums.zero(plan.model.outputs)
