"""What a data owner finds out about a received meta-model: its scores on own examples, before and after adapting.

Returns sums for a secure sum, and sends nothing. The sums themselves are exact: noise is added inside the secure sum,
and what is here makes sure that one example changes little in them (see MetricCounts.noise).
Source: Nichol et al. 2018, section 6; the pair of scores as in federated evaluation of personalisation (Wang et al.
2019, arXiv:1910.10252).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testudo_client.split import support_and_query
from testudo_client.train import Mechanism, run_private_inner_loop
from testudo_common.errors import DataError, ModelError, PrivacyError
from testudo_common.learning.inner_loop import InnerLoop, LocalCentre, run_inner_loop
from testudo_common.learning.learner import Learner
from testudo_common.learning.metric_counts import MAX_QUERIES, clipped_errors
from testudo_common.learning.metrics import ROUNDING, ClassificationSums, RegressionSums, Sums
from testudo_common.learning.tasks import Examples, draw_episode
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector

_SUPPORT_SHARE = 0.5  # of the examples, as an HMAC's bit has it


def federated_sums(
    learner: Learner,
    model: Vector,
    examples: Examples,
    plan: FederationPlan,
    seeded: np.random.Generator,
    *,
    split_key: bytes,
    mechanism: Mechanism | None = None,
) -> tuple[Sums, Sums]:
    """The sums of ``model`` as it is, and after ``inner.steps`` steps of the inner loop on the support half.

    Both are over the same query examples, MAX_QUERIES at most, and a regression error counts as at most MAX_ERROR.
    A query to which either model gives no score (training diverged), or whose target is none, counts in neither.

    Under privacy, one example more or less is on the support side, where it changes the adapted model, which the
    mechanism hides; or it is a query, where it adds what it counts and displaces at most one other query. What a
    query counts depends on the two models and on itself alone: it is scored by itself, since how many others are in
    a batch changes the last bits of its scores, and a server could choose a model in which those bits are all.

    Without privacy both sums are zero, a client that counts no examples, where there are too few of them or training
    diverged. For few_shot, support and query are an episode; the plan is never private then.

    Args:
        learner: The plan's; left with other parameters.
        model: ``float32[d]``.
        examples: The owner's own.
        plan: With ``model.outputs`` stated.
        seeded: For what is no secret: the order of batches without privacy, and episodes.
        split_key: The owner's secret, the same in all rounds.
        mechanism: Of the plan's privacy, fresh; None for a plan without.

    Raises:
        ModelError: ``model`` does not fit the plan, which is its sender's fault.
        PrivacyError: The plan is private, and there is no mechanism.
    """
    private = plan.privacy.unit != "none"
    if private and mechanism is None:
        raise PrivacyError("scores of a private plan need its mechanism: the adapted model shows in them")
    learner.start_from(model)
    try:
        support, query = _halves(examples, plan, seeded, split_key)
        if len(examples) == 0 or (not private and min(len(support), len(query)) == 0):
            return _no_examples(plan), _no_examples(plan)
        centre = LocalCentre.of(support, plan.task.local_centring)
        queries = centre.subtract(query).inputs
        before = _outputs(learner, queries, centre)
        if mechanism is None:
            loop = InnerLoop(plan.inner.steps, plan.inner.learning_rate)
            run_inner_loop(learner, centre.subtract(support), loop, seeded)
        else:
            _adapt_privately(learner, support, len(examples), plan, mechanism)
        after = _outputs(learner, queries, centre)
    except (DataError, ModelError):
        # Were only the second zero, the two would be about different clients and could not be compared.
        return _no_examples(plan), _no_examples(plan)
    rows = np.flatnonzero(_are_scores(before) & _are_scores(after) & _are_targets(query, plan))
    counted = query.take(rows)
    return _sums(before[rows], counted, plan), _sums(after[rows], counted, plan)


def _halves(
    examples: Examples, plan: FederationPlan, seeded: np.random.Generator, split_key: bytes
) -> tuple[Examples, Examples]:
    """Support and query set, at most MAX_QUERIES queries.

    Raises:
        DataError: There are too few examples for an episode.
    """
    task = plan.task
    if task.kind == "few_shot":
        assert task.ways is not None and task.shots is not None  # the plan was checked
        support, query = draw_episode(examples, task.ways, task.shots, plan.evaluation.queries, seeded)
        return support, query.take(seeded.permutation(len(query))[:MAX_QUERIES])
    return support_and_query(examples, split_key, MAX_QUERIES)


def _adapt_privately(
    learner: Learner, support: Examples, examples: int, plan: FederationPlan, mechanism: Mechanism
) -> None:
    """DP-SGD on the support half, also where that is empty: a step without noise would say so.

    The expected batch is that of half of all examples, whose number is public to the mechanism; how many of them are
    in the support half is not.
    """
    inner = plan.inner
    loop = InnerLoop(inner.steps, inner.learning_rate, inner.sample_rate)
    run_private_inner_loop(learner, support, loop, mechanism, expected_examples=_SUPPORT_SHARE * examples)


def _outputs(learner: Learner, inputs: npt.NDArray[np.float32], centre: LocalCentre) -> npt.NDArray[np.float32]:
    """``float32[n, classes]`` probabilities, or ``float32[n]`` predictions in the plan's scaled target; one by one."""
    found = [learner.outputs(inputs[row : row + 1]) for row in range(len(inputs))]
    outputs = np.concatenate(found) if found else learner.outputs(inputs)
    return outputs + np.float32(centre.target) if learner.regression else outputs


def _are_scores(outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    if outputs.ndim == 1:
        return np.isfinite(outputs)
    return np.abs(outputs.sum(axis=1, dtype=np.float64) - 1) <= ROUNDING  # type: ignore[no-any-return]  # false where one is not finite


def _are_targets(query: Examples, plan: FederationPlan) -> npt.NDArray[np.bool_]:
    if plan.task.kind == "regression":
        return np.isfinite(query.targets)
    assert plan.model.outputs is not None  # the learner was built
    return (query.targets >= 0) & (query.targets < plan.model.outputs)


def _sums(outputs: npt.NDArray[np.float32], query: Examples, plan: FederationPlan) -> Sums:
    if plan.task.kind == "regression":
        return clipped_errors(outputs, query.targets.astype(np.float32))
    return ClassificationSums.of(outputs, query.targets.astype(np.int64))


def _no_examples(plan: FederationPlan) -> Sums:
    if plan.task.kind == "regression":
        return RegressionSums.zero()
    assert plan.model.outputs is not None  # the learner was built
    return ClassificationSums.zero(plan.model.outputs)
