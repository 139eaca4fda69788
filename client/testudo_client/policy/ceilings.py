"""What an account may hold at the most, for the ledger: by the owner's policy, and by the plan's own promise."""

from __future__ import annotations

from testudo_client.ledger.account import Ceiling
from testudo_client.ledger.planned import plan_ceilings
from testudo_client.policy.sections import ExampleLimits, OwnerPolicy, UnitLimits
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import Unit
from testudo_common.privacy.planned import CLIENT_ACCOUNTANT


def ceilings_of(policy: OwnerPolicy, plan: FederationPlan) -> tuple[Ceiling, ...]:
    """All that hold for training under ``plan``: the policy's for a run and for life, and the plan's own targets."""
    return (*policy_ceilings(policy, plan), *plan_ceilings(plan))


def policy_ceilings(policy: OwnerPolicy, plan: FederationPlan | None) -> tuple[Ceiling, ...]:
    """The policy's own: for a run of ``plan``, where one is given, and for life."""
    found: list[Ceiling] = []
    limits: dict[Unit, UnitLimits | None] = {Unit.EXAMPLE: policy.privacy.example, Unit.CLIENT: policy.privacy.client}
    for unit, limit in limits.items():
        if limit is None:
            continue
        key, delta = f"privacy.{unit}", limit.delta
        accountant = limit.accountant if isinstance(limit, ExampleLimits) else CLIENT_ACCOUNTANT
        if plan is not None:
            where = f"{key}.epsilon_per_run"
            found.append(Ceiling(where, unit, limit.epsilon_per_run, delta, accountant, plan.digest))
        found.append(Ceiling(f"{key}.epsilon_for_life", unit, limit.epsilon_for_life, delta, accountant))
    return tuple(found)
