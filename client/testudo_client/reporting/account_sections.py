"""Sections of an owner's page on its data, on what left, and on what was spent and refused; from values to Markup."""

from __future__ import annotations

from testudo_client.reporting.values import OwnerReport, PlanLeft
from testudo_client.reporting.watched import MEANINGS
from testudo_common.markup import Markup, table, tag
from testudo_common.privacy.statement import PrivacyStatement
from testudo_common.reporting import shown
from testudo_common.reporting.page import details, section, unbroken
from testudo_common.reporting.statement import statement_block


def data(report: OwnerReport) -> Markup:
    """The owner's table, counted."""
    found = report.data
    if found is None:
        said = "The table was not inspected. testudo-client inspect counts and checks it, and keeps the result here."
        return section("Your data", tag("p", said), anchor="data")
    rows = [
        [one.name, one.role, f"{one.kind}{f', {one.unit}' if one.unit else ''}", f"{one.usable:,}", f"{one.missing:,}",
         f"{one.unusable:,}"]
        for one in found.columns
    ]  # fmt: skip
    head = ["Column", "Used as", "Kind", "Usable", "Missing", "Unusable"]
    made = table(head, rows, caption=f"{found.rows:,} rows of yours, counted", numbers=range(3, 6))
    return section("Your data", made, anchor="data")


def watch(report: OwnerReport) -> Markup:
    """Whether the model in use is still asked what it learnt from."""
    found = report.watch
    if found is None:
        said = "It is not watched yet: nobody would notice if what it is asked changed. testudo-client watch does that."
        return section("Watch", tag("p", said), anchor="watch")
    rows = [
        ["State", f"{found.state}: {MEANINGS.get(found.state, found.state)}"],
        ["Checks so far", str(found.checks)],
        ["Flagged in a row", str(found.flags)],
        ["Version at the last check", str(found.version)],
        ["False alarms", f"at most {100 * found.level:g} % of checks, while nothing drifts"],
    ]
    parts = [table(["", "Says"], rows, caption="At the last check", numbers=range(0))]
    if found.proposals:
        parts += [tag("h3", "Proposals of a round"), tag("ul", *(tag("li", one) for one in found.proposals))]
    return section("Watch", *parts, anchor="watch")


def left(report: OwnerReport) -> Markup:
    """What left this computer, a plan at a time."""
    parts: list[Markup] = [tag("p", unbroken(report.glance.left))]
    if report.left:
        rows = [
            [one.plan, str(one.rounds), str(one.attempts), str(one.scored), _bytes(one.bytes_up),
             _bytes(one.bytes_down), one.seen or "not known", _when(one)]
            for one in report.left
        ]  # fmt: skip
        head = ["Plan", "Rounds", "Attempts", "With scores", "Sent", "Received", "The server saw", "When"]
        caption = "As your ledger counts it; bytes are payload, for names of the federation's longest"
        parts.append(table(head, rows, caption=caption, numbers=range(1, 6)))
        parts += [_kinds(one) for one in report.left if one.kinds]
    return section("What left this computer", *parts, anchor="left")


def _when(one: PlanLeft) -> str:
    first, last = one.first[:10], one.last[:10]
    return first if first == last else f"{first} to {last}"


def _kinds(one: PlanLeft) -> Markup:
    rows = [[kind.name, kind.holds, shown.size(kind.bytes)] for kind in one.kinds]
    made = table(["Message", "Holds", "Bytes"], rows, caption=f"Sent in a round of {one.plan}", numbers=range(2, 3))
    return details(f"What is sent in a round of {one.plan}", made)


def _bytes(count: int | None) -> str:
    return "not known" if count is None else shown.size(count)


def ledger(report: OwnerReport) -> Markup:
    """What was spent of what is allowed, and the statements."""
    found = report.spent
    if found is None:
        return section("Privacy spent", tag("p", "There is no ledger: nothing was charged here."), anchor="ledger")
    rows = [
        [one.name, f"one {one.unit}", shown.epsilon(one.spent), shown.MISSING if one.allowed is None
         else f"{one.allowed:g}", shown.delta(one.delta), one.accountant.upper()]
        for one in (*found.ceilings, *found.plans)
    ]  # fmt: skip
    said = (
        "Epsilon says how much what left can tell of one example, or of all of you: smaller is stricter, and what is "
        "spent stays spent. The ceilings are your policy's."
    )
    head = ["Account", "Protects", "Epsilon spent", "Allowed", "Delta", "Accountant"]
    parts = [tag("p", said)]
    if rows:
        parts.append(table(head, rows, caption=f"{found.entries} entries in the ledger", numbers=range(2, 5)))
    else:
        parts.append(tag("p", f"{found.entries} entries in the ledger, and nothing spent."))
    blocks = [
        statement_block(f"Privacy statement: {one['plan_name']}", PrivacyStatement.of_json(one))
        for one in found.statements
    ]
    parts += [tag("p", line) for line in found.together]
    if blocks:
        parts.append(tag("div", *blocks, id="statements"))
    parts.append(tag("p", "Hash of the last entry: ", tag("code", found.head), class_="note"))
    return section("Privacy spent", *parts, anchor="ledger")


def refused(report: OwnerReport) -> Markup:
    """What was refused, by reason."""
    if not report.refused:
        return section("What was refused", tag("p", "Nothing, as far as your own log goes back."), anchor="refused")
    rows = [[one.reason.replace("_", " "), str(one.times), shown.moment(one.last), one.sentence]
            for one in report.refused]  # fmt: skip
    made = table(["Reason", "Times", "Last", "The last time"], rows, caption="From your own log", numbers=range(1, 2))
    return section("What was refused", made, anchor="refused")


def audit(report: OwnerReport) -> Markup:
    """What the server said it did, and whether that holds."""
    if not report.logs:
        said = "There is no mirror of an audit log: nobody can check here what the server did."
        return section("Audit log and receipts", tag("p", said), anchor="audit")
    rows = [
        [one.plan or one.origin or one.file, str(one.entries), str(one.rounds), str(one.receipts),
         "holds" if one.holds else tag("strong", "DOES NOT HOLD", class_="bad")]
        for one in report.logs
    ]  # fmt: skip
    said = (
        "Your mirror of each log was verified while this page was made, without the server: by its own rules, against "
        "what you signed, and with your receipts. It proves what the server said and that it kept to it."
    )
    head = ["Log of", "Entries", "Rounds", "Your receipts", "Verified"]
    parts = [tag("p", said), table(head, rows, caption="Audit logs", numbers=range(1, 4))]
    for one in report.logs:
        checks = [[outcome, name, detail] for outcome, name, detail in one.checks]
        made = table(["Outcome", "Check", "Detail"], checks, caption=f"Root {one.root}", numbers=range(0))
        parts.append(details(f"Checks: {one.plan or one.origin or one.file}", made))
    return section("Audit log and receipts", *parts, anchor="audit")


def cost(report: OwnerReport) -> Markup:
    """What it took here."""
    one = report.costs
    rows = [
        ["Attempts at rounds of a federation", str(one.attempts)],
        ["Sent", _bytes(one.bytes_up)],
        ["Received", _bytes(one.bytes_down)],
        ["Disk, your folder", shown.size(one.disk_bytes)],
    ]
    note = tag(
        "p",
        "Payload bytes; what was sent again in clear is counted once. Computing time and energy are not measured here.",
        class_="note",
    )
    return section("Cost", table(["", "Took"], rows, caption="What it took on this computer"), note, anchor="cost")


def problems(report: OwnerReport) -> Markup:
    """What could not be read; nothing where all could."""
    if not report.problems:
        return Markup("")
    rows = [[one.part, one.sentence] for one in report.problems]
    said = tag("p", "Nothing on this page rests on these parts.")
    made = table(["Part", "Why"], rows, caption="What could not be read", numbers=range(0))
    return section("What could not be read", said, made, anchor="problems")
