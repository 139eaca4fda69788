"""Attacks on updates, for any cohort: shape, type, finiteness, norms, nothing changed, nothing kept between calls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attack_cases import knowledge_of
from testudo_common.vectors import Vector
from testudo_server.aggregate.base import Rows
from testudo_simulations.attacks import UPDATE_ATTACKS, Knowledge
from testudo_simulations.attacks.adaptive import candidates_for
from testudo_simulations.attacks.hidden import hidden_min_max, hidden_opposite
from testudo_simulations.attacks.simple import within_norm

LONGER = {"sign_flip", "sign_flip_x10", "scaling", "non_finite"}  # than max_norm, or as their own updates are
MAKERS = {**UPDATE_ATTACKS, "hidden_opposite": hidden_opposite, "hidden_min_max": hidden_min_max}
every_attack = pytest.mark.parametrize("name", MAKERS)


def median(rows: Rows) -> Vector:
    return np.median(rows.astype(np.float64), axis=0).astype(np.float32)


def cohort_of(seed: int, b: int, h: int, d: int, scale: float, kind: str) -> tuple[Rows, Rows]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(b + h, d)) + rng.normal(size=d)
    if kind == "equal":
        rows[:] = rows[0]
    if kind == "zero":
        rows[:] = 0.0
    if kind == "whole":
        rows = rows.round()
    rows = (scale * rows).astype(np.float32)
    return rows[:b], rows[b:]


cohorts = st.builds(
    cohort_of,
    seed=st.integers(0, 2**32 - 1),
    b=st.integers(1, 5),
    h=st.integers(1, 7),
    d=st.integers(1, 12),
    scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e12]),
    kind=st.sampled_from(["drawn", "drawn", "whole", "equal", "zero"]),
)
defences = st.sampled_from([None, median])


def known_to(name: str, own: Rows, honest: Rows, defence: object, share: float) -> Knowledge:
    """S is a share of the longest update, and honest ones keep to it."""
    norms = np.linalg.norm(np.concatenate([own, honest]).astype(np.float64), axis=1)
    limit = max(share * float(norms.max()), 1e-20)
    shrink = np.minimum(1.0, 0.999 * limit / np.maximum(norms[len(own) :], 1e-30))
    honest = (honest * shrink[:, np.newaxis]).astype(np.float32)
    rule = median if name in ("adaptive", "adaptive_bias") or defence is median else None
    return knowledge_of(own, honest, rule, max_norm=limit)


@every_attack
@given(cohort=cohorts, defence=defences, share=st.sampled_from([0.3, 1.0, 10.0]))
@settings(max_examples=25, deadline=None)
def test_what_is_sent(name: str, cohort: tuple[Rows, Rows], defence: object, share: float) -> None:
    known = known_to(name, *cohort, defence, share)
    own, honest = known.own.copy(), known.honest.copy()
    rows = MAKERS[name]()(known)
    assert rows.shape == own.shape
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert rows.flags.writeable
    assert not np.shares_memory(rows, known.own)
    assert not np.shares_memory(rows, known.honest)
    assert np.isfinite(rows).all() == (name != "non_finite")
    if name not in LONGER:
        assert np.linalg.norm(rows.astype(np.float64), axis=1).max() <= known.max_norm
    np.testing.assert_array_equal(known.own, own)
    np.testing.assert_array_equal(known.honest, honest)


@every_attack
@given(cohort=cohorts, defence=defences)
@settings(max_examples=10, deadline=None)
def test_nothing_is_kept_between_calls(name: str, cohort: tuple[Rows, Rows], defence: object) -> None:
    attack = MAKERS[name]()
    first, second = (attack(known_to(name, *cohort, defence, 1.0)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@given(cohort=cohorts, share=st.sampled_from([0.3, 1.0, 10.0]))
@settings(max_examples=25, deadline=None)
def test_no_candidate_is_refused_for_its_norm(cohort: tuple[Rows, Rows], share: float) -> None:
    known = known_to("adaptive", *cohort, median, share)
    for name, attack in candidates_for(known):
        rows = attack(known).astype(np.float64)
        assert rows.shape == known.own.shape
        assert np.linalg.norm(rows, axis=1).max() <= known.max_norm, name


@pytest.mark.parametrize("name", sorted(LONGER - {"non_finite"}))
@given(cohort=cohorts)
@settings(max_examples=25, deadline=None)
def test_what_is_too_long_can_be_shortened(name: str, cohort: tuple[Rows, Rows]) -> None:
    known = known_to(name, *cohort, None, 0.3)
    rows, short = UPDATE_ATTACKS[name]()(known), within_norm(UPDATE_ATTACKS[name]())(known)
    assert np.linalg.norm(short.astype(np.float64), axis=1).max() <= known.max_norm
    inner = (rows.astype(np.float64) * short).sum(axis=1)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1) * np.linalg.norm(short.astype(np.float64), axis=1)
    np.testing.assert_allclose(inner, lengths, rtol=1e-5)


@every_attack
def test_the_end_of_float32(name: str) -> None:
    own = np.full((2, 3), 3e38, dtype=np.float32)
    rows = MAKERS[name]()(knowledge_of(own, -own, median if name in ("adaptive", "adaptive_bias") else None))
    assert np.isfinite(rows).all() == (name != "non_finite")
