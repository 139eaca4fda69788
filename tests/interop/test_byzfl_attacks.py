"""Attacks agree with ByzFL 0.0.11 where they are the same thing; it makes one row, which all bad clients send.

Where they are not: its sign flip is of the honest mean, and its ALIE adds ``tau`` standard deviations, taken over
h - 1. It has no Min-Max and no Min-Sum, and its mimic chooses nobody.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from attack_cases import cohort, defence_of, knowledge_of
from testudo_server.aggregate.base import Rows
from testudo_simulations.attacks import damage_of
from testudo_simulations.attacks.simple import sign_flip
from testudo_simulations.attacks.statistical import alie, ipm, mimic
from testudo_simulations.benchmarks.byzfl_peer import byzfl_aggregators, byzfl_attacks

cases = pytest.mark.parametrize(("h", "b", "d"), [(2, 1, 1), (3, 2, 5), (12, 4, 300), (40, 9, 17)])


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    module = byzfl_attacks()
    if module is None:
        pytest.skip("ByzFL is not installed (pip install --no-deps byzfl==0.0.11)")
    return module


def agree(ours: Rows, theirs: object) -> None:
    """All our rows are their one."""
    np.testing.assert_allclose(ours, np.broadcast_to(np.asarray(theirs), ours.shape), rtol=0.0, atol=1e-6)


@cases
def test_ipm_and_their_sign_flip(peer: ModuleType, h: int, b: int, d: int) -> None:
    own, honest = cohort(h, b, d)
    known, wide = knowledge_of(own, honest), honest.astype(np.float64)
    for tau in (0.1, 2.0, 10.0):
        agree(ipm(tau)(known), peer.InnerProductManipulation(tau)(wide))
    agree(ipm(1.0)(known), peer.SignFlipping()(wide))


@cases
def test_sign_flip_of_one_row(peer: ModuleType, h: int, b: int, d: int) -> None:
    """Theirs of a single honest row is ours of an own one."""
    own, honest = cohort(h, b, d)
    for row, update in zip(sign_flip()(knowledge_of(own, honest)), own, strict=True):
        agree(row[np.newaxis], peer.SignFlipping()(update[np.newaxis].astype(np.float64)))


@cases
def test_alie(peer: ModuleType, h: int, b: int, d: int) -> None:
    own, honest = cohort(h, b, d)
    for z in (0.3, 1.5):
        theirs = peer.ALittleIsEnough(-z * (1 - 1 / h) ** 0.5)(honest.astype(np.float64))
        agree(alie(z)(knowledge_of(own, honest)), theirs)


@cases
def test_mimic(peer: ModuleType, h: int, b: int, d: int) -> None:
    own, honest = cohort(h, b, d)
    for target in (0, h - 1):
        agree(mimic(target)(knowledge_of(own, honest)), peer.Mimic(target)(honest.astype(np.float64)))


def test_their_search_finds_no_more(peer: ModuleType) -> None:
    """Twenty steps of tau against the trimmed mean; ours has eleven strengths, and need not lose a tenth by it."""
    aggregators = byzfl_aggregators()
    assert aggregators is not None
    own, honest = cohort(12, 4, 300)
    known = knowledge_of(own, honest, defence_of(("trimmed_mean",), 4))
    searches = [(ipm(), peer.Optimal_InnerProductManipulation), (alie(), peer.Optimal_ALittleIsEnough)]
    for ours, search in searches:
        theirs = search(agg=aggregators.TrMean(4), pre_agg_list=[], f=4)(honest.astype(np.float64))
        row = np.repeat(np.asarray(theirs, dtype=np.float32)[np.newaxis], 4, axis=0)
        assert damage_of(known, ours(known)) > 0.9 * damage_of(known, row) > 0.0
