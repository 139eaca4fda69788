"""The gate: nothing worse is ever put in use by its own evidence, and what is not clear is not either."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testudo_client.personal.promotion import judge

losses = st.lists(st.floats(0, 10), min_size=2, max_size=30)


@given(losses, st.randoms(use_true_random=False))
def test_what_is_not_better_on_average_is_never_promoted(own: list[float], random: object) -> None:
    candidate = np.array(own)
    other = candidate - np.random.default_rng(len(own)).random(len(own))
    assert not judge(candidate, {"in_use": other}).promoted
    assert not judge(candidate, {"in_use": candidate}).promoted


def test_a_clear_difference_is_promoted_and_a_lucky_one_is_not() -> None:
    rng = np.random.default_rng(0)
    other = rng.random(50)
    assert judge(other - 0.2 + rng.normal(0, 0.1, 50), {"in_use": other}).promoted
    lucky = other.copy()
    lucky[0] -= 0.5  # better on average, by one example alone
    verdict = judge(lucky, {"in_use": other})
    assert not verdict.promoted and "not clearly better than in_use" in verdict.reason


def test_every_other_way_has_to_be_beaten() -> None:
    candidate, worse = np.full(10, 0.5), np.full(10, 1.0)
    verdict = judge(candidate, {"majority": worse, "initialisation": np.full(10, 0.4)})
    assert not verdict.promoted and "initialisation" in verdict.reason


@pytest.mark.parametrize(
    ("candidate", "other", "why"),
    [
        (np.array([0.1, np.inf]), np.ones(2), "diverged"),
        (np.zeros(3), np.array([np.nan, np.nan, 1.0]), "too few"),
    ],
)
def test_what_cannot_be_compared_is_not_promoted(candidate: np.ndarray, other: np.ndarray, why: str) -> None:
    verdict = judge(candidate, {"in_use": other})
    assert not verdict.promoted and why in verdict.reason


def test_examples_that_one_was_made_from_do_not_count() -> None:
    other = np.array([1.0, 1.1, 1.2, 0.9, np.nan])
    assert judge(np.array([0.1, 0.2, 0.1, 0.1, 99.0]), {"in_use": other}).promoted
