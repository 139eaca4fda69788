"""Attacks on updates: values worked out by hand, constraints on the rows as sent, and what each does to the mean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from attack_cases import DEFENCES, NAMED, cohort, cosines, defence_of, knowledge_of
from testudo_common.errors import AggregationError, UsageError
from testudo_common.vectors import Vector
from testudo_server.aggregate import chain
from testudo_server.aggregate.base import Floats, Rows
from testudo_simulations.attacks import UPDATE_ATTACKS, Knowledge, damage_of, distance, toward
from testudo_simulations.attacks.adaptive import adaptive, candidates_for
from testudo_simulations.attacks.envelope import DIRECTIONS, Direction, direction_of, min_max, min_sum
from testudo_simulations.attacks.hidden import SHARE, adaptive_alie, decorrelated, hidden_min_max, hidden_opposite
from testudo_simulations.attacks.simple import free_rider, gaussian, non_finite, scaling, sign_flip, within_norm
from testudo_simulations.attacks.statistical import LEAST_Z, STRENGTHS, alie, alie_z, ipm, mimic, mimic_target

OWN = np.array([[3, 4], [0, -2]], dtype=np.float32)
# Mean (2, 0); variance over three (2, 24), so that std is (sqrt 2, sqrt 24). Squared distances 68, 40 and 148.
HONEST = np.array([[1, 4], [3, -4], [2, 0]], dtype=np.float32)
SPREAD = np.sqrt([2 / 3, 32 / 3])


def hand() -> Knowledge:
    return knowledge_of(OWN, HONEST)


def both(row: object) -> Floats:
    return np.repeat(np.asarray(row, dtype=np.float64)[np.newaxis], 2, axis=0)


# --- formulas


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (sign_flip()(hand()), [[-3, -4], [0, 2]]),
        (sign_flip(10.0)(hand()), [[-30, -40], [0, 20]]),
        (scaling(3.0)(hand()), [[9, 12], [0, -6]]),
        (scaling()(hand()), [[7.5, 10], [0, -5]]),  # five rows, two of them bad
        (alie(1.5)(hand()), both([2, 0] - 1.5 * SPREAD)),
        (alie()(hand()), both([2, 0] - norm.ppf(2 / 3) * SPREAD)),  # one supporter of three is needed
        (ipm(0.5)(hand()), both([-1, 0])),
        (ipm()(hand()), both([-1, 0])),
        (ipm(3.0)(hand()), both([-6, 0])),
        (mimic(2)(hand()), both([2, 0])),
    ],
    ids=str,
)
def test_by_hand(rows: Rows, expected: object) -> None:
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "b", "supporters"), [(50, 24, 2), (50, 12, 14), (25, 5, 8), (25, 11, 2), (20, 8, 3), (10, 4, 2), (7, 3, 1)]
)
def test_alies_z(n: int, b: int, supporters: int) -> None:
    assert alie_z(n, b) == pytest.approx(norm.ppf((n - b - supporters) / (n - b)), rel=1e-9)


def test_alies_z_of_a_known_case() -> None:
    """24 of 50 need 2 of the 26 honest ones: Phi(z) = 0.923."""
    assert alie_z(50, 24) == pytest.approx(1.4261, abs=1e-4)
    assert alie_z(50, 12) == pytest.approx(0.3360, abs=1e-4)


@pytest.mark.parametrize(("n", "b"), [(20, 2), (20, 1), (2, 1), (3, 1), (100, 1), (5, 4), (10, 5), (10, 9)])
def test_alies_z_is_positive_and_finite_where_the_formula_is_not(n: int, b: int) -> None:
    """At 20 and 2 it gives 0, under that less, to minus infinity at 2 and 1; with half the rows bad, infinity."""
    assert LEAST_Z <= alie_z(n, b) < 3.0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_directions(direction: Direction) -> None:
    expected = {"unit": [-1, 0], "std": -SPREAD, "sign": [-1, 0]}
    np.testing.assert_allclose(direction_of(hand(), direction), expected[direction])


def test_min_max_and_min_sum_by_hand() -> None:
    """Honest rows 68 apart in square. From (2 - g, 0) to (3, -4), (1 + g)^2 + 16 = 68; the sum is 3 g^2 + 34 = 85."""
    np.testing.assert_allclose(min_max("unit")(hand()), both([2 - (52**0.5 - 1), 0]), rtol=1e-6)
    np.testing.assert_allclose(min_sum("unit")(hand()), both([2 - 17**0.5, 0]), rtol=1e-6)


def test_mimic_copies_the_row_that_sticks_out_along_the_main_direction() -> None:
    """The longest one does not vary with the others."""
    honest = np.array([[0, 10, 0], [5, 0, 0], [-6, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    assert mimic_target(honest) == 0
    honest[0, 1] = 3
    assert mimic_target(honest) == 2
    assert mimic_target(-honest) == 2, "on either side"
    assert mimic_target(np.ones((4, 3), dtype=np.float32)) == 0
    line = np.array([[7], [11], [12], [10]], dtype=np.float32)
    assert mimic_target(line) == 2, "by its projection; row 0 is further from the mean"
    np.testing.assert_array_equal(mimic()(knowledge_of(OWN[:, :1], honest[:, :1])), both([-6]))


def test_gaussian_has_the_norms_of_honest_rows_or_the_scale_asked_for() -> None:
    own, honest = cohort(9, 40, 200)
    honest *= np.arange(1, 10, dtype=np.float32)[:, np.newaxis]
    lengths = np.linalg.norm(gaussian()(knowledge_of(own, honest)), axis=1)
    there = np.linalg.norm(honest, axis=1)
    assert np.abs(lengths[:, np.newaxis] - there).min(axis=1).max() < 1e-5
    assert len(set(lengths.round(4))) > 3
    assert gaussian(7.0)(knowledge_of(own, honest)).std() == pytest.approx(7.0, rel=0.05)


def test_a_free_rider_sends_almost_nothing() -> None:
    own, honest = cohort(9, 4, 200)
    rows = free_rider(0.01)(knowledge_of(own, honest))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 0.01, rtol=1e-5)
    assert np.abs(cosines(rows)).max() < 0.3
    assert np.linalg.norm(free_rider(5.0)(knowledge_of(own, honest, max_norm=1.0)), axis=1).max() <= 1.0


def test_every_kind_of_non_finite_row_is_sent_and_named_by_the_server() -> None:
    own, honest = cohort(9, 4, 50)
    rows = non_finite()(knowledge_of(own, honest))
    assert [int((~np.isfinite(row)).sum()) for row in rows] == [50, 50, 1, 1]
    assert np.isnan(rows[2]).any()
    assert np.isneginf(rows[3]).any()
    with pytest.raises(AggregationError, match="not finite: rows 9, 10, 11, 12"):
        chain(["trimmed_mean"], f=4)(np.concatenate([honest, rows]))


@pytest.mark.parametrize("name", sorted(set(UPDATE_ATTACKS) - {"sign_flip", "sign_flip_x10", "scaling", "non_finite"}))
def test_data_of_its_own_does_not_matter(name: str) -> None:
    """But for adaptive, which also tries what its own updates give: where that is not the best, it is not sent."""
    own, honest = cohort(8, 3, 40)
    sent = [
        UPDATE_ATTACKS[name]()(knowledge_of(each, honest, defence_of(("trimmed_mean",), 3), max_norm=2.0))
        for each in (own, own[::-1] * 2)
    ]
    np.testing.assert_array_equal(*sent)


# --- Min-Max and Min-Sum


def squared_to(row: Floats, honest: Rows) -> Floats:
    return ((honest.astype(np.float64) - row) ** 2).sum(axis=1)


def max_holds(row: Floats, honest: Rows) -> bool:
    return bool(squared_to(row, honest).max() <= max(squared_to(each, honest).max() for each in honest.astype(float)))


def sum_holds(row: Floats, honest: Rows) -> bool:
    return bool(squared_to(row, honest).sum() <= max(squared_to(each, honest).sum() for each in honest.astype(float)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("h", "d"), [(2, 1), (2, 3), (5, 2), (12, 30), (20, 500)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_constraint_holds_and_breaks_one_percent_further(direction: Direction, h: int, d: int, seed: int) -> None:
    own, honest = cohort(h, 3, d, seed)
    mean = honest.mean(axis=0, dtype=np.float64)
    for attack, holds in ((min_max(direction), max_holds), (min_sum(direction), sum_holds)):
        rows = attack(knowledge_of(own, honest))
        assert (rows == rows[0]).all()
        row = rows[0].astype(np.float64)
        assert holds(row, honest), "without any tolerance"
        assert not holds(mean + 1.01 * (row - mean), honest)


def test_min_sum_stays_nearer_than_min_max() -> None:
    own, honest = cohort(12, 3, 100)
    mean = honest.mean(axis=0)
    far, near = (np.linalg.norm(attack()(knowledge_of(own, honest))[0] - mean) for attack in (min_max, min_sum))
    assert near < 0.99 * far


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_where_nothing_varies_there_is_no_room(direction: Direction) -> None:
    honest = np.repeat(OWN[:1], 5, axis=0)
    for attack in (min_max(direction), min_sum(direction)):
        np.testing.assert_array_equal(attack(knowledge_of(OWN, honest)), both([3, 4]))


# --- search


def test_damage_by_hand() -> None:
    aggregate, mean = np.array([0, 4], dtype=np.float32), np.array([3.0, 0.0])
    assert distance(aggregate, mean) == 5.0
    assert toward(aggregate, mean) == 3.0
    assert toward(np.array([5, 1], dtype=np.float32), mean) == -2.0
    assert toward(aggregate, np.zeros(2)) == 0.0


def test_a_defence_that_refuses_is_not_damaged() -> None:
    known = knowledge_of(OWN, HONEST, defence_of(("trimmed_mean",), 3))
    assert damage_of(known, OWN) == 0.0
    assert adaptive()(known).shape == (2, 2)


def test_without_a_defence_there_is_nothing_to_search() -> None:
    with pytest.raises(UsageError, match="no defence"):
        adaptive()(hand())
    with pytest.raises(UsageError, match="no defence"):
        damage_of(hand(), OWN)


@pytest.mark.parametrize(
    ("own", "honest", "max_norm"),
    [
        (OWN.astype(np.float64), HONEST, 1.0),
        (OWN[0], HONEST, 1.0),
        (OWN[:0], HONEST, 1.0),
        (OWN, HONEST[:0], 1.0),
        (OWN, HONEST[:, :1], 1.0),
        (OWN, HONEST, 0.0),
        (OWN, HONEST, float("nan")),
    ],
)
def test_knowledge_that_is_none(own: Rows, honest: Rows, max_norm: float) -> None:
    with pytest.raises(UsageError):
        knowledge_of(own, honest, max_norm=max_norm)


def test_knowledge_prints_no_updates() -> None:
    assert repr(knowledge_of(OWN, HONEST, max_norm=1.0)) == "Knowledge(max_norm=1.0)"


@pytest.mark.parametrize("names", DEFENCES, ids=NAMED)
def test_a_search_finds_the_best_strength(names: tuple[str, ...]) -> None:
    own, honest = cohort(12, 4, 300)
    known = knowledge_of(own, honest, defence_of(names, 4), max_norm=1.2)
    for attack in (alie, ipm):
        done = [damage_of(known, attack(strength)(known)) for strength in STRENGTHS]
        found = damage_of(known, attack()(known))
        assert found >= max(done)
        assert found > min(done)


@pytest.mark.parametrize("measure", [distance, toward])
@pytest.mark.parametrize("names", DEFENCES, ids=NAMED)
def test_adaptive_is_the_worst_of_all(names: tuple[str, ...], measure: object) -> None:
    own, honest = cohort(12, 4, 300)
    defence = defence_of(names, 4)

    def fresh() -> Knowledge:
        return knowledge_of(own, honest, defence, max_norm=1.2)

    judge = distance if measure is distance else toward
    known = fresh()
    tried = {name: damage_of(known, make(known), judge) for name, make in candidates_for(known)}
    done = damage_of(fresh(), adaptive(judge)(fresh()), judge)
    assert done == pytest.approx(max(tried.values()), rel=1e-12)
    for name in ("sign_flip", "scaling", "alie", "ipm", "min_max", "min_sum", "mimic"):
        fixed = within_norm(UPDATE_ATTACKS[name]())(fresh())
        assert done >= damage_of(fresh(), fixed, judge) - 1e-6, name
    assert done > 1.05 * damage_of(fresh(), own), "more than an honest client does"


def test_every_attack_is_tried() -> None:
    tried = {name.split()[0] for name, _ in candidates_for(knowledge_of(*cohort(12, 4, 20)))}
    assert tried == set(UPDATE_ATTACKS) - {"non_finite", "adaptive", "adaptive_bias"} | {
        "hidden_min_max",
        "hidden_opposite",
    }


# --- hiding


@pytest.mark.parametrize("share", [0.05, 0.2, SHARE, 0.9, 1.0])
def test_pairwise_cosines_are_the_share(share: float) -> None:
    known = knowledge_of(*cohort(12, 4, 300), max_norm=0.5)
    for rows in (decorrelated(known, known.honest_mean(), share=share), adaptive_alie(1.0, share)(known)):
        np.testing.assert_allclose(cosines(rows), share, atol=1e-6)
    rows = hidden_opposite(share)(known)
    np.testing.assert_allclose(cosines(rows), share, atol=1e-6)
    unit = known.honest_mean() / np.linalg.norm(known.honest_mean())
    np.testing.assert_allclose(rows @ unit, -(share**0.5) * 0.5, rtol=1e-5)


def test_hidden_rows_are_no_longer_than_the_median_honest_one() -> None:
    known = knowledge_of(*cohort(12, 4, 300))
    median = np.median(np.linalg.norm(known.honest, axis=1))
    assert np.linalg.norm(adaptive_alie(5.0)(known), axis=1).max() <= median
    np.testing.assert_allclose(np.linalg.norm(hidden_opposite()(known), axis=1), median, rtol=1e-5)


def test_dedupe_sees_alie_and_not_adaptive_alie() -> None:
    own, honest = cohort(12, 4, 300)
    rule = chain(["dedupe", "nnm", "trimmed_mean"], f=4)
    seen = rule(np.concatenate([honest, alie(1.0)(knowledge_of(own, honest))]))
    unseen = rule(np.concatenate([honest, adaptive_alie(1.0)(knowledge_of(own, honest))]))
    assert (seen.merged, seen.f) == ((tuple(range(12, 16)),), 2)
    assert (unseen.merged, unseen.f) == ((), 4)


def test_against_dedupe_hiding_is_worth_it() -> None:
    own, honest = cohort(12, 4, 300)
    known = knowledge_of(own, honest, defence_of(("dedupe", "nnm", "trimmed_mean"), 4), max_norm=1.2)
    assert damage_of(known, adaptive_alie()(known)) > 1.3 * damage_of(known, alie()(known))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_hidden_min_max_meets_its_constraint_row_by_row(direction: Direction) -> None:
    own, honest = cohort(12, 4, 300)
    rows = hidden_min_max(direction, 0.2)(knowledge_of(own, honest))
    greatest = max(squared_to(each, honest).max() for each in honest.astype(float))
    for row in rows.astype(np.float64):
        assert squared_to(row, honest).max() == pytest.approx(greatest, rel=1e-5)
    assert cosines(rows).max() < 0.5
    assert cosines(min_max(direction)(knowledge_of(own, honest))).min() > 0.99


# --- what they do to the mean

# Of 16 rows 4 are bad; the honest mean has length about 0.37, updates about 1. At least so far does the mean move, in
# the first column from the honest mean and in the second against it, where the attack has a side.
MOVES: dict[str, tuple[float, float | None]] = {
    "sign_flip": (0.1, 0.05),
    "sign_flip_x10": (1.0, 0.3),
    "scaling": (0.5, None),
    "gaussian": (0.12, 0.05),
    "alie": (0.3, None),
    "ipm": (0.35, 0.35),
    "min_max": (0.15, None),
    "min_sum": (0.15, None),
    "mimic": (0.15, None),
    "free_rider": (0.08, 0.08),
    "adaptive_alie": (0.15, None),
    "adaptive": (0.35, 0.35),
    "adaptive_bias": (0.35, 0.35),
}


@pytest.mark.parametrize("name", MOVES)
def test_the_plain_mean_is_moved(name: str) -> None:
    own, honest = cohort(12, 4, 300)

    def plain_mean(rows: Rows) -> Vector:
        mean: Vector = rows.mean(axis=0)
        return mean

    known = knowledge_of(own, honest, plain_mean, max_norm=1.2)
    rows = UPDATE_ATTACKS[name]()(known)
    away, against = MOVES[name]
    assert damage_of(known, rows) > away
    assert against is None or damage_of(known, rows, toward) > against


def test_enough_ipm_turns_the_mean_round() -> None:
    own, honest = cohort(12, 4, 300)
    for epsilon, turned in ((2.9, False), (3.1, True)):
        mean = np.concatenate([honest, ipm(epsilon)(knowledge_of(own, honest))]).mean(axis=0)
        assert bool(mean @ honest.mean(axis=0) < 0.0) is turned


def test_scaling_replaces_the_model() -> None:
    """The bad clients' own mean arrives whole."""
    own, honest = cohort(12, 4, 300)
    rows = scaling()(knowledge_of(own, honest))
    np.testing.assert_allclose(rows.sum(axis=0) / 16, own.mean(axis=0), atol=1e-6)


def test_the_names() -> None:
    assert list(UPDATE_ATTACKS) == [
        "sign_flip",
        "sign_flip_x10",
        "scaling",
        "gaussian",
        "non_finite",
        "alie",
        "ipm",
        "min_max",
        "min_sum",
        "mimic",
        "free_rider",
        "adaptive_alie",
        "adaptive",
        "adaptive_bias",
    ]
