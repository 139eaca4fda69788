"""What an attack did to an aggregate, as one number, and the search for the rows that do most of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from testudo_common.errors import AggregationError, UsageError
from testudo_common.vectors import Vector
from testudo_server.aggregate.base import Floats, Rows
from testudo_simulations.attacks.knowledge import Knowledge

Damage: TypeAlias = Callable[[Vector, Floats], float]
"""Of the aggregate, ``float32[d]``, and the honest mean, ``float64[d]``; more is worse."""


def distance(aggregate: Vector, honest_mean: Floats) -> float:
    """L2 from the aggregate to the honest mean: what (f, kappa)-robustness bounds, and with it convergence.

    It takes no side on which direction hurts. Sources: Allouah et al. 2023, Definition 2; the line search of ByzFL.
    """
    return float(np.linalg.norm(aggregate.astype(np.float64) - honest_mean))


def toward(aggregate: Vector, honest_mean: Floats) -> float:
    """How far the aggregate was moved against the honest mean, in its units: ``-<aggregate - mean, mean> / |mean|``.

    Over ``|mean|`` the step goes the wrong way. What is moved sideways counts for nothing, and 0 where the mean is 0.
    """
    length = float(np.linalg.norm(honest_mean))
    return float(-(aggregate.astype(np.float64) - honest_mean) @ honest_mean) / length if length > 0.0 else 0.0


def damage_of(knowledge: Knowledge, bad: Rows, damage: Damage = distance) -> float:
    """What the known defence lets these rows do; 0 where it refuses to aggregate, since then nothing moves.

    Args:
        knowledge: Its defence must be known.
        bad: ``float32[b, d]``.
        damage: What to measure.

    Raises:
        UsageError: The defence is not known.
    """
    if knowledge.defence is None:
        raise UsageError(
            "an adaptive attack has no defence to search against", where="attack", remedy="give the server's rule"
        )
    try:
        aggregate = knowledge.defence(np.concatenate([knowledge.honest, bad]))
    except AggregationError:
        return 0.0
    return damage(aggregate, knowledge.honest_mean())


def strongest(knowledge: Knowledge, candidates: Iterable[Rows], damage: Damage = distance) -> Rows:
    """The candidate that does most; the first of equals.

    Args:
        knowledge: Its defence must be known.
        candidates: ``float32[b, d]`` each, one at least; two are in memory at a time.
        damage: What to measure.

    Raises:
        UsageError: The defence is not known.
    """
    remaining = iter(candidates)
    best = next(remaining)
    most = damage_of(knowledge, best, damage)
    for bad in remaining:
        done = damage_of(knowledge, bad, damage)
        if done > most:
            best, most = bad, done
    return best
