"""What an executor asks of a SuperNode's Runtime API, over Flower's protobuf on loopback. Decides nothing.

Source: flwr 1.41, ``supernode/runtime/run_clientapp.py`` and ``supercore/superexec/run_superexec.py``, which start a
process a message, install what the bundle holds, and end it on every error; here one process lasts.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from typing import Protocol

import httpx
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, fab_from_proto, message_to_proto
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

MESSAGE_SECONDS = 20.0
_LOOK_AGAIN_SECONDS = 0.02
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
KINDS = (TaskType.CLIENT_APP, TaskType.AGENT_APP)
"""All that a SuperNode makes tasks of: one that nobody took would keep it waiting for ever."""


@dataclass(frozen=True, slots=True)
class Task:
    """A message that waits for its answer.

    Attributes:
        token: Shows that this process claimed it.
        task_id: Of Flower.
        run_id: Of Flower.
        for_client_app: Whether Flower means it for a ClientApp.
    """

    token: str = field(repr=False)
    task_id: int
    run_id: int
    for_client_app: bool = True


@dataclass(frozen=True, slots=True)
class TaskInput:
    """What belongs to a task.

    Attributes:
        message: To be answered.
        node_id: Of Flower.
        series_id: Of Flower.
        bundle: Bytes of the app bundle, which are looked at and never unpacked.
    """

    message: Message
    node_id: int
    series_id: int
    bundle: bytes = field(repr=False)


class RuntimeApi(Protocol):
    """A connection to one SuperNode, and one task at a time. Every call may raise ``httpx.HTTPError``."""

    def acquire(self) -> Task | None:
        """Claim the oldest task; None: there is none."""

    def pull(self, task: Task) -> TaskInput:
        """What belongs to a claimed task."""

    def beat(self) -> bool:
        """Say that the claimed task is being worked on; False: nobody waits for it any more."""

    def push(self, task: Task, reply: Message, node_id: int) -> None:
        """Send the reply."""

    def finish(self, *, answered: bool) -> None:
        """The claimed task is over."""

    def close(self) -> None:
        """Let go of the connection."""


class HttpRuntimeApi:
    """The Runtime API of a SuperNode on this machine.

    Args:
        address: ``127.0.0.1:port``.
        context: Which trusts that process's throw-away certificate alone; None: without TLS, for tests.
        secret: That the SuperNode was started with.
    """

    def __init__(self, address: str, context: ssl.SSLContext | None, secret: bytes) -> None:
        self._current = ""
        version = RuntimeVersionHttpInterceptor(component_name="flwr-clientapp")
        proof = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE})
        scheme, verify = ("http", True) if context is None else ("https", context)
        self._client = RuntimeHttpClient(f"{scheme}://{address}", interceptors=[version, proof, self], verify=verify)

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Put the token of the task into every request but the one that asks for a task."""
        if context.rpc_method != _ACQUIRE:
            context.request.headers[TASK_TOKEN_HEADER] = self._current
        return call_next(context)

    def acquire(self) -> Task | None:
        """See :class:`RuntimeApi`."""
        found = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=list(KINDS)))
        if not found.HasField("task") or not found.token:
            return None
        self._current = found.token  # one task at a time: the next is asked for when this one is over
        for_client_app = found.task.type == TaskType.CLIENT_APP
        return Task(found.token, found.task.task_id, found.task.run_id, for_client_app)

    def pull(self, task: Task) -> TaskInput:
        """See :class:`RuntimeApi`."""
        given = self._client.PullTaskInput(PullTaskInputRequest())
        context, fab = context_from_proto(given.context), fab_from_proto(given.fab)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task.task_id, task.run_id, context.node_id
        waiting = self._message_waiting()
        node, tree = Node(node_id=context.node_id), waiting.message_object_trees[0]
        message = pull_and_inflate_object_from_tree(
            tree,
            make_pull_object_fn_protobuf(self._client.PullObject, node, task.run_id),
            make_confirm_message_received_fn_protobuf(self._client.ConfirmMessageReceived, node, task.run_id),
            return_type=Message,
        )
        message.metadata.__dict__["_message_id"] = tree.object_id  # what travels does not hold its own name
        return TaskInput(message, context.node_id, given.run.series_id, fab.content)

    def _message_waiting(self) -> PullAppMessagesResponse:
        """A SuperNode makes the task a moment before it puts the message beside it."""
        ends = time.monotonic() + MESSAGE_SECONDS
        while not (waiting := self._client.PullMessages(PullAppMessagesRequest())).messages_list:
            if time.monotonic() > ends:
                raise LookupError("no message waits for the task")
            time.sleep(_LOOK_AGAIN_SECONDS)
        return waiting

    def beat(self) -> bool:
        """See :class:`RuntimeApi`."""
        return bool(self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)

    def push(self, task: Task, reply: Message, node_id: int) -> None:
        """See :class:`RuntimeApi`."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            pushed = self._client.PushMessages(
                PushAppMessagesRequest(
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[get_object_tree(reply)],
                )
            )
            store = make_push_object_fn_protobuf(
                self._client.PushObject, Node(node_id=node_id), task.run_id, pushed.session_id
            )
            push_objects(get_all_nested_objects(reply), store, object_ids_to_push=set(pushed.objects_to_push))

    def finish(self, *, answered: bool) -> None:
        """See :class:`RuntimeApi`. Sends no context: what Flower calls a client's state stays here."""
        ended = SubStatus.COMPLETED if answered else SubStatus.FAILED
        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=ended, details=""))

    def close(self) -> None:
        """See :class:`RuntimeApi`."""
        self._client.close()
