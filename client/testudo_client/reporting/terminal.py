"""An owner's report in the terminal: what comes first, then a line for each of the rest. Meant for 80 columns.

Names come from tables and from other parties: every text is stripped of control characters, and none is markup.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from testudo_client.judging.results import Evaluation
from testudo_client.reporting.card import metrics_line, scores_line
from testudo_client.reporting.values import OwnerReport
from testudo_client.reporting.watched import MEANINGS
from testudo_common.audit.wording import counted
from testudo_common.reporting import shown
from testudo_common.reporting.screen import Screen


def print_report(report: OwnerReport, console: Console, *, glance_only: bool = False) -> None:
    """Print the report.

    Args:
        report: Of one owner.
        console: Where to; its width and encoding are kept to.
        glance_only: Only what a small business reads.
    """
    screen, told = Screen(console), report.glance
    console.print()
    console.print(screen.rule(f"Report of {report.owner}", heavy=True))
    console.print(Padding(screen.text(told.headline, "bold"), (1, 0)))
    numbers = Table.grid(padding=(0, 2))
    numbers.add_column(justify="right", no_wrap=True)
    numbers.add_column()
    for one in told.numbers:
        numbers.add_row(screen.text(one.shown, "bold"), screen.text(one.name))
    console.print(numbers)
    console.print()
    rows = list(_glance(report)) + ([] if glance_only else list(_rest(report)))
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    for name, said in rows:
        grid.add_row(screen.text(name, "bold"), screen.text(said))
    console.print(grid)


def _glance(report: OwnerReport) -> Iterator[tuple[str, str]]:
    told = report.glance
    if told.sure is not None:
        shares = (("sure", told.sure.sure), ("likely", told.sure.likely), ("not sure", told.sure.not_sure))
        known = shares[1:] if report.model is not None and report.model.task == "regression" else shares
        said = ", ".join(f"{name} {100 * share:.0f} %" for name, share in known)
        yield "How sure", f"{said}, of {told.sure.answers:,} answers at {100 * told.sure.level:.0f} %"
    yield "What left", told.left
    for place, line in enumerate(told.advice):
        yield "To do" if place == 0 else "", line


def _rest(report: OwnerReport) -> Iterator[tuple[str, str]]:
    for place, one in enumerate(report.versions[:3]):
        used = ", in use" if one.in_use else ""
        yield "Versions" if place == 0 else "", f"{one.id}{used}: {one.reason}"
    if report.model is not None and report.model.outcomes is not None:
        found = report.model.outcomes
        yield "In use", f"{metrics_line(found.metrics)}, of {found.answers} outcomes"
    if report.watch is not None:
        checks = counted(report.watch.checks, "check")
        yield "Watch", f"{report.watch.state}, after {checks}: {MEANINGS.get(report.watch.state, report.watch.state)}"
    if report.evaluation is not None:
        other = ", of another model" if report.evaluation_of_other else ""
        passed = ", not let through by the gate" if not report.evaluation.passed else ""
        yield (
            "Evaluation",
            _evaluation(report.evaluation) + other + passed,
        )
    if report.spent is not None:
        for place, room in enumerate(report.spent.ceilings):
            spent = f"{shown.epsilon(room.spent)} of {room.allowed:g} for one {room.unit} ({room.name})"
            yield "Epsilon" if place == 0 else "", spent
    for log in report.logs:
        holds = "holds" if log.holds else "DOES NOT HOLD"
        yield (
            "Audit log",
            f"{log.plan or log.origin or log.file}: {log.entries} entries, {log.receipts} receipts, {holds}",
        )
    refused = "; ".join(f"{one.reason.replace('_', ' ')} ({one.times})" for one in report.refused)
    yield "Refused", refused or "nothing"
    empty = [line.id for line in report.rmf if not line.evidence]
    yield "NIST RMF", f"{len(report.rmf) - len(empty)} of {len(report.rmf)} lines have evidence"
    for problem in report.problems:
        yield "Not read", f"{problem.part}: {problem.sentence}"


def _evaluation(found: Evaluation) -> str:
    worse = sum(one.verdict == "worse" for one in found.slices)
    slices = f"; {worse} of {len(found.slices)} slices do worse than the rest" if found.slices else ""
    last = found.tables[-1] if found.tables else None
    scores = "" if last is None else f"{scores_line({found.headline: last.metrics[found.headline]})}, {last.rows} rows"
    return f"{scores}{slices}"
