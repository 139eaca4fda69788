"""A privacy statement on a page: one closed block, to be handed on. Claims nothing that is not in the statement."""

from __future__ import annotations

from testudo_common.markup import Markup, join, tag
from testudo_common.privacy.statement import PrivacyStatement, UnitAccount, shown_epsilon
from testudo_common.reporting import shown
from testudo_common.reporting.page import details


def statement_block(title: str, statement: PrivacyStatement) -> Markup:
    """The statement, closed until asked for.

    Args:
        title: Of the block.
        statement: Of one owner, or of a federation.
    """
    parts = [tag("p", f"Subject: {statement.subject}. Plan {statement.plan_name}, digest {statement.plan_digest}.")]
    parts += [_account(account) for account in statement.accounts]
    for heading, sentences in (
        ("No guarantee", statement.unprotected),
        ("Secure aggregation", statement.sums),
        ("Not covered", statement.not_covered),
    ):
        if sentences:
            parts += [tag("h3", heading), tag("ul", *(tag("li", sentence) for sentence in sentences))]
    return details(title, *parts)


def _account(account: UnitAccount) -> Markup:
    allowed = "no ceiling in the plan" if account.allowed is None else f"{account.allowed:g} allowed"
    lines = (
        f"Spent: {shown_epsilon(account.epsilon)} by {account.accountant.upper()} ({allowed}), "
        f"{shown_epsilon(account.epsilon_by_rdp)} by RDP",
        f"Protects: {account.protects}",
        f"Neighbours: {account.neighbours}",
        f"Adversary: {account.adversary}",
        f"Sampling: {account.sampling}",
        *(f"Mechanism: {mechanism}" for mechanism in account.mechanisms),
    )
    title = f"One {account.unit}: epsilon {shown_epsilon(account.epsilon)} at delta {shown.delta(account.delta)}"
    return join(tag("h3", title), tag("ul", *(tag("li", line) for line in lines)))
