"""The outer step: from a model and the mean meta-update to the next model. Pure functions of ``float32[d]``.

``init_outer`` and ``outer_step`` are a pair in the manner of optax: the caller holds the state.
Sources: Nichol et al. 2018 (SGD, step size annealed to 0); Reddi et al. 2021, algorithm 2 (FedAdam, FedYogi).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testudo_common.plan.sections import OuterPlan
from testudo_common.vectors import Vector


@dataclass(frozen=True, slots=True)
class OuterState:
    """Moments of the pseudo-gradient; both empty for SGD.

    Attributes:
        first: ``float64[d]`` or ``float64[0]``.
        second: ``float64[d]`` or ``float64[0]``.
    """

    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]


def init_outer(outer: OuterPlan, size: int) -> OuterState:
    """The state before the first round, for d = ``size``."""
    if outer.optimizer == "sgd":
        return OuterState(np.empty(0), np.empty(0))
    return OuterState(np.zeros(size), np.full(size, outer.tau**2))


def outer_step(
    outer: OuterPlan, state: OuterState, model: Vector, mean_update: Vector, *, progress: float
) -> tuple[Vector, OuterState]:
    """The next model and state.

    Args:
        outer: The plan's outer section.
        state: From ``init_outer`` or the last step.
        model: ``float32[d]``.
        mean_update: Aggregated ``phi - theta``, ``float32[d]``; its negative is the pseudo-gradient.
        progress: Share of the rounds already done, in [0, 1): anneals the SGD step size.
    """
    update = mean_update.astype(np.float64)
    if outer.optimizer == "sgd":
        step_size = outer.step_size * ((1.0 - progress) if outer.anneal else 1.0)
        return (model + step_size * update).astype(np.float32), state
    square = update**2
    first = outer.beta1 * state.first + (1 - outer.beta1) * update
    if outer.optimizer == "adam":
        second = outer.beta2 * state.second + (1 - outer.beta2) * square
    else:
        second = state.second - (1 - outer.beta2) * square * np.sign(state.second - square)
    step = outer.step_size * first / (np.sqrt(second) + outer.tau)
    return (model + step).astype(np.float32), OuterState(first, second)
