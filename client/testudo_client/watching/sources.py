"""Where a check's rows come from: what was served and turned out, or a CSV file of new rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from testudo_client.data import encode_inputs, encode_targets, line_of, rows_of_owner
from testudo_client.observations import FILE, Observations
from testudo_client.personal.own_model import Answerer, Classes
from testudo_client.personal.versions import Version
from testudo_client.table import CellFault, Table, is_absent, read_table, refuse
from testudo_client.watching.check import Asked
from testudo_common.errors import Fault as PlanFault
from testudo_common.errors import PlanError
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import TableData

MOST_ROWS = 2000  # newest questions since the last check
MOST_LABELLED = 500  # newest outcomes, whenever they were told


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to check.

    Attributes:
        asked: The rows.
        last: Number of the newest observation among them; 0 for a file.
        digest: SHA-256 of a file's rows, hex; empty for what was served.
    """

    asked: Asked
    last: int
    digest: str


def served(state: Path, version: int, seen: int) -> Batch:
    """What ``version`` was asked since observation ``seen``, and its newest outcomes.

    Raises:
        UsageError: The observations cannot be read.
    """
    if not (state / FILE).exists():
        nothing = np.empty((0, 0), dtype=np.float32)
        return Batch(Asked(nothing, nothing, nothing, np.empty(0)), seen, "")
    observations = Observations(state)
    try:
        newest = observations.since(0, most=1).last
        new = observations.since(seen if seen <= newest else 0, most=MOST_ROWS)  # another file counts from 1 again
        told = observations.since(0, labelled=True, most=MOST_LABELLED)
    finally:
        observations.close()
    own, known = new.versions == version, told.versions == version
    asked = Asked(new.inputs[own], new.outputs[own], told.outputs[known], told.targets[known])
    return Batch(asked, newest, "")


def of_file(version: Version, path: Path, client: str | None) -> Batch:
    """Rows of a CSV file, answered by ``version``; outcomes are those whose target is there.

    Raises:
        DataError: The file cannot be used.
    """
    data = table_of(version.own.plan)
    table = rows_of_owner(read_table(path), data.client, client)
    inputs = inputs_of(data, table)
    outputs = answers(Answerer(version.own), inputs)
    rows, targets = targets_of(data, version.own.plan.task.kind, table)
    return Batch(Asked(inputs, outputs, outputs[rows], targets), 0, hashlib.sha256(inputs.tobytes()).hexdigest())


def inputs_of(data: TableData, table: Table) -> npt.NDArray[np.float32]:
    """``float32[n, d]``.

    Raises:
        DataError: A column is missing, or a cell cannot be used.
    """
    columns = data.columns or ()
    table.require(column.name for column in columns)
    faults: list[CellFault] = []
    inputs = encode_inputs(columns, table, faults)
    refuse(sorted(faults, key=line_of), table.source)
    return inputs


def targets_of(data: TableData, task_kind: str, table: Table) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Rows whose target is there, ``intp[k]``, and it, ``float64[k]``; none where there is no such column.

    Raises:
        DataError: A target is there and cannot be used.
    """
    if data.target not in table.columns:
        return np.empty(0, dtype=np.intp), np.empty(0)
    rows = [row for row, cell in enumerate(table.cells(data.target)) if not is_absent(cell)]
    faults: list[CellFault] = []
    targets = encode_targets(data, task_kind, table.take(rows), faults) if rows else np.empty(0)
    refuse(faults, table.source)
    return np.array(rows, dtype=np.intp), targets.astype(np.float64)


def answers(answerer: Answerer, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``float32[n, C]`` calibrated probabilities or ``float32[n, 1]`` predictions, as observations keep them."""
    raw = answerer.raw(inputs)
    told = answerer.read(raw)
    return told.probabilities if isinstance(told, Classes) else raw[:, np.newaxis]


def table_of(plan: FederationPlan) -> TableData:
    """The plan's table.

    Raises:
        PlanError: It has none.
    """
    if isinstance(plan.data, TableData):
        return plan.data
    fault = PlanFault("data.federation", f"{plan.data.federation!r} has no table of a data owner", 'Write "csv"')
    raise PlanError([fault], source=plan.name)
