"""From a plan to its mechanism: which noise every client adds, and what a client spends in a round.

Pure: the server, every client and an auditor compute the same numbers from the plan alone.
"""

from __future__ import annotations

import math

from testudo_common.errors import PrivacyError
from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import noise_multiplier_for
from testudo_common.privacy.events import SampledGaussian


def steps_per_round(plan: FederationPlan) -> int:
    """Optimiser steps of one client in one round: T tasks of K steps."""
    return plan.task.tasks_per_client * plan.inner.steps


def participations_for(plan: FederationPlan, clients: int) -> int:
    """Rounds that one of ``clients`` clients takes part in when all are asked equally often."""
    return math.ceil(plan.rounds.count * min(plan.rounds.cohort_size, clients) / clients)


def planned_noise_multiplier(plan: FederationPlan, steps: int | None = None) -> float | None:
    """sigma / C of the plan: as written, or found from its target epsilon; None without privacy.

    Args:
        plan: With ``rounds.max_participations`` stated where a target epsilon is.
        steps: Spend the whole target on so many steps instead of the planned ones.

    Raises:
        PrivacyError: It is not stated, so that the number of steps to account for is unknown.
    """
    privacy = plan.privacy
    if privacy.unit == "none":
        return None
    if privacy.epsilon is None:
        return privacy.noise_multiplier
    if steps is None:
        if plan.rounds.max_participations is None:
            raise PrivacyError(
                "a target epsilon needs the number of rounds that one client may take part in",
                where="rounds.max_participations",
                remedy="state it: rounds.count * rounds.cohort_size / clients, rounded up",
            )
        steps = plan.rounds.max_participations * steps_per_round(plan)
    return noise_multiplier_for(privacy.epsilon, privacy.delta, plan.inner.sample_rate, steps, privacy.accountant)


def planned_event(plan: FederationPlan) -> SampledGaussian | None:
    """What a client spends in a round of the plan; None without privacy."""
    noise_multiplier = planned_noise_multiplier(plan)
    if noise_multiplier is None:
        return None
    return SampledGaussian(noise_multiplier, plan.inner.sample_rate, steps_per_round(plan))
