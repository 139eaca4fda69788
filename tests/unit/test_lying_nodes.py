"""Nodes that answer as others, in whole runs: what works where nobody signs, and what is left of it where owners do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Error, RecordDict
from flwr.app import Message as FlowerMessage

from helpers import gate_of, make_examples, make_plan
from testudo_client.app import build_client_app
from testudo_client.participant import Participant
from testudo_client.store import ClientStore
from testudo_common.errors import RoundError
from testudo_common.flower_records import IDENTIFY, TRAIN, from_records, identity_records, records_of, reply_in
from testudo_common.plan import FederationPlan
from testudo_common.wire import SecureMessage
from testudo_server.app import run_federation
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.keys import SimulatedKeys

CLIENTS = ("client-0", "client-1", "client-2")
PLAN = make_plan("rounds.cohort_size=3", "rounds.count=2", "rounds.min_replies=1", "rounds.max_participations=2")
SECURE = (
    "secure_aggregation.mode=secure",
    "secure_aggregation.group_size=5",
    "secure_aggregation.min_cohort=4",
    "rounds.cohort_size=5",
    "rounds.count=1",
    "rounds.min_replies=1",
)
KEYS = SimulatedKeys("small", CLIENTS, b"k" * 32)
NOT_SIGNED = ("client-1", "reply not signed by client-1")

Meddling = Callable[["LyingGrid", FlowerMessage, Context], FlowerMessage]


class LyingGrid(InProcessGrid):
    """Nodes of which one meddles with replies.

    Args:
        meddle: Makes the reply to a message that goes to the context's node.
        clients: Whose names they give; one of them may stand twice.
        keys: With which they sign; None: they have none.
        plan: Of everybody.
    """

    def __init__(
        self,
        meddle: Meddling,
        clients: tuple[str, ...] = CLIENTS,
        keys: SimulatedKeys | None = KEYS,
        plan: FederationPlan = PLAN,
    ) -> None:
        self.participants = [participant(plan, number, client, keys) for number, client in enumerate(clients)]
        self.honest = build_client_app(lambda context: self.participants[int(context.node_config["partition-id"])])
        super().__init__(lambda message, context: meddle(self, message, context), len(clients))  # type: ignore[arg-type]
        self.kept: list[FlowerMessage] = []

    def context_of(self, number: int) -> Context:
        return self._context_of(self.get_node_ids()[number])


def participant(plan: FederationPlan, number: int, client: str, keys: SimulatedKeys | None) -> Participant:
    store = ClientStore(None)
    membership = None if keys is None or client not in keys.roster.members else keys.membership_of(client)
    return Participant(client, plan, make_examples(number), store, gate_of(plan, store), membership=membership)


def honest(grid: LyingGrid, message: FlowerMessage, context: Context) -> FlowerMessage:
    return grid.honest(message, context)


def trains_node_1(message: FlowerMessage, context: Context) -> bool:
    return message.metadata.message_type == TRAIN and context.node_config["partition-id"] == 1


def answers_as_another(grid: LyingGrid, message: FlowerMessage, context: Context) -> FlowerMessage:
    """Node 0 knows the id of node 1's message, and answers it with an update of its own."""
    return grid.honest(message, grid.context_of(0) if trains_node_1(message, context) else context)


def changed_on_the_way(grid: LyingGrid, message: FlowerMessage, context: Context) -> FlowerMessage:
    """Whoever holds the SuperLink turns an update round."""
    reply = grid.honest(message, context)
    if not trains_node_1(message, context):
        return reply
    parts, signature = reply_in(reply.content)
    assert parts.vector is not None
    np.negative(parts.vector, out=parts.vector)
    return FlowerMessage(records_of(parts, signature), reply_to=message)


def without_signature(grid: LyingGrid, message: FlowerMessage, context: Context) -> FlowerMessage:
    reply = grid.honest(message, context)
    if not trains_node_1(message, context):
        return reply
    return FlowerMessage(records_of(reply_in(reply.content)[0]), reply_to=message)


def babbles(grid: LyingGrid, message: FlowerMessage, context: Context) -> FlowerMessage:
    """Another node's nonsense is not this client's either."""
    if trains_node_1(message, context):
        return FlowerMessage(RecordDict(), reply_to=message)
    return honest(grid, message, context)


def run(grid: InProcessGrid, folder: Path, keys: SimulatedKeys | None = KEYS) -> tuple[RunState, list[RoundRecord]]:
    store = RunStore(folder, durable=False)
    state = run_federation(grid, PLAN, store, keys=None if keys is None else lambda: keys.server_keys)
    return state, store.records()


@pytest.mark.parametrize(
    ("meddle", "works"),
    [(answers_as_another, True), (changed_on_the_way, True), (without_signature, True), (babbles, False)],
)
def test_reply_that_is_not_its_clients_is_none(tmp_path: Path, meddle: Meddling, works: bool) -> None:
    """With the check off the server counts it as client-1's; with it on nobody else is blamed, and the run goes on."""
    state, records = run(LyingGrid(honest), tmp_path / "honest")
    assert [record.excluded for record in records] == [(), ()]

    deceived, records = run(LyingGrid(meddle), tmp_path / "off", keys=None)
    assert [dict(record.excluded).keys() for record in records] == [set() if works else {"client-1"}] * 2
    if works:
        assert (deceived.model.tobytes() == state.model.tobytes()) == (meddle is without_signature)

    _, records = run(LyingGrid(meddle), tmp_path / "on")
    assert [record.excluded for record in records] == [(NOT_SIGNED,), (NOT_SIGNED,)]
    assert [record.barred for record in records] == [(), ()]


def test_another_that_answers_in_secure_aggregation_is_a_dropout(tmp_path: Path) -> None:
    """It looks to the others as if client-1 had gone: the group is opened without it, and nobody gets a strike."""
    five = tuple(f"client-{number}" for number in range(5))
    plan, keys = make_plan(*SECURE), SimulatedKeys("small", five, b"k" * 32)

    def answers_for_another(grid: LyingGrid, message: FlowerMessage, context: Context) -> FlowerMessage:
        other = trains_node_1(message, context) and isinstance(from_records(message.content), SecureMessage)
        return grid.honest(message, grid.context_of(0) if other else context)

    grid = LyingGrid(answers_for_another, five, keys, plan)
    store = RunStore(tmp_path, durable=False)
    run_federation(grid, plan, store, keys=lambda: keys.server_keys)
    (record,) = store.records()
    assert record.excluded == (NOT_SIGNED,)
    assert [(group.survivors, group.fault, group.blamed) for group in record.groups if group.survivors] == [
        (("client-0", "client-2", "client-3", "client-4"), "", False)
    ]
    assert record.barred == ()


def test_reply_of_an_earlier_run(tmp_path: Path) -> None:
    """The same plan begins with the same request, whose old answer is good for ever where nobody signs."""
    old: list[RecordDict] = []

    def keeps(grid: LyingGrid, message: FlowerMessage, context: Context) -> FlowerMessage:
        reply = grid.honest(message, context)
        if trains_node_1(message, context):
            old.append(reply.content)
        return reply

    def replays(grid: LyingGrid, message: FlowerMessage, context: Context) -> FlowerMessage:
        if trains_node_1(message, context) and old:
            return FlowerMessage(old.pop(0), reply_to=message)
        return honest(grid, message, context)

    for keys, excluded in ((None, [(), ()]), (KEYS, [(NOT_SIGNED,), (NOT_SIGNED,)])):
        old.clear()
        earlier = LyingGrid(keeps)
        run(earlier, tmp_path / f"earlier {keys is None}", keys)
        later = LyingGrid(replays)
        assert later.run.run_id != earlier.run.run_id
        _, records = run(later, tmp_path / f"later {keys is None}", keys)
        assert [record.excluded for record in records] == excluded


def test_reply_of_an_earlier_round(tmp_path: Path) -> None:
    def replays(grid: LyingGrid, message: FlowerMessage, context: Context) -> FlowerMessage:
        if not trains_node_1(message, context):
            return honest(grid, message, context)
        grid.kept.append(honest(grid, message, context))
        return FlowerMessage(grid.kept[0].content, reply_to=message) if len(grid.kept) > 1 else grid.kept[0]

    _, records = run(LyingGrid(replays), tmp_path)
    assert [record.excluded for record in records] == [(), (NOT_SIGNED,)]


def test_reply_that_failed_on_the_way_is_not_called_unsigned(tmp_path: Path) -> None:
    def fails(grid: LyingGrid, message: FlowerMessage, context: Context) -> FlowerMessage:
        failed = trains_node_1(message, context)
        return FlowerMessage(Error(6, "secret 123"), reply_to=message) if failed else honest(grid, message, context)

    _, records = run(LyingGrid(fails), tmp_path)
    assert [record.excluded for record in records] == [(("client-1", "Flower error 6"),)] * 2


# --- who a node is


def takes_a_name(grid: LyingGrid, message: FlowerMessage, context: Context) -> FlowerMessage:
    """Node 0 says that it is client-1, with its own key; it is asked first."""
    if message.metadata.message_type != IDENTIFY or context.node_config["partition-id"] != 0:
        return honest(grid, message, context)
    answer = honest(grid, message, context).content.config_records["testudo"]
    return FlowerMessage(identity_records("client-1", bytes(answer["signature"])), reply_to=message)  # type: ignore[arg-type]


def test_of_two_nodes_with_one_name_only_that_which_can_sign_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RoundError, match="two nodes call themselves 'client-1'"):
        run(LyingGrid(takes_a_name), tmp_path / "off", keys=None)
    caplog.set_level(logging.WARNING)
    state, records = run(LyingGrid(takes_a_name), tmp_path / "on")
    assert state.round == 2
    assert {client for record in records for client in record.cohort} == {"client-1", "client-2"}
    assert "client-1: the reply is not signed with its key" in caplog.text


def test_owner_that_runs_two_nodes_is_asked_at_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid = LyingGrid(honest, (*CLIENTS, "client-1"))
    _, records = run(grid, tmp_path)
    assert [(record.cohort, record.excluded) for record in records] == [(CLIENTS, ())] * 2
    assert "client-1 has signed for node 1001" in caplog.text


def test_node_that_is_not_on_the_roster_is_not_asked(tmp_path: Path) -> None:
    _, records = run(LyingGrid(honest, (*CLIENTS, "mallory")), tmp_path)
    assert [record.cohort for record in records] == [CLIENTS] * 2


def test_nobody_can_sign(tmp_path: Path) -> None:
    with pytest.raises(RoundError, match="3 nodes answered, and none signed as a member on the roster"):
        run(LyingGrid(honest, keys=None), tmp_path)


def test_server_without_keys_takes_replies_that_are_signed(tmp_path: Path) -> None:
    state, records = run(LyingGrid(honest), tmp_path / "signed", keys=None)
    unsigned, _ = run(LyingGrid(honest, keys=None), tmp_path / "unsigned", keys=None)
    assert [record.excluded for record in records] == [(), ()]
    assert state.model.tobytes() == unsigned.model.tobytes()
