"""Delivery over a Flower Grid: replies in any order, late, forged or broken, under a clock that tests hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from helpers import gate_of, make_examples, make_plan, request_for
from testudo_client.app import build_client_app
from testudo_client.participant import Participant
from testudo_client.store import ClientStore
from testudo_common.audit.entries import Charter, decode_entry
from testudo_common.errors import KeyFileError, RoundError, UsageError
from testudo_common.flower_records import IDENTIFY, TRAIN, from_records, identity_records, to_records
from testudo_common.plan.load import dump_plan
from testudo_common.vectors import vector_digest
from testudo_common.wire import Refusal, RefusalReason
from testudo_server import app as server_app
from testudo_server.app import (
    GridTransport,
    build_server_app,
    exchange_messages,
    identify_clients,
    run_federation,
)
from testudo_server.audit_file import held_log, read_log
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.keys import SimulatedKeys


class Clock:
    """Stands in for the time module of the ServerApp: sleeping is all that makes time pass."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(server_app, "time", fake)
    return fake


Replies = Callable[[FlowerMessage, str, Clock], Iterable[tuple[float, FlowerMessage]]]


class StubGrid(InProcessGrid):
    """Answers each message with replies of its own, each at a time of its own.

    Args:
        replies: Given a message, its id and the clock: (seconds from now, reply) of each reply to it.
    """

    def __init__(self, clock: Clock, replies: Replies, nodes: int = 3) -> None:
        super().__init__(ClientApp(), nodes)
        self._clock = clock
        self._make_replies = replies
        self.sent: list[FlowerMessage] = []
        self._on_their_way: list[tuple[float, FlowerMessage]] = []

    def push_messages(self, messages: Iterable[FlowerMessage]) -> list[str]:
        return [identifier for message in messages if (identifier := self._push(message)) is not None]

    def _push(self, message: FlowerMessage) -> str | None:
        self.sent.append(message)
        if message.metadata.dst_node_id not in self._node_ids:
            return ""
        identifier = f"s{len(self.sent)}"
        message.metadata.__dict__["_message_id"] = identifier
        for delay, reply in self._make_replies(message, identifier, self._clock):
            self._on_their_way.append((self._clock.now + delay, reply))
        return identifier

    def pull_messages(self, message_ids: Iterable[str]) -> list[FlowerMessage]:
        """As Flower's grids: what has arrived for these ids; plus, here, whatever was forged."""
        wanted = set(message_ids)
        arrived = [
            (when, reply)
            for when, reply in self._on_their_way
            if when <= self._clock.now
            and (
                reply.metadata.reply_to_message_id in wanted or reply.metadata.reply_to_message_id.startswith("forged")
            )
        ]
        self._on_their_way = [item for item in self._on_their_way if item not in arrived]
        return [reply for _, reply in sorted(arrived, key=lambda item: -item[0])]


def named(text: str) -> RecordDict:
    return RecordDict({"who": ConfigRecord({"name": text})})


def name_in(reply: FlowerMessage) -> object:
    return reply.content.config_records["who"]["name"]


def echo(message: FlowerMessage) -> FlowerMessage:
    return FlowerMessage(named(f"node {message.metadata.dst_node_id}"), reply_to=message)


def at_once(message: FlowerMessage, identifier: str, clock: Clock) -> Iterator[tuple[float, FlowerMessage]]:
    yield 0.0, echo(message)


def exchanged(grid: StubGrid, nodes: Iterable[int] = (1000, 1001, 1002), seconds: float = 10.0) -> dict[int, object]:
    contents = [(node, (TRAIN, named("server"))) for node in nodes]
    replies = list(exchange_messages(grid, contents, deadline_seconds=seconds))
    assert len({node for node, _ in replies}) == len(replies), "a node's reply is given once"
    return {node: name_in(reply) for node, reply in replies}


EVERYONE = {node: f"node {node}" for node in (1000, 1001, 1002)}


def test_everyone_answers_at_once(clock: Clock) -> None:
    grid = StubGrid(clock, at_once)
    assert exchanged(grid) == EVERYONE
    assert clock.slept == [], "nothing is waited for that is there"
    assert [message.metadata.message_type for message in grid.sent] == [TRAIN] * 3
    assert all(message.metadata.ttl == 10.0 for message in grid.sent)


def test_nobody_is_asked(clock: Clock) -> None:
    assert exchanged(StubGrid(clock, at_once), []) == {}
    assert clock.slept == []


def test_node_that_is_gone_is_not_waited_for(clock: Clock) -> None:
    """Its message gets an empty id; a grid that were given the list would leave the others without theirs."""
    grid = StubGrid(clock, at_once)
    assert exchanged(grid, [7, 1000, 8, 1002]) == {1000: "node 1000", 1002: "node 1002"}
    assert clock.slept == []


def test_nobody_is_there(clock: Clock) -> None:
    assert exchanged(StubGrid(clock, at_once), [7, 8]) == {}
    assert clock.slept == []


def test_replies_out_of_order_are_told_apart(clock: Clock) -> None:
    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        yield {1000: 3.0, 1001: 1.0, 1002: 1.0}[message.metadata.dst_node_id], echo(message)

    assert exchanged(StubGrid(clock, replies)) == EVERYONE
    assert 3.0 <= clock.now - 1000 <= 3.5


def test_reply_is_given_as_it_arrives(clock: Clock) -> None:
    """So that it can be worked on, and its memory given back, while others are waited for."""

    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        yield {1000: 3.0, 1001: 1.0, 1002: 2.0}[message.metadata.dst_node_id], echo(message)

    contents = [(node, (TRAIN, named("server"))) for node in EVERYONE]
    arrived = []
    for node, _ in exchange_messages(StubGrid(clock, replies), contents, deadline_seconds=10.0):
        arrived.append((node, clock.now - 1000))
    assert [node for node, _ in arrived] == [1001, 1002, 1000]
    for (_, seconds), sent in zip(arrived, (1.0, 2.0, 3.0), strict=True):
        assert sent <= seconds <= sent + 0.5


def test_late_reply_is_not_waited_for(clock: Clock) -> None:
    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        yield (60.0 if message.metadata.dst_node_id == 1001 else 0.2), echo(message)

    grid = StubGrid(clock, replies)
    assert exchanged(grid, seconds=5.0) == {1000: "node 1000", 1002: "node 1002"}
    assert 5.0 <= clock.now - 1000 < 5.5 + 1e-9, "one pause past the deadline at most"
    clock.now += 100
    assert exchanged(grid, [1002]) == {1002: "node 1002"}, "late replies of an earlier round are not this one's"


def test_once_there_is_enough_only_what_has_arrived_is_given_back(clock: Clock) -> None:
    """Two that come together, of which one is enough; the third is not waited for."""

    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        yield {1000: 1.0, 1001: 9.0, 1002: 1.0}[message.metadata.dst_node_id], echo(message)

    contents = [(node, (TRAIN, named("server"))) for node in EVERYONE]
    arrived: list[int] = []
    grid = StubGrid(clock, replies)
    for node, _ in exchange_messages(grid, contents, deadline_seconds=10.0, enough=lambda: len(arrived) > 0):
        arrived.append(node)
    assert sorted(arrived) == [1000, 1002]
    assert clock.now - 1000 < 2.0


def test_reply_just_before_the_deadline_counts(clock: Clock) -> None:
    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        yield 4.9, echo(message)

    assert exchanged(StubGrid(clock, replies), seconds=5.0) == EVERYONE


def test_pauses_are_short_first_and_never_long(clock: Clock) -> None:
    assert exchanged(StubGrid(clock, lambda message, identifier, now: []), seconds=20.0) == {}
    assert clock.slept[0] <= 0.002
    assert max(clock.slept) <= 0.5
    assert len(clock.slept) < 60


def test_tiny_deadline_by_the_real_clock() -> None:
    import time

    grid = StubGrid(Clock(), lambda message, identifier, now: [])
    started = time.monotonic()
    assert exchanged(grid, seconds=0.02) == {}
    assert time.monotonic() - started < 2.0


def test_senders_id_is_not_believed(clock: Clock) -> None:
    """Node 1000 answers its own message in the name of 1001."""

    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        reply = echo(message)
        if message.metadata.dst_node_id == 1000:
            reply.metadata.__dict__["_src_node_id"] = 1001
            yield 0.0, reply
        elif message.metadata.dst_node_id == 1001:
            yield 0.5, reply

    assert exchanged(StubGrid(clock, replies)) == {1000: "node 1000", 1001: "node 1001"}


def test_reply_to_a_message_that_was_never_sent_is_nobodys(clock: Clock) -> None:
    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        forged = FlowerMessage(named("eve"), reply_to=message)
        forged.metadata.__dict__["_reply_to_message_id"] = "forged-1"
        yield 0.0, forged
        yield 0.1, echo(message)

    assert exchanged(StubGrid(clock, replies)) == EVERYONE


def test_the_first_reply_counts(clock: Clock) -> None:
    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        yield 0.0, echo(message)
        yield 0.1, FlowerMessage(named("second thoughts"), reply_to=message)

    assert exchanged(StubGrid(clock, replies)) == EVERYONE


# --- our messages over it

PLAN = make_plan()
REQUEST = request_for(PLAN)
REFUSAL = Refusal(PLAN.digest, 1, 0, RefusalReason.DATA_UNUSABLE)


def npz() -> bytes:
    import io

    file = io.BytesIO()
    np.savez(file, np.zeros(8, dtype=np.float32))
    return file.getvalue()


def hostile() -> RecordDict:
    """A vector whose bytes are an archive: numpy reads it, and gives back no array."""
    from flwr.app import Array

    records = to_records(REQUEST)
    array = Array(dtype="float32", shape=(8,), stype="numpy.ndarray", data=npz())
    records["vector"] = ArrayRecord({"0": array})
    return records


def test_transport_names_clients_and_reads_replies(clock: Clock) -> None:
    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        match message.metadata.dst_node_id:
            case 1000:
                yield 0.0, FlowerMessage(to_records(REFUSAL), reply_to=message)
            case 1001:
                yield 0.0, FlowerMessage(Error(2, "Traceback: secret 123"), reply_to=message)
            case 1002:
                yield 0.0, FlowerMessage(named("nonsense"), reply_to=message)
            case 1003:
                yield 0.0, FlowerMessage(hostile(), reply_to=message)

    names = {"refuses": 1000, "fails": 1001, "babbles": 1002, "attacks": 1003, "sleeps": 1004, "left": 77}
    grid = StubGrid(clock, replies, nodes=5)
    asked = dict.fromkeys([*names, "unknown"], REQUEST)
    delivered = list(GridTransport(grid, names).deliver(asked, deadline_seconds=1.0))
    found = dict(delivered)
    assert len(delivered) == len(found)
    assert found == {
        "refuses": REFUSAL,
        "fails": "Flower error 2",
        "babbles": "reply not understood: the records are not those of a message",
        "attacks": "reply not understood: the vector cannot be read",
    }
    assert "secret" not in repr(found)
    assert {message.metadata.dst_node_id for message in grid.sent} == {1000, 1001, 1002, 1003, 1004, 77}


def test_transport_encodes_what_many_get_once(clock: Clock) -> None:
    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        yield 0.0, FlowerMessage(to_records(REFUSAL), reply_to=message)

    grid = StubGrid(clock, replies, nodes=4)
    other = dataclasses.replace(REQUEST, model=REQUEST.model + 1)
    asked = {"a": REQUEST, "b": REQUEST, "c": other, "d": REQUEST}
    list(GridTransport(grid, {name: 1000 + i for i, name in enumerate("abcd")}).deliver(asked, deadline_seconds=1.0))
    data = [message.content.array_records["vector"]["0"].data for message in grid.sent]
    assert data[0] is data[1]
    assert data[0] == data[3] != data[2]
    assert [from_records(message.content) for message in grid.sent] == list(asked.values())


def test_messages_are_made_when_they_are_sent_and_not_before(clock: Clock) -> None:
    grid = StubGrid(clock, at_once)
    made: list[tuple[int, int]] = []

    def contents() -> Iterator[tuple[int, tuple[str, RecordDict]]]:
        for node in EVERYONE:
            made.append((node, len(grid.sent)))
            yield node, (TRAIN, named("server"))

    list(exchange_messages(grid, contents(), deadline_seconds=1.0))
    assert made == [(1000, 0), (1001, 1), (1002, 2)]


def test_clients_are_asked_for_their_names(clock: Clock) -> None:
    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        assert message.metadata.message_type == IDENTIFY
        match message.metadata.dst_node_id:
            case 1000:
                yield 0.0, FlowerMessage(identity_records("ada"), reply_to=message)
            case 1001:
                yield 0.0, FlowerMessage(Error(2, "broken"), reply_to=message)
            case 1002:
                yield 0.0, FlowerMessage(identity_records("x" * 1000), reply_to=message)
            case 1003:
                yield 0.0, FlowerMessage(identity_records("bob"), reply_to=message)

    assert identify_clients(StubGrid(clock, replies, nodes=5), deadline_seconds=1.0) == {"ada": 1000, "bob": 1003}


def test_two_clients_of_one_name(clock: Clock) -> None:
    def replies(message: FlowerMessage, identifier: str, now: Clock) -> Iterator[tuple[float, FlowerMessage]]:
        yield 0.0, FlowerMessage(identity_records("ada"), reply_to=message)

    with pytest.raises(RoundError, match="two nodes call themselves 'ada'"):
        identify_clients(StubGrid(clock, replies), deadline_seconds=1.0)


@pytest.mark.parametrize("nodes", [0, 2])
def test_no_client_answers(clock: Clock, nodes: int) -> None:
    grid = StubGrid(clock, lambda message, identifier, now: [], nodes=nodes)
    with pytest.raises(RoundError, match="no client answered"):
        identify_clients(grid, deadline_seconds=1.0)


# --- whole federations of three small clients, or four


def clients_of(plan: Any, silent: str = "", keys: SimulatedKeys | None = None) -> ClientApp:
    """Client ``client-i`` for partition i; the one named by ``silent`` raises when it is to train."""
    stores = {number: ClientStore(None) for number in range(4)}

    def participant_of(context: Context) -> Participant:
        number = int(context.node_config["partition-id"])
        name = f"client-{number}"
        examples = make_examples(0) if name == silent else make_examples(seed=number)
        membership = None if keys is None else keys.membership_of(name)
        return Participant(name, plan, examples, stores[number], gate_of(plan, stores[number]), membership=membership)

    return build_client_app(participant_of)


def test_federation_from_beginning_to_end(tmp_path: Path) -> None:
    told = []

    def on_round(state: RunState, record: RoundRecord) -> None:
        told.append((state.round, record.excluded))

    grid = InProcessGrid(clients_of(PLAN), 3)
    state = run_federation(grid, PLAN, RunStore(tmp_path), on_round=on_round)
    assert state.round == 4
    assert told == [(number, ()) for number in (1, 2, 3, 4)]
    assert sorted(state.participations.values()) == [2, 3, 3]
    assert not np.array_equal(state.model, REQUEST.model)


def test_federation_resumed(tmp_path: Path) -> None:
    whole = run_federation(InProcessGrid(clients_of(PLAN), 3), PLAN, RunStore(tmp_path / "whole"))

    class StoppedError(Exception):
        pass

    def on_round(state: RunState, record: RoundRecord) -> None:
        if state.round == 2:
            raise StoppedError

    store = RunStore(tmp_path / "parts")
    with pytest.raises(StoppedError):
        run_federation(InProcessGrid(clients_of(PLAN), 3), PLAN, store, on_round=on_round)
    again = run_federation(InProcessGrid(clients_of(PLAN), 3), PLAN, store, resume=True)
    assert vector_digest(again.model) == vector_digest(whole.model)


def test_client_that_cannot_train_is_set_aside(tmp_path: Path) -> None:
    plan = make_plan('privacy.unit="example"', "privacy.noise_multiplier=1", "rounds.cohort_size=3")
    store = RunStore(tmp_path)
    run_federation(InProcessGrid(clients_of(plan, "client-1"), 3), plan, store)
    assert [record.excluded for record in store.records()] == [(("client-1", "refused: data_unusable"),)] * 4


def test_client_with_another_plan_is_set_aside(tmp_path: Path) -> None:
    other = make_plan("seed=9", "rounds.min_replies=1")
    with pytest.raises(RoundError, match="refused: other_plan"):
        run_federation(InProcessGrid(clients_of(other), 3), PLAN, RunStore(tmp_path))


SECURE = make_plan(
    "secure_aggregation.mode=secure", "secure_aggregation.group_size=4", "rounds.cohort_size=4", "rounds.count=2"
)
FOUR = tuple(f"client-{number}" for number in range(4))


def test_federation_with_secure_aggregation_ends_where_the_plain_one_does(tmp_path: Path) -> None:
    """But for rounding: a step of 1.2e-6 of a coordinate a client at most, in each of two rounds, and what follows."""
    keys = SimulatedKeys("small", FOUR, b"k" * 32)
    grid = InProcessGrid(clients_of(SECURE, keys=keys), 4)
    found = run_federation(grid, SECURE, RunStore(tmp_path / "secure"), keys=lambda: keys.server_keys)
    plain = make_plan("rounds.cohort_size=4", "rounds.count=2")
    expected = run_federation(InProcessGrid(clients_of(plain), 4), plain, RunStore(tmp_path / "plain"))
    np.testing.assert_allclose(found.model, expected.model, rtol=0, atol=1e-5)
    assert not np.allclose(found.model, REQUEST.model, rtol=0, atol=1e-2)
    for record in RunStore(tmp_path / "secure").records():
        assert (record.cohort, record.excluded) == (FOUR, ())
        assert [(group.members, group.survivors) for group in record.groups] == [(FOUR, FOUR)]


def test_secure_aggregation_without_a_roster_is_not_begun(tmp_path: Path) -> None:
    keys = SimulatedKeys("small", FOUR, b"k" * 32)
    store = RunStore(tmp_path)
    with pytest.raises(UsageError, match="the server has no roster"):
        run_federation(InProcessGrid(clients_of(SECURE, keys=keys), 4), SECURE, store)
    assert not store.exists


LOGGED = make_plan("audit.mode=log")


def test_plan_with_a_log_and_without_keys_is_not_begun(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(UsageError, match="the plan has an audit log, and the server has no roster"):
        run_federation(InProcessGrid(clients_of(PLAN), 3), LOGGED, store)
    assert not store.exists


def test_two_servers_do_not_write_one_log(tmp_path: Path) -> None:
    keys = SimulatedKeys("small", FOUR, b"k" * 32)
    grid = InProcessGrid(clients_of(PLAN, keys=keys), 3)
    with held_log(tmp_path), pytest.raises(UsageError, match="another process is writing this audit log"):
        run_federation(grid, LOGGED, RunStore(tmp_path), keys=lambda: keys.server_keys)
    assert not RunStore(tmp_path).exists


@pytest.mark.parametrize(
    ("fab_hash", "bundle"), [("", None), ("ab" * 32, "ab" * 32), ("AB" * 32, None), ("not a digest", None)]
)
def test_bundle_that_flower_runs_is_in_the_charter(tmp_path: Path, fab_hash: str, bundle: str | None) -> None:
    """Clients here know no log, so the run goes no further."""
    keys = SimulatedKeys("small", FOUR, b"k" * 32)
    grid = InProcessGrid(clients_of(PLAN, keys=keys), 3)
    grid.run.fab_hash = fab_hash
    with pytest.raises(RoundError, match="0 of 4 owners have cosigned the log for round 1, and 3 have to"):
        run_federation(grid, LOGGED, RunStore(tmp_path, durable=False), keys=lambda: keys.server_keys)
    with read_log(tmp_path) as log:
        charter = decode_entry(next(log.entries()))
    assert isinstance(charter, Charter)
    assert charter.bundle == bundle


def context_of(**run_config: Any) -> Context:
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=run_config)


def test_server_app_runs_what_its_configuration_says_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(dump_plan(PLAN))
    config = context_of(plan=str(tmp_path / "plan.toml"), out=str(tmp_path / "out"))
    grid = InProcessGrid(clients_of(PLAN), 3)
    assert isinstance(server_app.app, ServerApp)
    server_app.app(grid, config)
    store = RunStore(tmp_path / "out")
    finished = store.load(PLAN.digest)
    assert finished.round == 4
    server_app.app(grid, config)
    assert store.load(PLAN.digest) == finished, "a finished run is gone on with, not begun again"


@pytest.mark.parametrize("named", [False, True], ids=["in the run's folder", "where the run says"])
def test_server_app_finds_its_roster(tmp_path: Path, named: bool) -> None:
    keys = SimulatedKeys("small", FOUR, b"k" * 32)
    (tmp_path / "plan.toml").write_text(dump_plan(SECURE))
    folder = tmp_path / "elsewhere" if named else tmp_path / "out" / "keys"
    keys.write(folder)
    more = {"keys": str(folder)} if named else {}
    config = context_of(plan=str(tmp_path / "plan.toml"), out=str(tmp_path / "out"), **more)
    server_app.app(InProcessGrid(clients_of(SECURE, keys=keys), 4), config)
    assert RunStore(tmp_path / "out").load(SECURE.digest).round == 2


def test_server_app_without_its_roster_says_so(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(dump_plan(SECURE))
    config = context_of(plan=str(tmp_path / "plan.toml"), out=str(tmp_path / "out"))
    keys = SimulatedKeys("small", FOUR, b"k" * 32)
    with pytest.raises(KeyFileError, match=r"federation\.pub"):
        server_app._run_from_config(InProcessGrid(clients_of(SECURE, keys=keys), 4), config)


@pytest.mark.parametrize("run_config", [{}, {"plan": "plan.toml"}, {"out": "folder"}])
def test_server_app_without_a_plan_or_a_folder(run_config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="names no plan or no folder"):
        server_app._run_from_config(InProcessGrid(ClientApp(), 0), context_of(**run_config))


def test_server_app_is_what_it_was_given() -> None:
    called = []
    build_server_app(lambda grid, context: called.append(grid))(grid := InProcessGrid(ClientApp(), 0), context_of())
    assert called == [grid]


def test_records_of_a_round_are_values() -> None:
    """A frozen record: what was told cannot be changed afterwards."""
    record = RoundRecord(1, "ab" * 32, ("a",), (), 0.0, 0.0, 0, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.round = 2  # type: ignore[misc]
