"""Rules agree with ByzFL 0.0.11 wherever it is an oracle: from f = 0 to the limit, over shapes and seeds.

It is none for CAF (one step of a random power iteration), and for the geometric median only where its absolute
smoothing and its three iterations are matched to ours. It is given float64, and copies: clipping and ARC write into
what they are given.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from testudo_server.aggregate import Settings, Work, chain
from testudo_server.aggregate.base import Floats, Rows
from testudo_server.aggregate.blocks import combine
from testudo_server.aggregate.geometric import geometric_median
from testudo_server.aggregate.gram import measure
from testudo_server.aggregate.mda import preference
from testudo_server.aggregate.mixing import arc, clip, nnm
from testudo_server.aggregate.selection import krum, krum_scores, multi_krum
from testudo_simulations.benchmarks.byzfl_peer import byzfl_aggregators

WORK = Work()
SHAPES = [(3, 1), (4, 17), (5, 2), (8, 300), (11, 40), (20, 9000), (51, 33)]
CASES = [
    pytest.param(n, d, f, id=f"{n}x{d},f={f}")
    for n, d in SHAPES
    for f in (range((n + 1) // 2) if n < 20 else (0, 1, n // 5, (n - 1) // 2))
]
SEEDS = range(3)
NINE = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=np.float32)


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    module = byzfl_aggregators()
    if module is None:
        pytest.skip("ByzFL is not installed (pip install --no-deps byzfl==0.0.11)")
    return module


def rows_of(n: int, d: int, seed: int) -> Rows:
    """Of unlike lengths, away from the origin."""
    rng = np.random.default_rng([n, d, seed])
    return (rng.normal(size=(n, d)) * rng.uniform(0.5, 2.0, size=(n, 1)) + rng.normal(size=d)).astype(np.float32)


def agree(ours: Rows | Floats, theirs: object) -> None:
    np.testing.assert_allclose(ours, np.asarray(theirs, dtype=np.float64), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "f", "expected"),
    [
        (["mean"], 0, [4, 5, 6]),
        (["median"], 1, [4, 5, 6]),
        (["trimmed_mean"], 1, [4, 5, 6]),
        (["mda"], 1, [2.5, 3.5, 4.5]),
        (["caf"], 1, [4, 5, 6]),
        (["centred_clipping"], 1, [4, 5, 6]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and isinstance(value[0], str) else None,
)
def test_its_own_examples_of_rules(names: list[str], f: int, expected: list[float]) -> None:
    """From its docstrings; not its geometric median, (3.79, 4.79, 5.79) of three rows in a line around (4, 5, 6)."""
    agree(chain(names, f=f, settings=Settings(radius=100.0, iterations=1))(NINE).vector, expected)


def test_its_own_examples_of_krum_and_of_mixing() -> None:
    geometry = measure(NINE, WORK)
    agree(combine(krum(geometry, 1, neighbours=1), NINE, WORK), [1, 2, 3])
    agree(combine(multi_krum(geometry, 1, neighbours=1), NINE, WORK), [2.5, 3.5, 4.5])
    agree(nnm(geometry, 1).matrix @ NINE, [[2.5, 3.5, 4.5], [2.5, 3.5, 4.5], [5.5, 6.5, 7.5]])
    clipped = [
        [0.53452248, 1.06904497, 1.60356745],
        [0.91168461, 1.13960576, 1.36752692],
        [1.00514142, 1.14873305, 1.29232469],
    ]
    agree(clip(geometry, 1, max_norm=2.0).matrix @ NINE, clipped)
    agree(arc(geometry, 1).matrix @ NINE, [[1, 2, 3], [4, 5, 6], [4.41004009, 5.04004582, 5.67005155]])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "d", "f"), CASES)
def test_coordinate_rules(peer: ModuleType, n: int, d: int, f: int, seed: int) -> None:
    rows = rows_of(n, d, seed)
    agree(chain(["mean"], f=f)(rows).vector, peer.Average()(rows.astype(np.float64)))
    agree(chain(["median"], f=f)(rows).vector, peer.Median()(rows.astype(np.float64)))
    agree(chain(["trimmed_mean"], f=f)(rows).vector, peer.TrMean(f)(rows.astype(np.float64)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "d", "f"), CASES)
def test_krum_with_one_neighbour_more(peer: ModuleType, n: int, d: int, f: int, seed: int) -> None:
    """ByzFL takes n - f - 1 neighbours, not the paper's n - f - 2, and allows n < 2f + 3."""
    rows, neighbours = rows_of(n, d, seed), n - f - 1
    geometry = measure(rows, WORK)
    agree(combine(krum(geometry, f, neighbours=neighbours), rows, WORK), peer.Krum(f)(rows.astype(np.float64)))
    scores = np.sort(krum_scores(geometry, neighbours))
    if f and scores[n - f] - scores[n - f - 1] < 1e-6 * scores[-1]:
        return  # a pair of mutual neighbours has one score, and ByzFL's partition takes either
    ours = combine(multi_krum(geometry, f, neighbours=neighbours), rows, WORK)
    agree(ours, peer.MultiKrum(f)(rows.astype(np.float64)))


def test_the_neighbour_count_matters() -> None:
    """Else the test above would say nothing of it."""
    rows = [rows_of(8, 3, seed) for seed in range(50)]
    chosen = [[int(np.argmax(krum(measure(each, WORK), 2, neighbours=k))) for each in rows] for k in (4, 5)]
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "d", "f"), CASES)
def test_mixing(peer: ModuleType, n: int, d: int, f: int, seed: int) -> None:
    rows = rows_of(n, d, seed)
    geometry = measure(rows, WORK)
    agree(nnm(geometry, f).matrix @ rows, peer.NNM(f)(rows.astype(np.float64)))
    limit = float(np.median(geometry.norms))
    agree(clip(geometry, f, max_norm=limit).matrix @ rows, peer.Clipping(limit)(rows.astype(np.float64)))
    agree(arc(geometry, f).matrix @ rows, peer.ARC(f)(rows.astype(np.float64)))


def test_arc_in_whole_numbers(peer: ModuleType) -> None:
    """2 f / n (n - f) is 57 for 33 of 242; in floats, as in ByzFL, a little less, and a row too few is shortened."""
    n, f = 242, 33
    rows = rows_of(n, 30, 0)
    assert np.sum(arc(measure(rows, WORK), f).matrix.diagonal() < 1.0) == 57
    theirs = peer.ARC(f)(rows.astype(np.float64))
    assert np.sum(np.abs(theirs - rows).max(axis=1) > 1e-9) == 56


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "d", "f"), CASES)
def test_nnm_before_a_rule(peer: ModuleType, n: int, d: int, f: int, seed: int) -> None:
    rows = rows_of(n, d, seed)
    theirs = peer.TrMean(f)(peer.NNM(f)(rows.astype(np.float64)))
    agree(chain(["nnm", "trimmed_mean"], f=f)(rows).vector, theirs)
    clipped = chain(["clip", "nnm", "median"], f=f, settings=Settings(max_norm=1.5))(rows).vector
    agree(clipped, peer.Median()(peer.NNM(f)(peer.Clipping(1.5)(rows.astype(np.float64)))))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "d", "f"), [case for case in CASES if case.values[0] < 12])
def test_mda(peer: ModuleType, n: int, d: int, f: int, seed: int) -> None:
    """ByzFL tries all sets and keeps the first of the least diameter, so it is given the rows in our order of ties."""
    rows = rows_of(n, d, seed)
    ordered = rows[preference(measure(rows, WORK).distances)]
    agree(chain(["mda"], f=f)(rows).vector, peer.MDA(f)(ordered.astype(np.float64)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("radius", [0.5, 3.0, 100.0])
def test_centred_clipping(peer: ModuleType, radius: float, iterations: int, seed: int) -> None:
    rows = rows_of(9, 50, seed)
    ours = chain(["centred_clipping"], f=2, settings=Settings(radius=radius, iterations=iterations))(rows).vector
    agree(ours, peer.CenteredClipping(L=iterations, tau=radius)(rows.astype(np.float64)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "d"), [(5, 9), (8, 300), (20, 1000), (51, 33)])
def test_geometric_median_with_matched_constants(peer: ModuleType, n: int, d: int, seed: int) -> None:
    rows = rows_of(n, d, seed)
    geometry = measure(rows, WORK)
    nu = 1e-6 * float(np.sqrt(np.median(geometry.distances)))
    theirs = peer.GeometricMedian(nu=nu, T=1000)(rows.astype(np.float64))
    agree(combine(geometric_median(geometry, n // 5), rows, WORK), theirs)


def test_geometric_median_with_their_constants_is_another(peer: ModuleType) -> None:
    """The reason for matching them: at updates of a thousandth, an absolute 0.1 makes it the mean."""
    rows = rows_of(9, 50, 0) / np.float32(1000)
    rows[0] *= 5
    theirs = peer.GeometricMedian()(rows.astype(np.float64))
    np.testing.assert_allclose(theirs, rows.mean(axis=0), atol=1e-6)
    assert np.abs(chain(["geometric_median"], f=2)(rows).vector - theirs).max() > 1e-4
