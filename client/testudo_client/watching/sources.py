"""Where a check's rows come from: what was served and turned out, or a CSV file of new rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from testudo_client.data import encode_inputs, encode_targets, line_of, rows_of_owner
from testudo_client.observations import FILE, Observations
from testudo_client.personal.in_use import row_digests
from testudo_client.personal.own_model import Answerer, Classes
from testudo_client.personal.versions import Version
from testudo_client.table import CellFault, is_absent, read_table, refuse
from testudo_client.watching.check import Asked
from testudo_common.errors import Fault as PlanFault
from testudo_common.errors import PlanError
from testudo_common.learning.tasks import Examples
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
        left_out: Rows of a file that the version was made from, and that say nothing of others.
    """

    asked: Asked
    last: int
    digest: str
    left_out: int = 0


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


def of_file(folder: Path, version: Version, path: Path, client: str | None) -> Batch:
    """Rows of a CSV file, answered by ``version``; outcomes are those whose target is there.

    Raises:
        DataError: The file cannot be used.
    """
    rows = rows_of_file(folder, version, path, client)
    inputs, known = rows.inputs[rows.fresh], rows.known[rows.fresh]
    outputs = answers(Answerer(version.own), inputs)
    asked = Asked(inputs, outputs, outputs[known], rows.targets[rows.fresh][known])
    left_out = int((~rows.fresh).sum())
    return Batch(asked, 0, hashlib.sha256(rows.inputs.tobytes()).hexdigest(), left_out)


@dataclass(frozen=True, slots=True)
class FileRows:
    """Rows of a file, encoded; never printed.

    Attributes:
        inputs: ``float32[n, d]``.
        targets: ``float64[n]``; 0 where it is not known.
        known: ``bool[n]``: whether the target is there.
        fresh: ``bool[n]``: whether the version was not made from it, as far as can be told: of a row without its
            target that cannot, and it counts as fresh.
    """

    inputs: npt.NDArray[np.float32] = field(repr=False)
    targets: npt.NDArray[np.float64] = field(repr=False)
    known: npt.NDArray[np.bool_]
    fresh: npt.NDArray[np.bool_]


def rows_of_file(folder: Path, version: Version, path: Path, client: str | None) -> FileRows:
    """Read a file as the version's plan does.

    Raises:
        DataError: The file cannot be used.
    """
    data, kind = table_of(version.own.plan), version.own.plan.task.kind
    table = rows_of_owner(read_table(path), data.client, client)
    columns, faults = data.columns or (), list[CellFault]()
    table.require(column.name for column in columns)
    inputs = encode_inputs(columns, table, faults)
    known = np.zeros(len(table), dtype=np.bool_)
    targets, fresh = np.zeros(len(table)), ~known
    if data.target in table.columns:
        known = np.array([not is_absent(cell) for cell in table.cells(data.target)])
        places = np.flatnonzero(known)
        told = Examples(inputs[places], encode_targets(data, kind, table.take(places.tolist()), faults))
        targets[places] = told.targets
        made_from = set(version.record.rows_digest)
        fresh[places] = [digest not in made_from for digest in row_digests(folder, told)] if made_from else True
    refuse(sorted(faults, key=line_of), table.source)
    return FileRows(inputs, targets, known, fresh)


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
