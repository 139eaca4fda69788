"""``testudo-client inspect``: an owner's table against a plan's columns, before anything is trained. Sends nothing.

Reads; writes only into the owner's folder where one is named: the profile, and an empty data card where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testudo_client.data import encode_inputs, encode_targets, line_of, model_shape, order_rows, rows_of_owner
from testudo_client.quality import column_checks, row_checks
from testudo_client.quality.card import FILE as CARD_FILE
from testudo_client.quality.card import DataCard, keep_template, read_data_card
from testudo_client.quality.findings import Finding, Severity, of_error
from testudo_client.quality.profile import Profile, profile_of, write_profile
from testudo_client.table import CellFault, Table, read_table
from testudo_common.errors import DataError, Fault, PlanError, UsageError
from testudo_common.learning.columns import columns_of_table
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import TableData

DEFAULT_SHOTS = 5
FEW_ROWS = 20


@dataclass(frozen=True, slots=True)
class InspectRequest:
    """What was asked.

    Attributes:
        data: The owner's table, a CSV file.
        folder: The owner's, for profile and data card; None: nothing is written.
        plan: A plan's file; None with ``meta_model``, or to take that of the own model in use.
        meta_model: A published meta-model, which holds its plan.
        client: Only this client's rows.
        shots: Rows a class that are meant to be adapted on.
    """

    data: Path
    folder: Path | None = None
    plan: Path | None = None
    meta_model: Path | None = None
    client: str | None = None
    shots: int = DEFAULT_SHOTS


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        plan: Name of the plan.
        data: The file.
        rows: Of this owner; 0 where the file is no table.
        findings: The worst first.
        profile: Where it was written; None where it was not.
        card: The owner's data card; None where no folder was named.
    """

    plan: str
    data: str
    rows: int
    findings: tuple[Finding, ...]
    profile: Path | None
    card: DataCard | None

    @property
    def stops(self) -> bool:
        """Whether nothing can be trained with this table."""
        return any(finding.severity is Severity.STOP for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; no value of a cell is in it."""
        return {
            "plan": self.plan,
            "data": self.data,
            "rows": self.rows,
            "usable": not self.stops,
            "findings": [finding.as_dict() for finding in self.findings],
            "profile": None if self.profile is None else str(self.profile),
            "data_card": None if self.card is None else {"digest": self.card.digest, "empty": list(self.card.empty)},
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.data} against the plan {self.plan!r}: {self.rows} rows."
        yield from map(str, self.findings)
        counts = [(sum(one.severity is level for one in self.findings), level) for level in Severity]
        told = ", ".join(f"{count} {level}" for count, level in counts if count)
        verdict = "It cannot be used as it is" if self.stops else "It can be used"
        yield f"{verdict}: {told or 'nothing was found'}."
        if self.profile is not None:
            yield f"Profile, which stays here: {self.profile}"
        if self.card is not None:
            empty = ", ".join(self.card.empty)
            yield f"Data card {CARD_FILE}: {'still empty: ' + empty if empty else 'complete'}."
            yield f"Its digest, which may be logged: {self.card.digest}"


def inspect(request: InspectRequest) -> Inspection:
    """Look at a table, and keep its profile where a folder was named and the table can be used.

    Raises:
        UsageError: No plan, or two; the folder is not there; the data card is none.
        PlanError: The plan has no table, or is not complete.
    """
    plan = _plan_of(request)
    if not isinstance(plan.data, TableData):
        problem = f"{plan.data.federation!r} has no table of a data owner"
        raise PlanError([Fault("data.federation", problem, 'Write "csv"')], source=plan.name)
    model_shape(plan.data, plan.task.kind)  # raises for a plan that is not complete
    if request.folder is not None:
        keep_template(request.folder)
    card = None if request.folder is None else read_data_card(request.folder)
    table: Table | None = None
    profile: Profile | None = None
    try:
        table = rows_of_owner(read_table(request.data), plan.data.client, request.client)
        found = list(findings_of(plan, plan.data, table, request.shots))
        profile = profile_of(plan, plan.data, table)
    except DataError as error:
        found = [of_error(error, "file")]
    kept = None
    if profile is not None and request.folder is not None and not _stop(found):
        kept = write_profile(request.folder / "state", profile)
    order = list(Severity)
    found.sort(key=lambda finding: order.index(finding.severity))
    return Inspection(plan.name, str(request.data), 0 if table is None else len(table), tuple(found), kept, card)


def findings_of(plan: FederationPlan, data: TableData, table: Table, shots: int) -> Iterator[Finding]:
    """Every check of one owner's rows.

    Args:
        plan: Complete.
        data: Its table.
        table: Rows, in file order.
        shots: Rows a class that are meant to be adapted on.

    Raises:
        DataError: A column of the plan is missing.
    """
    columns = data.columns or ()
    table.require([data.target, *(column.name for column in columns), *([data.order] if data.order else [])])
    if len(table) < data.min_rows:
        yield Finding(
            Severity.STOP,
            "rows",
            f"{len(table)} rows, and the plan asks for {data.min_rows} (data.min_rows)",
            "Bring more rows, or stay out of this federation",
            count=len(table),
        )
    elif len(table) < FEW_ROWS:
        yield Finding(
            Severity.WARN,
            "rows",
            f"{len(table)} rows",
            "On so few, one row more or less changes what a model is worth by several points: bring more if you can",
            count=len(table),
        )
    if data.order:
        ordered = list(row_checks.order(table, data.order))
        yield from ordered
        if not _stop(ordered):
            table = order_rows(table, data.order)
    faults: list[CellFault] = []
    examples = Examples(encode_inputs(columns, table, faults), encode_targets(data, plan.task.kind, table, faults))
    yield from column_checks.unusable_cells(sorted(faults, key=line_of))
    for column in columns:
        for check in (column_checks.missing_cells, column_checks.constant, column_checks.far_off):
            yield from check(column, table)
        if data.order != column.name:
            yield from column_checks.row_number(column, table)
    if plan.task.kind == "classification":
        yield from row_checks.classes(examples, data.labels or (), data.target, shots)
    elif (examples.targets == examples.targets[0]).all():
        yield Finding(Severity.STOP, "target", "all rows have the same", "There is nothing to predict", data.target)
    if not faults:  # else rows would be alike that are not
        places = columns_of_table(columns)
        yield from row_checks.duplicates(examples, table)
        yield from row_checks.contradictions(examples, table)
        yield from row_checks.across_halves(examples, places, table)
        yield from row_checks.telling_columns(examples, places, data.target)


def _stop(found: list[Finding]) -> bool:
    return any(finding.severity is Severity.STOP for finding in found)


def _plan_of(request: InspectRequest) -> FederationPlan:
    if request.folder is not None and not request.folder.is_dir():
        raise UsageError("there is no such folder", where=str(request.folder), remedy="testudo-client init makes one")
    if request.plan is not None and request.meta_model is not None:
        raise UsageError("a plan and a meta-model, which has its own", remedy="leave one of the two out")
    if request.plan is not None:
        from testudo_common.plan.load import load_plan

        return load_plan(request.plan)
    if request.meta_model is not None:
        from testudo_common.publication import read_published

        return read_published(request.meta_model).plan
    if request.folder is not None:
        from testudo_client.personal.versions import VersionStore  # with torch

        store = VersionStore(request.folder)
        if store.current_id() is not None:
            return store.current().own.plan
    raise UsageError(
        "it is not known which columns to look for",
        remedy="add --plan PLAN, or --meta-model FILE; a folder with an own model needs neither",
    )
