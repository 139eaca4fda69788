"""From a plan to its mechanism: which noise every client adds, and what a client spends in a round.

Pure: the server, every client and an auditor compute the same numbers from the plan alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from testudo_common.errors import Fault, PlanError, PrivacyError
from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import AccountantName, noise_multiplier_for
from testudo_common.privacy.events import Events, SampledGaussian, Spending, compose

CLIENT_ACCOUNTANT: Final[AccountantName] = "rdp"
"""Of the client-level unit: its noise is a sum of discrete Gaussians, whose Renyi divergence is known exactly."""


def steps_per_round(plan: FederationPlan) -> int:
    """Optimiser steps of one client in one round: T tasks of K steps."""
    return plan.task.tasks_per_client * plan.inner.steps


def participations_for(plan: FederationPlan, clients: int) -> int:
    """Rounds that one of ``clients`` clients takes part in when all that are not held back are asked equally often."""
    trainers = clients - held_back_of(plan, clients)
    return math.ceil(plan.rounds.count * min(plan.rounds.cohort_size, trainers) / trainers)


def held_back_of(plan: FederationPlan, clients: int) -> int:
    """How many of ``clients`` clients do not train before the last round: the plan's share, and enough for a sum."""
    share = plan.calibration.held_back
    return 0 if share == 0 else min(max(plan.fewest_asked, round(share * clients)), max(0, clients - 1))


def check_held_back(plan: FederationPlan, clients: int) -> None:
    """Check that of ``clients`` clients enough are left to train, beside those that are held back.

    Raises:
        PlanError: They are not.
    """
    held = held_back_of(plan, clients)
    if held and clients - held < plan.fewest_asked:
        problem = f"of {clients} clients {held} are held back, and a round needs {plan.fewest_asked} of the others"
        remedy = "Bring more clients, lower secure_aggregation.min_cohort, or write 0"
        raise PlanError([Fault("calibration.held_back", problem, remedy)], source=plan.name)


def scored_participations(plan: FederationPlan) -> int:
    """Rounds in which one client may score the model, at the most."""
    every, most = plan.evaluation.federated_every_rounds, plan.rounds.max_participations or plan.rounds.count
    evaluated = 0 if every is None else min(most, plan.rounds.count // every)
    return max(evaluated, int(plan.calibration.held_back > 0))


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
    others: Events = ()
    if steps is None:
        scored = scored_participations(plan)
        steps = _participations(plan) * steps_per_round(plan) + scored * plan.inner.steps
        others = tuple(replace(event, steps=scored) for event in _release_of_scores(plan) if scored)
    return noise_multiplier_for(
        privacy.epsilon, privacy.delta, plan.inner.sample_rate, steps, privacy.accountant, others
    )


def planned_client_noise(plan: FederationPlan) -> float | None:
    """The noise multiplier of the client-level unit: a sum's noise over S, for all that a client sends in a round.

    Raises:
        PrivacyError: A target epsilon needs ``rounds.max_participations``, and it is not stated.
    """
    client = plan.client_privacy
    if not plan.client_private:
        return None
    if client.epsilon is None:
        return client.noise_multiplier
    return noise_multiplier_for(client.epsilon, client.delta, 1.0, _participations(plan), CLIENT_ACCOUNTANT)


def update_noise_multiplier(plan: FederationPlan) -> float | None:
    """The part of :func:`planned_client_noise` that is on the updates; the rest is on the count of unclipped ones.

    Source: Andrew et al. 2021, theorem 1: ``z^-2 = update^-2 + (2 * count_noise)^-2``.

    Raises:
        PrivacyError: The count alone would spend it all.
    """
    total = planned_client_noise(plan)
    if total is None or not plan.adapts_clip:
        return total
    count = 2 * plan.client_privacy.count_noise
    if total >= count:
        raise PrivacyError(
            "the count of unclipped updates alone would spend more than the client-level account allows",
            where="client_privacy.count_noise",
            remedy=f"raise it above {total / 2:.3g}",
        )
    return float((total**-2 - count**-2) ** -0.5)


def planned_event(plan: FederationPlan) -> SampledGaussian | None:
    """What a client spends on training in a round of the plan; None without privacy."""
    noise_multiplier = planned_noise_multiplier(plan)
    if noise_multiplier is None:
        return None
    return SampledGaussian(noise_multiplier, plan.inner.sample_rate, steps_per_round(plan))


def training_spending(plan: FederationPlan) -> Spending:
    """The cost of training for one round; without privacy, steps without noise, whose epsilon is infinite."""
    event = planned_event(plan) or SampledGaussian(0.0, plan.inner.sample_rate, steps_per_round(plan))
    return Spending(example=(event,))


def scores_spending(plan: FederationPlan) -> Spending:
    """The cost of scoring the model once, before and after adapting it: of the adaptation, and of the sums released."""
    adaptation = replace(training_spending(plan).example[0], steps=plan.inner.steps)
    return Spending(example=compose([adaptation, *_release_of_scores(plan)]))


def sum_spending(plan: FederationPlan) -> Spending:
    """The cost, at the client-level unit, of taking part in one secure sum."""
    noise_multiplier = planned_client_noise(plan)
    return Spending() if noise_multiplier is None else Spending(client=(SampledGaussian(noise_multiplier, 1.0, 1),))


def run_spending(plan: FederationPlan) -> Spending:
    """What a client spends when it takes part as often as it may.

    Raises:
        PrivacyError: ``rounds.max_participations`` is not stated.
    """
    often = _participations(plan)
    total = training_spending(plan).times(often) + sum_spending(plan).times(often)
    scored = scored_participations(plan)
    return total + scores_spending(plan).times(scored) if scored else total


def _release_of_scores(plan: FederationPlan) -> Events:
    return (SampledGaussian(plan.evaluation.federated_noise_multiplier or 0.0, 1.0, 1),)


def _participations(plan: FederationPlan) -> int:
    if plan.rounds.max_participations is None:
        raise PrivacyError(
            "a target epsilon needs the number of rounds that one client may take part in",
            where="rounds.max_participations",
            remedy="state it: rounds.count * rounds.cohort_size / clients, rounded up",
        )
    return plan.rounds.max_participations
