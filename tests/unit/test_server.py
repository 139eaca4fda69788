"""The server's round: bad replies set aside one by one, state kept before it is told, and resumed bit for bit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from helpers import make_plan, request_for
from testudo_common.errors import CheckpointError, PlannerError, RoundError
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector, vector_digest
from testudo_common.wire import Message, Refusal, RefusalReason, SecureMessage, TrainReply, TrainRequest, encode
from testudo_server.coordinator import Coordinator
from testudo_server.exchange import NO_LOG, Collected, ExchangeCost, GroupMean, GroupRecord, PlainExchange, RoundLog
from testudo_server.outer_step import OuterState
from testudo_server.preview import preview
from testudo_server.store import RoundRecord, RunState, RunStore
from watched_run import WatchedRun

# --- the exchange

PLAN = make_plan()
REQUEST = request_for(PLAN)


def reply(**changed: Any) -> TrainReply:
    good = TrainReply(PLAN.digest, 1, 0, REQUEST.model_digest, np.ones(8, dtype=np.float32))
    return dataclasses.replace(good, **changed)


class Answers:
    """A transport with the same answers for everyone who asks."""

    def __init__(self, answers: Mapping[str, Message | str]) -> None:
        self._answers = answers

    def deliver(
        self, requests: Mapping[str, Message], *, deadline_seconds: float
    ) -> Iterator[tuple[str, Message | str]]:
        self.delivered = dict(requests), deadline_seconds
        yield from self._answers.items()


BAD = {
    "NaN": (reply(update=np.full(8, np.nan, dtype=np.float32)), "update not finite"),
    "infinite": (reply(update=np.full(8, np.inf, dtype=np.float32)), "update not finite"),
    "too short": (reply(update=np.ones(7, dtype=np.float32)), "update shape (7,) instead of (8,)"),
    "too long": (reply(update=np.ones(9, dtype=np.float32)), "update shape (9,) instead of (8,)"),
    "float64": (reply(update=np.ones(8)), "update not a float32 array"),
    "stale round": (reply(round=0), "answered another request"),
    "round to come": (reply(round=2), "answered another request"),
    "other attempt": (reply(attempt=1), "answered another request"),
    "other plan": (reply(plan_digest="ab" * 32), "answered another request"),
    "other model": (reply(model_digest="ab" * 32), "answered another request"),
    "refusal": (Refusal(PLAN.digest, 1, 0, RefusalReason.PRIVACY_SPENT), "refused: privacy_spent"),
    "refusal of another round": (Refusal("0" * 64, 0, 0, RefusalReason.INTERNAL), "refused: internal"),
    "its own request": (REQUEST, "not a reply"),
    "step of secure aggregation": (SecureMessage(PLAN.digest, 1, 0, b"body"), "not a reply"),
    "error": ("Flower error 2", "Flower error 2"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_reply_is_set_aside_and_the_others_count(bad: Message | str, reason: str) -> None:
    answers = Answers({"a": reply(), "b": bad, "c": reply(update=np.zeros(8, dtype=np.float32))})
    collected = PlainExchange(answers, deadline_seconds=5.0, max_norm=10.0).group_means(REQUEST, ("a", "b", "c"))
    assert [group.members for group in collected.groups] == [("a",), ("c",)]
    np.testing.assert_array_equal(collected.groups[0].mean, np.ones(8))
    np.testing.assert_array_equal(collected.groups[1].mean, np.zeros(8))
    assert collected.excluded == (("b", reason),)


def test_missing_reply_is_set_aside() -> None:
    answers = Answers({"a": reply()})
    collected = PlainExchange(answers, deadline_seconds=5.0, max_norm=10.0).group_means(REQUEST, ("a", "b"))
    assert collected.excluded == (("b", "no reply before the deadline"),)
    assert answers.delivered == ({"a": REQUEST, "b": REQUEST}, 5.0)


def test_reply_of_somebody_who_was_not_asked_does_not_count() -> None:
    answers = Answers({"a": reply(), "eve": reply()})
    collected = PlainExchange(answers, deadline_seconds=5.0, max_norm=10.0).group_means(REQUEST, ("a",))
    assert [group.members for group in collected.groups] == [("a",)]
    assert collected.excluded == ()


def test_every_client_is_one_vote_and_no_group_is_kept() -> None:
    answers = Answers({"a": reply(), "b": reply()})
    collected = PlainExchange(answers, deadline_seconds=5.0, max_norm=10.0).group_means(REQUEST, ("a", "b"))
    assert [group.votes for group in collected.groups] == [1, 1]
    assert (collected.records, collected.vanished, len(collected.counts)) == ((), (), 0)
    assert PlainExchange.max_attempts == 1


HEADER_BYTES = 6 + len('{"attempt":0,"model_digest":"","plan_digest":"","round":1}') + 2 * 64
REFUSAL_BYTES = 6 + len('{"attempt":0,"plan_digest":"","reason":"internal","round":1}') + 64


def test_bytes_are_those_of_every_message_that_was_sent_or_came() -> None:
    """Also of a reply that is of no use; a reason why there is none has no bytes."""
    refusal = Refusal(PLAN.digest, 1, 0, RefusalReason.INTERNAL)
    useless = reply(update=np.full(8, np.nan, dtype=np.float32))
    answers = Answers({"a": reply(), "b": refusal, "c": useless, "d": "Flower error 2"})
    collected = PlainExchange(answers, deadline_seconds=5.0, max_norm=10.0).group_means(
        REQUEST, ("a", "b", "c", "d", "e")
    )
    with_vector = HEADER_BYTES + 8 * 4
    asked = with_vector + len('"clip":null,')  # a reply has none
    answered = with_vector + len(',"statement":null')  # a request has none
    assert collected.cost == ExchangeCost(5 * asked, 2 * answered + REFUSAL_BYTES)


def test_costs_add_up() -> None:
    assert ExchangeCost(1, 2, 0.5) + ExchangeCost(10, 20, 0.25) == ExchangeCost(11, 22, 0.75)


def test_updates_are_not_printed() -> None:
    assert "array" not in repr(GroupMean(("a",), np.ones(2, dtype=np.float32)))


# --- the coordinator, over an exchange whose clients are functions of what they are asked


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


# --- attempts and groups, over an exchange that does as it is told


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


# --- the store

DIGEST = "ab" * 32
STATE = RunState(
    DIGEST,
    2,
    np.array([1.5, np.float32(1e-40)], dtype=np.float32),
    OuterState(np.array([0.1, 0.2]), np.array([1e-300, 2.0])),
    {"b": 2, "ä": 1},
)


def record(number: int) -> RoundRecord:
    groups = (
        GroupRecord(0, ("a", "ä\u2028"), (), "share", blamed=True),
        GroupRecord(1, ("a", "ä\u2028"), ("a",), disputes=(("a", "ä\u2028"), ("ä\u2028", "a"))),
    )
    return RoundRecord(
        number,
        "cd" * 32,
        ("a", "ä\u2028"),
        (("ä\u2028", "gone"),),
        0.1,
        2.5,
        10,
        20,
        groups,
        ("é", "z"),
        0.25,
        {"before": {"accuracy": 0.5}, "after": {"accuracy": 0.75}},
    )


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """After two rounds."""
    kept = RunStore(tmp_path, durable=False)
    kept.save(dataclasses.replace(STATE, round=0), None)
    kept.save(dataclasses.replace(STATE, round=1), record(1))
    kept.save(STATE, record(2))
    return kept


def test_state_there_and_back(store: RunStore) -> None:
    again = store.load(DIGEST)
    assert again == STATE
    for found, given in [
        (again.model, STATE.model),
        (again.outer.first, STATE.outer.first),
        (again.outer.second, STATE.outer.second),
    ]:
        assert found.dtype == given.dtype
        assert found.tobytes() == given.tobytes()
    assert store.records() == (record(1), record(2))


@pytest.mark.parametrize("durable", [True, False])
def test_durable_or_not_the_same_is_kept(tmp_path: Path, durable: bool) -> None:
    kept = RunStore(tmp_path / "new" / "folder", durable=durable)
    assert not kept.exists
    kept.save(dataclasses.replace(STATE, round=0), None)
    kept.save(dataclasses.replace(STATE, round=1), record(1))
    assert kept.exists
    assert kept.load(DIGEST).round == 1
    assert kept.records() == (record(1),)


def test_durable_line_is_on_the_disk_before_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a loss of power there may be a line too many, which is forgotten, but never one too few."""
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)

    monkeypatch.setattr("os.fsync", fsync)
    kept = RunStore(tmp_path)
    kept.save(dataclasses.replace(STATE, round=0), None)
    synced.clear()
    kept.save(STATE, record(1))
    assert synced[0] == "rounds.jsonl"
    assert len(synced) == 3, "the line, the checkpoint, its folder"


@pytest.mark.parametrize(
    "left_over",
    [
        pytest.param(json.dumps(dataclasses.asdict(record(3))) + "\n", id="a line too many"),
        pytest.param(json.dumps(dataclasses.asdict(record(3)))[:20], id="half a line"),
        pytest.param(json.dumps(dataclasses.asdict(record(3))), id="a line without its end"),
        pytest.param("\0\0\0\0", id="zeros"),
    ],
)
def test_kill_between_line_and_checkpoint(tmp_path: Path, store: RunStore, left_over: str) -> None:
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write(left_over)
    assert store.load(DIGEST).round == 2
    assert store.records() == (record(1), record(2))
    store.save(dataclasses.replace(STATE, round=3), record(3))
    assert store.records() == (record(1), record(2), record(3))


def test_kill_while_the_checkpoint_is_written(tmp_path: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", killed)
        store.save(dataclasses.replace(STATE, round=3, model=-STATE.model), record(3))
    assert store.load(DIGEST) == STATE
    assert store.load(DIGEST).model.tobytes() == STATE.model.tobytes()
    assert store.records() == (record(1), record(2))
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.safetensors", "rounds.jsonl"}


def test_missing_run(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "nothing")
    assert not store.exists
    assert store.records() == ()
    with pytest.raises(CheckpointError, match="there is no run") as caught:
        store.load(DIGEST)
    assert "without --resume" in caught.value.remedy


def test_another_plans_run(store: RunStore) -> None:
    with pytest.raises(CheckpointError, match="belongs to another plan"):
        store.load("cd" * 32)


def rewritten(data: bytes, **metadata: str | None) -> bytes:
    length = int.from_bytes(data[:8], "little")
    given = {**json.loads(data[8 : 8 + length])["__metadata__"], **metadata}
    return save(load(data), {key: value for key, value in given.items() if value is not None})


DAMAGES = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-1],
    "other bytes": lambda data: b"\x00" * len(data),
    "no metadata": lambda data: save(load(data)),
    "another format": lambda data: rewritten(data, format="testudo-server-9"),
    "no plan": lambda data: rewritten(data, plan_digest=None),
    "round not a number": lambda data: rewritten(data, round="two"),
    "counts not JSON": lambda data: rewritten(data, participations="{"),
    "no model": lambda data: save({"first": STATE.outer.first, "second": STATE.outer.second}, {"format": "x"}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_checkpoint(tmp_path: Path, store: RunStore, damage: Any) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes(), (tmp_path / "rounds.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="damaged") as caught:
        store.load(DIGEST)
    assert caught.value.where == str(path)
    assert (path.read_bytes(), (tmp_path / "rounds.jsonl").read_bytes()) == before


def test_rewriting_alone_damages_nothing(tmp_path: Path, store: RunStore) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(rewritten(path.read_bytes()))
    assert store.load(DIGEST) == STATE


# --- attempts in the store


def test_attempts_count_up_from_nothing_and_begin_again_with_each_round(store: RunStore, tmp_path: Path) -> None:
    assert [store.begin_attempt(3) for _ in range(3)] == [0, 1, 2]
    assert RunStore(tmp_path, durable=False).begin_attempt(3) == 3, "another process goes on counting"
    assert [store.begin_attempt(4), store.begin_attempt(4)] == [0, 1]
    assert store.load(DIGEST) == STATE


def test_attempt_is_kept_before_it_is_given(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    store.begin_attempt(3)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", killed)
        store.begin_attempt(3)
    assert store.begin_attempt(3) == 1, "the one that was not kept was not given"


def test_new_run_in_the_same_folder_forgets_attempts(store: RunStore) -> None:
    store.begin_attempt(1)
    store.save(dataclasses.replace(STATE, round=0), None)
    assert store.begin_attempt(1) == 0


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"round": 3, "attem', id="truncated"),
        pytest.param(b"\xff", id="not text"),
        pytest.param(b"[3, 0]", id="a list"),
        pytest.param(b'{"round": 3}', id="no attempt"),
        pytest.param(b'{"attempt": 0}', id="no round"),
        pytest.param(b'{"round": 3, "attempt": "0"}', id="attempt as text"),
    ],
)
def test_damaged_attempt(store: RunStore, tmp_path: Path, content: bytes) -> None:
    """Counting from nothing would begin an attempt a second time."""
    path = tmp_path / "attempt.json"
    store.begin_attempt(3)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        store.begin_attempt(3)
    assert caught.value.where == str(path)
    assert path.read_bytes() == content


# --- what a plan will cost


def test_preview_of_a_plan_without_privacy() -> None:
    found = preview(PLAN, None)
    assert found["digest"] == PLAN.digest
    nothing = np.zeros(8, dtype=np.float32)
    reply, request = (
        TrainReply(PLAN.digest, 1, 0, PLAN.digest, nothing),
        TrainRequest(PLAN.digest, 1, 0, PLAN.digest, nothing),
    )
    assert found["shared_parameters"] == 8
    assert found["bytes_up_a_client_and_round"] == encode(reply).size_bytes
    assert found["bytes_down_a_client_and_round"] == encode(request).size_bytes
    assert found["rounds_of_one_client"] is None
    assert (found["epsilon_of_one_client"], found["noise_multiplier"], found["delta"]) == (None, None, None)
    assert preview(PLAN, 5)["rounds_of_one_client"] == 2


def test_preview_of_a_private_plan() -> None:
    private = ('privacy.unit="example"', "privacy.accountant=rdp", "inner.sample_rate=1.0")
    target = make_plan(*private, "privacy.epsilon=4")
    assert preview(target, None)["noise_multiplier"] is None, "it depends on the number of clients"
    found = preview(target, 5)
    assert isinstance(found["epsilon_of_one_client"], float)
    assert 0.99 * 4 <= found["epsilon_of_one_client"] <= 4
    written = make_plan(*private, "privacy.noise_multiplier=2", "rounds.max_participations=3")
    found = preview(written, None)
    assert (found["noise_multiplier"], found["rounds_of_one_client"]) == (2.0, 3)
    assert isinstance(found["epsilon_of_one_client"], float)
    one_round = make_plan(*private, "privacy.noise_multiplier=2", "rounds.max_participations=1")
    smaller = preview(one_round, None)["epsilon_of_one_client"]
    assert isinstance(smaller, float)
    assert smaller < found["epsilon_of_one_client"]


def test_preview_of_a_plan_with_a_log() -> None:
    """For 12 owners: 9 cosign, so 3 may be absent; two views need 6 that sign both, so 5 are found out."""
    log = make_plan("audit.mode=log")
    found = preview(log, 12)
    assert found["owners_that_have_to_cosign"] == 9
    assert found["owners_that_may_be_absent"] == 3
    assert found["owners_that_may_collude_in_two_views"] == 5
    assert found["rounds_that_a_cosignature_counts"] == 1
    weak = preview(make_plan("audit.mode=log", "audit.quorum=6", "audit.window=2"), 12)
    assert (weak["owners_that_have_to_cosign"], weak["owners_that_may_be_absent"]) == (6, 6)
    assert weak["owners_that_may_collude_in_two_views"] == 0
    assert weak["rounds_that_a_cosignature_counts"] == 2
    unknown = preview(log, None)
    assert [unknown[name] for name in unknown if name.startswith("owners_that")] == [None] * 3
    assert "owners_that_have_to_cosign" not in preview(PLAN, 12)
    assert "nobody can check" in str(preview(PLAN, 12)["audit_log"])
    with pytest.raises(PlannerError, match="13 owners have to cosign the audit log, and there are 12"):
        preview(make_plan("audit.mode=log", "audit.quorum=13"), 12)


def test_previewed_bytes_of_a_plan_with_a_log_are_those_that_travel(tmp_path: Path) -> None:
    """Sizes of the log are taken to have six digits; of training, nothing else may differ."""
    plan = make_plan("audit.mode=log", "rounds.cohort_size=3", "rounds.count=2")
    names = [f"client-{number}" for number in range(7)]
    run = WatchedRun(tmp_path, plan, clients=names, federation="federation")
    run.run()
    found = preview(plan, 7)
    record = run.store.records()[0]
    down, up = found["bytes_down_a_client_and_round"], found["bytes_up_a_client_and_round"]
    assert isinstance(down, int)
    assert isinstance(up, int)
    assert record.bytes_up == 3 * up
    assert record.bytes_down <= 3 * down <= record.bytes_down + 3 * 6
    assert record.log is not None
    second = run.store.records()[1].log
    assert second is not None
    log_down, log_up = found["bytes_down_of_the_log_about"], found["bytes_up_of_the_log_about"]
    assert isinstance(log_down, int)
    assert isinstance(log_up, int)
    assert second.bytes_up <= 7 * log_up <= 1.1 * second.bytes_up
    assert second.bytes_down <= 7 * log_down <= 1.1 * second.bytes_down


def noisy(*settings: str) -> FederationPlan:
    return make_plan(
        'secure_aggregation.mode="secure"', "rounds.cohort_size=40", "secure_aggregation.group_size=20", *settings
    )


def test_preview_of_client_level_privacy() -> None:
    target = noisy("client_privacy.epsilon=8", "outer.max_update_norm=1.0")
    assert preview(target, None)["client_level_epsilon"] is None, "it depends on the number of clients"
    found = preview(target, 160)
    assert isinstance(found["client_level_epsilon"], float)
    assert 7.9 <= found["client_level_epsilon"] <= 8
    assert (found["fewest_clients_in_a_sum"], found["members_that_may_drop_out_of_a_group"]) == (16, 4)
    assert found["honest_survivors_that_carry_its_noise"] == 14
    assert found["bits_a_coordinate"] == 16
    multiplier = found["client_level_noise_multiplier"]
    assert isinstance(multiplier, float)
    ratio = found["noise_of_a_groups_mean_over_clipping_norm"]
    assert ratio == pytest.approx(multiplier * math.sqrt(8) / 20, rel=1e-3)
    assert "warning" not in found
    assert "client_level_epsilon" not in preview(noisy(), 160)


def test_preview_warns_where_the_signal_drowns() -> None:
    """A sum carries the whole noise, so groups of half the size have twice of it in their means."""
    plan = noisy("client_privacy.noise_multiplier=3", "model.inputs=[4]")
    assert "warning" not in preview(plan, 160)
    smaller = preview(
        noisy("client_privacy.noise_multiplier=3", "model.inputs=[4]", "secure_aggregation.group_size=10"), 160
    )
    assert "larger groups" in str(smaller["warning"])


def test_preview_of_a_plan_whose_model_is_left_open() -> None:
    found = preview(make_plan("model.inputs=none"), 5)
    assert (found["shared_parameters"], found["bytes_down_a_client_and_round"]) == (None, None)
