"""How sure an adapted model may be, counted by an owner that has not trained: it adapts as a newcomer would.

Returns counts for a secure sum, and sends nothing. Under privacy the noise is added inside that sum; what is here sees
to it that one example changes few counts (see :class:`~testudo_common.learning.calibration_counts.CalibrationCounts`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from testudo_client.personal.few_shot import FewShot, first_shots, out_of_fold_errors
from testudo_client.split import support_and_query
from testudo_client.train import Mechanism, run_private_inner_loop
from testudo_common.errors import DataError, ModelError, PrivacyError
from testudo_common.learning.calibration import error_scale
from testudo_common.learning.calibration_counts import MAX_SCORED, CalibrationCounts
from testudo_common.learning.inner_loop import InnerLoop
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.secure_terms import calibration_counts_of
from testudo_common.vectors import Vector

_HALF = 0.5


def newcomer_counts(
    learner: Learner,
    model: Vector,
    examples: Examples,
    plan: FederationPlan,
    *,
    split_key: bytes,
    mechanism: Mechanism | None = None,
) -> npt.NDArray[np.int64]:
    """``int64[k]``: the scores of ``model``, adapted to this owner, on examples that it was not adapted on.

    Without privacy once for each of the plan's support sizes, each on the first examples; a size of which this owner
    has too few examples, or with which training diverges, counts nothing. Under privacy once, by DP-SGD on the support
    half.

    Args:
        learner: The plan's; left with other parameters.
        model: ``float32[d]``.
        examples: The owner's own, in their order.
        plan: That calibrates.
        split_key: The owner's secret, the same in all rounds.
        mechanism: Of the plan's privacy, fresh; None for a plan without.

    Raises:
        ModelError: ``model`` does not fit the plan, which is its sender's fault.
        PrivacyError: The plan is private, and there is no mechanism.
    """
    counts = calibration_counts_of(plan)
    learner.start_from(model)
    if not plan.private:
        return counts.encode([_of_size(learner, model, examples, plan, size or 1) for size in counts.sizes])
    if mechanism is None:
        raise PrivacyError("scores of a private plan need its mechanism: the adapted model shows in them")
    return counts.encode([_of_half(learner, model, examples, plan, counts, split_key, mechanism)])


def _of_size(
    learner: Learner, model: Vector, examples: Examples, plan: FederationPlan, shots: int
) -> npt.NDArray[np.int64] | None:
    few = FewShot.of(plan)
    support, query = first_shots(examples, shots, plan)
    if len(support) == 0 or len(query) == 0:
        return None
    query = query.take(_spread_over(len(query)))
    try:
        raw = few.adapted(learner, model, support).raw(query.inputs)
        if not np.isfinite(raw).all():
            return None
        scale = error_scale(out_of_fold_errors(learner, model, support, few)) if learner.regression else 1.0
    except (DataError, ModelError):
        return None
    return _counted(calibration_counts_of(plan), raw, query, scale)


def _of_half(
    learner: Learner,
    model: Vector,
    examples: Examples,
    plan: FederationPlan,
    counts: CalibrationCounts,
    split_key: bytes,
    mechanism: Mechanism,
) -> npt.NDArray[np.int64] | None:
    """Where training diverges there are no scores: nothing is counted, and that it did is no secret the noise keeps."""
    inner = plan.inner
    support, query = support_and_query(examples, split_key, MAX_SCORED)
    learner.start_from(model)
    if len(examples) == 0:
        return None
    loop = InnerLoop(inner.steps, inner.learning_rate, inner.sample_rate)
    run_private_inner_loop(learner, support, loop, mechanism, expected_examples=_HALF * len(examples))
    raws = [learner.raw_outputs(query.inputs[row : row + 1]) for row in range(len(query))]  # each by itself
    raw = np.concatenate(raws) if raws else learner.raw_outputs(query.inputs)
    finite = np.isfinite(raw.reshape(len(raw), math.prod(raw.shape[1:]))).all(axis=1)
    return _counted(counts, raw[finite], query.take(np.flatnonzero(finite)), error_scale(np.empty(0)))


def _counted(
    counts: CalibrationCounts, raw: npt.NDArray[np.float32], query: Examples, scale: float
) -> npt.NDArray[np.int64]:
    if counts.kind == "regression":
        return counts.scores.of_errors(np.abs(raw.astype(np.float64) - query.targets) / scale)
    return counts.scores.of_classes(raw, query.targets.astype(np.int64))


def _spread_over(count: int) -> npt.NDArray[np.intp]:
    """Rows of at most MAX_SCORED of ``count`` examples, evenly over their order."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_SCORED)).astype(np.intp))
