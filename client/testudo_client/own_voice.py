"""What a witness has to know of its owner: what it decided on the plan, and its ledger. Reads no data, signs nothing.

The ledger is a log of the owner's own (see testudo_client.ledger). Its head goes into what the owner signs for the
federation's log, so that a copy of the ledger that was put back is found out by whoever still has the longer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from testudo_client.approvals import last_decision
from testudo_client.home import OwnerHome
from testudo_client.ledger import Entry, Ledger
from testudo_common.errors import PolicyError
from testudo_common.plan import FederationPlan


@dataclass(frozen=True, slots=True)
class Decision:
    """What an owner decided last on a plan.

    Attributes:
        approves: Whether it takes part; it withdrew otherwise.
        number: How many decisions on this plan it made before.
    """

    approves: bool
    number: int


class OwnVoice(Protocol):
    """What a witness asks of its owner."""

    def decision(self) -> Decision | None:
        """What it decided last, where that holds now; None: nothing does.

        Raises:
            LedgerError: The ledger cannot be trusted.
        """

    def entries(self) -> Sequence[Entry]:
        """The owner's ledger, verified; raises as :meth:`decision` does."""


class LedgerVoice:
    """The owner whose folder this is.

    Args:
        home: The folder; its policy and its ledger are read anew each time.
        plan: The copy installed here.
        ledger: The owner's, where it is open already.
    """

    def __init__(self, home: OwnerHome, plan: FederationPlan, ledger: Ledger | None = None) -> None:
        self._home, self._plan, self._ledger = home, plan, ledger

    def decision(self) -> Decision | None:
        """See :class:`OwnVoice`: an approval holds under the policy that it was given for."""
        try:
            policy = self._home.policy()
        except PolicyError:
            policy = None
        found = last_decision(self.entries(), self._home.approving_key(policy), self._plan, policy)
        return None if found is None else Decision(*found)

    def entries(self) -> Sequence[Entry]:
        """See :class:`OwnVoice`."""
        if self._ledger is None:
            try:
                policy = self._home.policy()
            except PolicyError:
                policy = None
            self._ledger = self._home.ledger(policy)
        return self._ledger.entries()


class ConsentingVoice:
    """An owner that approves the plan without having to be asked. For simulations.

    Args:
        ledger: Its ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def decision(self) -> Decision | None:
        """It approves."""
        return Decision(approves=True, number=0)

    def entries(self) -> Sequence[Entry]:
        """See :class:`OwnVoice`."""
        return self._ledger.entries()
