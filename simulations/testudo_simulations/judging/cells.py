"""The cells of the rows that unseen clients are scored on, to part those rows by: of federations that are a table.

The rows are split again as the federation split them, with their numbers in place of their inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from testudo_client.table import Table, order_rows, read_table
from testudo_common.errors import UsageError
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import ActivityData, RetailData, TableData
from testudo_simulations.federations.activity import SUPPORT_WINDOWS
from testudo_simulations.federations.base import Federation
from testudo_simulations.federations.split import split_each_class


def query_cells(federation: Federation, path: Path | None, columns: Sequence[str]) -> dict[str, list[str]]:
    """Column -> a cell for each row scored, one client after the other, as :mod:`asked` has them.

    Args:
        federation: With its plan.
        path: Of the table.
        columns: Any of the table, or none.

    Raises:
        UsageError: The federation is no table.
        DataError: There is no such column.
    """
    if not columns:
        return {}
    keys = _keys(federation.plan)
    if keys is None or path is None:
        raise UsageError(
            "this federation is no table, so its rows have no columns to be parted by",
            where="--slice",
            remedy="Leave it out",
        )
    client, order, target = keys
    table = read_table(path)
    table.require(columns)
    found: dict[str, list[str]] = {column: [] for column in columns}
    whose = table.cells(client)
    places: dict[str, list[int]] = {}
    for place, name in enumerate(whose):
        places.setdefault(name, []).append(place)
    for name, unseen in federation.unseen.items():
        own = table.take(places[name])
        rows = _query_rows(federation.plan, order_rows(own, order) if order else own, target)
        expected = len(
            unseen.query if unseen.query is not None else unseen.support.targets[_largest(federation.plan) :]
        )
        assert len(rows) == expected, name  # it was split as the federation was
        for column in columns:
            found[column] += rows.cells(column)
    return found


def _keys(plan: FederationPlan) -> tuple[str, str | None, str] | None:
    """Columns of client, order and target."""
    match plan.data:
        case TableData():
            return plan.data.client, plan.data.order, plan.data.target
        case RetailData():
            return "client", "week", "volume"
        case ActivityData():
            return "user", None, "class"
        case _:
            return None


def _largest(plan: FederationPlan) -> int:
    return max(plan.evaluation.shots)


def _query_rows(plan: FederationPlan, own: Table, target: str) -> Table:
    if plan.task.kind == "regression":
        return own.take(range(_largest(plan), len(own)))
    labels = np.unique(own.cells(target), return_inverse=True)[1].astype(np.int64)
    numbered = Examples(np.arange(len(own), dtype=np.float32)[:, None], labels)
    most = max(SUPPORT_WINDOWS, *plan.evaluation.shots)
    split = partial(split_each_class, most=most) if isinstance(plan.data, ActivityData) else split_each_class
    query = split(numbered).query
    assert query is not None
    return own.take(query.inputs[:, 0].astype(int).tolist())
