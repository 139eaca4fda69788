"""Clients that are trained at once before they answer: charged, remembered and refused as when each trains itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import Context, Message, RecordDict

from helpers import ledger_of, make_examples, make_participant, make_plan, request_for, without_noise
from testudo_client.inner_jobs import InnerJob
from testudo_client.ledger.entries import Committed, Reserved
from testudo_client.store import ClientStore
from testudo_common.errors import ModelError
from testudo_common.flower_records import TRAIN, to_records
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector
from testudo_common.wire import Refusal, RefusalReason, TrainReply, TrainRequest
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_simulations import inline_backend
from testudo_simulations.attacks.adversary import Adversary, Poison
from testudo_simulations.engine import Engine, Trained
from testudo_simulations.federations.base import Federation
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.inline_backend import Computing, computing_on, engine_for, federate_in_process
from testudo_simulations.owners import Owners

PRIVATE = ('privacy.unit="example"', "privacy.noise_multiplier=0")


class CountingEngine(Engine):
    """Also says how many jobs it was given, call by call."""

    def __init__(self, plan: FederationPlan, **more: Any) -> None:
        super().__init__(plan, **more)
        self.jobs: list[int] = []

    def train(self, model: Vector, jobs: Sequence[InnerJob]) -> Trained:
        self.jobs.append(len(jobs))
        return super().train(model, jobs)


def federation_of(plan: FederationPlan, count: int = 5, **odd: Examples) -> Federation:
    honest = {f"client-{number}": make_examples(8 + number, seed=number) for number in range(count)}
    return Federation(plan, {**honest, **odd}, {})


def ask(owners: Owners, request: TrainRequest, partitions: Sequence[int]) -> list[Any]:
    """Each partition's answer, once those asked were trained ahead."""
    InProcessGrid(lambda message, context: message, 1)  # type: ignore[arg-type]  # makes messages possible
    asked = [(Message(to_records(request), 1000 + place, TRAIN), context(place)) for place in partitions]
    owners.train_ahead(asked)
    return [owners(context(place)).answer(request) for place in partitions]


def context(place: int) -> Context:
    config: dict[str, Any] = {"partition-id": place, "num-partitions": 5}
    return Context(run_id=1, node_id=1000 + place, node_config=config, state=RecordDict(), run_config={})


def updates(answers: Sequence[object]) -> npt.NDArray[np.float32]:
    assert all(isinstance(answer, TrainReply) for answer in answers), answers
    return np.stack([answer.update for answer in answers if isinstance(answer, TrainReply)])


@pytest.mark.parametrize("settings", [(), PRIVATE, ("outer.max_update_norm=0.01",), ("task.tasks_per_client=2",)])
def test_those_trained_at_once_answer_what_they_would_have_trained_alone(settings: tuple[str, ...]) -> None:
    plan = make_plan(*settings)
    engine = CountingEngine(plan)
    together = Owners(federation_of(plan), None, None, engine=engine)
    alone = Owners(federation_of(plan), None, None)
    request = request_for(plan)
    found = updates(ask(together, request, range(5)))
    np.testing.assert_allclose(found, updates(ask(alone, request, range(5))), atol=1e-5)
    assert np.abs(found).max() > 1e-3
    assert engine.jobs == [5 * plan.task.tasks_per_client]
    assert (together.trained_at_once, alone.trained_at_once) == (5, 0)


def test_each_is_charged_once_and_its_update_is_committed(tmp_path: Path) -> None:
    plan = make_plan(*PRIVATE)
    owners = Owners(federation_of(plan), tmp_path, None, engine=CountingEngine(plan))
    answers = ask(owners, request_for(plan), (1, 3))
    again = ask(owners, request_for(plan), (1, 3))
    assert updates(again).tobytes() == updates(answers).tobytes(), "a retry gives the same bytes"
    assert owners.trained_at_once == 2
    for place in (1, 3):
        contents = [entry.content for entry in ledger_of(ClientStore(tmp_path / f"{place:05d}")).entries()]
        assert [type(content) for content in contents[1:]] == [Reserved, Committed]


def test_training_in_between_is_charged_before_and_remembered_after() -> None:
    plan = make_plan(*PRIVATE)
    store = ClientStore(None)
    participant = make_participant(plan, store=store, mechanism=without_noise)
    begun = participant.begin_training(request_for(plan))
    assert begun is not None
    assert participant.spent != ()
    assert store.load(plan.digest).last_update is None
    participant.finish_training(begun, np.ones((1, len(begun.request.model)), dtype=np.float32))
    remembered = store.load(plan.digest).last_update
    assert remembered is not None
    np.testing.assert_allclose(remembered, 1 - begun.request.model, rtol=1e-6)
    assert participant.begin_training(request_for(plan)) is None, "it has the update already"


def test_what_diverged_is_refused_once_and_not_trained_again() -> None:
    plan = make_plan()
    store = ClientStore(None)
    participant = make_participant(plan, store=store)
    begun = participant.begin_training(request_for(plan))
    assert begun is not None
    participant.finish_training(begun, np.full((1, len(begun.request.model)), np.nan, dtype=np.float32))
    answer = participant.answer(request_for(plan))
    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.DATA_UNUSABLE
    assert sum(isinstance(entry.content, Reserved) for entry in ledger_of(store).entries()) == 1
    assert isinstance(participant.answer(request_for(plan)), TrainReply), "asked again, it is trained anew"


def test_data_that_cannot_be_used_are_refused_once() -> None:
    plan = make_plan()
    store = ClientStore(None)
    participant = make_participant(plan, make_examples(0), store, mechanism=without_noise)
    private = make_plan(*PRIVATE)
    hollow = make_participant(private, make_examples(0), store, mechanism=without_noise)
    begun = participant.begin_training(request_for(plan))
    assert begun is not None
    assert [len(job.rows) for job in begun.jobs] == [0], "without privacy nothing is trained, and that is an update"
    assert hollow.begin_training(request_for(private)) is None
    answer = hollow.answer(request_for(private))
    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.DATA_UNUSABLE
    assert sum(isinstance(entry.content, Reserved) for entry in ledger_of(store).entries()) == 2


def test_nothing_is_charged_for_what_would_be_refused() -> None:
    plan = make_plan("rounds.max_participations=1", *PRIVATE)
    store = ClientStore(None)
    participant = make_participant(plan, store=store, mechanism=without_noise)
    other = request_for(make_plan("inner.steps=3"))
    assert participant.begin_training(other) is None
    wrong = request_for(plan, np.zeros(3, dtype=np.float32))
    assert participant.begin_training(wrong) is None
    endless = request_for(plan, np.full(8, np.inf, dtype=np.float32))
    assert participant.begin_training(endless) is None
    assert participant.spent == ()
    assert isinstance(participant.answer(request_for(plan)), TrainReply)
    with pytest.raises(Exception, match="1"):
        participant.begin_training(request_for(plan, round_number=2))
    refusal = participant.answer(request_for(plan, round_number=2))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is RefusalReason.PRIVACY_SPENT


def test_poisoned_clients_and_those_of_another_shape_answer_by_themselves_in_the_same_cohort() -> None:
    plan = make_plan("model.inputs=[1,3]")

    def shaped(examples: Examples, *shape: int) -> Examples:
        return Examples(examples.inputs.reshape(len(examples), *shape), examples.targets)

    clients = {f"client-{number}": shaped(make_examples(seed=number), 1, 3) for number in range(3)}
    flat = Federation(plan, {**clients, "flat": shaped(make_examples(seed=9), 3)}, {})
    engine = CountingEngine(plan)
    poison = Poison("opposite", update=lambda known: -known.own)
    adversary = Adversary(
        poison, frozenset({"client-1"}), defence=lambda rows: rows[0], max_norm=10.0, amplification=1, seed=0
    )
    owners = Owners(flat, None, None, adversary=adversary, engine=engine)
    together = updates(ask(owners, request_for(plan), range(4)))
    assert engine.jobs == [2]
    alone = updates(ask(Owners(flat, None, None), request_for(plan), range(4)))
    np.testing.assert_allclose(together[[0, 2, 3]], alone[[0, 2, 3]], atol=1e-6)
    assert np.dot(together[1], alone[1]) < 0, "the poisoned one says the opposite"


def test_a_client_that_nobody_asks_for_is_let_go_of_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testudo_simulations.owners._HELD_BYTES", 1)
    plan = make_plan(*PRIVATE)
    for folder in (tmp_path, None):
        owners = Owners(federation_of(plan), folder, None, engine=CountingEngine(plan))
        first = updates(ask(owners, request_for(plan), (0, 1)))
        ask(owners, request_for(plan), (2, 3))
        assert len(owners._participants) == 2, "those asked together are held until they have answered"
        spent = owners(context(0)).spent
        assert spent != ()
        assert updates(ask(owners, request_for(plan), (0, 1))).tobytes() == first.tobytes()
        assert owners(context(0)).spent == spent


def run(plan: FederationPlan, folder: Path, **more: Any) -> tuple[RunState, list[RoundRecord], Any]:
    records: list[RoundRecord] = []
    found = federate_in_process(
        federation_of(plan),
        RunStore(folder, durable=False),
        folder / "clients",
        on_round=lambda _, record: records.append(record),
        **more,
    )
    return found.state, records, found.training


@pytest.mark.parametrize("settings", [(), ('secure_aggregation.mode="secure"', "rounds.cohort_size=5")])
def test_a_run_is_the_same_at_once_and_one_by_one(tmp_path: Path, settings: tuple[str, ...]) -> None:
    plan = make_plan("rounds.cohort_size=3", *settings)
    at_once, records, path = run(plan, tmp_path / "at-once")
    alone, others, other_path = run(plan, tmp_path / "alone", computing=Computing(engine=False))
    assert [record.cohort for record in records] == [record.cohort for record in others]
    assert all(not record.excluded for record in records)
    np.testing.assert_allclose(at_once.model, alone.model, atol=1e-3 if plan.secure else 1e-5)
    assert (path.engine, path.why_not, path.at_once) == ("stacked", "", sum(len(record.cohort) for record in records))
    assert (other_path.engine, other_path.why_not, other_path.at_once) == ("", "switched off", 0)


def test_a_model_that_cannot_be_stacked_is_trained_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_engine(plan: FederationPlan, **more: Any) -> Engine:
        raise ModelError("it throws dice", where="model.name")

    monkeypatch.setattr(inline_backend, "Engine", no_engine)
    _, records, path = run(make_plan(), tmp_path)
    assert len(records) == 4
    assert (path.engine, path.why_not, path.at_once) == ("", "it throws dice", 0)


def test_computing_is_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert computing_on("auto", 2) == computing_on("cpu", 2) == Computing(True, "cpu", 2)
    with pytest.raises(Exception, match="no CUDA device"):
        computing_on("cuda", 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert computing_on("auto", 1, engine=False) == Computing(False, "cuda", 1)
    assert engine_for(make_plan(), Computing(engine=False)) == (None, "switched off")
