"""Min-Max and Min-Sum: as far from the honest mean as a row can be, and no further from honest rows than they are.

Source: Shejwalkar & Houmansadr 2021, "Manipulating the Byzantine" (NDSS), the attacks that need no defence. A row is
``mean + gamma * direction``. They halve steps of gamma and may end where the constraint is broken; it is a quadratic
in gamma, so its greatest gamma is a root here, and is checked on the row as it is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from testudo_server.aggregate.base import Floats, Rows
from testudo_simulations.attacks.knowledge import Attack, Knowledge, sent

Direction: TypeAlias = Literal["unit", "std", "sign"]
DIRECTIONS: tuple[Direction, ...] = ("unit", "std", "sign")
_SHRINK = (0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1.0)  # how much of gamma is given up until the float32 row is feasible

Feasible: TypeAlias = Callable[[Floats, Floats, Floats], float]
"""The greatest gamma along ``float64[d]``, from ``float64[h, d]``, honest rows minus their mean, and ``float64[h, h]``,
squared distances among them."""


def direction_of(knowledge: Knowledge, direction: Direction) -> Floats:
    """``float64[d]``: minus the mean at length 1, minus the standard deviation, or minus the sign of the mean."""
    if direction == "std":
        return -knowledge.honest_std()
    mean = knowledge.honest_mean()
    if direction == "sign":
        return -np.sign(mean)
    length = float(np.linalg.norm(mean))
    return -mean / length if length > 0.0 else np.zeros_like(mean)


def squared_distances(rows: Floats) -> Floats:
    """``float64[h, h]`` among ``float64[h, d]``, by difference: from products they would not be exact enough."""
    return np.stack([((rows - row) ** 2).sum(axis=1) for row in rows])


def max_gamma(centred: Floats, squared: Floats, along: Floats) -> float:
    """Min-Max: the greatest distance to an honest row is at most the greatest among honest rows."""
    square = float(along @ along)
    if square == 0.0:
        return 0.0
    slopes = centred @ along / square  # [h]
    room = np.maximum(squared.max() - (centred**2).sum(axis=1), 0.0) / square
    return float((slopes + np.sqrt(slopes**2 + room)).min())


def sum_gamma(centred: Floats, squared: Floats, along: Floats) -> float:
    """Min-Sum: the sum of squared distances to honest rows is at most the greatest such sum of an honest row."""
    square = float(along @ along)
    if square == 0.0:
        return 0.0
    room = float(squared.sum(axis=1).max() - (centred**2).sum())
    return float(np.sqrt(max(room, 0.0) / (len(centred) * square)))


def _max_holds(to_honest: Floats, squared: Floats) -> bool:
    return bool(to_honest.max() <= squared.max())


def _sum_holds(to_honest: Floats, squared: Floats) -> bool:
    return bool(to_honest.sum() <= squared.sum(axis=1).max())


def min_max(direction: Direction = "std") -> Attack:
    """All send the furthest row along ``direction`` that is no further from any honest row than two of those can be.

    A row over ``max_norm`` is shortened to it, which brings it nearer to every honest row within ``max_norm``.
    """
    return _envelope(direction, max_gamma, _max_holds)


def min_sum(direction: Direction = "std") -> Attack:
    """All send the furthest row along ``direction`` whose squared distances sum to no more than an honest row's can."""
    return _envelope(direction, sum_gamma, _sum_holds)


def _envelope(direction: Direction, feasible: Feasible, holds: Callable[[Floats, Floats], bool]) -> Attack:
    def attack(knowledge: Knowledge) -> Rows:
        mean, along = knowledge.honest_mean(), direction_of(knowledge, direction)
        wide = knowledge.honest.astype(np.float64)
        squared = squared_distances(wide)  # [h, h]
        gamma = feasible(wide - mean, squared, along)
        for given_up in _SHRINK:
            rows = sent(mean + (1.0 - given_up) * gamma * along, knowledge.b, max_norm=knowledge.max_norm)
            if holds(((wide - rows[0]) ** 2).sum(axis=1), squared):
                break
        return rows

    return attack
