"""Any CSV table with a client and a target column as a federation; completes a plan that leaves columns open.

Reading and encoding are the data owner's own code (testudo_client.data), so that a simulation sees what an
owner would. Inference of columns is in columns.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from testudo_client.data import examples_of_rows, model_shape
from testudo_client.table import Table, order_rows, read_table
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import TableData
from testudo_simulations.federations.base import Federation
from testudo_simulations.federations.clients import (
    assemble,
    check_enough,
    encode_clients,
    group_rows,
    in_order,
)
from testudo_simulations.federations.columns import resolve_table
from testudo_simulations.federations.complete import complete_plan
from testudo_simulations.federations.split import split_each_class, split_unseen


def load(plan: FederationPlan, data: TableData, path: Path) -> Federation:
    """Read the federation and complete its plan; the same file and plan give the same digest.

    Without ``data.columns``, every column is an input, except client, target, order, and those that say the
    same of every row. A client with a cell that cannot be used is left out by name.

    Args:
        plan: A classification or regression plan.
        data: Its data section.
        path: The CSV, ``.gz`` or not.

    Returns:
        Examples as ``examples_of_rows`` makes them, each client's sorted by ``data.order`` if there is one.
        Unseen clients of a classification adapt on the first half of every class and are scored on the rest.

    Raises:
        DataError: The file, one of its columns, or too many of its clients cannot be used.
        PlanError: The plan states another shape for the model.
    """
    table = read_table(path)
    named = [data.client, data.target, data.order, *(column.name for column in data.columns or ())]
    table.require([name for name in named if name is not None])
    groups, excluded = group_rows(table, data.client, data.min_rows)
    # before a look at any other column: who is unseen must not depend on whose cells are clean
    unseen = split_unseen(groups, data.unseen_share)
    # twice: clients that do not fit the columns most suggest must leave no trace in the plan
    draft = _resolve(data, plan.task.kind, groups, unseen)
    examples, failed = encode_clients(groups, partial(_encode, draft, plan.task.kind))
    usable = {client: groups[client] for client in examples}
    excluded += failed
    training = sum(client not in unseen for client in usable)
    check_enough(training, len(usable) - training, excluded, str(path))
    section = _resolve(data, plan.task.kind, usable, unseen)
    inputs, outputs = model_shape(section, plan.task.kind)
    return assemble(
        complete_plan(plan, inputs, outputs, section),
        usable,
        unseen,
        partial(_encode, section, plan.task.kind),
        excluded,
        where=str(path),
        source=f"table {path.name}",
        split=split_each_class if plan.task.kind == "classification" else in_order,
    )


def _resolve(data: TableData, kind: str, groups: Mapping[str, Table], unseen: frozenset[str]) -> TableData:
    training = [rows for client, rows in groups.items() if client not in unseen]
    return resolve_table(data, kind, training, list(groups.values()))


def _encode(data: TableData, kind: str, rows: Table) -> Examples:
    return examples_of_rows(data, kind, order_rows(rows, data.order) if data.order else rows)
