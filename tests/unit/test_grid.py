"""The in-process Grid, simulated owners, and what a sweep runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.run import Run

from helpers import gate_of, make_examples, make_plan, request_for
from testudo_client.meta_update import os_mechanism
from testudo_client.participant import Participant
from testudo_client.store import ClientStore
from testudo_common.errors import PlanError, PrivacyError, RosterError, UsageError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan
from testudo_common.wire import SecureMessage, TrainReply
from testudo_server.roster import roster_in
from testudo_simulations.federations import load_federation
from testudo_simulations.federations.base import Federation
from testudo_simulations.grid import CLIENT_APP_RAISED, InProcessGrid
from testudo_simulations.inline_backend import Computing
from testudo_simulations.keys import SimulatedKeys
from testudo_simulations.owners import (
    Owners,
    OwnersByFile,
    _owners_of,
    participant_of_partition,
    seeded_mechanism,
)
from testudo_simulations.sweep import Job, make_jobs, parse_sweep, run_jobs, settings_for

# --- the Grid


def counting_app() -> ClientApp:
    """Adds 1 to a number, and to a count that stays in its node's state."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = message.content.config_records["in"]["number"]
        if number == 13:
            raise ValueError("secret 123")
        earlier = context.state.config_records.get("count", ConfigRecord({"times": 0}))
        context.state["count"] = ConfigRecord({"times": earlier["times"] + 1})
        answer = ConfigRecord(
            {
                "number": number + 1,
                "partition": context.node_config["partition-id"],
                "of": context.node_config["num-partitions"],
                "times": context.state.config_records["count"]["times"],
            }
        )
        return Message(RecordDict({"out": answer}), reply_to=message)

    return app


def message_to(node: int, number: int = 1) -> Message:
    return Message(RecordDict({"in": ConfigRecord({"number": number})}), node, "train")


def answer_in(reply: Message) -> dict[str, Any]:
    return dict(reply.content.config_records["out"])


def test_every_node_answers_for_its_partition() -> None:
    grid = InProcessGrid(counting_app(), 3)
    nodes = grid.get_node_ids()
    assert len(set(nodes)) == 3
    replies = grid.send_and_receive([message_to(node, 10 * place) for place, node in enumerate(nodes)])
    assert [answer_in(reply) for reply in replies] == [
        {"number": 10 * place + 1, "partition": place, "of": 3, "times": 1} for place in range(3)
    ]


def test_state_of_a_node_stays_its_own() -> None:
    grid = InProcessGrid(counting_app(), 2)
    first, second = grid.get_node_ids()
    replies = grid.send_and_receive([message_to(first), message_to(first), message_to(second)])
    assert [answer_in(reply)["times"] for reply in replies] == [1, 2, 1]


def test_unknown_node_gets_an_empty_id_and_the_others_are_answered() -> None:
    grid = InProcessGrid(counting_app(), 1)
    (node,) = grid.get_node_ids()
    empty, identifier = grid.push_messages([message_to(4), message_to(node)])
    assert empty == ""
    assert identifier
    (reply,) = grid.pull_messages([empty, identifier])
    assert reply.metadata.reply_to_message_id == identifier


def test_reply_is_handed_out_once_and_to_whom_it_belongs() -> None:
    grid = InProcessGrid(counting_app(), 1)
    (node,) = grid.get_node_ids()
    first, second = grid.push_messages([message_to(node, 1), message_to(node, 2)])
    assert first != second
    assert grid.pull_messages(["other"]) == []
    assert [answer_in(reply)["number"] for reply in grid.pull_messages([second, first])] == [3, 2]
    assert grid.pull_messages([first, second]) == []


def test_messages_are_answered_when_asked_for_a_few_at_a_time_and_looked_at_before() -> None:
    seen: list[list[int]] = []
    answered: list[int] = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        answered.append(int(context.node_config["partition-id"]))
        return Message(RecordDict(), reply_to=message)

    def ahead(asked: Sequence[tuple[Message, Context]]) -> None:
        assert [message.metadata.dst_node_id for message, _ in asked] == [context.node_id for _, context in asked]
        seen.append([int(context.node_config["partition-id"]) for _, context in asked])
        assert not set(seen[-1]) & set(answered), "before any of them is answered"

    grid = InProcessGrid(app, 5, ahead=ahead, at_once=2)
    ids = grid.push_messages([message_to(node) for node in grid.get_node_ids()])
    assert (seen, answered) == ([], [])
    assert len(grid.pull_messages(ids)) == 2
    assert (seen, answered) == ([[0, 1]], [0, 1])
    assert len(grid.pull_messages(ids)) == 2
    grid.give_up(ids, 1.0)
    assert grid.pull_messages(ids) == [], "nobody waits for it"
    assert (seen, answered) == ([[0, 1], [2, 3]], [0, 1, 2, 3])


def test_client_app_that_raises_is_an_error_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    grid = InProcessGrid(counting_app(), 1)
    (node,) = grid.get_node_ids()
    failed, good = grid.send_and_receive([message_to(node, 13), message_to(node, 1)])
    assert failed.has_error()
    assert failed.error.code == CLIENT_APP_RAISED == 2, "Flower's own code for it"
    assert "secret" not in str(failed.error.reason) + caplog.text
    assert "ValueError" in caplog.text
    assert answer_in(good)["number"] == 2


def test_no_handler_for_a_message_is_an_error_too() -> None:
    grid = InProcessGrid(ClientApp(), 1)
    (node,) = grid.get_node_ids()
    (reply,) = grid.send_and_receive([message_to(node)], timeout=1.0)
    assert reply.has_error()


def test_grid_makes_messages_and_knows_its_run() -> None:
    grid = InProcessGrid(counting_app(), 1, run_id=7)
    assert grid.run.run_id == 7
    (node,) = grid.get_node_ids()
    message = grid.create_message(RecordDict(), "train", node, "round 1", ttl=3.0)
    assert (message.metadata.dst_node_id, message.metadata.group_id, message.metadata.ttl) == (node, "round 1", 3.0)
    grid.set_run(Run.create_empty(8))
    assert grid.run.run_id == 8


# --- owners


def federation_of(plan: FederationPlan) -> Federation:
    return Federation(plan, {f"client-{number}": make_examples(seed=number) for number in range(3)}, {})


def partition(number: int, **run_config: Any) -> Context:
    config = {"partition-id": number, "num-partitions": 3}
    return Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config=run_config)


def test_owner_of_a_partition() -> None:
    plan = make_plan()
    owners = Owners(federation_of(plan), None, None)
    assert [owners(partition(number)).client_id for number in range(3)] == ["client-0", "client-1", "client-2"]
    assert owners(partition(1)) is owners(partition(1))
    replies = [owners(partition(number)).train(request_for(plan)) for number in range(3)]
    assert all(isinstance(reply, TrainReply) for reply in replies)
    assert len({reply.update.tobytes() for reply in replies if isinstance(reply, TrainReply)}) == 3


def test_more_partitions_than_clients() -> None:
    with pytest.raises(UsageError, match="partition 3 of 3 training clients"):
        Owners(federation_of(make_plan()), None, None)(partition(3))


def test_owners_remember_in_folders_of_their_own(tmp_path: Path) -> None:
    plan = make_plan('privacy.unit="example"', "privacy.noise_multiplier=1")
    owners = Owners(federation_of(plan), tmp_path, None)
    for number in (0, 1):
        owners(partition(number)).train(request_for(plan))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000", "00001"]
    again = Owners(federation_of(plan), tmp_path, None)
    assert again(partition(0)).spent == owners(partition(0)).spent != ()
    assert again(partition(2)).spent == ()


def test_runs_without_noise_are_repeatable_and_runs_with_noise_are_not() -> None:
    def update(noise_multiplier: str) -> bytes:
        plan = make_plan('privacy.unit="example"', f"privacy.noise_multiplier={noise_multiplier}")
        reply = Owners(federation_of(plan), None, None)(partition(0)).train(request_for(plan))
        assert isinstance(reply, TrainReply)
        return reply.update.tobytes()

    assert update("0") == update("0")
    assert update("1") != update("1")


def test_noise_is_never_seeded() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(PrivacyError, match="for a noise multiplier of 0 only"):
        seeded_mechanism(0.1, 1.0, rng)
    assert seeded_mechanism(0.0, 1.0, rng).sampling is rng
    one, other = os_mechanism(1.0, 1.0, rng), os_mechanism(1.0, 1.0, rng)
    assert one.sampling is not rng
    assert one.sampling.random() != other.sampling.random()
    assert one.noise.get_state().tolist() != other.noise.get_state().tolist()


def test_owners_of_another_process_are_read_from_files(tmp_path: Path) -> None:
    tables = {
        "name": "waves",
        "data": {"federation": "sine", "clients": 3, "unseen_clients": 1, "examples": 4},
        "task": {"kind": "regression"},
        "model": {"name": "linear"},
        "secure_aggregation": {"mode": "plain"},
    }
    plan = make_plan(tables=tables)
    (tmp_path / "plan.toml").write_text(dump_plan(plan))
    where = {"plan": str(tmp_path / "plan.toml"), "out": str(tmp_path / "out")}
    participant = participant_of_partition(partition(1, **where))
    assert participant.client_id == "wave-000001"
    assert participant.plan.model.inputs == (1,), "the plan is the completed one"
    folders = str(tmp_path / "out" / "clients"), str(tmp_path / "out" / "keys")
    same = OwnersByFile(where["plan"], "", *folders)(partition(1))
    assert same is participant, "loaded once a process"
    assert not (tmp_path / "out" / "keys").exists(), "a plan without secure aggregation needs none"


WAVES: dict[str, Any] = {
    "name": "waves",
    "data": {"federation": "sine", "clients": 4, "unseen_clients": 1, "examples": 4},
    "task": {"kind": "regression"},
    "model": {"name": "linear", "inputs": [1], "outputs": 1},
    "rounds": {"cohort_size": 4},
}


def test_processes_find_the_same_keys_in_the_runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new cache stands for a new process; the server finds the roster where it looks for one."""
    federation = load_federation(make_plan(tables=WAVES), None)
    (tmp_path / "plan.toml").write_text(dump_plan(federation.plan))
    where = {"plan": str(tmp_path / "plan.toml"), "out": str(tmp_path / "out")}
    commitments = []
    for number in (0, 1):
        _owners_of.cache_clear()
        participant = participant_of_partition(partition(number, **where))
        reply = participant.train(request_for(federation.plan))
        assert isinstance(reply, SecureMessage), reply
        commitments.append(reply.body)
    assert commitments[0] != commitments[1]
    keys = SimulatedKeys.of(federation, tmp_path / "out" / "keys")
    assert roster_in(tmp_path / "out" / "keys") == keys.roster
    assert set(keys.roster.members) == {f"wave-{number:06d}" for number in range(4)}
    secret = tmp_path / "out" / "keys" / "simulation.key"
    assert secret.stat().st_mode & 0o777 == 0o600
    other = SimulatedKeys.of(federation, tmp_path / "other")
    assert other.roster.digest != keys.roster.digest, "keys are not made from the plan"
    monkeypatch.setattr(SimulatedKeys, "_key_of", None)
    again = SimulatedKeys.of(federation, tmp_path / "out" / "keys")
    assert again.roster == keys.roster, "read, and not derived again"
    assert again.server_keys.signed_roster == keys.server_keys.signed_roster


def test_owners_under_secure_aggregation_have_the_keys_of_the_roster() -> None:
    federation = load_federation(make_plan(tables=WAVES), None)
    plan, keys = federation.plan, SimulatedKeys.of(federation, None)
    owners = Owners(federation, None, keys)
    assert owners.secure_cpu_seconds == 0
    assert isinstance(owners(partition(2)).train(request_for(plan)), SecureMessage)
    assert owners.secure_cpu_seconds > 0
    with pytest.raises(UsageError, match="no key and no roster"):
        Owners(federation, None, None)(partition(2))
    with pytest.raises(RosterError, match="holds another key for 'wave-000002'"):
        Participant(
            "wave-000002",
            plan,
            make_examples(),
            store := ClientStore(None),
            gate_of(plan, store),
            membership=keys.membership_of("wave-000001"),
        )


@pytest.mark.parametrize("run_config", [{}, {"plan": "plan.toml"}, {"out": "folder"}])
def test_partition_of_a_run_that_says_too_little(run_config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="names no plan or no folder"):
        participant_of_partition(partition(0, **run_config))


# --- sweeps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epsilon=1,2,none", ("epsilon", ("1", "2", "none"))),
        (" inner.steps = 2 , 5 ", ("inner.steps", ("2", "5"))),
        ("seed=3", ("seed", ("3",))),
        ("model.name=a:b=c,d", ("model.name", ("a:b=c", "d"))),
    ],
)
def test_sweep(text: str, expected: tuple[str, tuple[str, ...]]) -> None:
    assert parse_sweep(text) == expected


@pytest.mark.parametrize("text", ["", "epsilon", "epsilon=", "=1,2", "epsilon=1,,2", "epsilon=1,", "a=1, 1"])
def test_not_a_sweep(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a sweep.*key=a,b,c"):
        parse_sweep(text)


def test_epsilon_switches_privacy_on_and_off() -> None:
    on = ['privacy.unit="example"', "privacy.epsilon=8", "privacy.noise_multiplier=none"]
    assert settings_for("epsilon", "8") == on
    noisy = make_plan('privacy.unit="example"', "privacy.noise_multiplier=1", *settings_for("epsilon", "8"))
    assert (noisy.privacy.unit, noisy.privacy.epsilon, noisy.privacy.noise_multiplier) == ("example", 8.0, None)
    off = make_plan('privacy.unit="example"', "privacy.epsilon=8", *settings_for("epsilon", "none"))
    assert (off.privacy.unit, off.privacy.epsilon) == ("none", None)
    assert settings_for("inner.steps", "7") == ["inner.steps=7"]


TABLES = make_plan("seed=5").model_dump(mode="json", exclude_none=True)


def jobs_of(*sweeps: str, seeds: int = 1, settings: tuple[str, ...] = ()) -> list[Job]:
    return make_jobs(TABLES, source="plan.toml", settings=settings, sweeps=sweeps, seeds=seeds)


def test_one_job() -> None:
    (job,) = jobs_of(settings=("inner.steps=9",))
    assert (job.setting, job.folder, job.plan.seed, job.plan.inner.steps) == ("", ".", 5, 9)


def test_seeds_count_up_from_the_plans() -> None:
    jobs = jobs_of(seeds=3)
    assert [(job.plan.seed, job.folder, job.setting) for job in jobs] == [
        (5, "seed-5", ""),
        (6, "seed-6", ""),
        (7, "seed-7", ""),
    ]


def test_every_combination_is_a_job() -> None:
    jobs = jobs_of("epsilon=none,8", "inner.steps=2,3", seeds=2)
    assert [job.setting for job in jobs[::2]] == [
        "epsilon = none, inner.steps = 2",
        "epsilon = none, inner.steps = 3",
        "epsilon = 8, inner.steps = 2",
        "epsilon = 8, inner.steps = 3",
    ]
    assert [job.plan.seed for job in jobs] == [5, 6] * 4
    assert [(job.plan.privacy.epsilon, job.plan.inner.steps) for job in jobs[::2]] == [
        (None, 2),
        (None, 3),
        (8.0, 2),
        (8.0, 3),
    ]
    assert jobs[0].folder == "epsilon-none/inner.steps-2/seed-5"
    assert len({job.folder for job in jobs}) == len({job.plan.digest for job in jobs}) == 8


def table_jobs(*sweeps: str) -> list[Job]:
    tables = {
        "name": "table",
        "data": {"federation": "csv", "client": "shop", "target": "sold"},
        "task": {"kind": "classification"},
    }
    return make_jobs(tables, source="plan.toml", settings=(), sweeps=sweeps, seeds=1)


def test_folders_stay_inside() -> None:
    jobs = table_jobs("data.target=../up,..,/etc,a b")
    assert [job.plan.data.target for job in jobs] == ["../up", "..", "/etc", "a b"]  # type: ignore[union-attr]
    folders = ["data.target-.._up", "data.target-..", "data.target-_etc", "data.target-a_b"]
    assert [job.folder for job in jobs] == folders


def test_values_that_would_share_a_folder() -> None:
    with pytest.raises(UsageError, match=r"data\.target-a_b"):
        table_jobs("data.target=a b,a_b")


def test_swept_values_win_over_settings() -> None:
    assert [job.plan.inner.steps for job in jobs_of("inner.steps=2,3", settings=("inner.steps=9",))] == [2, 3]


def test_combination_that_is_no_plan() -> None:
    with pytest.raises(PlanError, match=r"inner\.steps: 1 cannot be used"):
        jobs_of("inner.steps=2,1")


def test_sweep_leaves_the_tables_as_they_were() -> None:
    before = repr(TABLES)
    jobs_of("epsilon=8", seeds=2)
    assert repr(TABLES) == before


def test_jobs_run_in_order_and_their_progress_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    requests = []

    def fake_run(request: Any, on_progress: Any) -> str:
        requests.append(request)
        on_progress("rounds", 1, 2)
        return f"result of {request.setting}"

    monkeypatch.setattr("testudo_simulations.run.run", fake_run)
    told = []
    results = run_jobs(
        jobs_of("inner.steps=2,3"),
        data=None,
        out=tmp_path,
        backend="inline",
        computing=Computing(engine=False, threads=3),
        comparisons=False,
        resume=True,
        workers=1,
        on_progress=lambda *message: told.append(message),
    )
    assert results == ["result of inner.steps = 2", "result of inner.steps = 3"]
    assert told == [(0, "rounds", 1, 2), (1, "rounds", 1, 2)]
    assert {request.computing for request in requests} == {Computing(engine=False, threads=3)}
    assert [request.out for request in requests] == [tmp_path / "inner.steps-2", tmp_path / "inner.steps-3"]
    assert all(request.resume and not request.comparisons for request in requests)
