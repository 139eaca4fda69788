"""Flower's Grid, answered in this process: every message goes straight to the ClientApp of its node.

For tests, demos and up to some thousand clients. The same ServerApp and ClientApp run on Ray and on real machines.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from itertools import count

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_LOG = logging.getLogger("testudo.simulations")
_SERVER_NODE_ID = 1
_FIRST_CLIENT_NODE_ID = 1000
CLIENT_APP_RAISED = 2  # Flower's own code for a ClientApp that raised


class InProcessGrid(Grid):
    """A Grid whose nodes are partitions of this process.

    Args:
        client_app: Answers every message.
        clients: Number of nodes; node number i has partition-id i.
        run_id: Of the run; None: one that no other run has, so that no reply of one counts in another.
    """

    def __init__(
        self,
        client_app: ClientApp,
        clients: int,
        *,
        run_id: int | None = None,
    ) -> None:
        run_id = 1 + secrets.randbelow((1 << 63) - 1) if run_id is None else run_id
        self._client_app = client_app
        self._run = Run.create_empty(run_id)
        self._numbers = count(1)
        self._replies: dict[str, Message] = {}
        self._contexts = {
            _FIRST_CLIENT_NODE_ID + partition: Context(
                run_id=run_id,
                node_id=_FIRST_CLIENT_NODE_ID + partition,
                node_config={"partition-id": partition, "num-partitions": clients},
                state=RecordDict(),
                run_config={},
            )
            for partition in range(clients)
        }
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
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Deliver each message and keep its reply; an empty id for a node that is not there."""
        return [self._deliver(message) for message in messages]

    def _deliver(self, message: Message) -> str:
        context = self._contexts.get(message.metadata.dst_node_id)
        if context is None:
            return ""
        message_id = f"m{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = message_id
        try:
            reply = self._client_app(message, context)
        except Exception as error:
            # As on a real node: the server learns that it failed, not why.
            _LOG.error("a ClientApp raised %s", type(error).__name__)
            reply = Message(Error(CLIENT_APP_RAISED, "ClientApp raised"), reply_to=message)
        self._replies[message_id] = reply
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there, each once."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push and pull; every reply is there when the push returns, so ``timeout`` has nothing to do."""
        del timeout
        return self.pull_messages(self.push_messages(messages))
