"""Flower's Grid, answered in this process: every message goes straight to the ClientApp of its node.

A message is answered when its reply is asked for, a few at a time, so that no more replies are held than whoever asks
takes at once; and all of those few can be looked at before the first is answered. The same ServerApp and ClientApp run
on Ray and on real machines.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_LOG = logging.getLogger("testudo.simulations")
_SERVER_NODE_ID = 1
_FIRST_CLIENT_NODE_ID = 1000
CLIENT_APP_RAISED = 2  # Flower's own code for a ClientApp that raised

Ahead = Callable[[Sequence[tuple[Message, Context]]], None]
"""Told of messages, each with its node's context, that the ClientApp is about to be given one by one."""


def _look_at_nothing(_asked: Sequence[tuple[Message, Context]]) -> None:
    """Prepare nothing."""


class InProcessGrid(Grid):
    """A Grid whose nodes are partitions of this process.

    Args:
        client_app: Answers every message.
        clients: Number of nodes; node number i has partition-id i.
        run_id: Of the run; None: one that no other run has, so that no reply of one counts in another.
        ahead: Told of the messages that are answered next.
        at_once: How many messages that are, at most.
    """

    def __init__(
        self,
        client_app: ClientApp,
        clients: int,
        *,
        run_id: int | None = None,
        ahead: Ahead = _look_at_nothing,
        at_once: int = 64,
    ) -> None:
        run_id = 1 + secrets.randbelow((1 << 63) - 1) if run_id is None else run_id
        self._client_app = client_app
        self._ahead = ahead
        self._at_once = at_once
        self._run = Run.create_empty(run_id)
        self._node_ids = range(_FIRST_CLIENT_NODE_ID, _FIRST_CLIENT_NODE_ID + clients)
        self._numbers = count(1)
        self._waiting: dict[str, Message] = {}
        self._states: dict[int, RecordDict] = {}
        # A Message made by a ServerApp asks for these.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, _SERVER_NODE_ID, 1

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Every node's id."""
        return list(self._node_ids)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Keep each message until its reply is asked for; an empty id for a node that is not there."""
        return [self._take(message) for message in messages]

    def _take(self, message: Message) -> str:
        if message.metadata.dst_node_id not in self._node_ids:
            return ""
        message_id = f"m{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = message_id
        self._waiting[message_id] = message
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to the next few of these messages, each once."""
        ours = islice((name for name in message_ids if name in self._waiting), self._at_once)
        asked = [self._waiting.pop(name) for name in list(ours)]
        if asked:
            self._ahead([(message, self._context_of(message.metadata.dst_node_id)) for message in asked])
        return [self._answer(message) for message in asked]

    def _context_of(self, node: int) -> Context:
        return Context(
            run_id=self._run.run_id,
            node_id=node,
            node_config={"partition-id": node - _FIRST_CLIENT_NODE_ID, "num-partitions": len(self._node_ids)},
            state=self._states.get(node) or RecordDict(),
            run_config={},
        )

    def _answer(self, message: Message) -> Message:
        context = self._context_of(message.metadata.dst_node_id)
        try:
            reply = self._client_app(message, context)
        except Exception as error:
            # As on a real node: the server learns that it failed, not why.
            _LOG.error("a ClientApp raised %s", type(error).__name__)
            reply = Message(Error(CLIENT_APP_RAISED, "ClientApp raised"), reply_to=message)
        if context.state:  # of the many nodes whose ClientApp keeps none, nothing is held
            self._states[context.node_id] = context.state
        return reply

    def give_up(self, message_ids: Iterable[str], seconds: float) -> None:
        """Forget messages whose replies nobody waits for any more; they are never answered."""
        del seconds
        for message_id in message_ids:
            self._waiting.pop(message_id, None)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, and pull until every reply is there; ``timeout`` has nothing to do."""
        del timeout
        waiting = [message_id for message_id in self.push_messages(messages) if message_id]
        replies: list[Message] = []
        while found := self.pull_messages(waiting):
            replies += found
        return replies
