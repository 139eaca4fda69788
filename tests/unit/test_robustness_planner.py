"""f, groups and rule of a wish, refusals with what to move, and the frontier: known answers and slower searches."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from testudo_common.errors import PlannerError
from testudo_common.robustness import (
    RECOMMENDED,
    Wish,
    bad_rows,
    breakdown,
    choose,
    count_of_share,
    failure_of,
    frontier,
)
from testudo_common.robustness.shares import percent, share_of_count
from testudo_common.robustness.survivors import colluders_of, dropouts_of, fewest_in_a_sum, keeps
from testudo_common.robustness.tails import chance_of_more
from testudo_common.robustness.withstand import is_hopeless, most_a_rule_withstands, most_poisoned, outvoted, rows
from testudo_common.secagg.quantize import Layout
from testudo_common.secagg.terms import Parameters
from testudo_server.aggregate import chain

# Shares.


def test_shares_and_counts() -> None:
    assert count_of_share(0.29, 100) == 29, "int(0.29 * 100) is 28"
    assert [share_of_count(count, n) for count, n in ((0, 7), (2, 7), (1, 3), (12, 100), (64, 1000), (7, 7))] == [
        *(0.0, 0.3, 0.4, 0.12, 0.064),
        1.0,
    ]
    assert [percent(share) for share in (0.2, 0.29, 0.064, 0.0, 1e-5)] == ["20 %", "29 %", "6.4 %", "0 %", "0.001 %"]


def test_a_share_is_read_back_as_its_count() -> None:
    for n in (1, 2, 3, 7, 20, 64, 97, 1000, 99_991):
        for count in range(0, n + 1, max(1, n // 50)):
            assert count_of_share(share_of_count(count, n), n) == count


# How many rows may be bad.


def test_f_where_everybody_is_asked() -> None:
    """Then every poisoned client is, and each can spoil a group of its own."""
    assert bad_rows(100, 100, 0.29, 1, 1e-3) == 29
    assert bad_rows(20, 20, 0.1, 4, 1e-3) == 2
    assert bad_rows(20, 20, 0.1, 10, 1e-3) == 2
    assert bad_rows(20, 20, 0.1, 20, 1e-3) == 1
    assert bad_rows(20, 20, 0.1, 10, 0.6) == 1, "two fall into different halves with probability 10/19"
    assert failure_of(20, 20, 0.1, 10, f=1) == pytest.approx(10 / 19)


@pytest.mark.parametrize("group_size", [1, 4, 100])
def test_nobody_poisoned(group_size: int) -> None:
    assert bad_rows(1000, 100, 0.0, group_size, 1e-9) == 0
    assert bad_rows(1000, 100, 0.0009, group_size, 1e-9) == 0, "under one client"
    assert failure_of(1000, 100, 0.0, group_size) == 0


def test_f_of_a_cohort_that_is_drawn() -> None:
    """Plain: the hypergeometric quantile, as scipy 1.17 has it (``hypergeom.isf(1e-3, 1000, 100, 100)``)."""
    assert bad_rows(1000, 100, 0.1, 1, 1e-3) == 20
    assert failure_of(1000, 100, 0.1, 1, f=20) == pytest.approx(3.828641284e-4, rel=1e-8)


def test_failure_without_f_is_half_or_more() -> None:
    """Of four groups two are half; of five it takes three."""
    assert failure_of(20, 20, 0.1, 5) == failure_of(20, 20, 0.1, 5, f=1) > 0
    assert failure_of(20, 20, 0.1, 4) == failure_of(20, 20, 0.1, 4, f=2) == 0
    assert [most_a_rule_withstands(count) for count in (1, 2, 3, 4, 5)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("max_failure", [1e-6, 1e-3, 0.3])
def test_shortcuts_never_decide_otherwise(max_failure: float) -> None:
    for clients, cohort in ((20, 20), (60, 24), (100, 100)):
        for bad in range(0, clients // 2, 3):
            for group_size in range(1, cohort + 1):
                distribution = rows(clients, bad, cohort, group_size)
                count = len(distribution) - 1
                exact = chance_of_more(distribution, most_a_rule_withstands(count)) <= max_failure
                assert outvoted(clients, bad, cohort, group_size, max_failure) == exact
                if is_hopeless(clients, bad, cohort // count, max_failure):
                    assert not exact


@pytest.mark.parametrize(("clients", "cohort"), [(20, 20), (50, 21), (120, 64)])
def test_the_most_poisoned_clients(clients: int, cohort: int) -> None:
    for group_size, max_failure in product((1, 2, 3, 4, 7, cohort), (1e-6, 1e-3, 0.99)):
        most = most_poisoned(clients, cohort, group_size, max_failure)
        assert outvoted(clients, most, cohort, group_size, max_failure)
        assert not any(outvoted(clients, bad, cohort, group_size, max_failure) for bad in range(most + 1, clients + 1))


# What secure aggregation leaves.


def test_survivors_of_groups() -> None:
    assert [dropouts_of(members, 0.2) for members in (2, 4, 9, 10, 64, 65, 100)] == [1, 1, 1, 2, 12, 13, 20]
    assert [dropouts_of(members, 0.0) for members in (2, 10, 100)] == [0, 0, 0]
    assert [fewest_in_a_sum(members, 0.2) for members in (1, 2, 3, 4, 5, 10, 100)] == [1, 2, 3, 3, 4, 8, 80]
    assert [keeps(members, 3, 0.2) for members in (2, 3, 4, 5)] == [False, False, True, True]
    assert [keeps(members, 3, 0.0) for members in (2, 3, 4)] == [False, True, True]
    assert [colluders_of(members, 0.2) for members in (1, 3, 4, 10, 100)] == [0, 2, 1, 5, None]


def test_shares_that_no_threshold_withstands() -> None:
    assert fewest_in_a_sum(5, 0.4) is None
    assert colluders_of(5, 0.4) is None
    assert not keeps(5, 3, 0.4)
    assert fewest_in_a_sum(10, 0.4) == 6
    assert fewest_in_a_sum(10, 0.4, collusion=0.3) is None


# Choices.

EXAMPLE = Wish(clients=100, cohort=100, corruption=0.1, dropout=0.1, min_group=3)


@pytest.mark.parametrize(
    ("clients", "cohort", "corruption", "min_group", "group_size", "groups", "f", "spare", "largest"),
    [
        (20, 20, 0.1, 1, 1, 20, 2, 15, 4),
        (20, 20, 0.2, 1, 1, 20, 4, 11, 2),
        (20, 20, 0.1, 3, 4, 5, 2, 0, 4),
        (20, 20, 0.05, 4, 5, 4, 1, 1, 6),
        (100, 100, 0.1, 3, 4, 25, 10, 4, 4),
        (1000, 100, 0.1, 1, 1, 100, 20, 59, 2),
        (1000, 100, 0.05, 3, 4, 25, 11, 2, 4),
        (20, 20, 0.0, 4, 5, 4, 0, 3, 20),
    ],
)
def test_choices(
    clients: int,
    cohort: int,
    corruption: float,
    min_group: int,
    group_size: int,
    groups: int,
    f: int,
    spare: int,
    largest: int,
) -> None:
    choice = choose(Wish(clients, cohort, corruption, 0.1, min_group))
    assert (choice.group_size, choice.groups, choice.f) == (group_size, groups, f)
    assert (choice.spare_groups, choice.largest_group_size) == (spare, largest)
    assert choice.survivors >= min_group
    assert choice.failure <= 1e-3
    assert choice.half_bad <= choice.failure
    assert choice.failure == failure_of(clients, cohort, corruption, group_size, f)
    assert choice.half_bad == failure_of(clients, cohort, corruption, group_size)


def test_a_larger_group_where_the_smallest_leaves_an_even_number() -> None:
    """One of four groups may be bad, and one of three: three are less often more."""
    wish = Wish(clients=60, cohort=21, corruption=0.034, dropout=0.1, min_group=4, max_failure=0.09)
    assert not outvoted(60, 2, 21, 5, 0.09)
    assert choose(wish).group_size == 6
    assert choose(wish).groups == 3


@pytest.mark.parametrize(("min_group", "corruption"), [(1, 0.05), (3, 0.05), (1, 0.0), (3, 0.0)])
def test_rules_are_those_that_the_server_has(min_group: int, corruption: float) -> None:
    choice = choose(replace(EXAMPLE, min_group=min_group, corruption=corruption))
    assert choice.rule == (RECOMMENDED if corruption else ("mean",))
    chain(choice.rule, f=choice.f)


def test_groups_are_made_larger_than_asked_but_never_count_on_it() -> None:
    """11 clients in groups of 4 are 5 and 6; but in a cohort of 8, one of 4 would keep 3."""
    choice = choose(Wish(clients=11, cohort=11, corruption=0.0, dropout=0.1, min_group=4))
    assert (choice.group_size, choice.groups, choice.largest_group, choice.survivors) == (5, 2, 6, 4)


def test_poison_too_rare_to_plan_for() -> None:
    """One of 10000 clients is seldom among five, and a rule that withstands nothing is the mean."""
    choice = choose(Wish(clients=10_000, cohort=5, corruption=0.0001, dropout=0.1, min_group=1))
    assert (choice.poisoned, choice.f, choice.rule) == (1, 0, ("mean",))
    assert choice.failure == pytest.approx(5e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.45])
@pytest.mark.parametrize("collusion", [0.0, 0.1, 0.3, 0.4])
@pytest.mark.parametrize("min_group", [3, 4])
def test_the_protocol_takes_what_was_chosen(dropout: float, collusion: float, min_group: int) -> None:
    for cohort in (8, 10, 12, 30, 53, 150):
        try:
            choice = choose(Wish(cohort, cohort, 0.02, dropout, min_group, collusion=collusion))
        except PlannerError:
            continue
        layout = Layout(values=1, max_norm=1.0, value_bits=16, max_weight=1, count_bounds=())
        Parameters(choice.group_size, min_group, min_group, collusion, dropout, 0.0, layout).check(cohort)
        assert choice.survivors >= min_group


# Refusals.


def refused(wish: Wish) -> PlannerError:
    with pytest.raises(PlannerError) as caught:
        choose(wish)
    return caught.value


def test_a_refusal_says_what_to_move() -> None:
    error = refused(Wish(clients=1000, cohort=100, corruption=0.1, dropout=0.1, min_group=4))
    assert error.nearest == {"corruption": 0.041, "min_group": 1, "cohort": 665}
    assert str(error) == (
        "robustness: with 100 of 1000 clients (10 %) poisoned, half or more of the 20 groups of a round (of 5 clients: "
        "it takes 5 to keep 4 when 10 % drop out) hold one with a probability over 0.001, and no rule outvotes them. "
        "Lower corruption from 10 % to 4.1 %, or lower min_group from 4 to 1 (the server then sees single updates), "
        "or raise the cohort from 100 to 665 clients"
    )
    assert pickle.loads(pickle.dumps(error)).nearest == error.nearest


@pytest.mark.parametrize(
    ("wish", "nearest"),
    [
        (Wish(20, 20, 0.1, 0.1, 4), {"corruption": 0.05, "min_group": 3, "dropout": 0.0}),
        (Wish(20, 20, 0.2, 0.1, 3), {"corruption": 0.1, "min_group": 1}),
        (Wish(100, 100, 0.2, 0.1, 3), {"corruption": 0.12, "min_group": 1}),
        (Wish(100, 20, 0.0, 0.1, 30), {"min_group": 18, "cohort": 33}),
        (Wish(100, 20, 0.0, 0.3, 16), {"min_group": 14, "cohort": 22, "dropout": 0.24}),
        (Wish(60, 3, 0.45, 0.1, 1), {"corruption": 0.02, "cohort": 55}),
        (Wish(100, 10, 0.0, 0.3, 8), {"min_group": 7, "cohort": 11, "dropout": 0.29}),
        (Wish(3, 3, 0.4, 0.1, 30), {"min_group": 1}),
        (Wish(2, 2, 0.0, 0.1, 30), {"min_group": 1}),
    ],
)
def test_nearest(wish: Wish, nearest: dict[str, float]) -> None:
    error = refused(wish)
    assert error.nearest == nearest
    for name, value in nearest.items():
        changed: dict[str, Any] = {name: value}
        choose(replace(wish, **changed))


def test_groups_that_hide_nobody() -> None:
    error = refused(Wish(clients=100, cohort=20, corruption=0.0, dropout=0.1, min_group=30))
    assert error.problem == "no groups of a cohort of 20 keep 30 clients each when 10 % of them drop out"


def test_plain_can_be_refused_too() -> None:
    error = refused(Wish(clients=60, cohort=3, corruption=0.45, dropout=0.1, min_group=1))
    assert error.problem.startswith("with 27 of 60 clients (45 %) poisoned, half or more of the 3 updates of a round")


def test_more_than_one_number_to_move() -> None:
    error = refused(Wish(clients=4, cohort=4, corruption=0.25, dropout=0.45, min_group=4))
    assert error.nearest == {"min_group": 1}
    error = refused(Wish(clients=20, cohort=1, corruption=0.45, dropout=0.45, min_group=20))
    assert error.nearest == {}
    assert error.remedy.startswith("No one of corruption, min_group, cohort and dropout is enough by itself")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clients", 0),
        ("cohort", 0),
        ("cohort", 101),
        ("corruption", -0.1),
        ("corruption", 0.5),
        ("corruption", float("nan")),
        ("dropout", 0.5),
        ("dropout", -0.1),
        ("min_group", 0),
        ("min_group", 2),
        ("min_group", -4),
        ("max_failure", 0.0),
        ("max_failure", 1.0),
        ("collusion", 0.5),
    ],
)
def test_numbers_out_of_range(name: str, value: float) -> None:
    changed: dict[str, Any] = {name: value}
    with pytest.raises(PlannerError) as caught:
        replace(EXAMPLE, **changed)
    assert caught.value.where == name
    assert caught.value.remedy


# The frontier.


def test_expected_breakdown() -> None:
    """Of an infinite population, in percent, for groups of 2, 3, 4, 5 and 8."""
    assert [round(100 * breakdown(members)) for members in (2, 3, 4, 5, 8)] == [29, 21, 16, 13, 8]


def test_the_infinite_formula_is_the_limit() -> None:
    """Many clients, of whom many are asked: the exact share comes near it from below."""
    for members, near in ((2, 0.01), (4, 0.007), (8, 0.004)):
        (point,) = frontier(100_000, 4096, 0.0, 0.3, [members])
        assert point.breakdown - near < point.corruption < point.breakdown


def test_points() -> None:
    plain, four, all_in_one = frontier(100, 100, 0.1, group_sizes=[1, 4, 100])
    assert (plain.groups, plain.survivors, plain.poisoned, plain.colluders) == (100, 1, 49, 0)
    assert plain.honest_survivors == 1
    assert (four.groups, four.survivors, four.poisoned, four.corruption, four.colluders) == (25, 3, 12, 0.12, 1)
    assert four.honest_survivors == pytest.approx(1 + 2 * 87 / 99)
    assert (all_in_one.groups, all_in_one.survivors, all_in_one.poisoned) == (1, 90, 0)
    assert all_in_one.colluders is None


def test_every_size_has_its_point() -> None:
    points = frontier(40, 30, 0.1)
    assert [point.group_size for point in points] == list(range(1, 31))
    assert [point.groups for point in points] == [30 // members for members in range(1, 31)]
    assert frontier(40, 30, 0.1, group_sizes=[7, 3, 0, 31]) == [points[6], points[2]]
    for point in points:
        assert outvoted(40, point.poisoned, 30, point.group_size, 1e-3)
        assert not outvoted(40, point.poisoned + 1, 30, point.group_size, 1e-3)


def test_sizes_that_no_threshold_lets_drop_out_have_no_point() -> None:
    assert [point.group_size for point in frontier(10, 10, 0.4, group_sizes=[1, 5, 10])] == [1, 10]


def test_a_large_frontier_is_no_wait() -> None:
    """It takes half a second."""
    begun = time.perf_counter()
    assert len(frontier(1000, 1000, 0.1, 2e-3)) == 1000
    assert time.perf_counter() - begun < 5
