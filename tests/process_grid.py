"""Flower's Grid with every node an operating system process of its own, which a test kills when it likes. No tests.

Each node runs the real ClientApp over a real participant, whose memory, session, key and roster are in its folder.
Messages pass over pipes as Flower's own bytes. Nodes are forked from multiprocessing's fork server, a process that has
loaded torch and never had a second thread.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.task_identity import TaskIdentity

from testudo_client.app import build_client_app
from testudo_client.membership import read_membership
from testudo_client.own_voice import ConsentingVoice
from testudo_client.participant import Participant
from testudo_client.store import ClientStore
from testudo_client.witness import Witness
from testudo_common.flower_records import TRAIN, from_records
from testudo_common.plan.load import load_plan
from testudo_common.secagg.messages import MESSAGES
from testudo_common.wire import LogUpdate, SecureMessage, TrainRequest
from testudo_simulations.consent import simulated_gate, simulated_ledger
from testudo_simulations.federations import load_federation
from testudo_simulations.grid import InProcessGrid

NODE_IS_GONE = 3
"""The error that stands for a reply of a node that died. Any code will do."""
_HELD = b"held"
_RUN_ID = 1
_PRELOADED = [
    "__main__",
    "testudo_client.app",
    "testudo_simulations.grid",
    "testudo_simulations.federations",
    "opacus",  # else every node imports it for its first private step
]


@dataclass(frozen=True)
class Node:
    """What one node is started from.

    Attributes:
        client: Client id.
        folder: Holds ``state`` and ``keys``.
        plan: File of a complete plan of a simulated federation; its examples are this client's.
    """

    client: str
    folder: Path
    plan: Path

    @property
    def store(self) -> ClientStore:
        """Its memory and session. A killed process loses nothing that was written."""
        return ClientStore(self.folder / "state", durable=False)


@dataclass(frozen=True)
class Kill:
    """When a node is killed, with SIGKILL.

    Attributes:
        round: In which round.
        step: On receipt of which message.
        client: Whose node.
        handled: Whether it handles the message first; its reply does not leave in any case.
        noticed: Whether the server learns of it at once, or waits for the deadline.
    """

    round: int
    step: str
    client: str
    handled: bool
    noticed: bool = True


def serve(pipe: Connection, node: Node) -> None:
    """Answer messages until the pipe closes; runs in the node's process."""
    torch.set_num_threads(1)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, 1, 1
    participants: list[Participant] = []

    def participant_of(_context: Context) -> Participant:
        if not participants:
            federation = load_federation(load_plan(node.plan), None)
            plan, examples = federation.plan, federation.training[node.client]
            membership, ledger = read_membership(node.folder / "keys"), simulated_ledger(node.folder / "state")
            gate = simulated_gate(plan, node.client, ledger)
            voice = ConsentingVoice(ledger)
            witness = (
                Witness(node.client, plan, membership, voice, node.folder, durable=False) if plan.audited else None
            )
            participants.append(
                Participant(node.client, plan, examples, node.store, gate, membership=membership, witness=witness)
            )
        return participants[0]

    client_app = build_client_app(participant_of)
    context = Context(run_id=_RUN_ID, node_id=1, node_config={}, state=RecordDict(), run_config={})
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        held, message = data[:1], message_from_proto(ProtoMessage.FromString(data[1:]))
        if held == b"b":
            _wait_for_the_end(pipe)
        reply = client_app(message, context)
        if held == b"a":
            _wait_for_the_end(pipe)
        pipe.send_bytes(message_to_proto(reply).SerializeToString())


def _wait_for_the_end(pipe: Connection) -> None:
    pipe.send_bytes(_HELD)
    while True:
        signal.pause()


@dataclass
class _Running:
    process: ForkServerProcess
    pipe: Connection
    waiting: dict[str, tuple[Message, bool]] = field(default_factory=dict)  # message id -> (message, noticed)


class ProcessGrid(InProcessGrid):
    """A Grid of processes.

    Args:
        nodes: In order of their partitions.
        kills: When which of them dies.

    Attributes:
        killed: The kills that took place, each with the process id.
    """

    def __init__(self, nodes: Sequence[Node], kills: Iterable[Kill] = ()) -> None:
        super().__init__(ClientApp(), len(nodes), run_id=_RUN_ID)
        self._replies: dict[str, Message] = {}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._nodes = dict(zip(self.get_node_ids(), nodes, strict=True))
        self._kills = list(kills)
        self._ids = count(1)
        self.killed: list[tuple[Kill, int]] = []
        self._running = {number: self._start(node) for number, node in self._nodes.items()}

    def _start(self, node: Node) -> _Running:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, node), daemon=True)
        process.start()
        theirs.close()
        return _Running(process, ours)

    def revive(self) -> None:
        """Start every node that is dead again, from its folder."""
        for number, running in self._running.items():
            if not running.process.is_alive():
                running.pipe.close()
                self._running[number] = self._start(self._nodes[number])

    def stop(self) -> None:
        """Stop every node by its own process id, and the process that they were forked from."""
        for running in self._running.values():
            running.process.kill()
            running.process.join()
            running.pipe.close()
        forkserver._forkserver._stop()  # type: ignore[attr-defined]

    @property
    def pids(self) -> dict[str, int]:
        """Client id -> process id."""
        return {self._nodes[number].client: running.process.pid or 0 for number, running in self._running.items()}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Hand each message to its node's pipe."""
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        running = self._running[message.metadata.dst_node_id]
        message_id = f"p{next(self._ids)}"
        message.metadata.__dict__["_message_id"] = message_id
        kill = self._kill_for(message)
        held = b"n" if kill is None else b"a" if kill.handled else b"b"
        running.waiting[message_id] = message, kill is None or kill.noticed
        try:
            running.pipe.send_bytes(held + message_to_proto(message).SerializeToString())
        except OSError:
            self._lose(running)
            return message_id
        if kill is not None:
            self._kills.remove(kill)
            self._kill(running, kill)
        return message_id

    def _kill_for(self, message: Message) -> Kill | None:
        if message.metadata.message_type != TRAIN:
            return None
        request: Any = from_records(message.content)
        client = self._nodes[message.metadata.dst_node_id].client
        step = type(MESSAGES.decode(request.body) if isinstance(request, SecureMessage) else request).__name__
        assert isinstance(request, TrainRequest | SecureMessage | LogUpdate)
        matching = [
            kill for kill in self._kills if (kill.round, kill.step, kill.client) == (request.round, step, client)
        ]
        return matching[0] if matching else None

    def _kill(self, running: _Running, kill: Kill) -> None:
        assert running.pipe.recv_bytes() == _HELD, "it was to wait for its end"
        running.process.kill()
        running.process.join()
        assert running.process.exitcode == -signal.SIGKILL
        self.killed.append((kill, running.process.pid or 0))
        self._lose(running)

    def _lose(self, running: _Running) -> None:
        """What a node was asked that is gone: an error, or nothing."""
        for message_id, (message, noticed) in running.waiting.items():
            if noticed:
                self._replies[message_id] = Message(Error(NODE_IS_GONE, "the node is gone"), reply_to=message)
        running.waiting.clear()

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there, each once."""
        by_pipe = {running.pipe: running for running in self._running.values() if running.waiting}
        for pipe in wait(list(by_pipe), timeout=0):
            running = by_pipe[pipe]  # type: ignore[index]
            try:
                reply = message_from_proto(ProtoMessage.FromString(running.pipe.recv_bytes()))
            except (EOFError, OSError):
                self._lose(running)
                continue
            running.waiting.pop(reply.metadata.reply_to_message_id, None)
            self._replies[reply.metadata.reply_to_message_id] = reply
        return [self._replies.pop(name) for name in message_ids if name in self._replies]
