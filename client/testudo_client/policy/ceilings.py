"""What an account may hold at the most, for the ledger: by the owner's policy, and by the plan's own promise."""

from __future__ import annotations

from testudo_client.ledger.account import Ceiling
from testudo_client.policy.sections import ExampleLimits, OwnerPolicy, UnitLimits
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import Unit
from testudo_common.privacy.planned import CLIENT_ACCOUNTANT


def ceilings_of(policy: OwnerPolicy, plan: FederationPlan) -> tuple[Ceiling, ...]:
    """All that hold for training under ``plan``: the policy's for a run and for life, and the plan's own target."""
    limits: dict[Unit, UnitLimits | None] = {Unit.EXAMPLE: policy.privacy.example, Unit.CLIENT: policy.privacy.client}
    found: list[Ceiling] = []
    for unit, limit in limits.items():
        if limit is None:
            continue
        key = f"privacy.{unit}"
        accountant = limit.accountant if isinstance(limit, ExampleLimits) else CLIENT_ACCOUNTANT
        run = Ceiling(f"{key}.epsilon_per_run", unit, limit.epsilon_per_run, limit.delta, accountant, plan.digest)
        found += [run, Ceiling(f"{key}.epsilon_for_life", unit, limit.epsilon_for_life, limit.delta, accountant)]
    return (*found, *plan_ceilings(plan))


def plan_ceilings(plan: FederationPlan) -> tuple[Ceiling, ...]:
    """The plan's own targets; none where it states a noise multiplier instead."""
    found = []
    own, client = plan.privacy, plan.client_privacy
    if own.epsilon is not None:
        found.append(Ceiling("privacy.epsilon", Unit.EXAMPLE, own.epsilon, own.delta, own.accountant, plan.digest))
    if client.epsilon is not None:
        found.append(
            Ceiling("client_privacy.epsilon", Unit.CLIENT, client.epsilon, client.delta, CLIENT_ACCOUNTANT, plan.digest)
        )
    return tuple(found)
