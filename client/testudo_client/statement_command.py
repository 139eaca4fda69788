"""``testudo-client statement``: this owner's privacy statements, of each plan that was charged, from its own ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testudo_client.approve_command import existing_home
from testudo_client.home import OwnerHome
from testudo_client.ledger import Entry, Reserved
from testudo_client.ledger.account import spent_on
from testudo_client.policy.ceilings import policy_ceilings
from testudo_common.errors import PlanError, UsageError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import load_plan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import Spending
from testudo_common.privacy.planned import run_spending
from testudo_common.privacy.statement import PrivacyStatement, shown_epsilon, statement_of


def owner_statements(folder: Path, plan: Path | None) -> tuple[list[PrivacyStatement], list[str]]:
    """The statements of one plan, or of all that were charged; and what all of them together spent, in sentences.

    Args:
        folder: The owner's.
        plan: Of which one is wanted; None: of each plan that the ledger knows and a copy of which is kept.

    Raises:
        UsageError: There is nothing to state.
        PolicyError, LedgerError: The policy or the ledger cannot be used.
    """
    home = existing_home(folder)
    policy = home.policy()
    entries = home.ledger(policy).entries()
    plans = [load_plan(plan)] if plan is not None else list(_plans(home, entries))
    if not plans:
        raise UsageError(
            "nothing was charged yet under a plan that was approved here",
            where=str(folder),
            remedy="name a plan by --plan to see what its statement would say",
        )
    return [_statement(one, entries, policy.client) for one in plans], list(_for_life(home, entries))


def as_json(statements: list[PrivacyStatement], together: list[str]) -> dict[str, Any]:
    """For a script."""
    return {"statements": [statement.as_json() for statement in statements], "together": together}


def _statement(plan: FederationPlan, entries: tuple[Entry, ...], client: str) -> PrivacyStatement:
    spent = spent_on(entries, "", plan.digest)
    if spent == Spending():
        return statement_of(plan, run_spending(plan), subject=f"{client}, if it takes part as often as it may")
    return statement_of(plan, spent, subject=client)


def _plans(home: OwnerHome, entries: tuple[Entry, ...]) -> Iterator[FederationPlan]:
    """The charged plans of which the owner kept a copy, in the order in which they were first charged."""
    contents = [entry.content for entry in entries]
    charged = dict.fromkeys(content.occasion.plan_digest for content in contents if isinstance(content, Reserved))
    for digest in charged:
        try:
            plan = load_plan(home.approved / f"{digest}.toml")
        except PlanError:
            continue
        if plan.digest == digest:
            yield plan


def _for_life(home: OwnerHome, entries: tuple[Entry, ...]) -> Iterator[str]:
    """Everything in the ledger together, against each ceiling for life: over all data, so never too little."""
    spendings = [entry.content.spending for entry in entries if isinstance(entry.content, Reserved)]
    total = sum(spendings, Spending())
    for ceiling in policy_ceilings(home.policy(), None):
        spent = epsilon_of(total.of(ceiling.unit), ceiling.delta, ceiling.accountant)
        yield (
            f"All plans together, one {ceiling.unit}: epsilon {shown_epsilon(spent)} of {ceiling.epsilon:g} at delta "
            f"{ceiling.delta:g} by {ceiling.accountant.upper()} ({ceiling.where})"
        )
