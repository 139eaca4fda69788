"""The audit log on the page: what it holds, what one owner keeps of it, and how to check it. Verifies nothing."""

from __future__ import annotations

from collections.abc import Sequence

from testudo_common.audit.checkpoints import colluders_found
from testudo_common.markup import Markup, block, table, tag
from testudo_common.reporting import shown
from testudo_common.reporting.page import details, section
from testudo_simulations.report import wording
from testudo_simulations.report.summaries import SettingSummary
from testudo_simulations.results import AuditSummary

Settings = Sequence[SettingSummary]

EXPLAINED = (
    "Whatever the server decided is an entry of an append-only log. Every client mirrors it, replays it by the plan's "
    "rules, and trains only on a checkpoint that a quorum of the clients has cosigned. So the server can neither "
    "change an entry afterwards nor show two clients two histories without being found out, unless too many of them "
    "collude with it. The log proves what was said and when, not that it is true. Nothing of a single client's data is "
    "in it."
)
BY_RDP = (
    "The log states epsilon by RDP, which anybody can recompute. Where the plan's accountant is a tighter one, the "
    "same spending comes to less under Privacy above."
)
NONE = "There is no audit log: nobody can check afterwards what the server did."
_FIRST_ROUNDS, _LAST_ROUNDS = 3, 2  # of a client's receipts, where it has many


def audit(settings: Settings) -> Markup:
    """The section."""
    logged = [(setting, setting.audit) for setting in settings if setting.audit is not None]
    if not logged:
        return section("The audit log", tag("p", NONE), anchor="audit")
    columns = [_facts(one) for _, one in logged]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    head = ["", *(wording.place(setting) for setting, _ in logged)]
    without = [wording.place(setting) for setting in settings if setting.audit is None]
    parts = [tag("p", EXPLAINED), table(head, rows, caption="What the log holds", numbers=range(0))]
    if any(one.epsilon is not None for _, one in logged):
        parts.append(tag("p", BY_RDP))
    if without:
        parts.append(tag("p", f"Without a log: {'; '.join(without)}."))
    if any(len(setting.runs) > 1 for setting, _ in logged):
        parts.append(
            tag("p", "Each run has a log of its own; shown is that of one run of each setting.", class_="note")
        )
    parts += [_receipts(wording.place(setting), one) for setting, one in logged]
    return section("The audit log", *parts, anchor="audit")


def _facts(audit: AuditSummary) -> dict[str, str]:
    """What one log says, by name, in the order of the table."""
    found = colluders_found(audit.witnesses, audit.quorum)
    guarded = f"{max(found, 0)} colluders are found out, {audit.witnesses - audit.quorum} may be absent"
    return {
        "Log": tag("code", audit.origin),
        "Entries": f"{audit.entries}, {audit.rounds} rounds closed",
        "Root": tag("code", audit.root),
        "Quorum": f"{audit.quorum} of {audit.witnesses} witnesses; {guarded}",
        "Cosigners": wording.cosigned(audit),
        "Epsilon of an example, by RDP": _epsilon(audit.epsilon),
        "Epsilon of a client, by RDP": _epsilon(audit.client_epsilon),
        "Incidents": "; ".join(f"entry {index}: {kind.replace('_', ' ')}{' ' * bool(note)}{note}"
                               for index, kind, note in audit.incidents) or "none",
        "Cost": "; ".join(wording.audit_cost(audit)),
        "Replay": "nothing wrong" if audit.verified else wording.first_failure(audit),
    }  # fmt: skip


def _epsilon(value: float | None) -> str:
    return shown.MISSING if value is None else shown.epsilon(value)


def _receipts(place: str, audit: AuditSummary) -> Markup:
    """What the client that was asked most often keeps, and how anybody checks it."""
    checks = tag("ul", *(tag("li", line) for line in audit.checks))
    parts = [tag("p", "The run's own log, replayed at its end:"), checks]
    if audit.receipts:
        many = len(audit.receipts) > _FIRST_ROUNDS + _LAST_ROUNDS + 1
        shown = [*audit.receipts[:_FIRST_ROUNDS], *audit.receipts[-_LAST_ROUNDS:]] if many else audit.receipts
        rows = [
            [str(one.round), str(one.index), str(one.cosigners), "yes" if one.verified else "NO", tag("code", one.file)]
            for one in shown
        ]
        caption = f"Receipts of {audit.client}, the client asked most often"
        if many:
            caption += f": the first {_FIRST_ROUNDS} and the last {_LAST_ROUNDS} of {len(audit.receipts)}"
        head = ["Round", "Entry", "Cosigners", "Verified", "File"]
        parts.append(table(head, rows, caption=caption, numbers=range(1, 3)))
    parts.append(tag("p", "Anybody can check all of it, with the log, the federation's key and no server:"))
    parts.append(tag("pre", tag("code", block("\n".join(_commands(audit)))), tabindex="0"))
    return details(f"Receipts and how to check them: {place}", *parts)


def _commands(audit: AuditSummary) -> list[str]:
    """To be run in the run's folder."""
    command = "testudo-client audit verify audit.tlog --federation-key keys/federation.pub"
    lines = ["# in the run's folder", command]
    if audit.receipts:
        lines.append(f"{command} --receipt {audit.receipts[-1].file}")
    return [*lines, "testudo-client audit show audit.tlog"]
