"""Aggregation: values worked out by hand, bad inputs by their fault, and each fault seen in other implementations."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest

from aggregation_cases import rows_of
from testudo_common.errors import AggregationError
from testudo_server.aggregate import PRE_AGGREGATORS, RULES, Settings, Work, chain, count_of_share, mean, usable_rows
from testudo_server.aggregate.base import Floats, Rows
from testudo_server.aggregate.caf import caf
from testudo_server.aggregate.gram import Geometry, measure
from testudo_server.aggregate.mda import mda
from testudo_server.aggregate.mixing import arc, bucketing, nnm

# Squared distances: 27 between the first two, 1294 and 1237 to the third. Squared norms 14, 77, 1400.
THREE = np.array([[1, 2, 3], [4, 5, 6], [10, -20, 30]], dtype=np.float32)
PAIR = [2.5, 3.5, 4.5]  # the mean of the first two


@pytest.mark.parametrize(
    ("names", "f", "expected"),
    [
        (["mean"], 0, [5, -13 / 3, 13]),
        (["median"], 1, [4, 2, 6]),
        (["trimmed_mean"], 1, [4, 2, 6]),
        (["trimmed_mean"], 0, [5, -13 / 3, 13]),
        (["krum"], 0, [1, 2, 3]),
        (["multi_krum"], 0, [5, -13 / 3, 13]),
        (["mda"], 1, PAIR),
        (["mda"], 0, [5, -13 / 3, 13]),
        (["caf"], 0, [5, -13 / 3, 13]),
        (["nnm", "mean"], 1, [4, -1 / 6, 9]),  # the third becomes (7, -7.5, 18)
        (["nnm", "median"], 1, PAIR),
        (["nnm", "mda"], 1, PAIR),
        (["arc", "mean"], 1, np.array([5, 7, 9]) / 3 + np.array([10, -20, 30]) * np.sqrt(77 / 1400) / 3),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) and isinstance(value[0], str) else None,
)
def test_by_hand(names: list[str], f: int, expected: list[float]) -> None:
    np.testing.assert_allclose(chain(names, f=f)(THREE).vector, expected, rtol=1e-6)


def test_clip_by_hand() -> None:
    rows = np.array([[3, 4, 0], [0, 0, 1], [0, 0, 0]], dtype=np.float32)
    found = chain(["clip", "mean"], f=1, settings=Settings(max_norm=2.0))(rows)
    np.testing.assert_allclose(found.vector, [0.4, 1.6 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(found.influence, [2 / 15, 1 / 3, 1 / 3], rtol=1e-6)


def test_centred_clipping_by_hand() -> None:
    """From zero, differences (3, 4) and (0, 1) cut to 1: half of their sum."""
    rows = np.array([[3, 4], [0, 1], [0, 0]], dtype=np.float32)
    found = chain(["centred_clipping"], f=1, settings=Settings(radius=1.0, iterations=1))(rows)
    np.testing.assert_allclose(found.vector, [0.2, 0.6], rtol=1e-6)
    np.testing.assert_allclose(found.influence, [1 / 15, 1 / 3, 1 / 3], rtol=1e-6)


def test_influence_under_a_coordinate_rule_by_hand() -> None:
    """Kept are rows 1 and 2; 2 and 1; of equal ones 1 and 2, by their numbers; 0 and 1."""
    rows = np.array([[1, 4, 5, 2], [2, 3, 5, 9], [3, 2, 5, 1], [4, 1, 5, 1e30]], dtype=np.float32)
    for rule in ("trimmed_mean", "median"):  # of four, and f = 1, the same
        np.testing.assert_array_equal(chain([rule], f=1)(rows).influence, [1 / 8, 4 / 8, 3 / 8, 0])


def test_influence_is_about_the_rows_that_were_received() -> None:
    """NNM makes two rows of the mean of the first two, and (7, -7.5, 18) of the others; the middle is of the former."""
    np.testing.assert_allclose(chain(["nnm", "trimmed_mean"], f=1)(THREE).influence, [1 / 2, 1 / 2, 0])
    shortened = chain(["clip", "trimmed_mean"], f=0, settings=Settings(max_norm=np.sqrt(14)))(THREE)
    np.testing.assert_allclose(shortened.influence, np.array([1, np.sqrt(14 / 77), 0.1]) / 3)


@pytest.mark.parametrize("n", [9, 60])
def test_a_row_of_1e30_has_no_influence(n: int) -> None:
    rows = rows_of(n, 20_000, 0)
    rows[4] = 1e30
    for names in (["trimmed_mean"], ["median"], ["nnm", "trimmed_mean"]):
        influence = chain(names, f=2)(rows).influence
        assert influence[4] == 0.0
        assert influence.sum() == pytest.approx(1.0)


def test_geometric_medians_that_are_known() -> None:
    """Of an equilateral triangle its centre; of four corners of a convex shape where the diagonals meet; of a triangle
    with an angle over 120 degrees that corner."""
    found = chain(["geometric_median"], f=1)(np.eye(3, dtype=np.float32))
    np.testing.assert_allclose(found.vector, [1 / 3] * 3, rtol=1e-6)
    corners = np.array([[0, 0], [6, 6], [4, 0], [0, 4]], dtype=np.float32)
    np.testing.assert_allclose(chain(["geometric_median"], f=1)(corners).vector, [2, 2], rtol=1e-5)
    blunt = np.array([[-5, 1], [0, 0], [5, 1]], dtype=np.float32)
    np.testing.assert_allclose(chain(["geometric_median"], f=1)(blunt).vector, [0, 0], atol=1e-4)


def test_buckets_are_a_partition() -> None:
    mix = bucketing(7, 2, size=3, rng=np.random.default_rng(0))
    assert mix.matrix.shape == (3, 7)
    assert mix.f == 2
    assert sorted((mix.matrix > 0).sum(axis=1)) == [1, 3, 3]
    np.testing.assert_array_equal((mix.matrix > 0).sum(axis=0), 1)
    np.testing.assert_allclose(mix.matrix.sum(axis=1), 1.0)
    assert bucketing(7, 3, size=4, rng=np.random.default_rng(0)).f == 2, "f over groups is at most all of them"


def caf_in_full(rows: Rows, f: int) -> Floats:
    """The definition word by word, on the covariance matrix of size d."""
    wide, counts = rows.astype(np.float64), np.ones(len(rows))
    best, least = wide.mean(axis=0), np.inf
    while counts.sum() > len(rows) - 2 * f:
        centre = counts @ wide / counts.sum()
        away = wide - centre
        values, vectors = np.linalg.eigh((away * counts[:, None]).T @ away / counts.sum())
        if values[-1] < least:
            best, least = centre, values[-1]
        squared = (away @ vectors[:, -1]) ** 2
        counts = np.maximum(counts * (1 - squared / squared[counts > 1e-12].max()), 0.0)
    return best


@pytest.mark.parametrize("f", range(5))
@pytest.mark.parametrize("seed", range(5))
def test_caf_is_its_definition(seed: int, f: int) -> None:
    rows = rows_of(10, 6, seed)
    rows[:f] += 5
    np.testing.assert_allclose(chain(["caf"], f=f)(rows).vector, caf_in_full(rows, f), atol=1e-5)


def diameter(distances: Floats, members: tuple[int, ...]) -> float:
    return float(distances[np.ix_(members, members)].max())


@pytest.mark.parametrize("f", range(5))
@pytest.mark.parametrize("seed", range(8))
def test_mda_is_exact(seed: int, f: int) -> None:
    """Against all sets; and its bound, 2 f / (n - f) times the honest diameter, which it cannot know."""
    n = 9
    rows = rows_of(n, 3, seed)
    geometry = measure(rows, Work())
    weights = mda(geometry, f)
    least = min(diameter(geometry.distances, members) for members in combinations(range(n), n - f))
    chosen = tuple(int(row) for row in np.flatnonzero(weights))
    assert len(chosen) == n - f
    assert diameter(geometry.distances, chosen) == least
    for honest in combinations(range(n), n - f):
        error = np.linalg.norm(weights @ rows - rows[list(honest)].mean(axis=0))
        assert error <= 2 * f / (n - f) * np.sqrt(diameter(geometry.distances, honest)) + 1e-6


def test_mda_of_a_hundred_in_time_and_within_its_budget() -> None:
    rows = rows_of(100, 200, 0)
    rows[:30] += 1
    geometry = measure(rows, Work())
    start = time.process_time()
    mda(geometry, 30)
    assert time.process_time() - start < 10
    with pytest.raises(AggregationError, match="took too long"):
        mda(geometry, 30, node_budget=10)


def test_mean_of_votes_is_that_of_all_clients() -> None:
    rows = rows_of(3, 9000, 0)
    np.testing.assert_allclose(mean(rows, [1, 2, 3]), (rows[0] + 2 * rows[1] + 3 * rows[2]) / 6, atol=1e-6)


# --- what is refused


@pytest.mark.parametrize("names", [[rule] for rule in RULES], ids="+".join)
def test_every_rule_refuses_more_than_it_withstands(names: list[str]) -> None:
    for f in range(4):
        least = 2 * f + (3 if "krum" in names[0] else 1)
        chain(names, f=f)(rows_of(least, 5, 0))
        if least > 1:
            with pytest.raises(AggregationError, match=f"{names[0]} needs at least {least} rows"):
                chain(names, f=f)(rows_of(least - 1, 5, 0))
    with pytest.raises(AggregationError, match="withstand -1"):
        chain(names, f=-1)(rows_of(5, 5, 0))


def test_f_counts_against_the_rows_that_are_left() -> None:
    """Three buckets, two of which may hold a bad row each."""
    with pytest.raises(AggregationError, match="median needs at least 5 rows to withstand 2 bad ones, and there are 3"):
        chain(["bucketing", "median"], f=2)(rows_of(6, 5, 0), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "names", [[], ["nnm"], ["average"], ["median", "nnm"], ["median", "median"], ["shuffle", "median"]]
)
def test_no_such_chain(names: list[str]) -> None:
    with pytest.raises(AggregationError, match="is no chain"):
        chain(names, f=0)


def test_what_needs_a_number_asks_for_it() -> None:
    assert "clip" in PRE_AGGREGATORS
    with pytest.raises(AggregationError, match="max_norm"):
        chain(["clip", "mean"], f=0)
    with pytest.raises(AggregationError, match="bucket_size"):
        chain(["bucketing", "mean"], f=0, settings=Settings(bucket_size=0))
    with pytest.raises(AggregationError, match="generator"):
        chain(["bucketing", "mean"], f=0)(THREE)


@pytest.mark.parametrize(
    "rows",
    [THREE.astype(np.float64), THREE[0], np.empty((0, 3), np.float32), np.empty((3, 0), np.float32), [[1.0]]],
    ids=["float64", "one row", "no row", "no column", "a list"],
)
def test_not_rows(rows: object) -> None:
    with pytest.raises(AggregationError, match=r"not float32\[n, d\]"):
        chain(["median"], f=0)(rows)  # type: ignore[arg-type]


def test_bad_rows_are_named() -> None:
    received = [
        THREE[0],
        np.array([1, np.nan, 1], dtype=np.float32),
        np.array([1, np.inf, 1], dtype=np.float32),
        THREE[1].astype(np.float64),
        THREE[:1],
        np.zeros(2, dtype=np.float32),
        None,
        THREE[2],
    ]
    rows, kept, rejected = usable_rows(received, 3)
    np.testing.assert_array_equal(rows, THREE[[0, 2]])
    assert kept == (0, 7)
    assert [each.row for each in rejected] == [1, 2, 3, 4, 5, 6]
    assert {each.reason for each in rejected[:2]} == {"not finite"}
    assert usable_rows([], 3)[0].shape == (0, 3)
    assert usable_rows(THREE, 3)[0] is THREE, "not copied where nothing is wrong"


# --- faults seen in others


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [9, 60])
@pytest.mark.parametrize("rule", RULES)
def test_one_nan_client_is_named_and_poisons_nothing(rule: str, n: int, poison: float) -> None:
    rows = rows_of(n, 20_000, 0)
    rows[4, 17_000] = poison
    with pytest.raises(AggregationError, match="not finite: row 4"):
        chain([rule], f=2)(rows)


def test_the_geometric_median_of_small_updates_is_not_their_mean() -> None:
    """An absolute smoothing constant makes it so."""
    rows = rows_of(9, 50, 0) * np.float32(1e-6)
    rows[0] = 1e-3
    found = chain(["geometric_median"], f=2)(rows).vector
    assert np.abs(found).max() < 5e-6
    assert np.abs(rows.mean(axis=0)).max() > 5e-5


def test_equal_weights_do_not_vanish() -> None:
    """In a set of weights they do. Five rows at one place weigh five times."""
    rows = np.array([[0.0]] * 5 + [[1.0]] * 4, dtype=np.float32)
    for rule in ("geometric_median", "median", "mda"):
        np.testing.assert_allclose(chain([rule], f=4)(rows).vector, [0.0], atol=1e-5)
    influence = chain(["multi_krum"], f=3)(rows).influence
    np.testing.assert_allclose(np.sort(influence), [0, 0, 0, *[1 / 6] * 6])


def test_distances_of_weights_far_from_zero() -> None:
    """A hundred thousand weights around 100 that differ by 0.001: in float32, the squares have lost the difference."""
    rng = np.random.default_rng(0)
    rows = (100 * rng.normal(size=10_000) + 1e-3 * rng.normal(size=(9, 10_000))).astype(np.float32)
    rows[5] += np.float32(5e-3)
    wide = rows.astype(np.float64)
    expected = ((wide[:, None] - wide[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(measure(rows, Work()).distances, expected, rtol=1e-6)
    by_products = ((rows @ rows.T).diagonal()[:, None] + (rows @ rows.T).diagonal()) - 2 * (rows @ rows.T)
    assert np.abs(by_products - expected).max() > expected.max(), "which the plain formula gets wrong"
    influence = chain(["multi_krum"], f=1)(rows).influence
    assert influence[5] == 0.0


@pytest.mark.parametrize(
    ("share", "n", "count"), [(0.29, 100, 29), (0.2, 20, 4), (0.2, 24, 4), (0.07, 100, 7), (0, 5, 0)]
)
def test_a_share_is_counted_in_decimals(share: float, n: int, count: int) -> None:
    assert count_of_share(share, n) == count
    assert int(0.29 * 100) == 28


@pytest.mark.parametrize("n", [9, 60])
def test_one_entry_of_1e20_cancels_nothing(n: int) -> None:
    """In float32, total - top - bottom is 0 here."""
    rows = rows_of(n, 5, 0)
    rows[3, 2] = 1e20
    ordered = np.sort(rows.astype(np.float64), axis=0)
    np.testing.assert_allclose(chain(["trimmed_mean"], f=1)(rows).vector, ordered[1:-1].mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("n", [9, 60])
@pytest.mark.parametrize("names", [["mean"], ["median"], ["trimmed_mean"], ["nnm", "trimmed_mean"]], ids="+".join)
def test_the_greatest_float32_does_not_overflow(names: list[str], n: int) -> None:
    """Where every row is it, sums leave float32, of rows and of what is mixed."""
    rows = np.full((n, 3), np.finfo(np.float32).max)
    np.testing.assert_allclose(chain(names, f=2)(rows).vector, rows[0], rtol=1e-6)


@pytest.mark.parametrize("rule", ["krum", "multi_krum", "geometric_median", "mda", "caf"])
def test_opposite_rows_in_one_bucket_do_not_hide(rule: str) -> None:
    """Their mean is zero, among the honest; of the result, in float32, they would leave 1e22."""
    rows = rows_of(27, 40, 0)
    rng = np.random.default_rng(7)
    pair = np.random.default_rng(7).permutation(27)[:3]  # as bucketing draws
    rows[pair[0]], rows[pair[1]] = 1e30, -1e30
    found = chain(["bucketing", rule], f=2, settings=Settings(bucket_size=3))(rows, rng=rng)
    assert np.abs(found.vector).max() < 10
    assert found.influence[pair[0]] < 1e-15


def test_caf_ends_on_an_antipodal_pair() -> None:
    """The maximum over all rows would stay with the pair, which has no weight left: no other would ever shrink."""
    rows = np.zeros((9, 4), dtype=np.float32)
    rows[0, 0], rows[1, 0] = 1e10, -1e10
    np.testing.assert_array_equal(chain(["caf"], f=4)(rows).vector, 0.0)
    assert (caf(measure(np.ones((9, 4), dtype=np.float32), Work()), 4) == 1 / 9).all()


def test_nobody_is_weighted_by_what_it_says() -> None:
    """Chosen rows count the same; a rule has no argument for counts."""
    influence = chain(["multi_krum"], f=2)(rows_of(9, 20, 0)).influence
    assert set(influence) == {0.0, 1 / 7}
    with pytest.raises(TypeError):
        chain(["multi_krum"], f=2)(rows_of(9, 20, 0), votes=[1] * 9)  # type: ignore[call-arg]


# --- dedupe


def orthogonal(n: int) -> Rows:
    return np.eye(n, 40, dtype=np.float32) * np.arange(1, n + 1, dtype=np.float32)[:, None]


def test_copies_count_once() -> None:
    """Eight of twenty send one vector: what is left are its mean and the twelve honest rows. One of the eight might be
    an honest one that seven copied, so f is 2 and not 1."""
    rows = np.concatenate([np.repeat(3 * np.eye(1, 40, 30, dtype=np.float32), 8, axis=0), orthogonal(12)])
    found = chain(["dedupe", "mean"], f=8)(rows)
    assert found.f == 2
    assert found.merged == (tuple(range(8)),)
    np.testing.assert_allclose(found.influence, [1 / 104] * 8 + [1 / 13] * 12)


def test_nothing_is_merged_where_rows_are_alike_anyhow() -> None:
    rows = rows_of(9, 40, 0) + 3
    found = chain(["dedupe", "mean"], f=2)(rows)
    assert (found.f, found.merged) == (2, ())
    np.testing.assert_allclose(found.influence, 1 / 9)


def test_a_row_between_honest_ones_merges_nothing() -> None:
    """It is like each of them, and they are not like each other. With single link it would take all three with it."""
    honest = np.eye(9, 40, dtype=np.float32)
    rows = np.concatenate([honest[:3].sum(axis=0, keepdims=True), honest])
    found = chain(["dedupe", "trimmed_mean"], f=2)(rows)
    assert (found.f, found.merged) == (2, ())


def test_pairs_with_honest_rows_do_not_lower_f() -> None:
    """Four bad rows, each beside an honest one. Were pairs merged and f lowered for each, the four rows that they spoil
    would stand against an f of none, and a mean would follow."""
    honest = orthogonal(12)
    rows = np.concatenate([honest, honest[:4] + np.float32(0.5) * honest[4:8]])
    found = chain(["dedupe", "trimmed_mean"], f=4)(rows)
    assert (found.f, found.merged) == (4, ())


def test_copies_of_an_honest_row_leave_one_bad_row_and_an_f_of_one() -> None:
    rows = np.concatenate([orthogonal(12), np.repeat(orthogonal(1), 4, axis=0)])
    found = chain(["dedupe", "trimmed_mean"], f=4)(rows)
    assert (found.f, found.merged) == (1, ((0, 12, 13, 14, 15),))


def test_long_copies_do_not_replace_the_honest_row() -> None:
    rows = np.concatenate([orthogonal(9), np.repeat(orthogonal(1) * np.float32(1e9), 2, axis=0)])
    found = chain(["dedupe", "mean"], f=2)(rows)
    assert found.merged == ((0, 9, 10),)
    np.testing.assert_allclose(found.vector, orthogonal(9).mean(axis=0), rtol=1e-6)


def test_merged_rows_are_named_after_another_link_too() -> None:
    rows = np.concatenate([orthogonal(9), orthogonal(2), orthogonal(2)])
    found = chain(["arc", "dedupe", "mean"], f=5)(rows)
    assert set(found.merged) == {(0, 9, 11), (1, 10, 12)}


# --- geometry


def test_linear_maps_act_on_the_geometry() -> None:
    rows = rows_of(9, 30, 0)
    geometry = measure(rows, Work())
    for mix in (nnm(geometry, 2), arc(geometry, 3), bucketing(9, 1, size=2, rng=np.random.default_rng(0))):
        direct = measure((mix.matrix @ rows).astype(np.float32), Work())
        found: Geometry = geometry.mixed(mix.matrix)
        np.testing.assert_allclose(found.gram, direct.gram, atol=1e-4)
        np.testing.assert_allclose(found.distances, direct.distances, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1.0, 1e25, 1e37])
def test_squares_that_leave_float32(scale: float) -> None:
    rows = rows_of(5, 20, 0)
    rows[2:4] = (rows[2:4].astype(np.float64) * scale).astype(np.float32)
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(measure(rows, Work()).gram, wide @ wide.T, rtol=1e-3, atol=1e-6 * min(scale, 1.0) ** 2)
