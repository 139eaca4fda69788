"""Influence under a coordinate rule: how much each row counts on average over some columns, for the log.

Not what makes the result, and no bound on what a row can do to one coordinate. Under the other rules influence is
exact, and comes with them.
"""

from __future__ import annotations

import numpy as np

from testudo_server.aggregate.base import Floats, Rows

_MOST_COLUMNS, _FEWEST_COLUMNS, _EVERY = 4096, 1024, 128  # so that it costs a fiftieth of the rule


def influence_of_ranks(rows: Rows, ranks: range, matrix: Floats | None = None) -> Floats:
    """How much each row counts in :func:`mean_of_ranks`, on average over evenly spaced columns: what a log can say of
    a rule under which a row has another weight in every column.

    In each of these columns the ranks are shared out by a stable sort, so that of equal values the row of the lesser
    number has the lesser rank; a row with a rank in the range has the weight ``1 / len(ranks)`` there, any other row
    0. Columns are every 128th, or so much nearer or farther that there are about 1024 at least and 4096 at most; all of
    them where there are no more than 1024. So it is a sample's mean, and ``influence @ rows`` is *not* the result.

    Args:
        rows: ``float32[n, d]``, finite.
        ranks: Consecutive, from 0.
        matrix: ``float64[m, n]``, as in :func:`mean_of_ranks`: shares of mixed rows are handed on to the rows.

    Returns:
        ``float64[n]``; it sums to 1 where the matrix's rows do, to less where it clips.
    """
    d = rows.shape[1]
    step = max(-(-d // _MOST_COLUMNS), min(_EVERY, -(-d // _FEWEST_COLUMNS)))
    columns = np.ascontiguousarray(rows[:, ::step].T)  # [s, n]
    if matrix is not None:
        with np.errstate(all="ignore"):
            columns = columns @ matrix.T.astype(np.float32)  # [s, m]
    m = columns.shape[1]
    ordered = np.sort(columns, axis=1)
    inside = (columns >= ordered[:, ranks.start, None]) & (columns <= ordered[:, ranks.stop - 1, None])
    counts = inside.astype(np.float32) @ np.ones(m, dtype=np.float32)
    tied = counts != len(ranks)
    total = ((~tied).astype(np.float32) @ inside.astype(np.float32)).astype(np.float64)  # whole numbers, exact
    if tied.any():
        order = np.argsort(columns[tied], axis=1, kind="stable")[:, ranks.start : ranks.stop]
        total += np.bincount(order.ravel(), minlength=m)
    shares: Floats = total / (len(columns) * len(ranks))
    if matrix is not None:
        shares = shares @ matrix
    return shares
