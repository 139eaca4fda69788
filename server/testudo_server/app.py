"""Flower's ServerApp: deliver, collect, keep deadlines. No decisions: those are the coordinator's.

Own loop on ``push_messages`` and ``pull_messages``, because ``send_and_receive`` sleeps three seconds between polls.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from flwr.app import Context, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.serverapp import Grid, ServerApp

from testudo_common.errors import ReplyError, RoundError, UsageError, WireError
from testudo_common.flower_records import IDENTIFY, TRAIN, copies_of
from testudo_common.learning.learner import initial_vector
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import load_plan
from testudo_common.roster import Roster
from testudo_common.wire import Message
from testudo_server.attendance import EVERYBODY, Attendance, NodeAttendance, Registered
from testudo_server.audit_file import held_log
from testudo_server.coordinator import Coordinator, OnRound, no_report
from testudo_server.exchange import Exchange, PlainExchange
from testudo_server.journal import NO_JOURNAL, Journal
from testudo_server.log_journal import LogJournal
from testudo_server.replies import ReplyReader
from testudo_server.robust import needs_sum_only
from testudo_server.roster import ROSTER, ServerKeys, keys_in
from testudo_server.secure_exchange import SecureExchange
from testudo_server.store import RunState, RunStore

ExchangeOf = Callable[["GridTransport"], Exchange]

_LOG = logging.getLogger("testudo.server")

_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.5
_IDENTIFY_DEADLINE_SECONDS = 120.0
_CONNECT_PAUSE_SECONDS = 0.05


@runtime_checkable
class Forgetful(Protocol):
    """A Grid that can be told that nobody waits for a reply any more."""

    def give_up(self, message_ids: Iterable[str], seconds: float) -> None:
        """Forget these messages, which are valid for so many seconds, and their replies."""


def exchange_messages(
    grid: Grid,
    contents: Iterable[tuple[int, tuple[str, RecordDict]]],
    *,
    deadline_seconds: float,
    enough: Callable[[], bool] | None = None,
) -> Iterator[tuple[int, FlowerMessage]]:
    """Send every node its message, and wait for the replies.

    Args:
        grid: Any of Flower's, or ours.
        contents: Of each node: its id, and (message type, records). Taken one by one, and kept by the grid alone.
        deadline_seconds: Replies after this are not waited for.
        enough: Once it says so, what has arrived is given back and nothing waited for.

    Yields:
        Node id and reply, as they arrive. A reply is matched by the id of the message that it answers, since its
        sender's id is claimed, and errors made on the way come from another node.
    """
    ends = time.monotonic() + deadline_seconds
    waiting: dict[str, int] = {}
    for node, (message_type, records) in contents:
        message = FlowerMessage(records, node, message_type, ttl=deadline_seconds)
        # One by one: a list of ids comes back without those that could not be sent.
        for message_id in grid.push_messages([message]):
            if message_id:
                waiting[message_id] = node
    pause = _FIRST_PAUSE_SECONDS
    try:
        while waiting:
            arrived = deque(grid.pull_messages(list(waiting)))
            none_came = not arrived
            while arrived:
                reply = arrived.popleft()  # and held no longer than whoever takes it wants: it may be of a model's size
                node_of_reply = waiting.pop(reply.metadata.reply_to_message_id, None)
                if node_of_reply is not None:
                    yield node_of_reply, reply
            over = time.monotonic() >= ends or (enough is not None and none_came and enough())
            if not waiting or over:
                break
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS) if none_came else _FIRST_PAUSE_SECONDS
            time.sleep(pause)
    finally:
        if waiting and isinstance(grid, Forgetful):
            grid.give_up(list(waiting), ends - time.monotonic())


class GridTransport:
    """Carries our messages over a Flower Grid.

    Args:
        grid: The Grid.
        nodes: Client id -> node id.
        reader: Of the replies; None: of a federation without keys.
        online: Gives the nodes that are connected now: to others nothing is sent; without it, all are.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[str, int],
        reader: ReplyReader | None = None,
        online: Callable[[], Collection[int]] | None = None,
    ) -> None:
        self._grid = grid
        self._nodes = nodes
        self._reader = reader if reader is not None else ReplyReader(grid.run.run_id)
        self._online = online

    def deliver(
        self, requests: Mapping[str, Message], *, deadline_seconds: float, enough: Callable[[], bool] | None = None
    ) -> Iterator[tuple[str, Message | str]]:
        """See :class:`testudo_server.exchange.Transport`."""
        clients = {self._nodes[client]: client for client in requests if client in self._nodes}
        if self._online is not None:
            online = frozenset(self._online())
            clients = {node: client for node, client in clients.items() if node in online}
        contents = _contents((node, requests[client]) for node, client in clients.items())
        for node, reply in exchange_messages(self._grid, contents, deadline_seconds=deadline_seconds, enough=enough):
            yield clients[node], self._reader.message_in(clients[node], reply)


def _contents(requests: Iterable[tuple[int, Message]]) -> Iterator[tuple[int, tuple[str, RecordDict]]]:
    """Records for each node; the same message to one after the other is encoded once."""
    last: Message | None = None
    for node, request in requests:
        if request is not last:
            last, copy = request, copies_of(request)
        yield node, (TRAIN, copy())


def _node_of(answer: tuple[int, FlowerMessage]) -> int:
    return answer[0]


def identify_clients(
    grid: Grid,
    *,
    expected: int = 1,
    deadline_seconds: float = _IDENTIFY_DEADLINE_SECONDS,
    roster: Callable[[], Roster | None] | None = None,
) -> dict[str, int]:
    """Wait for nodes to connect, and ask every one for its client id.

    Args:
        grid: Any of Flower's, or ours.
        expected: Nodes to wait for; with fewer it goes on once the deadline is over.
        deadline_seconds: For connecting, and again for answering.
        roster: Gives the federation's, once the nodes have answered: a name counts only where its owner signed; None,
            or if it gives none: every name counts.

    Returns:
        Client id -> node id. Of two nodes that both sign as one owner, that with the lower id.

    Raises:
        RoundError: No node answered; or two gave the same name, and nobody signs.
    """
    ends = time.monotonic() + deadline_seconds
    while len(list(grid.get_node_ids())) < expected and time.monotonic() < ends:
        time.sleep(_CONNECT_PAUSE_SECONDS)
    question = ((node, (IDENTIFY, RecordDict())) for node in grid.get_node_ids())
    answers = sorted(exchange_messages(grid, question, deadline_seconds=deadline_seconds), key=_node_of)
    reader = ReplyReader(grid.run.run_id, None if roster is None or not answers else roster())
    nodes: dict[str, int] = {}
    unsigned = 0
    for node, reply in answers:
        try:
            client = reader.client_in(reply)
        except WireError:
            continue
        except ReplyError as error:
            _LOG.warning("node %d is left out, as %s", node, error)
            unsigned += 1
            continue
        if nodes.setdefault(client, node) == node:
            continue
        if reader.roster is None:
            raise RoundError(f"two nodes call themselves {client!r}", remedy="give every client a name of its own")
        _LOG.warning("node %d is left out, as %s has signed for node %d", node, client, nodes[client])
    if not nodes and unsigned:
        remedy = "give them the newest roster.json, and look at their logs"
        raise RoundError(f"{unsigned} nodes answered, and none signed as a member on the roster", remedy=remedy)
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
        keys: Gives the federation's keys, once the clients are there; needed for secure aggregation by the plan's own
            exchange, and for a log. With them only what a client signed is its reply, under any plan.
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
    once = cache(partial(_keys_for, plan, keys, own_exchange=exchange_of is None))
    attendance: Attendance = EVERYBODY
    online: Callable[[], Collection[int]] | None = None
    if registered is None:
        nodes: Mapping[str, int] = identify_clients(
            grid, expected=clients or plan.rounds.cohort_size, roster=lambda: _roster_of(once())
        )
        there = frozenset(nodes)
    else:
        nodes, online = registered.nodes, partial(_online_in, grid)
        attendance = gathering = NodeAttendance(registered, online)
        there = gathering.gather()
    its_keys = once()
    transport = GridTransport(grid, nodes, ReplyReader(grid.run.run_id, _roster_of(its_keys)), online)
    exchange = _exchange_for(plan, transport, its_keys) if exchange_of is None else exchange_of(transport)
    with _journal_for(plan, its_keys, store, transport, there, _bundle_of(grid)) as journal:
        coordinator = Coordinator(plan, exchange, store, on_round or no_report, journal, attendance)
        state = coordinator.resume(nodes) if resume else coordinator.begin(initial_vector(plan), nodes)
        return coordinator.run(state)


def _online_in(grid: Grid) -> frozenset[int]:
    return frozenset(grid.get_node_ids())


def _keys_for(plan: FederationPlan, keys: Callable[[], ServerKeys] | None, *, own_exchange: bool) -> ServerKeys | None:
    if keys is None:
        masked = plan.secure and own_exchange
        if not masked and not plan.audited:
            return None
        what = "secure aggregation" if masked else "an audit log"
        raise UsageError(
            f"the plan has {what}, and the server has no roster",
            remedy="name the folder of the federation's keys; testudo-server init and admit make it",
        )
    return keys()


def _roster_of(keys: ServerKeys | None) -> Roster | None:
    return None if keys is None else keys.roster


def _exchange_for(plan: FederationPlan, transport: GridTransport, keys: ServerKeys | None) -> Exchange:
    if not plan.secure:
        return PlainExchange(
            transport,
            deadline_seconds=plan.rounds.deadline_seconds,
            max_norm=plan.outer.max_update_norm,
            sum_only=needs_sum_only(plan),
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
    store, plan = RunStore(Path(out)), load_plan(Path(plan_path))
    folder = Path(str(context.run_config.get("keys", "")) or Path(out) / "keys")
    has_keys = plan.secure or plan.audited or (folder / ROSTER).exists()
    run_federation(grid, plan, store, keys=(lambda: keys_in(folder)) if has_keys else None, resume=store.exists)


app = build_server_app(_run_from_config)
