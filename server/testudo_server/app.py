"""Flower's ServerApp: deliver, collect, keep deadlines. No decisions: those are the coordinator's.

Own loop on ``push_messages`` and ``pull_messages``, because ``send_and_receive`` sleeps three seconds between polls.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.serverapp import Grid, ServerApp

from testudo_common.errors import RoundError, UsageError, WireError
from testudo_common.flower_records import IDENTIFY, TRAIN, client_id_in, from_records, to_records
from testudo_common.learning.learner import initial_vector
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import load_plan
from testudo_common.wire import Message
from testudo_server.attendance import EVERYBODY, Attendance, NodeAttendance, Registered
from testudo_server.audit_file import held_log
from testudo_server.coordinator import Coordinator, OnRound, no_report
from testudo_server.exchange import FAILED_ON_THE_WAY, Exchange, PlainExchange
from testudo_server.journal import NO_JOURNAL, Journal
from testudo_server.log_journal import LogJournal
from testudo_server.roster import ServerKeys, keys_in
from testudo_server.secure_exchange import SecureExchange
from testudo_server.store import RunState, RunStore

ExchangeOf = Callable[["GridTransport"], Exchange]

_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.5
_IDENTIFY_DEADLINE_SECONDS = 120.0
_CONNECT_PAUSE_SECONDS = 0.05


def exchange_messages(
    grid: Grid,
    contents: Mapping[int, tuple[str, RecordDict]],
    *,
    deadline_seconds: float,
    enough: Callable[[], bool] | None = None,
) -> Iterator[tuple[int, FlowerMessage]]:
    """Send every node its message, and wait for the replies.

    Args:
        grid: Any of Flower's, or ours.
        contents: Node id -> (message type, records).
        deadline_seconds: Replies after this are not waited for.
        enough: Once it says so, what has arrived is given back and nothing waited for.

    Yields:
        Node id and reply, as they arrive. A reply is matched by the id of the message that it answers, since its
        sender's id is claimed, and errors made on the way come from another node.
    """
    ends = time.monotonic() + deadline_seconds
    waiting: dict[str, int] = {}
    for node, (message_type, records) in contents.items():
        message = FlowerMessage(records, node, message_type, ttl=deadline_seconds)
        # One by one: a list of ids comes back without those that could not be sent.
        for message_id in grid.push_messages([message]):
            if message_id:
                waiting[message_id] = node
    pause = _FIRST_PAUSE_SECONDS
    while waiting:
        arrived = list(grid.pull_messages(list(waiting)))
        for reply in arrived:
            node_of_reply = waiting.pop(reply.metadata.reply_to_message_id, None)
            if node_of_reply is not None:
                yield node_of_reply, reply
        over = time.monotonic() >= ends or (enough is not None and not arrived and enough())
        if not waiting or over:
            break
        pause = _FIRST_PAUSE_SECONDS if arrived else min(2 * pause, _LONGEST_PAUSE_SECONDS)
        time.sleep(pause)


class GridTransport:
    """Carries our messages over a Flower Grid.

    Args:
        grid: The Grid.
        nodes: Client id -> node id.
        online: Gives the nodes that are connected now: to others nothing is sent; without it, all are.
    """

    def __init__(
        self, grid: Grid, nodes: Mapping[str, int], online: Callable[[], Collection[int]] | None = None
    ) -> None:
        self._grid = grid
        self._nodes = nodes
        self._online = online

    def deliver(
        self, requests: Mapping[str, Message], *, deadline_seconds: float, enough: Callable[[], bool] | None = None
    ) -> Iterator[tuple[str, Message | str]]:
        """See :class:`testudo_server.exchange.Transport`."""
        clients = {self._nodes[client]: client for client in requests if client in self._nodes}
        if self._online is not None:
            online = frozenset(self._online())
            clients = {node: client for node, client in clients.items() if node in online}
        contents = {node: (TRAIN, to_records(requests[client])) for node, client in clients.items()}
        for node, reply in exchange_messages(self._grid, contents, deadline_seconds=deadline_seconds, enough=enough):
            yield clients[node], _message_in(reply)


def _message_in(reply: FlowerMessage) -> Message | str:
    if reply.has_error():
        # The reason is the peer's text, or a trace of its code: neither goes into a record.
        return f"{FAILED_ON_THE_WAY} {reply.error.code}"
    try:
        return from_records(reply.content)
    except WireError as error:
        return f"reply not understood: {error.problem}"


def _node_of(answer: tuple[int, FlowerMessage]) -> int:
    return answer[0]


def identify_clients(
    grid: Grid, *, expected: int = 1, deadline_seconds: float = _IDENTIFY_DEADLINE_SECONDS
) -> dict[str, int]:
    """Wait for nodes to connect, and ask every one for its client id.

    Args:
        grid: Any of Flower's, or ours.
        expected: Nodes to wait for; with fewer it goes on once the deadline is over.
        deadline_seconds: For connecting, and again for answering.

    Returns:
        Client id -> node id.

    Raises:
        RoundError: No node answered, or two gave the same name.
    """
    ends = time.monotonic() + deadline_seconds
    while len(list(grid.get_node_ids())) < expected and time.monotonic() < ends:
        time.sleep(_CONNECT_PAUSE_SECONDS)
    question = {node: (IDENTIFY, RecordDict()) for node in grid.get_node_ids()}
    nodes: dict[str, int] = {}
    for node, reply in sorted(exchange_messages(grid, question, deadline_seconds=deadline_seconds), key=_node_of):
        if reply.has_error():
            continue
        try:
            client = client_id_in(reply.content)
        except WireError:
            continue
        if client in nodes:
            raise RoundError(f"two nodes call themselves {client!r}", remedy="give every client a name of its own")
        nodes[client] = node
    if not nodes:
        raise RoundError("no client answered", remedy="start the clients first, and look at their logs")
    return nodes


def run_federation(
    grid: Grid,
    plan: FederationPlan,
    store: RunStore,
    *,
    clients: int | None = None,
    keys: Callable[[], ServerKeys] | None = None,
    exchange_of: ExchangeOf | None = None,
    resume: bool = False,
    on_round: OnRound | None = None,
    registered: Registered | None = None,
) -> RunState:
    """Run the plan's rounds over ``grid``, from the beginning or from where ``store`` stands.

    Args:
        grid: Any of Flower's, or ours.
        plan: Complete.
        store: Keeps every round.
        clients: How many to wait for before the first round; None: as many as one cohort.
        keys: Gives the federation's keys, once the clients are there; needed for secure aggregation and for a log.
        exchange_of: Makes another exchange than the plan's own; for simulations.
        resume: Go on where ``store`` stands.
        on_round: Told of every finished round.
        registered: Whose node is whose, where the operator registered them; else every node is asked for its name.
            Who comes after the beginning is asked from the next round on.

    Raises:
        RoundError: Too few clients, too few usable replies, or too few owners that cosigned the log; every finished
            round is kept.
        UsageError: The plan needs keys, and there are none; or another process runs in the same folder.
        CheckpointError: See :meth:`RunStore.load`; or the audit log is not of the same moment.
        AuditError: The audit log cannot be used.
    """
    attendance: Attendance = EVERYBODY
    if registered is None:
        nodes: Mapping[str, int] = identify_clients(grid, expected=clients or plan.rounds.cohort_size)
        transport, there = GridTransport(grid, nodes), frozenset(nodes)
    else:
        nodes = registered.nodes
        attendance = gathering = NodeAttendance(registered, partial(_online_in, grid))
        transport, there = GridTransport(grid, nodes, partial(_online_in, grid)), gathering.gather()
    its_keys = _keys_for(plan, keys)
    exchange = _exchange_for(plan, transport, its_keys) if exchange_of is None else exchange_of(transport)
    with _journal_for(plan, its_keys, store, transport, there, _bundle_of(grid)) as journal:
        coordinator = Coordinator(plan, exchange, store, on_round or no_report, journal, attendance)
        state = coordinator.resume(nodes) if resume else coordinator.begin(initial_vector(plan), nodes)
        return coordinator.run(state)


def _online_in(grid: Grid) -> frozenset[int]:
    return frozenset(grid.get_node_ids())


def _keys_for(plan: FederationPlan, keys: Callable[[], ServerKeys] | None) -> ServerKeys | None:
    if not plan.secure and not plan.audited:
        return None
    if keys is None:
        what = "secure aggregation" if plan.secure else "an audit log"
        raise UsageError(
            f"the plan has {what}, and the server has no roster",
            remedy="name roster.json and the federation's key; testudo-server roster makes one",
        )
    return keys()


def _exchange_for(plan: FederationPlan, transport: GridTransport, keys: ServerKeys | None) -> Exchange:
    if not plan.secure:
        return PlainExchange(
            transport, deadline_seconds=plan.rounds.deadline_seconds, max_norm=plan.outer.max_update_norm
        )
    assert keys is not None
    return SecureExchange(transport, plan, keys.roster)


@contextmanager
def _journal_for(
    plan: FederationPlan,
    keys: ServerKeys | None,
    store: RunStore,
    transport: GridTransport,
    clients: Iterable[str],
    bundle: str | None,
) -> Iterator[Journal]:
    if not plan.audited:
        yield NO_JOURNAL
        return
    assert keys is not None
    with held_log(store.folder, durable=store.durable) as log:
        yield LogJournal(plan, keys, log, transport, clients, bundle=bundle)


def _bundle_of(grid: Grid) -> str | None:
    """SHA-256 of the app bundle that Flower runs, hex; None where it runs none, as in a simulation."""
    found = str(grid.run.fab_hash or "")
    return found if re.fullmatch("[0-9a-f]{64}", found) else None


def build_server_app(run: Callable[[Grid, Context], object]) -> ServerApp:
    """A ServerApp whose main function is ``run``."""
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        run(grid, context)

    return server_app


def _run_from_config(grid: Grid, context: Context) -> None:
    """Entry point of ``flwr run``: plan and folder come from the run's configuration."""
    plan_path, out = (str(context.run_config.get(key, "")) for key in ("plan", "out"))
    if not plan_path or not out:
        raise UsageError("the run names no plan or no folder", remedy='flwr run ... -c \'plan="..." out="..."\'')
    store = RunStore(Path(out))
    folder = Path(str(context.run_config.get("keys", "")) or Path(out) / "keys")
    run_federation(grid, load_plan(Path(plan_path)), store, keys=lambda: keys_in(folder), resume=store.exists)


app = build_server_app(_run_from_config)
