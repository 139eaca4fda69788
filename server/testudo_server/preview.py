"""What a plan will cost, before anybody trains: privacy of one client, bytes of one round. Touches no data."""

from __future__ import annotations

from testudo_common.learning.learner import Learner
from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import SampledGaussian
from testudo_common.privacy.planned import participations_for, planned_noise_multiplier, steps_per_round


def preview(plan: FederationPlan, clients: int | None) -> dict[str, str | int | float | None]:
    """Figures of a plan; None where the plan leaves open what they depend on.

    Args:
        plan: Checked.
        clients: How many will take part; needed where the plan does not state ``rounds.max_participations``.

    Raises:
        ModelError: The plan's model cannot be built.
        PrivacyError: No noise is enough for the plan's epsilon.
    """
    rounds = plan.rounds
    participations = rounds.max_participations
    if participations is None and clients is not None:
        participations = participations_for(plan, clients)
        plan = plan.model_copy(update={"rounds": rounds.model_copy(update={"max_participations": participations})})
    modelled = plan.model.inputs is not None and plan.model.outputs is not None
    size = Learner(plan).size if modelled else None
    noise_multiplier = planned_noise_multiplier(plan) if participations is not None else plan.privacy.noise_multiplier
    epsilon = None
    if noise_multiplier and participations is not None:
        spent = SampledGaussian(noise_multiplier, plan.inner.sample_rate, participations * steps_per_round(plan))
        epsilon = round(epsilon_of([spent], plan.privacy.delta, plan.privacy.accountant), 4)
    return {
        "name": plan.name,
        "digest": plan.digest,
        "rounds": rounds.count,
        "rounds_of_one_client": participations,
        "shared_parameters": size,
        "bytes_down_a_client_and_round": None if size is None else 4 * size,
        "bytes_up_a_client_and_round": None if size is None else 4 * size,
        "privacy_unit": plan.privacy.unit,
        "epsilon_of_one_client": epsilon,
        "delta": plan.privacy.delta if plan.private else None,
        "noise_multiplier": noise_multiplier,
        "accountant": plan.privacy.accountant if plan.private else None,
    }
