"""Whether new rows are of the same distribution as the reference: one test a column and output, corrected together.

Pure functions of arrays. Every test keeps its level for exchangeable rows at any size, ties included, and so does
Holm's correction whatever the dependence between columns: a check flags no more often than its level while nothing
drifts.
Sources: two-sample Kolmogorov-Smirnov, exact (Hodges 1958); exceedances (Gumbel and von Schelling 1950); Fisher's exact
test; Holm 1979, with weights as in its section 4; Rabanser, Guennemann, Lipton 2019, arXiv:1810.11953 (tests a
dimension, corrected, for detecting shifts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from testudo_common.learning.columns import InputColumn

LEVEL = 0.04  # of a check; below 5 %, so that a count of false alarms stays below it in spite of chance
LEAST = 8  # rows on either side: tests would keep their level with fewer, and find nothing
EXPECTED = 5.0  # cells of a table under which the chi-square approximation is not used
TABLES = 9999  # drawn under the hypothesis instead

Family = Literal["inputs", "outputs", "outcomes"]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Compared:
    """One test of a check.

    Attributes:
        family: Of what.
        name: Column, class, or what of the outcomes.
        test: Its name.
        difference: How far apart: the largest distance of distribution functions, half the sum of differences of
            shares, or the difference of means.
        p: By itself.
        adjusted: After the correction over all tests of the check; 1 before it.
    """

    family: Family
    name: str
    test: str
    difference: float
    p: float
    adjusted: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON; no value of a cell is in it."""
        return asdict(self)


def corrected(tests: Sequence[Compared]) -> tuple[Compared, ...]:
    """The tests with p adjusted by Holm's procedure, families weighing the same however many tests they have.

    So that one test of outcomes is not drowned by those of fifty columns. With one family it is the plain procedure.
    """
    families = {test.family for test in tests}
    sizes = {family: sum(test.family == family for test in tests) for family in families}
    weights = np.array([1.0 / (len(families) * sizes[test.family]) for test in tests])
    adjusted = holm(np.array([test.p for test in tests]), weights)
    return tuple(replace(test, adjusted=float(p)) for test, p in zip(tests, adjusted, strict=True))


def holm(p: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.float64]:
    """``float64[m]``: adjusted p; those up to the level are rejected, and the family-wise error keeps the level.

    Args:
        p: ``float64[m]``.
        weights: ``float64[m]``, above 0: which hypotheses may spend more of the level; None: all alike.
    """
    if len(p) == 0:
        return p
    share = np.ones(len(p)) if weights is None else weights
    order = np.argsort(p / share, kind="stable")
    left = np.cumsum(share[order][::-1])[::-1]  # weight of those not yet rejected
    adjusted = np.maximum.accumulate(np.minimum(left * (p / share)[order], 1.0))
    back = np.empty(len(p))
    back[order] = adjusted
    return back


def input_tests(
    reference: npt.NDArray[np.float32], new: npt.NDArray[np.float32], columns: Sequence[InputColumn]
) -> list[Compared]:
    """Tests of each column's values, of how many lie outside the range known, and of how often it is empty.

    Args:
        reference: ``float32[m, d]``, as the plan encodes them.
        new: ``float32[n, d]``.
        columns: Which inputs are whose.
    """
    tests: list[Compared] = []
    for column in columns:
        old_there, new_there = column.present(reference), column.present(new)
        if column.kind == "category":
            counts = [_counts(rows, column, there) for rows, there in ((reference, old_there), (new, new_there))]
            tests.append(shares_test("inputs", column.name, np.array(counts)))
            continue
        if not (old_there.all() and new_there.all()):
            empty = [[int((~there).sum()), int(there.sum())] for there in (old_there, new_there)]
            tests.append(shares_test("inputs", f"{column.name} (empty)", np.array(empty)))
        old, fresh = reference[old_there, column.values], new[new_there, column.values]
        if len(old) >= LEAST and len(fresh) >= LEAST:
            pair = old.mean(axis=1), fresh.mean(axis=1)
            tests += [
                distance_test("inputs", column.name, *pair),
                range_test("inputs", f"{column.name} (range)", *pair),
            ]
    return tests


def output_tests(
    reference: npt.NDArray[np.float32], new: npt.NDArray[np.float32], labels: Sequence[str]
) -> list[Compared]:
    """A test of each class's probability, or of the predicted number. Of two classes one says it all.

    Args:
        reference: ``float32[m, C or 1]``, of rows that the model was not trained on: it is surer of those it was.
        new: ``float32[n, C or 1]``.
        labels: The classes; none for regression.
    """
    names = list(labels) or ["prediction"]
    places = range(1, 2) if len(names) == 2 else range(len(names))
    return [distance_test("outputs", names[place], reference[:, place], new[:, place]) for place in places]


def distance_test(family: Family, name: str, reference: Floats, new: Floats) -> Compared:
    """Two-sample Kolmogorov-Smirnov, exact; conservative for ties."""
    from scipy.stats import ks_2samp

    found = ks_2samp(reference.astype(np.float64), new.astype(np.float64))
    return Compared(family, name, "Kolmogorov-Smirnov", float(found.statistic), float(found.pvalue))


def range_test(family: Family, name: str, reference: Floats, new: Floats) -> Compared:
    """Whether more values lie outside the reference's range than chance puts there: a wider spread, another unit.

    Of ``m`` old and ``n`` new values in a random order, the new ones that stand before the first old one or after the
    last are k with probability ``(k + 1) C(m + n - k - 2, m - 2) / C(m + n, m)``. Exact; conservative for ties.

    Args:
        family: Of the test.
        name: Of the column.
        reference: ``float[m]``, two or more.
        new: ``float[n]``.
    """
    from scipy.special import gammaln

    m, n = len(reference), len(new)
    outside = int(((new < reference.min()) | (new > reference.max())).sum())
    k = np.arange(outside, n + 1)
    ways = gammaln(m + n - k - 1) - gammaln(m - 1) - gammaln(n - k + 1)
    of_all = gammaln(m + n + 1) - gammaln(m + 1) - gammaln(n + 1)
    p = float(np.exp(np.log(k + 1.0) + ways - of_all).sum())
    return Compared(family, name, "range", outside / n, min(p, 1.0))


def shares_test(family: Family, name: str, counts: npt.NDArray[np.int64]) -> Compared:
    """Whether categories come as often as they did.

    Fisher's exact test for two; chi-square for more, with tables drawn under the hypothesis where counts are small.

    Args:
        family: Of the test.
        name: Of the column.
        counts: ``int64[2, k]``: of the reference and of the new rows.
    """
    from scipy.stats import chi2, fisher_exact

    seen = counts[:, counts.sum(axis=0) > 0]
    if seen.shape[1] < 2 or not seen.sum(axis=1).all():
        return Compared(family, name, "shares", 0.0, 1.0)
    shares = seen / seen.sum(axis=1, keepdims=True)
    apart = float(np.abs(shares[0] - shares[1]).sum() / 2)
    if seen.shape[1] == 2:
        return Compared(family, name, "Fisher", apart, float(fisher_exact(seen).pvalue))
    expected = np.outer(seen.sum(axis=1), seen.sum(axis=0)) / seen.sum()  # [2, k]
    statistic = float((np.square(seen - expected) / expected).sum())
    if expected.min() >= EXPECTED:
        return Compared(family, name, "chi-square", apart, float(chi2.sf(statistic, seen.shape[1] - 1)))
    return Compared(family, name, "chi-square, drawn", apart, _drawn_p(seen, expected, statistic))


def _drawn_p(seen: npt.NDArray[np.int64], expected: npt.NDArray[np.float64], statistic: float) -> float:
    """Share of tables with the same margins that lie as far off; the one seen is one of them, so it is never 0."""
    from scipy.stats import random_table

    rng = np.random.default_rng(0)  # the same counts have the same p
    tables = random_table(seen.sum(axis=1), seen.sum(axis=0), seed=rng).rvs(TABLES)  # [TABLES, 2, k]
    drawn = (np.square(tables - expected) / expected).sum(axis=(1, 2))
    return float((1 + (drawn >= statistic - 1e-9).sum()) / (1 + TABLES))


def _counts(
    inputs: npt.NDArray[np.float32], column: InputColumn, there: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    places = np.where(there, inputs[:, column.values].argmax(axis=1), column.width)
    return np.bincount(places, minlength=column.width + 1).astype(np.int64)
