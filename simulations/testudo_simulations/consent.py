"""The gate of simulated data owners: a ledger like a real owner's, and consent to everything. For simulations only.

A simulated owner has no policy, since whoever runs the simulation has all the data anyway. Its ledger holds the plan's
own ceilings, so that a simulation spends what a federation would.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from testudo_client.gate import Gate
from testudo_client.ledger import LEDGER_FILE, Ledger
from testudo_client.ledger.account import Ceiling
from testudo_client.ledger.planned import plan_ceilings
from testudo_common.plan import FederationPlan


class SimulatedConsent:
    """Allows whatever a plan asks, up to the plan's own ceilings.

    Args:
        plan: The plan.
    """

    def __init__(self, plan: FederationPlan) -> None:
        self._ceilings = plan_ceilings(plan)

    def check(self) -> None:
        """Allow it."""

    def ceilings(self) -> tuple[Ceiling, ...]:
        """The plan's."""
        return self._ceilings


def simulated_ledger(folder: Path | None) -> Ledger:
    """The ledger of one simulated client, in its folder, without waiting for the disk; None: in memory."""
    return Ledger(None if folder is None else folder / Path(LEDGER_FILE).name, durable=False)


def simulated_gate(plan: FederationPlan, client: str, ledger: Ledger) -> Gate:
    """The gate of one simulated client.

    Args:
        plan: Complete.
        client: Its id, which also names its data: they never change.
        ledger: Its own.
    """
    fingerprint = hashlib.sha256(client.encode()).hexdigest()
    return Gate(plan, ledger, SimulatedConsent(plan), fingerprint)
