"""Which shares are wrong: up to half of the spare ones are found, and past that nothing worse happens than a guess.

Source of the bound: a code of minimum distance r - t + 1 (MacWilliams and Sloane 1977, chapter 10).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from testudo_common.secagg import decoding, shamir
from testudo_common.secagg.decoding import _solve, places_in_error
from testudo_common.secagg.shamir import PRIME, Field

LIMBS = shamir.LIMBS
LARGEST = 65536


def polynomials(threshold: int, rng: np.random.Generator) -> list[list[int]]:
    """Coefficients of 16 polynomials, from the constant term up."""
    return rng.integers(0, PRIME, (LIMBS, threshold)).tolist()  # type: ignore[no-any-return]


def values(coefficients: list[list[int]], points: Field) -> Field:
    """Their values, ``int64[r, 16]``, in whole numbers of Python."""
    return np.array(
        [[sum(c * pow(int(x), k, PRIME) for k, c in enumerate(row)) % PRIME for row in coefficients] for x in points],
        dtype=np.int64,
    )


class Case:
    """Shares of one secret, some of which are wrong.

    Args:
        threshold: t.
        count: r.
        wrong: How many are wrong, each in any way of its own.
        seed: Of everything that is drawn.
        points: Where the shares were taken; any if None.
    """

    def __init__(self, threshold: int, count: int, wrong: int, seed: int = 0, points: Field | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.threshold = threshold
        self.points = rng.choice(LARGEST, count, replace=False) + 1 if points is None else points
        self.shares = values(polynomials(threshold, rng), self.points)
        self.wrong = np.zeros(count, dtype=np.bool_)
        self.wrong[rng.choice(count, wrong, replace=False)] = True
        self.errors = rng.integers(0, PRIME, self.shares.shape)
        self.errors[:, 0] = rng.integers(1, PRIME, count)
        self.errors[~self.wrong] = 0
        self.shares = (self.shares + self.errors) % PRIME
        self.most = (count - threshold) // 2

    def found(self, weights: Field | None = None) -> Any:
        """What is found; with ``weights``, int64[16], instead of drawn ones."""
        with pytest.MonkeyPatch.context() as patch:
            if weights is not None:
                patch.setattr(decoding, "uniform", weights.reshape)
            return places_in_error(self.points, self.shares, self.threshold)

    def shows(self, weights: Field) -> Any:
        """Whose error shows in a combination of the limbs with ``weights``."""
        return (self.errors * weights % PRIME).sum(axis=1) % PRIME != 0


def weights_of(seed: int) -> Field:
    return np.random.default_rng(seed).integers(0, PRIME, LIMBS)


seeds = st.integers(0, 2**32 - 1)


@st.composite
def decodable(draw: st.DrawFn) -> Case:
    """Up to half of the spare shares are wrong."""
    threshold, spare = draw(st.integers(1, 12)), draw(st.integers(0, 13))
    return Case(threshold, threshold + spare, draw(st.integers(0, spare // 2)), draw(seeds))


@st.composite
def hopeless(draw: st.DrawFn) -> Case:
    """More than half of the spare shares are wrong, perhaps all."""
    threshold, spare = draw(st.integers(1, 12)), draw(st.integers(0, 13))
    wrong = draw(st.integers(spare // 2 + 1, threshold + spare))
    return Case(threshold, threshold + spare, wrong, draw(seeds))


# Up to half of the spare shares.


@given(case=decodable(), seed=seeds)
def test_every_wrong_share_is_found(case: Case, seed: int) -> None:
    """All that shows in the combination that is decoded. Of right ones a few may be left out too: enough are left."""
    weights = weights_of(seed)
    found = case.found(weights)
    assert found.dtype == np.bool_
    assert found.shape == case.points.shape
    assert found[case.wrong & case.shows(weights)].all()
    assert found.sum() <= case.most


@given(threshold=st.integers(1, 12), errors=st.integers(0, 6), odd=st.booleans(), seed=seeds)
def test_as_many_as_can_be_found_are_found_exactly(threshold: int, errors: int, odd: bool, seed: int) -> None:
    """The locator has these roots and no others; one spare share more than twice as many changes nothing."""
    case, weights = Case(threshold, threshold + 2 * errors + odd, errors, seed), weights_of(seed)
    assume(case.shows(weights)[case.wrong].all())
    np.testing.assert_array_equal(case.found(weights), case.wrong)


@given(case=decodable(), seed=seeds, by=seeds)
def test_the_order_of_shares_does_not_matter(case: Case, seed: int, by: int) -> None:
    """Nor does whether they are int64 in rows or in columns."""
    weights, order = weights_of(seed), np.random.default_rng(by).permutation(len(case.points))
    found = case.found(weights)
    case.points, case.shares = case.points[order], np.asfortranarray(case.shares[order])
    np.testing.assert_array_equal(case.found(weights), found[order])


@pytest.mark.parametrize("points", [np.arange(1, 21), np.arange(LARGEST - 19, LARGEST + 1), np.arange(20, 0, -1)])
@pytest.mark.parametrize("error", [1, 65535, 65536])
def test_extreme_points_values_and_errors(points: Field, error: int) -> None:
    """Also where all shares but the wrong ones are 65536, the largest element of the field."""
    case = Case(4, 20, 0, points=points)
    case.shares = np.full((20, LIMBS), LARGEST, dtype=np.int64)
    wrong = np.zeros(20, dtype=np.bool_)
    wrong[[0, 1, 5, 6, 12, 17, 18, 19]] = True
    case.shares[wrong] = (case.shares[wrong] + error) % PRIME
    np.testing.assert_array_equal(case.found(np.eye(1, LIMBS, dtype=np.int64)[0] * LARGEST), wrong)


def test_one_limb_is_enough_to_be_wrong() -> None:
    case = Case(5, 11, 0)
    for place, limb in ((0, 0), (4, 7), (10, 15)):
        case.shares[place, limb] = (case.shares[place, limb] + 1) % PRIME
    np.testing.assert_array_equal(np.flatnonzero(case.found(np.ones(LIMBS, dtype=np.int64))), [0, 4, 10])


def test_a_whole_group_of_64() -> None:
    """14 wrong of 64, at the threshold that 5 % corrupt members need at the least."""
    case, weights = Case(35, 64, 14), weights_of(0)
    assert case.shows(weights)[case.wrong].all()
    np.testing.assert_array_equal(case.found(weights), case.wrong)


def test_what_is_given_stays_as_it_is() -> None:
    case = Case(4, 12, 4)
    points, shares = case.points.copy(), case.shares.copy()
    case.found()
    np.testing.assert_array_equal(case.points, points)
    np.testing.assert_array_equal(case.shares, shares)


# Nothing to spare.


@given(threshold=st.integers(1, 20), spare=st.integers(0, 1), wrong=st.integers(0, 20), seed=seeds)
def test_with_less_than_two_to_spare_nothing_is_found(threshold: int, spare: int, wrong: int, seed: int) -> None:
    case = Case(threshold, threshold + spare, min(wrong, threshold + spare), seed)
    assert not case.found().any()


def test_one_share_of_one() -> None:
    assert not Case(1, 1, 0).found().any()


# Past the bound.


@settings(max_examples=200)
@given(case=hopeless(), seed=seeds)
def test_too_many_wrong_shares_leave_enough_to_try(case: Case, seed: int) -> None:
    """Whatever is found: a threshold of shares is left, and nothing is raised."""
    found = case.found(weights_of(seed))
    assert found.dtype == np.bool_
    assert found.shape == case.points.shape
    assert found.sum() <= case.most


@given(
    shares=st.lists(st.sampled_from([0, 1, 2, 32768, 65535, 65536]), min_size=1, max_size=24),
    threshold=st.integers(1, 24),
)
def test_degenerate_shares_leave_enough_to_try(shares: list[int], threshold: int) -> None:
    """Few different values make systems that have no solution, or many."""
    case = Case(min(threshold, len(shares)), len(shares), 0, points=np.arange(1, len(shares) + 1))
    case.shares = np.repeat(np.array(shares)[:, None], LIMBS, axis=1)
    assert case.found(np.eye(1, LIMBS, dtype=np.int64)[0]).sum() <= case.most


def test_weights_of_zero_find_nothing_wrong_and_leave_enough_to_try() -> None:
    case = Case(4, 14, 5)
    assert case.found(np.zeros(LIMBS, dtype=np.int64)).sum() <= case.most


def test_liars_who_agree_and_are_most_are_believed() -> None:
    """Which is why a secret must prove right: decoding knows the nearest polynomial, and no truth."""
    rng = np.random.default_rng(1)
    points = np.arange(1, 11)
    truth, lie = (values(polynomials(4, rng), points) for _ in range(2))
    case = Case(4, 10, 0, points=points)
    case.shares = np.where(np.arange(10)[:, None] < 3, truth, lie)
    np.testing.assert_array_equal(case.found(weights_of(2)), np.arange(10) < 3)


def test_an_error_that_a_combination_hides_shows_in_another() -> None:
    """One draw in 65537 hides a wrong share. Its holder cannot bring that about: weights are drawn afterwards."""
    case = Case(4, 10, 0)
    case.errors[2, :2] = [1, PRIME - 1]
    case.shares = (case.shares + case.errors) % PRIME
    hiding, showing = np.ones(LIMBS, dtype=np.int64), np.arange(LIMBS)
    assert not case.shows(hiding).any()
    assert not case.found(hiding)[2]
    assert case.found(showing)[2]


def test_weights_are_drawn_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, ...]] = []

    def uniform(shape: tuple[int, int]) -> Field:
        found = shamir.uniform(shape)
        drawn.append(tuple(found.ravel().tolist()))
        return found

    monkeypatch.setattr(decoding, "uniform", uniform)
    case = Case(3, 9, 2)
    for _ in range(4):
        places_in_error(case.points, case.shares, case.threshold)
    assert len(set(drawn)) == 4
    assert {len(weights) for weights in drawn} == {LIMBS}


# Linear systems.


@given(rows=st.integers(1, 9), columns=st.integers(0, 9), rank=st.integers(0, 9), seed=seeds)
def test_a_system_that_has_solutions_is_given_one(rows: int, columns: int, rank: int, seed: int) -> None:
    """Of any rank, more equations than unknowns or fewer."""
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, PRIME, (rows, rank)), rng.integers(0, PRIME, (rank, columns))
    matrix = times(left, right) if rank else np.zeros((rows, columns), dtype=np.int64)
    wanted = times(matrix, rng.integers(0, PRIME, (columns, 1)))[:, 0]
    before = matrix.copy()
    solution = _solve(matrix, wanted)
    assert solution.shape == (columns,)
    np.testing.assert_array_equal(times(matrix, solution[:, None])[:, 0], wanted)
    np.testing.assert_array_equal(matrix, before)


@given(rows=st.integers(1, 9), columns=st.integers(0, 9), seed=seeds, few=st.booleans())
def test_a_system_without_a_solution_is_given_some_vector(rows: int, columns: int, seed: int, few: bool) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 2 if few else PRIME, (rows, columns))
    solution = _solve(matrix, rng.integers(0, PRIME, rows))
    assert solution.shape == (columns,)
    assert ((solution >= 0) & (solution < PRIME)).all()


def times(left: Field, right: Field) -> Field:
    """A product over the field, in whole numbers of Python."""
    product = left.astype(object) @ right.astype(object) if left.shape[1] else np.zeros((len(left), right.shape[1]))
    return (product % PRIME).astype(np.int64)
