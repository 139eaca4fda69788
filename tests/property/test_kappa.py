"""The kappa of every chain that states one, measured: over all sets of rows that may be the honest ones.

A kappa is for whoever is honest, so that one cohort is as many trials as it has sets of n - f rows.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation_cases import ATTACKS, NAMED, SETTINGS, aggregate, least_rows, rows_of
from testudo_common.errors import AggregationError
from testudo_server.aggregate import RULES, kappa_bound
from testudo_server.aggregate.base import Floats, Rows
from testudo_server.aggregate.bounds import bucketing_bound, krum_bound, multi_krum_bound

BOUNDED = [
    *((rule,) for rule in ("median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "mda")),
    *(("nnm", rule) for rule in ("median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "mda")),
    ("arc", "trimmed_mean"),
    ("arc", "nnm", "trimmed_mean"),
    ("bucketing", "trimmed_mean"),
    ("bucketing", "nnm", "multi_krum"),
]
every_bounded = pytest.mark.parametrize("names", BOUNDED, ids=NAMED)


def errors_and_spreads(vector: Rows, rows: Rows, f: int) -> tuple[Floats, Floats, Floats]:
    """For every set of n - f rows: squared distance of ``vector`` to its mean, its mean squared deviation, and the
    square of its greatest coordinate, which says what float32 can tell apart."""
    wide = rows.astype(np.float64)
    members = np.array(list(combinations(range(len(rows)), len(rows) - f)))  # [sets, n - f]
    means = wide[members].mean(axis=1)  # [sets, d]
    spreads = ((wide[members] - means[:, None]) ** 2).sum(axis=2).mean(axis=1)
    return ((vector - means) ** 2).sum(axis=1), spreads, (wide[members] ** 2).max(axis=(1, 2))


def within_bound(names: tuple[str, ...], rows: Rows, f: int) -> bool:
    """Whether the bound holds, for every set."""
    errors, spreads, squares = errors_and_spreads(aggregate(names, rows, f).vector, rows, f)
    kappa = kappa_bound(names, len(rows), f, bucket_size=SETTINGS.bucket_size)
    return bool((errors <= kappa * spreads * (1 + 1e-4) + 1e-10 * squares).all())


@every_bounded
@pytest.mark.parametrize("attack", ATTACKS)
@given(seed=st.integers(0, 2**32 - 1), f=st.integers(1, 3), more=st.integers(0, 2), d=st.integers(1, 3))
@settings(max_examples=6, deadline=None)
def test_of_honest_rows_and_attacks(names: tuple[str, ...], attack: str, seed: int, f: int, more: int, d: int) -> None:
    n = min(least_rows(names, f) + more, 12)
    f = f if least_rows(names, f) <= n else 1
    honest = rows_of(n - f, d, seed)
    rows = np.concatenate([honest, ATTACKS[attack](honest, f, np.random.default_rng(seed))])
    assert within_bound(names, rows, f)


@every_bounded
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_of_few_points_many_times(names: tuple[str, ...], data: st.DataObject) -> None:
    """Rows at few places are the worst ones: sets without any spread, whose mean must be met, beside far points."""
    f = data.draw(st.integers(1, 2))
    n = least_rows(names, f) + data.draw(st.integers(0, 2))
    places = st.tuples(st.sampled_from([-8.0, -1.0, 0.0, 1.0, 2.0, 64.0]), st.sampled_from([0.0, 1.0, 8.0]))
    rows = np.array(data.draw(st.lists(places, min_size=n, max_size=n)), dtype=np.float32)
    assert within_bound(names, rows, f)


@every_bounded
@pytest.mark.parametrize("f", [1, 2, 3])
def test_none_is_under_the_least_there_can_be(names: tuple[str, ...], f: int) -> None:
    """f rows of one, the others zero: whatever has a kappa answers zero, and misses the mean of sets with f ones by
    f / (n - 2f) of their spread (Allouah et al. 2023)."""
    n = least_rows(names, f) + 1
    rows = np.zeros((n, 1), dtype=np.float32)
    rows[:f] = 1
    vector = aggregate(names, rows, f).vector
    np.testing.assert_allclose(vector, 0.0, atol=1e-6)
    errors, spreads, _ = errors_and_spreads(vector, rows, f)
    measured = float((errors[spreads > 0] / spreads[spreads > 0]).max())
    assert measured == pytest.approx(f / (n - 2 * f), rel=1e-4)
    assert measured <= kappa_bound(names, n, f, bucket_size=SETTINGS.bucket_size)


def test_a_bound_too_low_is_seen() -> None:
    """Else the tests above would say nothing: the mean of five with one at 64 is beyond any of these bounds."""
    rows = np.array([[0], [0.1], [0.2], [0.3], [64]], dtype=np.float32)
    errors, spreads, _ = errors_and_spreads(aggregate(("mean",), rows, 1).vector, rows, 1)
    assert (errors / spreads).max() > 1000 > kappa_bound(["median"], 5, 1)


# --- the bounds themselves


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["mean"], math.inf),
        (["median"], 64 / 9),
        (["geometric_median"], 64 / 9),
        (["trimmed_mean"], 8 / 3),
        (["mda"], 8.0),
        (["nnm", "trimmed_mean"], 22 / 3),
        (["arc", "nnm", "trimmed_mean"], 8.0),
        (["nnm", "nnm", "trimmed_mean"], 50 / 3),
        (["nnm", "mean"], math.inf),
        (["caf"], math.inf),
        (["centred_clipping"], math.inf),
        (["clip", "median"], math.inf),
        (["dedupe", "nnm", "trimmed_mean"], math.inf),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else None,
)
def test_of_four_bad_in_twenty(names: list[str], expected: float) -> None:
    assert kappa_bound(names, 20, 4) == pytest.approx(expected)


def test_krum_and_multi_krum_by_hand() -> None:
    """n = 5, f = 1: s = 4, h = 2, c = 2 / 3."""
    assert krum_bound(5, 1) == pytest.approx((1 + math.sqrt(4 / 3)) ** 2 * 2)
    assert multi_krum_bound(5, 1) == pytest.approx((0.5 + math.sqrt(0.5) * (math.sqrt(5 / 6) + 0.5)) ** 2)


def test_buckets_by_hand() -> None:
    """Ten rows by twos, one bad: one of five buckets; kappa of the trimmed mean is then 6 / 3 * 4 / 3."""
    assert kappa_bound(["bucketing", "trimmed_mean"], 10, 1) == pytest.approx((8 / 3 + 1) * 9 / 8)
    assert kappa_bound(["bucketing", "trimmed_mean"], 9, 1, bucket_size=2) == pytest.approx((8 / 3 + 1) * 2)
    assert bucketing_bound(math.inf, 10, 1, 2) == math.inf


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in ("krum", "geometric_median", "median")])
def test_without_bad_rows_it_is_the_mean(rule: str) -> None:
    """Whose kappa is 0; not centred clipping."""
    assert kappa_bound([rule], 9, 0) == (math.inf if rule == "centred_clipping" else 0.0)
    assert kappa_bound(["nnm", rule], 9, 0) == kappa_bound([rule], 9, 0)


@pytest.mark.parametrize(
    ("names", "n", "f"),
    [(["median"], 4, 2), (["krum"], 4, 1), (["bucketing", "median"], 6, 2), (["average"], 9, 1), ([], 9, 1)],
)
def test_there_is_none_of_what_there_is_not(names: list[str], n: int, f: int) -> None:
    with pytest.raises(AggregationError):
        kappa_bound(names, n, f)
