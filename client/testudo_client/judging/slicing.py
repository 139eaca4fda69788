"""Parts of a table, and whether one is answered significantly worse than the rest.

Pure functions. Rows of one client: Fisher's exact test for classes, Mann and Whitney's for errors. Several clients:
their rows are not independent, so the unit is the client: a t-test of each one's difference between the part and its
other rows; or, where a client is in one part only, Mann and Whitney's test of clients' means. Source of the correction:
Holm 1979.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from testudo_client.judging.answered import Answered, Numbers, Places
from testudo_client.judging.results import Score, Slice
from testudo_client.judging.scoring import point_metrics, scores_of
from testudo_client.table import is_absent, parse_number
from testudo_common.errors import DataError

ALPHA = 0.05  # over all slices together
MIN_ROWS, MIN_CLIENTS = 20, 5
MAX_CATEGORIES = 50
_EMPTY = "(empty)"


def parts_of(column: str, cells: Sequence[str]) -> dict[str, Places]:
    """Value -> its rows: each category, or the quarters of a number; empty cells are a part of their own.

    Args:
        column: For errors.
        cells: A row each.

    Raises:
        DataError: More than fifty categories, which no table of slices can hold.
    """
    absent = np.array([is_absent(cell) for cell in cells], dtype=bool)
    numbers = [parse_number(cell) for cell in cells]
    distinct = {cell for cell, gone in zip(cells, absent, strict=True) if not gone}
    numeric = all(number is not None for number, gone in zip(numbers, absent, strict=True) if not gone)
    if numeric and len(distinct) > 8:
        values = np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
        found = _quarters(values, ~absent)
    elif len(distinct) > MAX_CATEGORIES:
        raise DataError(
            f"column {column!r} has {len(distinct)} different values, too many for slices",
            remedy=f"Name a column of numbers, or of at most {MAX_CATEGORIES} categories",
        )
    else:
        text = np.array(cells, dtype=object)
        found = {value: np.flatnonzero((text == value) & ~absent) for value in sorted(distinct)}
    return {**found, _EMPTY: np.flatnonzero(absent)} if absent.any() else found


def _quarters(values: Numbers, known: npt.NDArray[np.bool_]) -> dict[str, Places]:
    edges = np.unique(np.quantile(values[known], [0.25, 0.5, 0.75]))
    quarter = np.searchsorted(edges, values, side="left")  # a value on an edge is in the lower part
    names = [f"up to {edges[0]:.4g}"]
    names += [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    names.append(f"above {edges[-1]:.4g}")
    found: dict[str, Places] = {}
    for place, name in enumerate(names):
        rows = np.flatnonzero(known & (quarter == place))
        if len(rows):
            found[name if name not in found else f"{name} ({place + 1})"] = rows
    return found


def slices_of(judged: Answered, columns: Mapping[str, Sequence[str]], rng: np.random.Generator) -> tuple[Slice, ...]:
    """Every part of every column, those that are worse first within their column.

    Args:
        judged: n rows.
        columns: Name -> n cells.
        rng: Of the intervals.

    Raises:
        DataError: A column has too many categories.
    """
    parts = [
        (column, value, rows) for column, cells in columns.items() for value, rows in parts_of(column, cells).items()
    ]
    raw = [_p_value(judged, rows) for _, _, rows in parts]
    tested = [place for place, p_value in enumerate(raw) if p_value is not None]
    adjusted = dict(zip(tested, holm([p_value for p_value in raw if p_value is not None]), strict=True))
    found = [_slice(judged, *part, adjusted.get(place), rng) for place, part in enumerate(parts)]
    order = {column: place for place, column in enumerate(columns)}
    return tuple(sorted(found, key=lambda one: (order[one.column], one.verdict != "worse")))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for all of them being tested: below alpha means significant at alpha over the family."""
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    factors = np.arange(len(given), 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return [float(one) for one in adjusted]


def _slice(
    judged: Answered, column: str, value: str, rows: Places, p_value: float | None, rng: np.random.Generator
) -> Slice:
    part, others = judged.take(rows), np.delete(np.arange(len(judged)), rows)
    metric = "mae" if judged.regression else "accuracy"
    verdict: Literal["worse", "not worse", "too few"] = "too few"
    if p_value is not None:
        verdict = "worse" if p_value < ALPHA else "not worse"
    return Slice(
        column=column,
        value=value,
        rows=len(rows),
        clients=len(np.unique(part.clients)),
        score=Score(value=point_metrics(part)[metric]) if p_value is None else scores_of(part, rng)[metric],
        rest=point_metrics(judged.take(others))[metric] if len(others) else None,
        p_value=p_value,
        verdict=verdict,
    )


def _p_value(judged: Answered, rows: Places) -> float | None:
    """That the part does no worse than the rest; None: too few to say."""
    losses, clients = judged.losses, judged.clients
    inside = np.zeros(len(losses), dtype=bool)
    inside[rows] = True
    if min(inside.sum(), (~inside).sum()) < MIN_ROWS:
        return None
    if len(np.unique(clients)) == 1:
        return _of_rows(losses[inside], losses[~inside], classes=not judged.regression)
    both = np.intersect1d(clients[inside], clients[~inside])
    within, beyond = _client_means(losses, clients, inside), _client_means(losses, clients, ~inside)
    if len(both) >= MIN_CLIENTS:
        return _above_zero(np.array([within[client] - beyond[client] for client in both]))
    apart = [mean for client, mean in beyond.items() if client not in within]
    if min(len(within), len(apart)) < MIN_CLIENTS:
        return None
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(list(within.values()), apart, alternative="greater").pvalue)


def _of_rows(inside: Numbers, outside: Numbers, *, classes: bool) -> float:
    from scipy.stats import fisher_exact, mannwhitneyu

    if not classes:
        return float(mannwhitneyu(inside, outside, alternative="greater").pvalue)
    wrong = [[one.sum(), len(one) - one.sum()] for one in (inside, outside)]
    return float(fisher_exact(wrong, alternative="greater").pvalue)


def _above_zero(differences: Numbers) -> float:
    from scipy.stats import ttest_1samp

    if np.ptp(differences) == 0:
        return 1.0
    return float(ttest_1samp(differences, 0.0, alternative="greater").pvalue)


def _client_means(losses: Numbers, clients: Places, rows: npt.NDArray[np.bool_]) -> dict[int, float]:
    found, places = np.unique(clients[rows], return_inverse=True)
    means = np.bincount(places, weights=losses[rows]) / np.bincount(places)
    return dict(zip(found.tolist(), means.tolist(), strict=True))
