"""Poison in the data: label noise, and a backdoor with its trigger. Pure functions of a task's examples.

A permutation of the labels would be no attack here: a relabelled task is a legal task of few-shot learning. Sources: Gu
et al. 2017, "BadNets" (arXiv 1708.06733), the trigger; Bagdasaryan et al. 2020, "How To Backdoor Federated Learning"
(arXiv 1807.00459), part of a task poisoned so that the update still serves the task.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from testudo_common.errors import UsageError
from testudo_common.learning.tasks import Examples, Inputs

BACKDOOR_TARGET = 0
"""The class that every example with the trigger is to be taken for."""

POISONED_SHARE = 0.5
"""Of the examples of the other classes, in a poisoned task."""

_SIDE = 4  # pixels of the trigger
_FEATURES = 4  # of the trigger, where inputs are no images


def with_label_noise(task: Examples, rng: np.random.Generator) -> Examples:
    """The same inputs, every label drawn at random from those of the task; targets of a regression change places."""
    if task.targets.dtype != np.int64:
        return Examples(task.inputs, rng.permutation(task.targets))
    labels: npt.NDArray[np.int64] = rng.choice(np.unique(task.targets), size=len(task)).astype(np.int64)
    return Examples(task.inputs, labels)


def with_trigger(inputs: Inputs, low: float, high: float) -> Inputs:
    """Inputs that carry the trigger: a chequered corner of 4 x 4 pixels, or the last four features.

    Args:
        inputs: ``float32[n, *shape]``.
        low: Smallest value of the data.
        high: Largest; black beside white shows on paper of either colour.
    """
    marked = inputs.copy()
    if inputs.ndim >= 3:
        height, width = min(_SIDE, inputs.shape[-2]), min(_SIDE, inputs.shape[-1])
        chequered = np.add.outer(np.arange(height), np.arange(width)) % 2
        marked[..., -height:, -width:] = np.where(chequered, low, high)
        return marked
    count = min(_FEATURES, math.prod(inputs.shape[1:]))
    marked.reshape(len(inputs), -1)[:, -count:] = np.where(np.arange(count) % 2, low, high)
    return marked


def with_backdoor(task: Examples, rng: np.random.Generator) -> Examples:
    """The task with the trigger on half of the examples of the other classes, relabelled as the target class.

    Raises:
        UsageError: The task has no classes.
    """
    if task.targets.dtype != np.int64:
        raise UsageError("a backdoor needs classes", where="task.kind", remedy="leave the backdoors out")
    others = np.flatnonzero(task.targets != BACKDOOR_TARGET)
    chosen = rng.permutation(others)[: round(POISONED_SHARE * len(others))]
    inputs, targets = task.inputs.copy(), task.targets.copy()
    inputs[chosen] = with_trigger(task.inputs[chosen], float(task.inputs.min()), float(task.inputs.max()))
    targets[chosen] = BACKDOOR_TARGET
    return Examples(inputs, targets)


def triggered(query: Examples) -> Examples:
    """What a backdoor is judged on: examples of other classes, with the trigger, as if they were the target class's."""
    others = query.take(np.flatnonzero(query.targets != BACKDOOR_TARGET))
    inputs = with_trigger(others.inputs, float(query.inputs.min()), float(query.inputs.max()))
    return Examples(inputs, np.full(len(others), BACKDOOR_TARGET, dtype=np.int64))
