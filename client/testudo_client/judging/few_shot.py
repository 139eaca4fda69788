"""Few-shot adaptation of a published meta-model, as it is judged: which rows it adapts on, and which it is scored on.

Keeps no version and decides nothing about promotion: that is ``testudo-client adapt``. Source: Nichol, Achiam, Schulman
2018 (Reptile, section 6: few-shot evaluation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_client.judging.answered import Answered, Places
from testudo_client.personal.own_model import LEVEL, Answerer, OwnModel, in_target_unit
from testudo_common.errors import DataError
from testudo_common.learning.calibration import CalibrationPrior
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.inner_loop import InnerLoop, LocalCentre, run_inner_loop
from testudo_common.learning.learner import Learner, read_parameters
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.publication import PublishedModel

MIN_QUERIES = 10
_PRIOR_WEIGHT = 1000.0  # of a histogram: what it says counts as so many scores


def support_rows(examples: Examples, shots: int) -> Places:
    """Rows to adapt on: the first ``shots`` of each class, or of all for regression; ascending."""
    if examples.targets.dtype == np.float32:
        return np.arange(min(shots, len(examples)))
    rows = [np.flatnonzero(examples.targets == label)[:shots] for label in np.unique(examples.targets)]
    return np.sort(np.concatenate([*rows, np.empty(0, dtype=np.intp)]))


def query_rows(examples: Examples, shots: int) -> Places:
    """Rows to score on: those that the largest support set leaves; ascending."""
    return np.delete(np.arange(len(examples)), support_rows(examples, shots))


def usable_shots(plan: FederationPlan, examples: Examples, asked: Sequence[int] | None) -> tuple[int, ...]:
    """Support sizes, ascending, that leave at least ten rows to score on.

    Args:
        plan: Whose sizes count where none are asked for; then those that leave too few are left out.
        examples: Of the owner.
        asked: 1 and up; None: the plan's.

    Raises:
        DataError: A size that was asked for, or every one, leaves too few.
    """
    sizes = sorted({size for size in (asked or plan.evaluation.shots) if size > 0})
    fitting = tuple(size for size in sizes if len(query_rows(examples, size)) >= MIN_QUERIES)
    if (asked and len(fitting) < len(sizes)) or not fitting:
        too_many = next((size for size in sizes if size not in fitting), 1)
        raise DataError(
            f"{len(examples)} rows: {too_many} to adapt on (of each class, for classes) leave fewer than {MIN_QUERIES} "
            "to score on",
            remedy="Ask for fewer --shots, or bring more rows",
        )
    return fitting


def adapted(published: PublishedModel, support: Examples, shots: int | None) -> OwnModel:
    """The meta-model, trained on ``support`` with the plan's evaluation steps, as sure as the federation's prior says.

    Args:
        published: Where it starts.
        support: Not centred.
        shots: Whose prior counts; None: of all that a client has.

    Raises:
        ModelError: The meta-model does not fit its plan.
    """
    plan, learner = published.plan, Learner(published.plan)
    learner.start_from(published.model)
    centre = LocalCentre.of(support, plan.task.local_centring)
    rate = plan.evaluation.learning_rate or plan.inner.learning_rate
    loop = InnerLoop(plan.evaluation.steps, rate)
    run_inner_loop(learner, centre.subtract(support), loop, np.random.default_rng(plan.seed))  # whole batches
    temperature, conformal = sureness(published.priors, shots)
    return OwnModel(plan, read_parameters(learner.model.parameters()), centre, temperature, conformal)


def unadapted(published: PublishedModel, support: Examples) -> OwnModel:
    """The meta-model as it is, around the means of ``support`` where the plan centres; as sure as it is by itself."""
    plan, learner = published.plan, Learner(published.plan)
    learner.start_from(published.model)
    centre = LocalCentre.of(support, plan.task.local_centring)
    return OwnModel(plan, read_parameters(learner.model.parameters()), centre, 1.0, Conformal.of(np.empty(0)))


def sureness(priors: Sequence[CalibrationPrior], shots: int | None) -> tuple[float, Conformal]:
    """Temperature and scores from the prior of this support size, or of the nearest; 1 and none without priors."""
    known = [prior for prior in priors if (prior.shots is None) == (shots is None)] or list(priors)
    if not known:
        return 1.0, Conformal.of(np.empty(0))
    nearest = min(known, key=lambda prior: abs((prior.shots or 0) - (shots or 0)))
    shares = np.array(nearest.scores, dtype=np.float64)
    if not shares.sum() > 0:
        return float(np.exp(nearest.log_temperature)), Conformal.of(np.empty(0))
    upper = nearest.limit * np.arange(1, len(shares) + 1) / len(shares)  # a bin's scores count as its upper end
    kept = shares > 0
    conformal = Conformal.of(upper[kept], _PRIOR_WEIGHT * shares[kept] / shares.sum())
    return float(np.exp(nearest.log_temperature)), conformal


def answered(own: OwnModel, queries: Examples, client: int = 0, level: float = LEVEL) -> Answered:
    """Queries of one client as ``own`` answers them, beside what was true, in the target's unit.

    Args:
        own: Of this client.
        queries: Not centred.
        client: Its place among all.
        level: Nominal coverage.
    """
    answers = Answerer(own).answer(queries.inputs, level)
    clients = np.full(len(queries), client, dtype=np.intp)
    return Answered(true_targets(own.plan, queries), answers, clients, len(own.conformal.scores) > 0)


def true_targets(plan: FederationPlan, queries: Examples) -> npt.NDArray[Any]:
    """``int64[n]`` class numbers, or ``float64[n]`` in the target's unit."""
    if plan.task.kind == "regression":
        return in_target_unit(plan, queries.targets.astype(np.float64))
    return queries.targets.astype(np.int64)
