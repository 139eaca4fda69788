"""What an owner's policy says to its ledger, for ``testudo-client ledger``; nothing, where there is no policy yet."""

from __future__ import annotations

from pathlib import Path

from testudo_client.home import OwnerHome
from testudo_client.ledger import Ceiling
from testudo_client.policy.ceilings import policy_ceilings
from testudo_common.plan.load import load_plan


def ceilings_in(folder: Path, plan: Path | None) -> tuple[Ceiling, ...]:
    """The policy's ceilings: for life, and for a run of ``plan`` where one is named.

    Raises:
        PolicyError: There is a policy, and it cannot be used.
        PlanError: The plan cannot be used.
    """
    home = OwnerHome(folder)
    if not home.policy_file.exists():
        return ()
    return policy_ceilings(home.policy(), load_plan(plan) if plan is not None else None)


def anchors_in(folder: Path) -> tuple[Path, ...]:
    """Further places for the ledger's anchors.

    Raises:
        PolicyError: There is a policy, and it cannot be used.
    """
    home = OwnerHome(folder)
    return home.anchors(home.policy() if home.policy_file.exists() else None)
