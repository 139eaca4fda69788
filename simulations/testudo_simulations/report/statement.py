"""The federation's privacy statement on the page: one closed block a setting, to be handed on."""

from __future__ import annotations

from collections.abc import Sequence

from testudo_common.markup import Markup, join, tag
from testudo_common.privacy.statement import PrivacyStatement, UnitAccount, shown_epsilon
from testudo_simulations.report import wording
from testudo_simulations.report.summaries import SettingSummary


def statements(settings: Sequence[SettingSummary]) -> Markup:
    """The statement of the first run of each setting; its seeds have the same plan but for the seed."""
    return join(*(_statement(wording.place(one), PrivacyStatement.of_json(one.runs[0].statement)) for one in settings))


def _statement(place: str, statement: PrivacyStatement) -> Markup:
    parts = [tag("p", f"Subject: {statement.subject}. Plan {statement.plan_name}, digest {statement.plan_digest}.")]
    parts += [_account(account) for account in statement.accounts]
    for title, sentences in (
        ("No guarantee", statement.unprotected),
        ("Secure aggregation", statement.sums),
        ("Not covered", statement.not_covered),
    ):
        if sentences:
            parts += [tag("h4", title), tag("ul", *(tag("li", sentence) for sentence in sentences))]
    return tag("details", tag("summary", f"Privacy statement: {place}"), *parts)


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
    title = f"One {account.unit}: epsilon {shown_epsilon(account.epsilon)} at delta {wording.delta(account.delta)}"
    return join(tag("h4", title), tag("ul", *(tag("li", line) for line in lines)))
