"""Which rows of an owner a published meta-model is adapted on, which it is scored on, and what it then answers.

Adapts and calibrates as ``testudo-client adapt`` does; keeps no version, and decides nothing about promotion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_client.judging.answered import Answered, Places
from testudo_client.personal.few_shot import FewShot, first_shots, out_of_fold
from testudo_client.personal.own_model import LEVEL, Answerer, OwnModel, in_target_unit
from testudo_client.personal.sureness import sureness
from testudo_common.errors import DataError, Fault, PlanError
from testudo_common.learning.calibration import (
    nearest_prior,
)
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import TableData
from testudo_common.publication import PublishedModel

MIN_QUERIES = 10


def support_rows(examples: Examples, shots: int, plan: FederationPlan) -> Places:
    """Rows to adapt on, ascending: those of :func:`testudo_client.personal.few_shot.first_shots`."""
    numbered = Examples(np.arange(len(examples), dtype=np.float32)[:, None], examples.targets)
    return first_shots(numbered, shots, plan)[0].inputs[:, 0].astype(np.intp)


def query_rows(examples: Examples, shots: int, plan: FederationPlan) -> Places:
    """Rows to score on, ascending: those that the support set leaves."""
    return np.delete(np.arange(len(examples)), support_rows(examples, shots, plan))


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
    fitting = tuple(size for size in sizes if len(query_rows(examples, size, plan)) >= MIN_QUERIES)
    if (asked and len(fitting) < len(sizes)) or not fitting:
        too_many = next((size for size in sizes if size not in fitting), 1)
        raise DataError(
            f"of {len(examples)} rows, {too_many} to adapt on (of each class, where there are classes) leave fewer "
            f"than {MIN_QUERIES} to score on",
            remedy="Ask for fewer --shots, or bring more rows",
        )
    return fitting


def adapted(published: PublishedModel, support: Examples, shots: int) -> OwnModel:
    """The meta-model after the plan's evaluation steps on ``support``, as sure as prior and out-of-fold scores allow.

    Args:
        published: Where it starts.
        support: Not centred; one example or more.
        shots: A class, or in all for regression: whose prior counts.

    Raises:
        ModelError: The meta-model does not fit its plan.
    """
    plan = published.plan
    few, learner = FewShot.of(plan), Learner(plan)
    own = few.adapted(learner, published.model, support).own
    raw = out_of_fold(learner, published.model, support, few) if len(support) > 1 else None
    seen = support.take(slice(0, 0)) if raw is None else support
    temperature, conformal = sureness(plan, nearest_prior(published.priors, shots), raw, seen)
    return replace(own, temperature=temperature, conformal=conformal)


def unadapted(published: PublishedModel, support: Examples) -> OwnModel:
    """The meta-model as it is, around the means of ``support`` where the plan centres; as sure as it is by itself."""
    return FewShot.of(published.plan, steps=0).adapted(Learner(published.plan), published.model, support).own


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


def table_data_of(plan: FederationPlan) -> TableData:
    """The plan's table.

    Raises:
        PlanError: It has none.
    """
    if isinstance(plan.data, TableData):
        return plan.data
    problem = f"{plan.data.federation!r} has no table of a data owner"
    raise PlanError([Fault("data.federation", problem, 'Write "csv"')], source=plan.name)
