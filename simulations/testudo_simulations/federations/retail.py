"""Weekly demand for a product, a retailer a client: log(volume) from display and log(price), weeks in order.

Source: Boatwright, McCulloch, Rossi 1999 (JASA 94), data set ``cheese`` of the R package bayesm (GPL >= 2),
as a CSV of client, week, volume (units), display (share in [0, 1]) and price (USD).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from testudo_client.table import Table, order_rows, read_table
from testudo_common.errors import DataError
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import RetailData
from testudo_simulations.federations.base import Federation
from testudo_simulations.federations.clients import assemble, group_rows
from testudo_simulations.federations.complete import complete_plan
from testudo_simulations.federations.split import split_unseen

COLUMNS = ("client", "week", "volume", "display", "price")
MIN_WEEKS = 8
# round numbers near the spread of public data, not statistics of these clients
DISPLAY_SCALE = 0.2
LOG_PRICE_CENTER, LOG_PRICE_SCALE = 1.0, 0.2


def load(plan: FederationPlan, data: RetailData, path: Path) -> Federation:
    """Read the federation.

    Args:
        plan: A regression plan.
        data: Its data section.
        path: The CSV, ``.gz`` or not.

    Returns:
        Inputs ``float32[n, 2]``: ``display / 0.2`` and ``(log(price) - 1) / 0.2``; targets log(volume) as it
        is, so that an error is one of log volume. Unseen clients have no query: it is the later weeks.

    Raises:
        DataError: The file or too many of its clients cannot be used.
        PlanError: The plan states another shape for the model.
    """
    table = read_table(path)
    table.require(COLUMNS)
    groups, excluded = group_rows(table, "client", MIN_WEEKS)
    return assemble(
        complete_plan(plan, (2,), 1),
        groups,
        split_unseen(groups, data.unseen_share),
        _examples,
        excluded,
        where=str(path),
        source="retail demand (Boatwright, McCulloch, Rossi 1999; R package bayesm, GPL >= 2)",
    )


def _examples(rows: Table) -> Examples:
    rows = order_rows(rows, "week")
    volume, display, price = (rows.numbers(name) for name in ("volume", "display", "price"))
    for name, values in (("volume", volume), ("price", price)):
        if (bad := np.flatnonzero(values <= 0)).size:
            raise DataError(f"line {rows.lines[bad[0]]}: the value of column {name!r} is not above zero")
    log_price = (np.log(price) - LOG_PRICE_CENTER) / LOG_PRICE_SCALE
    inputs = np.stack([display / DISPLAY_SCALE, log_price], axis=1)  # [n, 2]
    return Examples(inputs.astype(np.float32), np.log(volume).astype(np.float32))
