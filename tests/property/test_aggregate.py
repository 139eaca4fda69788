"""What every chain of aggregation holds, for any rows: see ``aggregation_cases`` for the chains and the attacks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aggregation_cases import (
    ATTACKS,
    CHAINS,
    FROM_ZERO,
    NAMED,
    SETTINGS,
    aggregate,
    honest_rows_of,
    least_rows,
    rows_of,
)
from testudo_common.errors import AggregationError
from testudo_server.aggregate import Aggregated, Work, chain, compose, kappa_bound, usable_rows
from testudo_server.aggregate.base import Rows
from testudo_server.aggregate.coordinate import mean_of_ranks
from testudo_server.aggregate.gram import measure
from testudo_server.aggregate.networks import steps_for

every_chain = pytest.mark.parametrize("names", CHAINS, ids=NAMED)
seeds = st.integers(0, 2**32 - 1)
fs = st.integers(0, 4)
MANY_ARE_NOT_APART = [HealthCheck.filter_too_much]  # under some chains three cohorts of four
FINITE = {"width": 32, "allow_nan": False, "allow_infinity": False}


@st.composite
def cohorts(draw: st.DrawFn, names: tuple[str, ...]) -> tuple[Rows, int]:
    """Rows, and an f that the chain withstands among them."""
    f = draw(fs)
    n = least_rows(names, f) + draw(st.integers(0, 6))
    return rows_of(n, draw(st.sampled_from([1, 2, 7, 30])), draw(seeds)), f


def apart(names: tuple[str, ...], rows: Rows) -> bool:
    """Whether no tie among distances decides what a rule of selection selects, and a geometric median is one point.

    On a line the median of an even number is any point between two; mixed rows may be two points, each many times.
    """
    if names[-1] == "geometric_median" and (rows.shape[1] == 1 or "nnm" in names) and len(rows) % 2 == 0:
        return False
    if rows.shape[1] > 2:
        return True
    return {"krum", "multi_krum", "mda", "nnm", "dedupe"}.isdisjoint(names)


@every_chain
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=MANY_ARE_NOT_APART)
def test_a_permutation_of_clients_changes_nothing(names: tuple[str, ...], data: st.DataObject) -> None:
    if "bucketing" in names:
        return  # it draws
    rows, f = data.draw(cohorts(names))
    assume(apart(names, rows))
    order = np.random.default_rng(data.draw(seeds)).permutation(len(rows))
    there, here = aggregate(names, rows[order], f), aggregate(names, rows, f)
    if not mutual_pair_ties(names, len(rows), f):
        np.testing.assert_allclose(there.vector, here.vector, atol=2e-5)
        np.testing.assert_allclose(there.influence @ rows[order], here.influence @ rows, atol=2e-5)


def mutual_pair_ties(names: tuple[str, ...], n: int, f: int) -> bool:
    """Krum's scores tie exactly where it counts one neighbour, and a pair are each other's; or where rows were mixed,
    and several became one point. Then row numbers decide, or the last bit."""
    return names[-1] in ("krum", "multi_krum") and (n - f - 2 <= 1 or "nnm" in names)


@every_chain
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=MANY_ARE_NOT_APART)
def test_a_shift_of_all_rows_shifts_the_result(names: tuple[str, ...], data: st.DataObject) -> None:
    if not FROM_ZERO.isdisjoint(names):
        return
    rows, f = data.draw(cohorts(names))
    assume(apart(names, rows))
    rows = np.round(rows * 256) / np.float32(256)  # so that the shift is exact
    shift = np.float32(data.draw(st.integers(-1000, 1000)))
    expected = aggregate(names, rows, f).vector.astype(np.float64) + shift
    if not mutual_pair_ties(names, len(rows), f):
        np.testing.assert_allclose(aggregate(names, rows + shift, f).vector, expected, atol=1e-3)


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
@given(
    rows=st.integers(1, 60).flatmap(lambda n: arrays(np.float32, (n, 5), elements=st.floats(**FINITE))), data=st.data()
)
@settings(max_examples=100, deadline=None)
def test_coordinate_rules_stay_in_the_hull_of_what_is_kept(rule: str, rows: Rows, data: st.DataObject) -> None:
    """To the bit, for any floats: with f outliers on a side, in the hull of the honest coordinates."""
    f = data.draw(st.integers(0, (len(rows) - 1) // 2))
    vector = aggregate((rule,), rows, f).vector
    ordered = np.sort(rows, axis=0)
    assert (ordered[f] <= vector).all()
    assert (vector <= ordered[len(rows) - 1 - f]).all()


@given(rows=st.integers(1, 70).flatmap(lambda n: arrays(np.float32, (n, 3), elements=st.floats(-10, 10, width=32))))
@settings(max_examples=60, deadline=None)
def test_median_and_trimmed_mean_are_those_of_a_sort(rows: Rows) -> None:
    """Through networks up to 48 rows and through a sort from there; many entries are equal."""
    n = len(rows)
    ordered = np.sort(rows.astype(np.float64), axis=0)
    np.testing.assert_array_equal(aggregate(("median",), rows, 0).vector, np.float32(np.median(ordered, axis=0)))
    for f in {0, 1, n // 3, (n - 1) // 2}:
        if 2 * f < n:
            found = aggregate(("trimmed_mean",), rows, f).vector
            np.testing.assert_allclose(found, ordered[f : n - f].mean(axis=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", range(1, 13))
def test_networks_select_every_range_of_ranks(n: int) -> None:
    """By the 0-1 principle all inputs of zeros and ones are all inputs."""
    rows = (np.arange(2**n) >> np.arange(n)[:, None] & 1).astype(np.float32)  # [n, 2^n]
    ones = rows.sum(axis=0)
    for first in range(n):
        for last in range(first + 1, n + 1):
            kept = np.clip(ones - (n - last), 0, last - first)
            found = mean_of_ranks(rows, range(first, last), Work())
            np.testing.assert_array_equal(found, (kept / (last - first)).astype(np.float32))


def test_networks_are_pruned() -> None:
    assert len(steps_for(20, 9, 11)) < len(steps_for(20, 4, 16)) + 1 <= 103  # Batcher's whole network has 103
    assert steps_for(20, 0, 20) == ()


def attacked(names: tuple[str, ...], n: int, d: int, f: int, attack: str, seed: int) -> tuple[Rows, np.ndarray]:
    """Rows of which f are bad, at random places, and ``bool[n]``: which are honest."""
    rng = np.random.default_rng(seed)
    honest = honest_rows_of(names, n - f, d, seed % 1000)
    bad = ATTACKS[attack](honest, f, rng)
    order = rng.permutation(n)
    return np.concatenate([honest, bad])[order], order < n - f


@every_chain
@pytest.mark.parametrize("attack", ATTACKS)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_f_bad_rows_leave_the_result_near_the_honest_mean(
    names: tuple[str, ...], attack: str, data: st.DataObject
) -> None:
    """Finite, and within the kappa that is stated; the mean alone withstands none."""
    if "mean" in names:
        return
    f = data.draw(st.integers(1, 4))
    n = least_rows(names, f) + f + data.draw(st.integers(0, 6))
    rows, honest = attacked(names, n, data.draw(st.sampled_from([3, 40])), f, attack, data.draw(seeds))
    found = aggregate(names, rows, f)
    assert np.isfinite(found.vector).all()
    kept = rows[honest].astype(np.float64)
    mean = kept.mean(axis=0)
    spread = float(((kept - mean) ** 2).sum(axis=1).mean())
    error = float(((found.vector - mean) ** 2).sum())
    kappa = kappa_bound(names, n, f)
    if math.isfinite(kappa):
        assert error <= kappa * spread * (1 + 1e-4)
    else:  # no bound is stated, but the bad rows must not have moved it far
        longest = np.linalg.norm(kept, axis=1).max()
        assert np.linalg.norm(found.vector) <= 12 * longest + 40


@every_chain
@given(data=st.data(), poison=st.sampled_from([np.nan, np.inf, -np.inf]))
@settings(max_examples=10, deadline=None)
def test_what_is_not_finite_is_refused_by_name(names: tuple[str, ...], data: st.DataObject, poison: float) -> None:
    rows, f = data.draw(cohorts(names))
    bad = data.draw(st.integers(0, len(rows) - 1))
    rows[bad, data.draw(st.integers(0, rows.shape[1] - 1))] = poison
    with pytest.raises(AggregationError, match=rf"not finite: row {bad}$|not finite: row {bad}\b"):
        aggregate(names, rows, f)
    left, kept, rejected = usable_rows(rows, rows.shape[1])
    assert [each.row for each in rejected] == [bad]
    assert bad not in kept
    if len(left) >= least_rows(names, f):
        assert np.isfinite(aggregate(names, left, f).vector).all()


@pytest.mark.parametrize("names", [c for c in CHAINS if math.isfinite(kappa_bound(c, 40, 3))], ids=NAMED)
@given(data=st.data(), poison=st.sampled_from([np.nan, np.inf, -np.inf]))
@settings(max_examples=15, deadline=None)
def test_what_is_left_after_rejection_is_within_the_bound(
    names: tuple[str, ...], data: st.DataObject, poison: float
) -> None:
    """Of f bad rows some are not finite and go; f stays, so that the bound is one for any n - f of the honest left."""
    f = data.draw(st.integers(1, 4))
    gone = data.draw(st.integers(1, f))
    n = least_rows(names, f) + gone + data.draw(st.integers(0, 4))
    attack = data.draw(st.sampled_from(sorted(ATTACKS)))
    rows, honest = attacked(names, n, 5, f, attack, data.draw(seeds))
    for row in np.flatnonzero(~honest)[:gone]:
        rows[row, row % 5] = poison
    left, kept, rejected = usable_rows(rows, 5)
    assert [each.row for each in rejected] == [int(row) for row in np.flatnonzero(~honest)[:gone]]
    some = left[np.flatnonzero(honest[list(kept)])[: len(left) - f]].astype(np.float64)
    spread = ((some - some.mean(axis=0)) ** 2).sum(axis=1).mean()
    error = ((aggregate(names, left, f).vector - some.mean(axis=0)) ** 2).sum()
    assert error <= kappa_bound(names, len(left), f) * spread * (1 + 1e-4)


def bits(found: Aggregated) -> tuple[bytes, bytes]:
    return found.vector.tobytes(), found.influence.tobytes()


@every_chain
@pytest.mark.parametrize("n", [24, 55])
def test_same_bits_for_every_chunk_size_and_thread_count(names: tuple[str, ...], n: int) -> None:
    rows = rows_of(n, 70_011, 1)
    rows[1] = rows[0] + np.float32(1e-3) * rows[2]  # some distances are recomputed
    reference = bits(aggregate(names, rows, 3, work=Work(chunk=10**9)))
    for work in (Work(chunk=1), Work(chunk=10_000, threads=2), Work(chunk=1, threads=3)):
        assert bits(aggregate(names, rows, 3, work=work)) == reference


@every_chain
def test_inputs_are_untouched_and_nothing_is_kept_between_calls(names: tuple[str, ...]) -> None:
    rows = rows_of(24, 200, 2)
    before = rows.copy()
    rows.flags.writeable = False
    rule = chain(names, f=3, settings=SETTINGS)
    first = rule(rows, rng=np.random.default_rng(7))
    rule(rows_of(24, 200, 3), rng=np.random.default_rng(7))
    assert bits(rule(rows, rng=np.random.default_rng(7))) == bits(first)
    np.testing.assert_array_equal(rows, before)
    assert not np.shares_memory(first.vector, rows)


@every_chain
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_influence_is_what_makes_the_result(names: tuple[str, ...], data: st.DataObject) -> None:
    rows, f = data.draw(cohorts(names))
    found = aggregate(names, rows, f)
    assert found.influence.shape == (len(rows),)
    assert found.influence.dtype == np.float64
    assert (found.influence >= -1e-12).all()
    assert found.influence.sum() <= 1 + 1e-9
    if {"clip", "arc", "dedupe", "centred_clipping"}.isdisjoint(names):
        assert found.influence.sum() == pytest.approx(1.0, abs=1e-9)
    if names[-1] not in ("median", "trimmed_mean"):  # of which it is a mean over columns
        np.testing.assert_allclose(found.influence @ rows, found.vector, atol=1e-5)


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
@pytest.mark.parametrize(("d", "step"), [(1, 1), (7, 1), (1024, 1), (1025, 2), (100_000, 98), (600_000, 147)])
@given(seed=seeds, n=st.integers(3, 12), coarse=st.booleans())
@settings(max_examples=5, deadline=None)
def test_influence_under_a_coordinate_rule_is_a_mean_over_columns(
    rule: str, d: int, step: int, seed: int, n: int, coarse: bool
) -> None:
    """As ranks of a stable sort have it, with many ties and without, on every so many columns and on no others."""
    f = (n - 1) // 3
    rng = np.random.default_rng(seed)
    rows = (rng.integers(0, 3, size=(n, d)) if coarse else rng.standard_normal((n, d))).astype(np.float32)
    ranks = np.argsort(np.argsort(rows[:, ::step], axis=0, kind="stable"), axis=0)  # [n, columns]
    first, last = (f, n - f) if rule == "trimmed_mean" else ((n - 1) // 2, n // 2 + 1)
    expected = ((ranks >= first) & (ranks < last)).mean(axis=1) / (last - first)
    np.testing.assert_allclose(aggregate((rule,), rows, f).influence, expected, rtol=1e-12)


@pytest.mark.parametrize("exponent", [-120, -60, 0, 40, 90])
@pytest.mark.parametrize("names", [c for c in CHAINS if {"clip", "centred_clipping"}.isdisjoint(c)], ids=NAMED)
def test_scale_is_no_matter(names: tuple[str, ...], exponent: int) -> None:
    """An absolute constant in a rule would show here, as would squares that leave float32."""
    rows = rows_of(24, 50, 4)
    scaled = aggregate(names, np.ldexp(rows, exponent).astype(np.float32), 3).vector
    np.testing.assert_allclose(
        np.ldexp(scaled.astype(np.float64), -exponent), aggregate(names, rows, 3).vector, atol=1e-4
    )


@pytest.mark.parametrize("names", [c for c in CHAINS if {"clip", "arc", "centred_clipping"} & set(c)], ids=NAMED)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_norms_alone_are_enough_where_no_distance_is_looked_at(
    names: tuple[str, ...], scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(24, 5000, 4)
    rows[3:6] *= np.float32(scale)
    rule = chain(names, f=3, settings=replace(SETTINGS, iterations=1))
    found = rule(rows)
    monkeypatch.setattr(compose, "_NEED_NORMS", frozenset())
    np.testing.assert_allclose(found.vector, rule(rows).vector, atol=1e-5)


@given(seed=seeds, exponent=st.integers(-20, 3))
@settings(max_examples=30, deadline=None)
def test_distances_are_those_of_float64(seed: int, exponent: int) -> None:
    """Of near-copies far from the origin too, where products of float32 have no digit left."""
    rows = rows_of(6, 40, seed)
    rows[3:] = rows[0] + np.ldexp(rows[3:] - rows[0], exponent)
    wide = rows.astype(np.float64)
    expected = ((wide[:, None] - wide[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(measure(rows, Work()).distances, expected, rtol=1e-3, atol=0)
