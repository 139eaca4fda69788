"""The rounds: state is kept before it is told, too little is begun again, a resumed run ends bit for bit the same."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import make_plan
from testudo_common.errors import RoundError
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector, vector_digest
from testudo_common.wire import TrainRequest
from testudo_server.coordinator import Coordinator
from testudo_server.exchange import NO_LOG, Collected, ExchangeCost, GroupMean, GroupRecord, RoundLog
from testudo_server.store import RoundRecord, RunState, RunStore

PLAN = make_plan()


class Clients:
    """Every client's update depends on its name, the round and the model, and on nothing else."""

    max_attempts = 1

    def __init__(self, absent: Callable[[int, str], bool] = lambda number, client: False) -> None:
        self._absent = absent
        self.asked: list[tuple[int, tuple[str, ...]]] = []

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...], log: RoundLog = NO_LOG) -> Collected:
        self.asked.append((request.round, cohort))
        assert request.attempt == 0
        assert vector_digest(request.model) == request.model_digest
        present = [client for client in cohort if not self._absent(request.round, client)]
        return Collected(
            tuple(GroupMean((client,), update_of(client, request)) for client in present),
            tuple((client, "gone") for client in cohort if client not in present),
            cost=ExchangeCost(100 * len(cohort), 10 * len(present)),
        )


def update_of(client: str, request: TrainRequest) -> Vector:
    seed = hashlib.sha256(f"{client}|{request.round}|{request.model_digest}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(seed[:8], "big"))
    update: Vector = rng.normal(size=len(request.model)).astype(np.float32)
    return update


NAMES = [f"client-{number}" for number in range(5)]
START = np.linspace(-1, 1, 8).astype(np.float32)


def coordinator(folder: Path, plan: FederationPlan = PLAN, clients: Clients | None = None, **more: Any) -> Coordinator:
    return Coordinator(plan, clients or Clients(), RunStore(folder, durable=False), **more)


def test_one_round_applies_the_mean(tmp_path: Path) -> None:
    plan = make_plan("outer.step_size=0.5", "rounds.cohort_size=3")
    clients = Clients()
    runner = coordinator(tmp_path, plan, clients)
    state = runner.begin(START, reversed(NAMES))
    assert (state.round, list(state.participations)) == (0, NAMES)
    following = runner.run_round(state)
    ((_, cohort),) = clients.asked
    request = TrainRequest(plan.digest, 1, 0, vector_digest(START), START)
    updates = np.stack([update_of(client, request) for client in cohort]).astype(np.float64)
    np.testing.assert_allclose(following.model, START + 0.5 * updates.mean(axis=0), rtol=0, atol=1e-6)
    assert following.round == 1
    assert following.participations == {client: int(client in cohort) for client in NAMES}
    assert state.participations == dict.fromkeys(NAMES, 0), "the old state is still the caller's"
    (record,) = RunStore(tmp_path).records()
    assert (record.round, record.cohort, record.excluded) == (1, cohort, ())
    assert record.model_digest == vector_digest(following.model)
    assert record.mean_update_norm == pytest.approx(np.linalg.norm(updates.mean(axis=0)), rel=1e-5)
    assert (record.bytes_down, record.bytes_up) == (3 * 100, 3 * 10)
    assert (record.groups, record.barred, record.secure_cpu_seconds, record.metrics) == ((), (), 0.0, {})


def test_absent_clients_are_set_aside_and_counted_as_asked(tmp_path: Path) -> None:
    clients = Clients(lambda number, client: client == "client-1")
    plan = make_plan("rounds.cohort_size=5")
    runner = coordinator(tmp_path, plan, clients)
    state = runner.run_round(runner.begin(START, NAMES))
    (record,) = RunStore(tmp_path).records()
    assert record.excluded == (("client-1", "gone"),)
    assert (record.bytes_down, record.bytes_up) == (5 * 100, 4 * 10)
    assert set(state.participations.values()) == {1}, "it may have trained, and spent"


def test_all_rounds_are_run_in_even_turns(tmp_path: Path) -> None:
    clients = Clients()
    runner = coordinator(tmp_path, PLAN, clients)
    state = runner.run(runner.begin(START, NAMES))
    assert state.round == 4
    assert [number for number, _ in clients.asked] == [1, 2, 3, 4]
    assert sorted(state.participations.values()) == [1, 1, 2, 2, 2]
    assert runner.run(state) is state, "nothing is left to do"


def test_too_few_replies_end_the_run_and_keep_what_was_finished(tmp_path: Path) -> None:
    plan = make_plan("rounds.min_replies=2")
    clients = Clients(lambda number, client: number == 3)
    runner = coordinator(tmp_path, plan, clients)
    with pytest.raises(RoundError, match="round 3 brought 0 usable replies and needs 2") as caught:
        runner.run(runner.begin(START, NAMES))
    asked = clients.asked[-1][1]
    assert all(f"{client}: gone" in str(caught.value) for client in asked)
    assert "--resume" in caught.value.remedy
    assert RunStore(tmp_path).load(plan.digest).round == 2
    again = Clients()
    runner = coordinator(tmp_path, plan, again)
    runner.run(runner.resume(NAMES))
    assert again.asked[0] == (3, asked), "the same clients are asked for the same round again"


def test_exactly_enough_replies_are_enough(tmp_path: Path) -> None:
    plan = make_plan("rounds.min_replies=1")
    runner = coordinator(tmp_path, plan, Clients(lambda number, client: client != "client-0"))
    with pytest.raises(RoundError, match="brought 0 usable replies and needs 1"):
        runner.run(runner.begin(START, NAMES))
    plan = make_plan("rounds.min_replies=1", "rounds.cohort_size=5")
    runner = coordinator(tmp_path, plan, Clients(lambda number, client: client != "client-0"))
    assert runner.run(runner.begin(START, NAMES)).round == 4


def test_exhausted_participations_end_the_run(tmp_path: Path) -> None:
    plan = make_plan("rounds.max_participations=1", "rounds.min_replies=2")
    runner = coordinator(tmp_path, plan)
    with pytest.raises(RoundError, match="round 3 needs 2 clients, and 1 may still take part") as caught:
        runner.run(runner.begin(START, NAMES))
    assert "rounds.max_participations" in caught.value.remedy
    assert RunStore(tmp_path).load(plan.digest).round == 2


def test_report_of_a_round_comes_after_it_was_kept(tmp_path: Path) -> None:
    told = []

    def on_round(state: RunState, record: RoundRecord) -> None:
        kept = RunStore(tmp_path)
        assert kept.load(PLAN.digest).round == state.round == record.round
        assert vector_digest(kept.load(PLAN.digest).model) == vector_digest(state.model)
        assert kept.records()[-1] == record
        told.append(record.round)

    runner = coordinator(tmp_path, PLAN, on_round=on_round)
    runner.run(runner.begin(START, NAMES))
    assert told == [1, 2, 3, 4]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "yogi"])
@pytest.mark.parametrize("stop", [0, 1, 3, 4])
def test_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_does(
    tmp_path: Path, optimizer: str, stop: int
) -> None:
    plan = make_plan(f"outer.optimizer={optimizer}")
    whole = coordinator(tmp_path / "whole", plan)
    expected = whole.run(whole.begin(START, NAMES))
    first = coordinator(tmp_path / "parts", plan)
    state = first.begin(START, NAMES)
    for _ in range(stop):
        state = first.run_round(state)
    second = coordinator(tmp_path / "parts", plan)
    found = second.run(second.resume(reversed(NAMES)))
    assert found.model.tobytes() == expected.model.tobytes()
    assert found.outer.first.tobytes() == expected.outer.first.tobytes()
    assert found.outer.second.tobytes() == expected.outer.second.tobytes()
    assert found.participations == expected.participations

    def lasting(folder: str) -> list[RoundRecord]:
        return [dataclasses.replace(record, seconds=0.0) for record in RunStore(tmp_path / folder).records()]

    assert lasting("parts") == lasting("whole")


def test_resume_knows_who_came_and_who_went(tmp_path: Path) -> None:
    runner = coordinator(tmp_path)
    runner.run_round(runner.begin(START, NAMES))
    state = coordinator(tmp_path).resume(["client-0", "new"])
    assert set(state.participations) == {*NAMES, "new"}
    assert state.participations["new"] == 0
    assert sum(state.participations.values()) == 2


class Attempts:
    """Groups of two, of which each attempt opens as many as ``opened`` says: (round, attempt) -> groups."""

    max_attempts = 3

    def __init__(
        self, opened: Callable[[int, int], int], vanished: Mapping[int, tuple[str, ...]] | None = None
    ) -> None:
        self._opened = opened
        self._vanished = vanished or {}
        self.asked: list[tuple[int, int, tuple[str, ...]]] = []

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...], log: RoundLog = NO_LOG) -> Collected:
        self.asked.append((request.round, request.attempt, cohort))
        drawn = [cohort[start : start + 2] for start in range(0, len(cohort), 2)]
        opened = drawn[: self._opened(request.round, request.attempt)]
        return Collected(
            tuple(GroupMean(group, np.full(8, len(group), dtype=np.float32), votes=len(group)) for group in opened),
            tuple((client, "lost") for group in drawn if group not in opened for client in group),
            tuple(
                GroupRecord(
                    request.attempt, group, group if group in opened else (), "" if group in opened else "share"
                )
                for group in drawn
            ),
            self._vanished.get(request.attempt, ()),
            cost=ExchangeCost(7, 5, 0.5),
        )


FOURS = make_plan("rounds.cohort_size=4", "rounds.min_replies=4", "rounds.count=2")


def attempts(folder: Path, exchange: Attempts, plan: FederationPlan = FOURS) -> Coordinator:
    return Coordinator(plan, exchange, RunStore(folder, durable=False))


def test_round_that_brings_too_little_is_begun_again_and_all_attempts_are_kept(tmp_path: Path) -> None:
    exchange = Attempts(lambda number, attempt: 1 if (number, attempt) == (1, 0) else 2)
    runner = attempts(tmp_path, exchange)
    runner.run(runner.begin(START, NAMES))
    (first, second, third) = exchange.asked
    assert [asked[:2] for asked in exchange.asked] == [(1, 0), (1, 1), (2, 0)]
    assert second[2] == first[2], "the same clients are asked for the same round again"
    repeated, smooth = RunStore(tmp_path).records()
    assert [group.attempt for group in repeated.groups] == [0, 0, 1, 1]
    assert [bool(group.survivors) for group in repeated.groups] == [True, False, True, True]
    assert (repeated.bytes_down, repeated.bytes_up, repeated.secure_cpu_seconds) == (14, 10, 1.0)
    assert repeated.excluded == (), "in the end everybody's update counted"
    assert [group.attempt for group in smooth.groups] == [0, 0]
    assert len(third[2]) == 4


def test_whoever_vanished_is_not_asked_again_in_that_round_and_counts_as_asked(tmp_path: Path) -> None:
    plan = make_plan("rounds.cohort_size=5", "rounds.min_replies=4", "rounds.count=2")
    exchange = Attempts(lambda number, attempt: attempt * 2, vanished={0: ("client-1",)})
    runner = attempts(tmp_path, exchange, plan)
    state = runner.run_round(runner.begin(START, NAMES))
    assert [asked[2] for asked in exchange.asked] == [tuple(NAMES), ("client-0", "client-2", "client-3", "client-4")]
    assert set(state.participations.values()) == {1}
    (record,) = RunStore(tmp_path).records()
    assert record.cohort == tuple(NAMES)
    assert record.excluded == (("client-1", "lost"),), "it is in no sum, although the last attempt did not ask it"
    runner.run_round(state)
    assert exchange.asked[2][2] == tuple(NAMES), "the next round is another one"


def test_last_attempt_ends_the_run(tmp_path: Path) -> None:
    exchange = Attempts(lambda number, attempt: 1)
    runner = attempts(tmp_path, exchange)
    with pytest.raises(RoundError, match="round 1 brought 2 usable replies and needs 4"):
        runner.run(runner.begin(START, NAMES))
    assert [asked[:2] for asked in exchange.asked] == [(1, 0), (1, 1), (1, 2)]
    runner = attempts(tmp_path, exchange)
    with pytest.raises(RoundError, match="round 1 was begun 3 times and did not close"):
        runner.run(runner.resume(NAMES))
    assert len(exchange.asked) == 3, "no attempt is made that clients would refuse"


def test_attempts_are_counted_across_a_restart(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def killed(number: int, attempt: int) -> int:
        raise StoppedError

    runner = attempts(tmp_path, Attempts(killed))
    with pytest.raises(StoppedError):
        runner.run(runner.begin(START, NAMES))
    again = Attempts(lambda number, attempt: 2)
    runner = attempts(tmp_path, again)
    runner.run(runner.resume(NAMES))
    assert [asked[:2] for asked in again.asked] == [(1, 1), (2, 0)]


def test_a_groups_mean_weighs_as_its_votes(tmp_path: Path) -> None:
    class Uneven(Attempts):
        def group_means(self, request: TrainRequest, cohort: tuple[str, ...], log: RoundLog = NO_LOG) -> Collected:
            one, rest = np.full(8, 4.0, dtype=np.float32), np.zeros(8, dtype=np.float32)
            return Collected((GroupMean(cohort[:1], one, votes=1), GroupMean(cohort[1:], rest, votes=3)), ())

    plan = make_plan("rounds.cohort_size=4", "outer.step_size=1.0")
    runner = attempts(tmp_path, Uneven(lambda number, attempt: 2), plan)
    state = runner.run_round(runner.begin(START, NAMES))
    np.testing.assert_allclose(state.model, START + 1.0, rtol=0, atol=1e-6)
