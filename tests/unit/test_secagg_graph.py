"""Graphs and thresholds: against scipy's hypergeometric tail, brute force on small graphs, and the known table."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg.graph import (
    COMPLETE_UP_TO,
    LOG2_ABORT,
    LOG2_PRIVACY,
    Graph,
    _log2_disconnected,
    graph_of,
    log2_tails,
    share_of,
)

RATES = [(0.0, 0.0), (0.05, 0.05), (0.1, 0.1), (0.0, 0.2), (0.2, 0.0), (0.2, 0.2), (0.3, 0.1), (0.1, 0.3)]
SIZES = [65, 66, 80, 100, 101, 199, 300]
SPARSE = [(members, *rates) for members in SIZES for rates in RATES]


def is_connected(graph: Graph, members: Collection[int]) -> bool:
    """Whether ``members`` reach each other when the others are gone."""
    staying = set(members)
    reached, edge = set(), {min(staying)}
    while edge:
        reached |= edge
        edge = {other for place in edge for other in graph.neighbours(place)} & staying - reached
    return reached == staying


@pytest.mark.parametrize("graph", [Graph(2, 1, 2), Graph(7, 6, 4), Graph(9, 2, 2), Graph(10, 4, 3), Graph(65, 12, 9)])
def test_a_graph_is_symmetric_regular_and_connected(graph: Graph) -> None:
    for place in range(graph.members):
        near = graph.neighbours(place)
        assert place not in near
        assert list(near) == sorted(set(near))
        assert len(near) == graph.degree
        assert set(near) <= set(range(graph.members))
        assert all(place in graph.neighbours(other) for other in near)
        assert graph.holders(place) == tuple(sorted({*near, place}))
    assert is_connected(graph, range(graph.members))


def test_colluders() -> None:
    """So many corrupt neighbours learn nothing, by 2 t > k + 1 + c; one more would."""
    for graph in (Graph(5, 4, 4), Graph(10, 9, 9), Graph(65, 12, 9), graph_of(100, 0.1, 0.1)):
        assert 2 * graph.threshold > graph.degree + 1 + graph.colluders
        assert not 2 * graph.threshold > graph.degree + 1 + graph.colluders + 1


def test_known_neighbours() -> None:
    assert Graph(4, 3, 3).neighbours(2) == (0, 1, 3)
    assert Graph(9, 4, 3).neighbours(0) == (1, 2, 7, 8)
    assert Graph(9, 4, 3).neighbours(5) == (3, 4, 6, 7)
    assert Graph(9, 4, 3).holders(8) == (0, 1, 6, 7, 8)


@pytest.mark.parametrize(("members", "corruption", "dropout"), SPARSE)
def test_graphs_of_large_groups(members: int, corruption: float, dropout: float) -> None:
    """The thresholds hold what they promise by scipy's tails, and no smaller degree could.

    At a member with k neighbours: fewer than 2 t - k - 1 of them are corrupt, but with probability 2^-40 over all
    members; no more than k - t drop out, but with probability 2^-20.
    """
    graph = graph_of(members, corruption, dropout)
    corrupt, dropped = max(1, share_of(members, corruption)), share_of(members, dropout)
    assert graph.members == members
    assert 1 <= graph.threshold <= graph.degree + 1 <= members
    if graph.degree == members - 1:
        assert 2 * graph.threshold > members + corrupt
        assert graph.threshold <= members - dropped
    else:
        assert graph.degree % 2 == 0
        assert keeps_secrets(members, graph.degree, graph.threshold, corrupt)
        assert loses_nobody(members, graph.degree, graph.threshold, dropped)
        assert not loses_nobody(members, graph.degree, graph.threshold + 1, dropped)
    for degree in range(2, graph.degree - 1, 2):
        thresholds = np.arange(1, degree + 2)
        possible = keeps_secrets(members, degree, thresholds, corrupt) & loses_nobody(
            members, degree, thresholds, dropped
        )
        assert not possible.any() or _log2_disconnected(members, degree, corrupt + dropped) > LOG2_PRIVACY


def keeps_secrets(members: int, degree: int, threshold: Any, corrupt: int) -> Any:
    enough = 2 * np.asarray(threshold) - degree - 1
    return (enough > 0) & (members * hypergeom.sf(enough - 1, members - 1, corrupt, degree) <= 2**LOG2_PRIVACY)


def loses_nobody(members: int, degree: int, threshold: Any, dropped: int) -> Any:
    return members * hypergeom.sf(degree - np.asarray(threshold), members - 1, dropped, degree) <= 2**LOG2_ABORT


@pytest.mark.parametrize(
    ("members", "corruption", "dropout", "degree", "threshold"),
    [
        (100, 0.05, 0.05, 18, 13),
        (100, 0.10, 0.10, 32, 22),
        (1000, 0.05, 0.05, 52, 37),
        (1000, 0.10, 0.10, 100, 70),
    ],
)
def test_known_table(members: int, corruption: float, dropout: float, degree: int, threshold: int) -> None:
    assert graph_of(members, corruption, dropout) == Graph(members, degree, threshold)


@pytest.mark.parametrize("corruption", [0.0, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("dropout", [0.0, 0.05, 0.1, 0.3])
def test_up_to_64_everybody_is_everybodys_neighbour(corruption: float, dropout: float) -> None:
    """2 t > k + 1 + c, with one corrupt member at least: nobody gets both kinds of share of one victim.

    And t is no smaller than the stated dropouts, and one, ask for.
    """
    for members in range(2, COMPLETE_UP_TO + 1):
        graph = graph_of(members, corruption, dropout)
        assert graph.degree == members - 1
        corrupt = max(1, share_of(members, corruption))
        assert 2 * graph.threshold > graph.degree + 1 + corrupt
        assert graph.threshold <= members
        least = next(t for t in range(members + 1) if 2 * t > members + corrupt)
        spared = max(1, math.floor(members * round(100 * dropout) / 100))
        assert graph.threshold == max(least, members - spared)


def test_above_64_they_are_not() -> None:
    assert graph_of(64, 0.05, 0.05).degree == 63
    assert graph_of(65, 0.05, 0.05).degree < 64


def test_degrees_grow_with_the_rates() -> None:
    """And where nobody drops out there is still one corrupt member, who is not to be enough."""
    degrees = [graph_of(200, rate, rate).degree for rate in (0.0, 0.05, 0.1, 0.2, 0.3)]
    assert degrees == sorted(set(degrees))
    assert graph_of(200, 0.0, 0.0) == Graph(200, 4, 4)


@pytest.mark.parametrize(
    ("members", "corruption", "dropout"),
    [
        (100, 0.5, 0.5),
        (100, 0.4, 0.4),
        (65, 0.0, 0.5),
        (100, 0.6, 0.6),
        (1000, 0.4, 0.4),
        (100, 0.0, 0.99),
        (1000, 0.9, 0.05),
        (1000, 0.05, 0.9),
        (100, 0.999, 0.0),
        (100, 0.0, 0.999),
    ],
)
def test_impossible_rates_of_a_large_group(members: int, corruption: float, dropout: float) -> None:
    with pytest.raises(ProtocolError, match="no threshold") as caught:
        graph_of(members, corruption, dropout)
    assert caught.value.breach is Breach.TOO_FEW
    assert "corruption" in caught.value.remedy


def test_rates_that_only_the_complete_graph_withstands() -> None:
    assert graph_of(100, 0.33, 0.33) == Graph(100, 99, 67)
    with pytest.raises(ProtocolError, match="33 corrupt and 34 dropped"):
        graph_of(100, 0.33, 0.34)


rates = st.floats(0, 1, exclude_max=True)
DEFECT_OF_CORRUPTION = (
    "graph_of: up to 64 members, corruption > (m - 1) / m gives a threshold over the number of holders"
)
DEFECT_OF_DROPOUT = "graph_of: up to 64 members, t may be over what the stated dropouts leave; for 65 that is refused"


@given(st.integers(65, 130), rates, rates)
@settings(max_examples=60, deadline=None)
def test_any_rates_of_a_large_group_are_withstood_or_refused(members: int, corruption: float, dropout: float) -> None:
    try:
        graph = graph_of(members, corruption, dropout)
    except ProtocolError as error:
        assert error.breach is Breach.TOO_FEW
        return
    assert 2 <= graph.threshold <= graph.degree + 1


@pytest.mark.parametrize(("members", "corruption"), [(3, 0.7), (10, 0.95), (64, 0.99)])
def test_impossible_corruption_of_a_small_group(members: int, corruption: float) -> None:
    """Nobody but corrupt members: shamir.split ends the client with an AssertionError."""
    with pytest.raises(ProtocolError, match="no threshold"):
        graph_of(members, corruption, 0.0)


@pytest.mark.parametrize(("members", "dropout"), [(10, 0.5), (64, 0.6), (10, 0.95)])
def test_impossible_dropout_of_a_small_group(members: int, dropout: float) -> None:
    with pytest.raises(ProtocolError, match="no threshold"):
        graph_of(members, 0.05, dropout)


def test_shares_of_members_are_rounded_up() -> None:
    assert [share_of(members, 0.05) for members in (1, 20, 21, 40, 100, 1000)] == [1, 1, 2, 2, 5, 50]
    assert share_of(1000, 0.0) == 0
    for members in range(1, 400):
        for percent in range(100):
            assert share_of(members, percent / 100) == -(-members * percent // 100), "no float is in the way"


# Probabilities.


@given(st.integers(1, 400), st.data())
@settings(max_examples=150, deadline=None)
def test_tails_are_the_hypergeometric(population: int, data: st.DataObject) -> None:
    marked, drawn = data.draw(st.integers(0, population)), data.draw(st.integers(0, population))
    found = log2_tails(population, marked, drawn)
    assert len(found) == min(marked, drawn) + 2
    assert found[0] == pytest.approx(0, abs=1e-9)
    assert found[-1] == -math.inf
    assert found.max() <= 0
    assert (np.diff(found) <= 0).all()
    expected = hypergeom.sf(np.arange(len(found) - 1) - 1, population, marked, drawn)
    told = expected > 1e-290
    np.testing.assert_allclose(found[:-1][told], np.log2(expected[told]), rtol=1e-6, atol=1e-6)


def test_tails_known_answers() -> None:
    """Aces in a hand of five: by counting hands."""
    hands = [math.comb(4, aces) * math.comb(48, 5 - aces) for aces in range(5)]
    expected = [math.log2(sum(hands[aces:]) / math.comb(52, 5)) for aces in range(5)]
    assert log2_tails(52, 4, 5).tolist() == pytest.approx([*expected, -math.inf])


@pytest.mark.parametrize(("members", "degree"), [(8, 2), (9, 4), (10, 4), (11, 6)])
def test_falling_apart_is_not_likelier_than_its_bound(members: int, degree: int) -> None:
    """Every way to lose so many members of a small graph, counted."""
    graph = Graph(members, degree, 2)
    for gone in range(members - 1):
        ways = list(combinations(range(members), members - gone))
        apart = sum(not is_connected(graph, staying) for staying in ways) / len(ways)
        bound = _log2_disconnected(members, degree, gone)
        assert apart == 0 if bound == -math.inf else math.log2(apart or 1e-9) <= bound + 1e-9
    assert _log2_disconnected(members, degree, members) == 0, "nothing is promised where nobody stays"


def test_the_graph_does_not_fall_apart_under_the_agreed_rates() -> None:
    rng = np.random.default_rng(0)
    for members, corruption, dropout in ((100, 0.05, 0.05), (200, 0.1, 0.1)):
        graph = graph_of(members, corruption, dropout)
        gone = share_of(members, corruption) + share_of(members, dropout)
        for _ in range(20):
            assert is_connected(graph, rng.choice(members, members - gone, replace=False).tolist())
