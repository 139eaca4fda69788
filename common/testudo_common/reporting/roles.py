"""Who may do what in a federation, and what this report can say about who does it here. Grants nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from testudo_common.markup import Markup, table, tag
from testudo_common.reporting.page import section

ROLES: Final = (
    ("Data owner", "policy; key for approvals, if there is one", "allow, approve, withdraw", ""),
    (
        "Operator of the node", "the folder with the node's keys", "run, fetch, renew; stop the node",
        "approve a plan, or loosen the policy unnoticed",
    ),
    ("Auditor", "the federation's public key; may read the folder", "verify the log, read ledger and statements",
     "sign or spend anything"),
    ("Operator of the server", "the federation's folder", "admit, revoke, run",
     "train on an owner's data without its approval; see one update by itself under secure aggregation"),
)  # fmt: skip


def roles_section(here: Mapping[str, str]) -> Markup:
    """The table on a page.

    Args:
        here: Role -> what is known of it here, in a sentence; a role without one is shown as not known.
    """
    rows = [[name, holds, can, cannot or "–", here.get(name, "not known here")] for name, holds, can, cannot in ROLES]
    head = ["Role", "Holds", "Can", "Cannot", "Here"]
    said = tag("p", "One person can be all of them; where they are not, they need not trust each other.")
    return section("Who may do what", said, table(head, rows, caption="Roles", numbers=range(0)), anchor="roles")
