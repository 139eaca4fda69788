"""What a plan costs its owner a round, and which ceilings it sets itself. From the plan alone, without the ledger."""

from __future__ import annotations

from testudo_client.ledger.account import Ceiling
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import Spending, Unit
from testudo_common.privacy.planned import CLIENT_ACCOUNTANT, sum_spending, training_spending


def round_spending(plan: FederationPlan) -> Spending:
    """The price of one round of training: of the steps, and of taking part in the sum.

    Raises:
        PrivacyError: A target epsilon needs ``rounds.max_participations``.
    """
    return training_spending(plan) + sum_spending(plan)


def plan_ceilings(plan: FederationPlan) -> tuple[Ceiling, ...]:
    """The target epsilons that the plan states, each over what was reserved under this plan."""
    found = []
    privacy, client = plan.privacy, plan.client_privacy
    if privacy.unit != "none" and privacy.epsilon is not None:
        found.append(
            Ceiling("privacy.epsilon", Unit.EXAMPLE, privacy.epsilon, privacy.delta, privacy.accountant, plan.digest)
        )
    if client.epsilon is not None:
        found.append(
            Ceiling("client_privacy.epsilon", Unit.CLIENT, client.epsilon, client.delta, CLIENT_ACCOUNTANT, plan.digest)
        )
    return tuple(found)
