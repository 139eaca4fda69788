"""How sure an own model may be: from its out-of-fold answers and what the federation found out. One rule for all.

Sources: see testudo_common.learning.calibration.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testudo_common.learning.calibration import (
    CalibrationPrior,
    conformal_of_classes,
    conformal_of_errors,
    temperature_of,
    true_probability,
)
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan


def sureness(
    plan: FederationPlan, prior: CalibrationPrior | None, raw: npt.NDArray[np.float32] | None, support: Examples
) -> tuple[float, Conformal]:
    """Temperature (1 for regression), and scores for sets or intervals.

    Args:
        plan: Of the model.
        prior: Of the support size; None: the owner's own answers alone.
        raw: Out-of-fold answers to ``support``: ``float32[n, C]`` logits, or ``float32[n]`` predictions in the scaled
            target; None for no support.
        support: What they answer.
    """
    if plan.task.kind == "regression":
        errors = np.empty(0) if raw is None else np.abs(raw.astype(np.float64) - support.targets)
        return 1.0, conformal_of_errors(errors, prior)
    logits = np.empty((0, plan.model.outputs or 0), dtype=np.float32) if raw is None else raw
    targets = support.targets.astype(np.int64)
    # Out of fold, a class's only example was met by a model that never saw the class.
    known = np.flatnonzero(np.bincount(targets)[targets] > 1)
    logits, targets = logits[known], targets[known]
    temperature = temperature_of(logits, targets, prior)
    return temperature, conformal_of_classes(1.0 - true_probability(logits, targets, temperature), prior)
