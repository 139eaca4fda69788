"""Ridge and kernel ridge regression on one client's examples, and how their settings are chosen.

Knows no federation. Sources: Hoerl and Kennard 1970 (ridge); Saunders, Gammerman, Vovk 1998 (kernel ridge).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from testudo_simulations.baselines.base import Floats

Table = tuple[Floats, Floats]  # inputs [n, p] and targets [n] of one client
Method = Callable[[Floats, Floats, Floats], Floats]  # support inputs, support targets, query -> predictions


def ridge(inputs: Floats, targets: Floats, query: Floats, *, penalty: float) -> Floats:
    """Ridge regression with a free intercept.

    Args:
        inputs: ``float64[n, p]``, n at least 1; with one example the prediction is its target.
        targets: ``float64[n]``.
        query: ``float64[q, p]``.
        penalty: On the sum of squared slopes, above 0.

    Returns:
        Predictions ``float64[q]``.
    """
    centre, mean = inputs.mean(axis=0), targets.mean()
    centred = inputs - centre
    gram = centred.T @ centred + penalty * np.eye(inputs.shape[1])
    slopes = np.linalg.solve(gram, centred.T @ (targets - mean))
    return np.asarray((query - centre) @ slopes + mean)


def kernel_ridge(inputs: Floats, targets: Floats, query: Floats, *, scale: float, penalty: float) -> Floats:
    """Kernel ridge regression around the mean target; the mean of a Gaussian process with that constant mean.

    The kernel is ``exp(-|x - y|^2 / (2 p scale^2))``; the other arguments are those of :func:`ridge`.
    """
    mean = targets.mean()
    gram = _kernel(inputs, inputs, scale) + penalty * np.eye(len(inputs))
    return np.asarray(_kernel(query, inputs, scale) @ np.linalg.solve(gram, targets - mean) + mean)


def _kernel(left: Floats, right: Floats, scale: float) -> Floats:
    squares = np.square(left).sum(axis=1)[:, np.newaxis] + np.square(right).sum(axis=1) - 2 * left @ right.T
    return np.asarray(np.exp(-np.maximum(squares, 0) / (2 * left.shape[1] * scale**2)))


def best_method(methods: Sequence[Method], clients: Sequence[Table], size: int) -> int:
    """The place of the method with the least mean RMSE when ``clients`` play the few-shot game.

    Args:
        methods: One or more.
        clients: Whose first examples are support and all later ones query.
        size: Support examples; at most half of the longest client, so that enough is left to score.
    """
    size = min(size, max((len(targets) for _, targets in clients), default=0) // 2)
    playing = [table for table in clients if len(table[1]) > size]
    if not playing:
        return 0
    errors = [np.mean([_rmse(method, table, size) for table in playing]) for method in methods]
    return int(np.argmin(errors))


def _rmse(method: Method, table: Table, size: int) -> float:
    inputs, targets = table
    error = method(inputs[:size], targets[:size], inputs[size:]) - targets[size:]
    return float(np.sqrt(np.square(error).mean()))
