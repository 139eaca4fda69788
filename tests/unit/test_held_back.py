"""Owners that are held back: they train in no round but the last, and then nobody else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers import CLASSIFICATION, FEW_SHOT, make_plan
from testudo_client.newcomer import newcomer_counts
from testudo_common.errors import ModelError, PlanError, PrivacyError
from testudo_common.learning.calibration_counts import MAX_SCORED
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples
from testudo_common.privacy.planned import check_held_back, held_back_of, participations_for, scored_participations
from testudo_common.roster import Roster
from testudo_common.secure_terms import Attempt, calibration_counts_of, terms_of
from testudo_server.cohort import held_back, turn_of
from testudo_server.preview import preview

SECURE: dict[str, Any] = {
    **CLASSIFICATION,
    "rounds": {"count": 4, "cohort_size": 5, "max_participations": 4},
    "secure_aggregation": {"mode": "secure", "group_size": 4, "min_group": 3, "min_cohort": 3},
    "evaluation": {"shots": [0, 1, 3], "steps": 5},
    "calibration": {"held_back": 0.3},
}
CLIENTS = [f"c{number}" for number in range(20)]


def test_the_share_is_held_back_and_enough_for_a_sum() -> None:
    plan = make_plan(tables=SECURE)
    assert held_back_of(plan, 20) == 6 and held_back_of(plan, 5) == plan.fewest_asked == 3
    chosen = held_back(plan, CLIENTS)
    assert len(chosen) == 6 and chosen == held_back(plan, CLIENTS[::-1])
    assert chosen != held_back(make_plan("seed=1", tables=SECURE), CLIENTS), "another plan chooses others"


def test_too_few_that_train_are_refused_before_a_run_begins() -> None:
    plan = make_plan(tables=SECURE)
    check_held_back(plan, 6)
    check_held_back(make_plan("calibration.held_back=0.0", tables=SECURE), 5)
    with pytest.raises(PlanError, match="of 5 clients 3 are held back, and a round needs 3"):
        check_held_back(plan, 5)
    with pytest.raises(PlanError, match="held back"):
        preview(plan, 5)


def test_they_are_drawn_in_the_last_round_only_and_then_alone() -> None:
    plan = make_plan(tables=SECURE)
    chosen = held_back(plan, CLIENTS)
    asked = dict.fromkeys(CLIENTS, 0)
    for number in range(1, 4):
        assert frozenset(turn_of(plan, number, asked)) == frozenset(CLIENTS) - chosen
    asked.update(dict.fromkeys(set(CLIENTS) - chosen, 2))
    assert turn_of(plan, 4, asked) == chosen


def test_too_few_strangers_leave_the_last_round_to_everybody() -> None:
    plan = make_plan(tables=SECURE)
    asked = dict.fromkeys(CLIENTS, 1) | {"c0": 0}
    assert frozenset(turn_of(plan, 4, asked)) == frozenset(CLIENTS)


def test_those_who_train_are_asked_more_often() -> None:
    plan = make_plan(tables=SECURE)
    assert participations_for(plan, 20) == 2  # ceil(4 * 5 / 14), where it was 1 with all of them
    assert scored_participations(plan) == 1


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (("secure_aggregation.mode=plain",), "calibration.held_back"),
        (("privacy.unit=example", "privacy.noise_multiplier=1.0"), "calibration.held_back"),
        (("client_privacy.noise_multiplier=1.0",), "calibration.held_back"),
        (("rounds.count=1",), "calibration.held_back"),
        (("calibration.held_back=0.6",), "calibration.held_back"),
    ],
    ids=["in clear", "no noise on the counts", "whole clients", "one round", "most of them"],
)
def test_a_plan_that_cannot_calibrate_is_refused(settings: tuple[str, ...], key: str) -> None:
    with pytest.raises(PlanError) as refused:
        make_plan(*settings, tables=SECURE)
    assert key in [fault.key for fault in refused.value.faults]


def test_episodes_have_no_newcomers() -> None:
    with pytest.raises(PlanError, match="episodes have no owner"):
        make_plan("calibration.held_back=0.2", "secure_aggregation.mode=secure", tables=FEW_SHOT)


def test_the_last_round_counts_scores_and_the_others_do_not() -> None:
    plan = make_plan("evaluation.federated_every_rounds=2", tables=SECURE)
    assert [plan.evaluates_in(n) for n in range(1, 5)] == [False, True, False, False]
    assert [plan.calibrates_in(n) for n in range(1, 5)] == [False, False, False, True]
    roster = Roster("f", {})
    sizes = [len(terms_of(plan, roster, Attempt(plan.digest, n, 0, "0" * 64), 8).parameters.layout.count_bounds)
             for n in (1, 4)]  # fmt: skip
    assert sizes == [0, calibration_counts_of(plan).size]


def examples_of(count: int, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    return Examples(rng.normal(size=(count, 3)).astype(np.float32), (np.arange(count) % 2).astype(np.int64))


def test_a_newcomer_counts_each_size_on_what_it_did_not_adapt_on() -> None:
    plan = make_plan(tables=SECURE)
    learner = Learner(plan)
    counts = calibration_counts_of(plan)
    found = newcomer_counts(learner, learner.vector(), examples_of(20), plan, split_key=b"k")
    for part, support in zip(np.split(found, 2), (2, 6), strict=True):
        assert part[0] == 1 and set(part[1:].reshape(counts.scores.shape).sum(axis=1)) == {20 - support}
    assert np.all(found <= np.array(counts.bounds))


def test_nobody_counts_more_than_the_bound_and_an_empty_table_counts_nothing() -> None:
    plan = make_plan(tables=SECURE)
    learner = Learner(plan)
    counts = calibration_counts_of(plan)
    many = newcomer_counts(learner, learner.vector(), examples_of(2000), plan, split_key=b"k")
    assert many[1:].reshape(-1)[: counts.scores.size].sum() == MAX_SCORED * counts.scores.shape[0]
    assert not newcomer_counts(learner, learner.vector(), examples_of(0), plan, split_key=b"k").any()


def test_a_model_that_fits_nothing_is_its_senders_fault() -> None:
    plan = make_plan(tables=SECURE)
    with pytest.raises(ModelError):
        newcomer_counts(Learner(plan), np.zeros(3, dtype=np.float32), examples_of(8), plan, split_key=b"k")


def test_a_private_plan_counts_half_of_the_examples_and_needs_its_mechanism() -> None:
    private = ("privacy.unit=example", "privacy.noise_multiplier=1.0", "evaluation.federated_noise_multiplier=2.0")
    plan = make_plan(*private, tables=SECURE)
    assert calibration_counts_of(plan).sizes == (None,)
    with pytest.raises(PrivacyError, match="mechanism"):
        newcomer_counts(Learner(plan), Learner(plan).vector(), examples_of(8), plan, split_key=b"k")
