"""Adaptive clipping: S follows a quantile of norms under noise, is bounded, and survives a resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_federation import Members, exchange_of, names_of, secure_plan
from testudo_common.plan import FederationPlan
from testudo_common.secure_terms import unclipped_share
from testudo_server.clipping import first_clip, next_clip
from testudo_server.coordinator import Coordinator
from testudo_server.exchange import Collected, GroupMean
from testudo_server.store import RunState, RunStore

TEN = names_of(10)


def adaptive_plan(*settings: str) -> FederationPlan:
    return secure_plan(
        "rounds.cohort_size=10",
        "secure_aggregation.group_size=10",
        "client_privacy.noise_multiplier=1.0",
        'client_privacy.clipping="adaptive"',
        *settings,
    )


PLAN = adaptive_plan()


def collected(count: int, *sizes: int) -> Collected:
    """Opened sums over groups of these sizes, and the last count over all of them."""
    groups = tuple(
        GroupMean(tuple(f"{group}-{i}" for i in range(size)), np.zeros(1)) for group, size in enumerate(sizes)
    )
    return Collected(groups, (), counts=np.array([count]))


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_it_finds_the_quantile_of_the_norms(quantile: float) -> None:
    """From ten times too high, with the count's noise of the plan, to within what that noise does."""
    plan = adaptive_plan(f"client_privacy.quantile={quantile}", "outer.max_update_norm=20.0")
    rng, clip, clips = np.random.default_rng(0), first_clip(plan), []
    for _ in range(150):
        norms = rng.lognormal(sigma=0.5, size=100)
        noise = rng.normal(scale=2 * plan.client_privacy.count_noise)
        clip = next_clip(plan, clip, collected(round(2 * np.count_nonzero(norms < clip) + noise), 50, 50))
        assert clip is not None
        clips.append(clip)
    wanted = math.exp(0.5 * {0.2: -0.8416, 0.5: 0.0, 0.9: 1.2816}[quantile])
    assert clips[0] > 15
    assert float(np.mean(clips[60:])) == pytest.approx(wanted, rel=0.15)


def test_one_step_is_the_papers() -> None:
    """algorithm 1: S exp(-eta (share - quantile)), over the clients of all groups."""
    assert next_clip(PLAN, 3.0, collected(2 * 9, 4, 8)) == pytest.approx(3.0 * math.exp(-0.2 * (9 / 12 - 0.5)))


def test_noise_beyond_all_or_nobody_counts_as_all_or_nobody() -> None:
    assert next_clip(PLAN, 3.0, collected(-900, 10)) == next_clip(PLAN, 3.0, collected(0, 10))
    assert next_clip(PLAN, 3.0, collected(900, 10)) == next_clip(PLAN, 3.0, collected(20, 10))
    assert (unclipped_share(PLAN, -3, 10), unclipped_share(PLAN, 33, 10)) == (0.0, 1.0)


def test_it_is_never_over_the_plans_norm_nor_next_to_nothing() -> None:
    most = PLAN.outer.max_update_norm
    assert first_clip(PLAN) == next_clip(PLAN, most, collected(0, 10)) == most
    clip = first_clip(PLAN)
    for _ in range(1000):
        clip = next_clip(PLAN, clip, collected(20, 10))
    assert clip == most / 1000


def test_round_without_sums_leaves_it() -> None:
    assert next_clip(PLAN, 3.0, collected(0)) == 3.0


@pytest.mark.parametrize("plan", [secure_plan(), secure_plan("client_privacy.noise_multiplier=1.0")])
def test_plans_that_do_not_adapt_have_none(plan: FederationPlan) -> None:
    assert first_clip(plan) is None
    assert next_clip(plan, None, Collected((), ())) is None
    assert unclipped_share(plan, 3, 10) is None


# --- in a run


def run_of(folder: Path, members: Members) -> tuple[Coordinator, RunStore]:
    store = RunStore(folder, durable=False)
    return Coordinator(members.plan, exchange_of(members)[0], store), store


def begun(coordinator: Coordinator, members: Members) -> RunState:
    return coordinator.begin(np.zeros(members.learner.size, dtype=np.float32), TEN)


def test_rounds_say_which_clip_they_had_and_a_resumed_run_goes_on_with_it(tmp_path: Path) -> None:
    plan = adaptive_plan("rounds.count=4", "client_privacy.count_noise=0.6")
    members = Members(plan, TEN)
    coordinator, store = run_of(tmp_path, members)
    state = coordinator.run_round(coordinator.run_round(begun(coordinator, members)))
    assert state.clip not in (None, 10.0)
    again, _ = run_of(tmp_path, members)
    resumed = again.resume(TEN)
    assert resumed.clip == state.clip
    clips = [record.clip for record in store.records()]
    assert clips[0] == 10.0
    assert again.run(resumed).round == 4
    assert [record.clip for record in store.records()][:3] == [*clips, state.clip]


def test_clients_are_told_the_clip_of_the_state(tmp_path: Path) -> None:
    members = Members(PLAN, TEN)
    asked: list[Any] = []
    exchange, link = exchange_of(members)
    coordinator = Coordinator(PLAN, exchange, RunStore(tmp_path, durable=False))
    state = begun(coordinator, members)
    for _ in range(2):
        asked.append(state.clip)
        state = coordinator.run_round(state)
    told = {(message.round, message.clip) for _, kind, message, _ in link.log if kind == "TrainRequest"}  # type: ignore[union-attr]
    assert told == {(1, asked[0]), (2, asked[1])}


def test_checkpoint_without_a_clip_is_read(tmp_path: Path) -> None:
    """Of a run under a plan that does not adapt it."""
    members = Members(secure_plan("rounds.cohort_size=10", "secure_aggregation.group_size=10"), TEN)
    coordinator, store = run_of(tmp_path, members)
    coordinator.run_round(begun(coordinator, members))
    assert store.load(members.plan.digest).clip is None
    assert store.records()[0].clip is None
