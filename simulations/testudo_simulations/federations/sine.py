"""Sine waves, one a client: the regression tasks of Nichol, Achiam, Schulman 2018 (Reptile), section 5.1.

A client's wave is ``amplitude * sin(x + phase)``; amplitude in [0.1, 5], phase in [0, 2 pi], x in [-5, 5].
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import SineData
from testudo_simulations.federations.base import Federation, UnseenClient
from testudo_simulations.federations.complete import complete_plan
from testudo_simulations.federations.lazy import MadeWhenAsked

QUERY_POINTS = 100
_LIMIT = 5.0
_TRAINING, _UNSEEN = 1, 2  # streams of the plan's seed


def load(plan: FederationPlan, data: SineData) -> Federation:
    """Simulate the federation from the plan's seed; a client does not depend on how many clients there are.

    Returns:
        Inputs ``float32[n, 1]``, targets ``float32[n]``. Unseen clients are scored on 100 even points.

    Raises:
        PlanError: The plan states another shape for the model.
    """

    def points_of(client: int) -> Examples:
        rng = np.random.default_rng([plan.seed, _TRAINING, client])
        return _draw(_wave(rng), data.examples, rng)

    training = MadeWhenAsked("wave", data.clients, points_of)
    unseen = {}
    even = np.linspace(-_LIMIT, _LIMIT, QUERY_POINTS)
    for client in range(data.unseen_clients):
        rng = np.random.default_rng([plan.seed, _UNSEEN, client])
        wave = _wave(rng)
        unseen[f"unseen-{client:06d}"] = UnseenClient(_draw(wave, data.examples, rng), _examples(wave, even))
    return Federation(complete_plan(plan, (1,), 1), training, unseen, source="sine waves, simulated from the seed")


def _wave(rng: np.random.Generator) -> tuple[float, float]:
    """Amplitude and phase."""
    return rng.uniform(0.1, 5.0), rng.uniform(0.0, 2.0 * math.pi)


def _draw(wave: tuple[float, float], count: int, rng: np.random.Generator) -> Examples:
    return _examples(wave, rng.uniform(-_LIMIT, _LIMIT, size=count))


def _examples(wave: tuple[float, float], points: npt.NDArray[np.float64]) -> Examples:
    amplitude, phase = wave
    targets = amplitude * np.sin(points + phase)
    return Examples(points[:, np.newaxis].astype(np.float32), targets.astype(np.float32))
