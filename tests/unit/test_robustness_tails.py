"""Poisoned clients in cohorts and groups: against scipy, whole-number counting, enumeration and drawing."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import hypergeom

from robustness_oracle import by_counting, by_enumeration
from testudo_common.errors import PlannerError
from testudo_common.robustness.tails import (
    bad_groups,
    bad_in_cohort,
    chance_of_a_bad_group,
    chance_of_more,
    groups_of,
    quantile,
)
from testudo_common.secagg.groups import partition


@pytest.mark.parametrize("cohort", [1, 2, 3, 7, 10, 19, 20, 64, 101])
def test_groups_are_those_of_the_partition(cohort: int) -> None:
    clients = [f"client-{number}" for number in range(cohort)]
    for group_size in range(1, cohort + 3):
        drawn = partition(b"c" * 32, clients, group_size)
        assert groups_of(cohort, group_size) == tuple(len(group) for group in drawn)


@pytest.mark.parametrize(
    ("clients", "bad", "cohort"),
    [
        (1, 0, 1),
        (1, 1, 1),
        (10, 0, 4),
        (10, 10, 4),
        (10, 3, 10),
        (10, 3, 0),
        (10, 9, 8),
        (100, 20, 30),
        (1000, 100, 100),
        (1000, 500, 999),
        (100_000, 20_000, 1000),
    ],
)
def test_a_cohort_is_hypergeometric(clients: int, bad: int, cohort: int) -> None:
    found = bad_in_cohort(clients, bad, cohort)
    expected = hypergeom.pmf(np.arange(cohort + 1), clients, bad, cohort)
    assert found.shape == (cohort + 1,)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-300)


def test_a_cohort_against_whole_numbers() -> None:
    """scipy's own error is larger than ours."""
    clients, bad, cohort = 500, 120, 200
    ways = [math.comb(bad, k) * math.comb(clients - bad, cohort - k) for k in range(cohort + 1)]
    expected = [float(Fraction(count, math.comb(clients, cohort))) for count in ways]
    np.testing.assert_allclose(bad_in_cohort(clients, bad, cohort), expected, rtol=4e-16 * (bad + 4 * cohort))


@pytest.mark.parametrize("sizes", [(3,), (1, 1, 1), (2, 2), (1, 2, 3), (2, 2, 3), (4, 4), (3, 1, 3, 1)])
@pytest.mark.parametrize("outside", [0, 1, 3])
def test_groups_against_every_placement(sizes: tuple[int, ...], outside: int) -> None:
    clients = sum(sizes) + outside
    for bad in range(clients + 1):
        expected = by_enumeration(sizes, bad, clients)
        assert by_counting(sizes, bad, clients) == expected, "the oracle of the larger cases"
        np.testing.assert_allclose(bad_groups(sizes, bad, clients), [float(chance) for chance in expected], rtol=1e-14)


@pytest.mark.parametrize(
    ("clients", "cohort", "group_size", "bad"),
    [
        (20, 20, 4, 3),
        (60, 60, 7, 6),
        (100, 100, 3, 30),
        (200, 50, 4, 20),
        (200, 50, 4, 50),
        (200, 50, 4, 90),  # more poisoned than asked
        (300, 61, 8, 199),
        (100, 40, 1, 60),
    ],
)
def test_groups_against_whole_numbers(clients: int, cohort: int, group_size: int, bad: int) -> None:
    sizes = groups_of(cohort, group_size)
    expected = [float(chance) for chance in by_counting(sizes, bad, clients)]
    found = bad_groups(sizes, bad, clients)
    assert found.shape == (len(sizes) + 1,)
    np.testing.assert_allclose(found, expected, rtol=4e-16 * (bad + 4 * cohort))


@pytest.mark.parametrize(("clients", "cohort", "group_size", "bad"), [(1000, 600, 4, 90), (1000, 1000, 3, 150)])
def test_groups_against_drawing(clients: int, cohort: int, group_size: int, bad: int) -> None:
    """Four thousand rounds; a frequency is within five of its standard errors."""
    rng, rounds, sizes = np.random.default_rng(0), 4000, groups_of(cohort, group_size)
    group_of_place = np.repeat(np.arange(len(sizes)), sizes)
    seen = np.zeros(len(sizes) + 1)
    for _ in range(rounds):
        places = rng.choice(clients, bad, replace=False)
        seen[len(np.unique(group_of_place[places[places < cohort]]))] += 1
    found = bad_groups(sizes, bad, clients)
    spread = np.sqrt(found * (1 - found) / rounds)
    assert (np.abs(seen / rounds - found) <= 5 * spread + 1 / rounds).all()
    assert np.abs(np.cumsum(seen / rounds - found)).max() < 0.04  # Kolmogorov: 1e-5 at 2.4 / sqrt(4000)


def test_everybody_and_nobody() -> None:
    assert bad_groups((3, 4), 0).tolist() == [1, 0, 0]
    assert bad_groups((3, 4), 7).tolist() == pytest.approx([0, 0, 1])
    assert bad_groups((3, 4), 0, 50).tolist() == [1, 0, 0]
    assert bad_groups((3, 4), 50, 50).tolist() == pytest.approx([0, 0, 1])


def test_large_cohorts_keep_their_small_tails() -> None:
    """A thousand members in 300 groups; the tail is a product of 150 small factors, and no rounding hides it."""
    found = bad_groups([3] * 200 + [4] * 100, 300)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert (found[:75] == 0).all(), "300 poisoned clients fill 75 groups at the least"
    exactly = Fraction(math.comb(100, 75), math.comb(1000, 300))
    assert found[75] == pytest.approx(float(exactly), rel=1e-12)
    assert 0 < found[75] < 1e-200


def test_one_group() -> None:
    for members in (1, 3, 8, 20):
        expected = 1 - hypergeom.pmf(0, 20, 5, members)
        assert chance_of_a_bad_group(20, 5, members) == pytest.approx(expected)
    assert chance_of_a_bad_group(20, 0, 8) == 0
    assert chance_of_a_bad_group(20, 20, 1) == 1


def test_tails_by_hand() -> None:
    """Two poisoned clients in two pairs: the second joins the first in one of three free places."""
    halves = bad_groups((2, 2), 2)
    assert halves.tolist() == pytest.approx([0, 1 / 3, 2 / 3])
    assert [chance_of_more(halves, k) for k in range(4)] == pytest.approx([1, 2 / 3, 0, 0])
    assert [quantile(halves, chance) for chance in (0.0, 0.5, 0.7, 1.0)] == [2, 2, 1, 0]


def test_the_quantile_is_the_least() -> None:
    found = bad_groups(groups_of(100, 4), 12, 300)
    for max_failure in (0.3, 1e-2, 1e-3, 1e-9):
        f = quantile(found, max_failure)
        assert chance_of_more(found, f) <= max_failure < chance_of_more(found, f - 1)


@pytest.mark.parametrize(("clients", "bad", "cohort"), [(10, 11, 5), (10, -1, 5), (10, 5, 11), (10, 5, -1)])
def test_more_than_there_are(clients: int, bad: int, cohort: int) -> None:
    with pytest.raises(PlannerError, match="of 10 clients"):
        bad_in_cohort(clients, bad, cohort)


def test_more_poisoned_than_members() -> None:
    with pytest.raises(PlannerError, match="8 cannot be poisoned and 7 asked"):
        bad_groups((3, 4), 8)
