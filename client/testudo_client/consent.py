"""Whether this owner consents to a plan, asked anew in every round: what its policy and its ledger say at that moment.

Another process may have changed the policy or withdrawn the plan since the round before. Reads no data.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from testudo_client.approvals import check_approved
from testudo_client.home import OwnerHome
from testudo_client.ledger import Ceiling, Ledger, utc_now
from testudo_client.policy.ceilings import ceilings_of
from testudo_client.policy.check import refuse
from testudo_client.policy.findings import NOTHING_KNOWN, Launch
from testudo_client.policy.sections import OwnerPolicy
from testudo_common.plan import FederationPlan


class Consent(Protocol):
    """What a participant asks before it touches data."""

    def check(self) -> None:
        """Return only if the owner consents now.

        Raises:
            PolicyError: The policy does not allow the plan, or there is none.
            ApprovalError: The plan is not approved, or not any more.
            LedgerError: The ledger cannot be trusted.
            KeyFileError: The owner's key, or the federation's, cannot be used.
        """

    def ceilings(self) -> tuple[Ceiling, ...]:
        """What the accounts may hold at the most, by the policy that was checked last; raises as :meth:`check` does."""


class OwnerConsent:
    """Consent by what lies in an owner's folder.

    Args:
        home: The folder.
        plan: The copy installed here.
        client_id: The name under which this owner takes part.
        ledger: The owner's, where it is open already.
        launch: What whoever started this knows.
        now: The clock.
    """

    def __init__(
        self,
        home: OwnerHome,
        plan: FederationPlan,
        client_id: str,
        *,
        ledger: Ledger | None = None,
        launch: Launch = NOTHING_KNOWN,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._home, self._plan, self._client_id = home, plan, client_id
        self._ledger, self._launch, self._now = ledger, launch, now
        self._checked: OwnerPolicy | None = None

    def check(self) -> None:
        """See :class:`Consent`."""
        self._checked = None
        self._checked = self._check()

    def _check(self) -> OwnerPolicy:
        policy = self._home.policy()
        here = self._home.circumstances(self._client_id, self._now(), plan=self._plan, launch=self._launch)
        refuse(policy, self._plan, here, source=str(self._home.policy_file))
        entries = self._ledger_under(policy).entries()
        check_approved(entries, self._home.approving_key(policy), self._plan, policy)
        return policy

    def ceilings(self) -> tuple[Ceiling, ...]:
        """See :class:`Consent`."""
        return ceilings_of(self._checked or self._check(), self._plan)

    def _ledger_under(self, policy: OwnerPolicy) -> Ledger:
        if self._ledger is None:
            self._ledger = self._home.ledger(policy)
        return self._ledger
