"""A data owner's part: what it refuses, what it re-sends, what it is charged, and what it never lets out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp
from safetensors.numpy import load, save

from helpers import (
    FEW_SHOT,
    REGRESSION,
    gate_of,
    make_examples,
    make_participant,
    make_plan,
    message_in,
    request_for,
    without_noise,
)
from testudo_client import app as client_app
from testudo_client.app import build_client_app, participant_from_context
from testudo_client.participant import Participant
from testudo_client.store import ClientMemory, ClientStore
from testudo_common.errors import CheckpointError, ModelError, PrivacyError, UsageError
from testudo_common.flower_records import IDENTIFY, TRAIN, identity_in, to_records
from testudo_common.learning.inner_loop import InnerLoop, LocalCentre, run_inner_loop
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import SampledGaussian
from testudo_common.vectors import Vector
from testudo_common.wire import Refusal, RefusalReason, SecureMessage, TrainReply, TrainRequest
from testudo_simulations.grid import InProcessGrid

EXAMPLE = 'privacy.unit="example"'
NOISY = (EXAMPLE, "privacy.noise_multiplier=1.0")
NOISELESS = (EXAMPLE, "privacy.noise_multiplier=0")
TARGET = (
    EXAMPLE,
    "inner.sample_rate=1.0",
    "privacy.epsilon=5",
    "privacy.accountant=rdp",
    "rounds.max_participations=2",
)
ONE_ROUND = SampledGaussian(1.0, 0.5, 2)


def update_of(participant: Participant, request: TrainRequest) -> Vector:
    reply = participant.train(request)
    assert isinstance(reply, TrainReply), reply
    assert (reply.plan_digest, reply.round, reply.attempt, reply.model_digest) == (
        request.plan_digest,
        request.round,
        request.attempt,
        request.model_digest,
    )
    return reply.update


def reason_of(participant: Participant, request: TrainRequest) -> RefusalReason:
    reply = participant.train(request)
    assert isinstance(reply, Refusal), reply
    assert (reply.round, reply.attempt) == (request.round, request.attempt)
    assert reply.plan_digest == participant.plan_digest
    return reply.reason


# --- refusals before any data is touched


class Untouchable(Examples):
    """Examples that may not be looked at."""

    def __getattribute__(self, name: str) -> Any:
        if name in {"inputs", "targets"}:
            raise AssertionError("data was touched")
        return super().__getattribute__(name)


def untouchable() -> Examples:
    return object.__new__(Untouchable)


def test_other_plan() -> None:
    participant = make_participant(make_plan(), untouchable())
    assert reason_of(participant, request_for(make_plan("seed=1"))) is RefusalReason.OTHER_PLAN


def test_other_model_than_the_digest_says() -> None:
    plan = make_plan()
    good = request_for(plan)
    altered = good.model.copy()
    altered[0] = np.nextafter(altered[0], np.float32(9))
    bad = TrainRequest(good.plan_digest, 1, 0, good.model_digest, altered)
    assert reason_of(make_participant(plan, untouchable()), bad) is RefusalReason.OTHER_MODEL


@pytest.mark.parametrize("size", [0, 7, 9])
def test_wrong_length(size: int) -> None:
    plan = make_plan()
    request = request_for(plan, np.zeros(size, dtype=np.float32))
    assert reason_of(make_participant(plan, untouchable()), request) is RefusalReason.OTHER_MODEL


def test_model_that_is_not_finite() -> None:
    plan = make_plan(*NOISY)
    participant = make_participant(plan)
    with pytest.raises(ModelError, match="not finite"):
        participant.train(request_for(plan, np.full(8, np.nan, dtype=np.float32)))
    assert participant.spent == ()


# --- accounts


def test_budget_is_spent_and_not_exceeded() -> None:
    plan = make_plan(*TARGET)
    participant = make_participant(plan)
    for round_number in (1, 2):
        update_of(participant, request_for(plan, round_number=round_number))
    spent = epsilon_of(participant.spent, plan.privacy.delta, "rdp")
    assert 0.99 * 5 <= spent <= 5
    assert reason_of(participant, request_for(plan, round_number=3)) is RefusalReason.PRIVACY_SPENT
    assert epsilon_of(participant.spent, plan.privacy.delta, "rdp") == spent


def test_budget_is_checked_before_data_is_touched() -> None:
    plan = make_plan(*TARGET)
    store = ClientStore(None)
    participant = make_participant(plan, store=store)
    for round_number in (1, 2):
        update_of(participant, request_for(plan, round_number=round_number))
    again = make_participant(plan, untouchable(), store)
    assert reason_of(again, request_for(plan, round_number=3)) is RefusalReason.PRIVACY_SPENT


def test_spent_budget_still_re_sends() -> None:
    plan = make_plan(*TARGET)
    participant = make_participant(plan)
    updates = [update_of(participant, request_for(plan, round_number=number)) for number in (1, 2)]
    assert update_of(participant, request_for(plan, round_number=2)).tobytes() == updates[1].tobytes()


def test_budget_survives_a_restart(tmp_path: Path) -> None:
    plan = make_plan(*TARGET)
    for round_number in (1, 2):
        participant = make_participant(plan, store=ClientStore(tmp_path))
        update_of(participant, request_for(plan, round_number=round_number))
    again = make_participant(plan, store=ClientStore(tmp_path))
    assert reason_of(again, request_for(plan, round_number=3)) is RefusalReason.PRIVACY_SPENT


def test_every_new_round_is_charged() -> None:
    plan = make_plan(*NOISY)
    participant = make_participant(plan)
    for round_number in (1, 2, 3):
        update_of(participant, request_for(plan, round_number=round_number))
        assert participant.spent == (SampledGaussian(1.0, 0.5, 2 * round_number),)


def test_every_task_of_a_round_is_charged() -> None:
    plan = make_plan(*NOISY, "task.tasks_per_client=3")
    participant = make_participant(plan)
    update_of(participant, request_for(plan))
    assert participant.spent == (SampledGaussian(1.0, 0.5, 3 * 2),)


def test_same_round_of_another_model_is_charged_again() -> None:
    plan = make_plan(*NOISY)
    participant = make_participant(plan)
    first = update_of(participant, request_for(plan))
    second = update_of(participant, request_for(plan, np.zeros(8, dtype=np.float32)))
    assert first.tobytes() != second.tobytes()
    assert participant.spent == (SampledGaussian(1.0, 0.5, 4),)


@pytest.mark.parametrize("settings", [(), NOISELESS, NOISY], ids=["no privacy", "no noise", "noise"])
@pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a restart"])
def test_retry_re_sends_the_same_bytes_and_is_not_charged(
    tmp_path: Path, settings: tuple[str, ...], restart: bool
) -> None:
    plan = make_plan(*settings)
    participant = make_participant(plan, store=ClientStore(tmp_path))
    first = update_of(participant, request_for(plan))
    spent = participant.spent
    assert first.any()
    if restart:
        participant = make_participant(plan, untouchable(), ClientStore(tmp_path))
    assert update_of(participant, request_for(plan)).tobytes() == first.tobytes()
    assert update_of(participant, request_for(plan, attempt=1)).tobytes() == first.tobytes()
    assert participant.spent == spent


def test_noise_is_new_where_nothing_was_remembered() -> None:
    """Otherwise the test above could pass because the noise was repeatable."""
    plan = make_plan(*NOISY)
    updates = {update_of(make_participant(plan), request_for(plan)).tobytes() for _ in range(5)}
    assert len(updates) == 5


def test_plans_have_accounts_of_their_own(tmp_path: Path) -> None:
    one, other = make_plan(*NOISY), make_plan(*NOISY, "seed=1")
    store = ClientStore(tmp_path)
    update_of(make_participant(one, store=store), request_for(one))
    assert make_participant(other, store=store).spent == ()
    assert make_participant(one, store=store).spent == (ONE_ROUND,)


class FullDisk(ClientStore):
    def save(self, plan_digest: str, memory: ClientMemory) -> None:
        raise OSError("no space left")


def test_nothing_leaves_that_could_not_be_remembered() -> None:
    plan = make_plan(*NOISY)
    with pytest.raises(OSError, match="no space"):
        make_participant(plan, store=FullDisk(None)).train(request_for(plan))


# --- data that cannot be trained on


def test_data_that_makes_training_diverge() -> None:
    plan = make_plan(tables=REGRESSION)
    examples = make_examples(regression=True)
    participant = make_participant(plan, Examples(examples.inputs * np.float32(1e30), examples.targets))
    assert reason_of(participant, request_for(plan)) is RefusalReason.DATA_UNUSABLE
    reply = make_participant(plan, examples).train(request_for(plan))
    assert isinstance(reply, TrainReply), "the data was the reason"


def test_divergence_under_privacy_is_refused_and_charged() -> None:
    """No update leaves, but that training diverged was computed from the data, and the refusal tells it."""
    plan = make_plan(EXAMPLE, "privacy.noise_multiplier=1000", "inner.learning_rate=3e38")
    participant = make_participant(plan)
    assert reason_of(participant, request_for(plan)) is RefusalReason.DATA_UNUSABLE
    assert participant.spent == (SampledGaussian(1000.0, plan.inner.sample_rate, plan.inner.steps),)


def test_a_plan_without_a_target_epsilon_is_not_trained_on_more_often_than_it_says() -> None:
    plan = make_plan(*NOISY, "rounds.count=5", "rounds.max_participations=2")
    participant = make_participant(plan)
    assert all(isinstance(participant.train(request_for(plan, round_number=number)), TrainReply) for number in (1, 2))
    assert reason_of(participant, request_for(plan, round_number=3)) is RefusalReason.PRIVACY_SPENT


def test_one_wild_example_under_privacy_does_not_end_the_round() -> None:
    """A refusal would tell the server that this example is there."""
    plan = make_plan(*NOISY, "inner.sample_rate=1.0", tables=REGRESSION)
    examples = make_examples(regression=True)
    inputs = examples.inputs.copy()
    inputs[3] = 1e30
    participant = make_participant(plan, Examples(inputs, examples.targets))
    assert np.isfinite(update_of(participant, request_for(plan))).all()
    assert participant.spent == (SampledGaussian(1.0, 1.0, 2),)


def test_no_examples() -> None:
    private, plain = make_plan(*NOISY), make_plan()
    assert reason_of(make_participant(private, make_examples(0)), request_for(private)) is (RefusalReason.DATA_UNUSABLE)
    assert not update_of(make_participant(plain, make_examples(0)), request_for(plain)).any()


def test_too_few_examples_for_an_episode() -> None:
    plan = make_plan("task.shots=7", tables=FEW_SHOT)
    assert reason_of(make_participant(plan), request_for(plan)) is RefusalReason.DATA_UNUSABLE


# --- the update


@pytest.mark.parametrize("settings", [(), NOISY], ids=["no privacy", "noise"])
def test_update_is_no_longer_than_the_plan_says(settings: tuple[str, ...]) -> None:
    plan = make_plan(*settings, "outer.max_update_norm=0.01")
    update = update_of(make_participant(plan), request_for(plan))
    assert np.linalg.norm(update.astype(np.float64)) == pytest.approx(0.01, rel=1e-6)


def test_update_is_where_training_went() -> None:
    plan = make_plan("inner.sample_rate=1.0")
    learner = Learner(plan)
    start = learner.vector()
    run_inner_loop(learner, make_examples(), InnerLoop(2, 0.5), np.random.default_rng(0))
    update = update_of(make_participant(plan), request_for(plan))
    np.testing.assert_allclose(update, learner.vector() - start, rtol=0, atol=1e-7)


def test_private_update_without_noise_and_clipping_is_the_plain_one() -> None:
    plain = make_plan("inner.sample_rate=1.0")
    private = make_plan("inner.sample_rate=1.0", *NOISELESS, "privacy.max_grad_norm=1e6")
    one = update_of(make_participant(plain), request_for(plain))
    other = update_of(make_participant(private, mechanism=without_noise), request_for(private))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_update_of_several_tasks_is_their_mean() -> None:
    """With one batch a task, the tasks of a round differ only in the seeded order, which is replayed here."""
    plan = make_plan("task.tasks_per_client=3", "inner.sample_rate=0.25")
    participant = make_participant(plan)
    request = request_for(plan)
    seeded = participant._seeded(1)
    learner = Learner(plan)
    ends = []
    for _ in range(3):
        learner.start_from(request.model)
        run_inner_loop(learner, make_examples(), InnerLoop(2, 0.5, 0.25), seeded)
        ends.append(learner.vector().astype(np.float64) - request.model)
    assert np.linalg.norm(ends[0] - ends[1]) > 1e-3
    np.testing.assert_allclose(update_of(participant, request), np.mean(ends, axis=0), rtol=0, atol=1e-7)


def test_order_of_batches_depends_on_client_round_and_seed() -> None:
    plan, other = make_plan(), make_plan("seed=1")
    learner, store = Learner(plan), ClientStore(None)
    seeds = [
        Participant(client, one, make_examples(), store, gate_of(one, store), learner)._seeded(number).integers(2**62)
        for client, one, number in [("a", plan, 1), ("a", plan, 2), ("b", plan, 1), ("a", other, 1)]
    ]
    assert len(set(seeds)) == 4
    again = Participant("a", plan, make_examples(), store, gate_of(plan, store), learner)
    assert again._seeded(1).integers(2**62) == seeds[0]


def test_update_is_of_the_shared_parameters_only() -> None:
    plan = make_plan("model.name=mlp", "model.hidden=[4]", "model.unshared_head=true", "inner.steps=3")
    assert len(update_of(make_participant(plan), request_for(plan))) == 3 * 4 + 4


def test_participants_may_share_a_learner() -> None:
    plan = make_plan()
    learner = Learner(plan)

    def update(number: int, learner: Learner | None) -> Vector:
        participant = make_participant(plan, make_examples(seed=number), learner=learner)
        return update_of(participant, request_for(plan))

    alone = [update(number, None) for number in range(3)]
    together = [update(number, learner) for number in range(3)]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_local_centring_trains_on_centred_targets() -> None:
    plan = make_plan("task.local_centring=targets", "outer.max_update_norm=1e6", tables=REGRESSION)
    examples = make_examples(regression=True)
    moved = Examples(examples.inputs, examples.targets + np.float32(64))
    update = update_of(make_participant(plan, moved), request_for(plan))
    learner = Learner(plan)
    start = learner.vector()
    centred = LocalCentre.of(examples, "targets").subtract(examples)
    run_inner_loop(learner, centred, InnerLoop(2, 0.1), np.random.default_rng(0))
    np.testing.assert_allclose(update, learner.vector() - start, rtol=0, atol=1e-4)


def test_episodes_are_trained_on() -> None:
    plan = make_plan("task.tasks_per_client=2", tables=FEW_SHOT)
    assert update_of(make_participant(plan), request_for(plan)).any()


# --- the memory file


def remembered(folder: Path) -> tuple[FederationPlan, ClientMemory, Path]:
    plan = make_plan(*NOISY)
    memory = ClientMemory(3, "ab" * 32, np.arange(4, dtype=np.float32))
    ClientStore(folder).save(plan.digest, memory)
    (path,) = folder.iterdir()
    return plan, memory, path


def test_memory_there_and_back(tmp_path: Path) -> None:
    plan, memory, path = remembered(tmp_path)
    again = ClientStore(tmp_path).load(plan.digest)
    assert again == memory
    assert again.last_update is not None
    np.testing.assert_array_equal(again.last_update, [0, 1, 2, 3])
    assert path.stat().st_mode & 0o777 == 0o600
    assert "array" not in repr(again), "an update is never printed"


def test_memory_of_nobody(tmp_path: Path) -> None:
    assert ClientStore(tmp_path / "new").load("ab" * 32) == ClientMemory()
    assert not (tmp_path / "new").exists()
    ClientStore(tmp_path).save("ab" * 32, ClientMemory())
    assert ClientStore(tmp_path).load("ab" * 32) == ClientMemory()


def test_memory_without_a_folder() -> None:
    store = ClientStore(None)
    store.save("ab" * 32, ClientMemory(2))
    assert store.load("ab" * 32) == ClientMemory(2)
    assert store.load("cd" * 32) == ClientMemory()


def rewritten(data: bytes, **metadata: str | None) -> bytes:
    """The file with some of its metadata changed, or taken out."""
    length = int.from_bytes(data[:8], "little")
    given = {**json.loads(data[8 : 8 + length])["__metadata__"], **metadata}
    return save(load(data), {key: value for key, value in given.items() if value is not None})


DAMAGES = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-3],
    "trailing bytes": lambda data: data + b"\0" * 8,
    "other bytes": lambda data: b"\xff" * len(data),
    "no metadata": lambda data: save(load(data)),
    "another format": lambda data: rewritten(data, format="testudo-client-9"),
    "another plan": lambda data: rewritten(data, plan_digest="cd" * 32),
    "round not a number": lambda data: rewritten(data, last_round="three"),
    "no update": lambda data: save(
        {"other": np.zeros(1, dtype=np.float32)},
        json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"],
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_memory_is_an_error_and_left_as_it_is(tmp_path: Path, damage: Any) -> None:
    """Starting over would forget what was spent."""
    plan, _, path = remembered(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    participant = make_participant(plan, untouchable(), ClientStore(tmp_path))
    with pytest.raises(CheckpointError, match="memory is damaged") as caught:
        participant.train(request_for(plan))
    assert caught.value.where == str(path)
    assert path.read_bytes() == before


def test_rewriting_alone_damages_nothing(tmp_path: Path) -> None:
    """Otherwise the test above could pass for a file that was only rewritten."""
    plan, memory, path = remembered(tmp_path)
    path.write_bytes(rewritten(path.read_bytes()))
    assert ClientStore(tmp_path).load(plan.digest) == memory


# --- Flower's ClientApp


def grid_of(participant_of: Any) -> InProcessGrid:
    return InProcessGrid(build_client_app(participant_of), 1)


def ask(grid: InProcessGrid, message_type: str, records: RecordDict) -> FlowerMessage:
    (node,) = grid.get_node_ids()
    (reply,) = grid.send_and_receive([FlowerMessage(records, node, message_type)])
    assert not reply.has_error()
    return reply


def test_app_trains_and_names_its_client() -> None:
    plan = make_plan()
    grid = grid_of(lambda context: make_participant(plan))
    assert identity_in(ask(grid, IDENTIFY, RecordDict()).content)[0] == "ada"
    reply = message_in(ask(grid, TRAIN, to_records(request_for(plan))).content)
    assert isinstance(reply, TrainReply)
    np.testing.assert_array_equal(reply.update, update_of(make_participant(plan), request_for(plan)))


SECRET = "secret 123"


class Raising:
    """A participant whose error carries data, as pandas' and sklearn's do."""

    client_id = "ada"
    signer = None

    def __init__(self, error: Exception) -> None:
        self._error = error

    def answer(self, message: TrainRequest | SecureMessage) -> TrainReply:
        raise self._error


def everything_in(message: FlowerMessage) -> str:
    return repr([dict(record) for record in message.content.values()]) + repr(message.metadata)


@pytest.mark.parametrize("error", [ValueError(SECRET), KeyError(SECRET), MemoryError(SECRET)], ids=repr)
def test_text_of_an_error_stays_with_the_owner(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    caplog.set_level(logging.DEBUG)
    plan = make_plan()
    reply = ask(grid_of(lambda context: Raising(error)), TRAIN, to_records(request_for(plan, round_number=7)))
    assert message_in(reply.content) == Refusal(plan.digest, 7, 0, RefusalReason.INTERNAL)
    assert SECRET not in everything_in(reply)
    assert SECRET not in caplog.text
    assert type(error).__name__ in caplog.text


def test_text_of_an_error_in_secure_aggregation_stays_with_the_owner(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    step = SecureMessage("ab" * 32, 7, 2, SECRET.encode())
    reply = ask(grid_of(lambda context: Raising(ValueError(SECRET))), TRAIN, to_records(step))
    assert message_in(reply.content) == Refusal("ab" * 32, 7, 2, RefusalReason.INTERNAL)
    assert SECRET not in everything_in(reply) + caplog.text


def test_own_errors_are_explained_to_the_owner_only(caplog: pytest.LogCaptureFixture) -> None:
    error = PrivacyError("no such layer", where="model.name", remedy="use another")
    reply = ask(grid_of(lambda context: Raising(error)), TRAIN, to_records(request_for(make_plan())))
    assert "no such layer" not in everything_in(reply)
    assert "model.name: no such layer. use another" in caplog.text


def failing_start(context: Context) -> Participant:
    raise ValueError(SECRET)


def test_client_that_cannot_start(caplog: pytest.LogCaptureFixture) -> None:
    plan = make_plan()
    grid = grid_of(failing_start)
    identity = ask(grid, IDENTIFY, RecordDict())
    assert len(identity.content) == 0
    reply = ask(grid, TRAIN, to_records(request_for(plan)))
    assert message_in(reply.content) == Refusal(plan.digest, 1, 0, RefusalReason.INTERNAL)
    assert SECRET not in everything_in(identity) + everything_in(reply) + caplog.text
    assert "cannot start: ValueError" in caplog.text


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(RecordDict(), id="nothing"),
        pytest.param(RecordDict({"testudo": ConfigRecord({"header": b"\x01"})}), id="bad header"),
        pytest.param(to_records(Refusal("ab" * 32, 1, 0, RefusalReason.INTERNAL)), id="a refusal"),
        pytest.param(to_records(TrainReply("ab" * 32, 1, 0, "ab" * 32, np.zeros(8, dtype=np.float32))), id="a reply"),
    ],
)
def test_request_that_is_none(records: RecordDict) -> None:
    participant = Raising(AssertionError("it was called"))
    reply = ask(grid_of(lambda context: participant), TRAIN, records)
    assert message_in(reply.content) == Refusal("0" * 64, 0, 0, RefusalReason.INTERNAL)


@pytest.mark.parametrize("body", [b"", b"\x01\x01", SECRET.encode()])
def test_steps_of_secure_aggregation_are_nothing_for_a_plan_without(body: bytes) -> None:
    plan = make_plan()
    participant = make_participant(plan, untouchable())
    step = SecureMessage(plan.digest, 3, 1, body)
    refusal = Refusal(plan.digest, 3, 1, RefusalReason.OTHER_PLAN)
    assert participant.answer(step) == participant.step(step) == refusal
    reply = ask(grid_of(lambda context: participant), TRAIN, to_records(step))
    assert message_in(reply.content) == refusal
    assert participant.secure_cpu_seconds == 0


def test_answer_to_a_training_request_is_that_of_train() -> None:
    plan = make_plan()
    request = request_for(plan)
    reply = make_participant(plan).answer(request)
    assert isinstance(reply, TrainReply)
    assert reply.update.tobytes() == update_of(make_participant(plan), request).tobytes()


def test_app_is_a_flower_client_app() -> None:
    assert isinstance(client_app.app, ClientApp)


def context_of(node_config: dict[str, Any], run_config: dict[str, Any] | None = None) -> Context:
    return Context(run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config=run_config or {})


def test_node_that_says_too_little() -> None:
    with pytest.raises(UsageError, match="no owner, plan") as caught:
        participant_from_context(context_of({"data": "x.csv", "plan": ""}))
    assert "--node-config" in caught.value.remedy


def test_simulated_partition_is_answered_by_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="names no plan or no folder"):
        participant_from_context(context_of({"partition-id": 0}))

    def no_entries(group: str) -> list[object]:
        return []

    monkeypatch.setattr(client_app, "entry_points", no_entries)
    with pytest.raises(UsageError, match="needs the simulator"):
        participant_from_context(context_of({"partition-id": 0}))
