"""A member of a federation who wants to answer for another one, over Flower's Fleet API. No tests in here.

Everything it needs is its own, but the id of the other's message: of a run nobody but the SuperLink and the one it is
for knows that. Here it is looked up in the SuperLink's database, as by somebody who got hold of it.
"""

from __future__ import annotations

import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_push_object_fn_protobuf
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from testudo_client.deployment.tls import door_context
from testudo_client.provisioning.connection import ConnectionFiles, read_connection

SUPERLINK_NODE = 1


@dataclass(frozen=True)
class Waiting:
    """A message that was sent to a node and has no answer.

    Attributes:
        message_id: Flower's.
        run_id: Flower's.
        node: For whom.
        created: Seconds since 1970.
        seconds: As long as it counts.
    """

    message_id: str
    run_id: int
    node: int
    created: float
    seconds: float


def waiting_for(database: Path, node: int) -> Waiting | None:
    """The newest message for a node that nobody has answered."""
    query = (
        "SELECT message_id, run_id, created_at, ttl FROM message_ins WHERE dst_node_id = ? AND message_id NOT IN "
        "(SELECT reply_to_message_id FROM message_res) ORDER BY created_at DESC LIMIT 1"
    )
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        found = opened.execute(query, (signed(node),)).fetchone()
    if found is None:
        return None
    message_id, run_id, created, seconds = found
    return Waiting(message_id, run_id % (1 << 64), node, created, seconds)


def signed(number: int) -> int:
    """As SQLite has it."""
    return number - (1 << 64) if number >= 1 << 63 else number


def node_key(owner: Path) -> ec.EllipticCurvePrivateKey:
    """Of an owner's node."""
    key = load_ssh_private_key(ConnectionFiles(owner).node_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


@contextmanager
def fleet_client(owner: Path, key: ec.EllipticCurvePrivateKey | None = None) -> Iterator[FleetHttpClient]:
    """An owner's connection to the door, with its certificate and, if no other is given, its node's key."""
    connection = read_connection(owner)
    key = key or node_key(owner)
    with FleetHttpClient(
        f"https://{connection.address}",
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ],
        verify=door_context(connection.files),
    ) as client:
        yield client


def pull(client: FleetHttpClient, node: int) -> None:
    """Ask for a node's messages, and leave it as a node that is not there."""
    client.PullMessages(PullMessagesRequest(node=Node(node_id=node)))
    with suppress(httpx.HTTPStatusError):
        client.DeactivateNode(DeactivateNodeRequest(node_id=node))


def activate(client: FleetHttpClient, key: ec.EllipticCurvePrivateKey) -> None:
    """Say that a node is there."""
    client.ActivateNode(ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=30))


def answer_for(client: FleetHttpClient, own_node: int, asked: Waiting, records: RecordDict) -> bool:
    """Push a reply as the one who was asked; whether the SuperLink kept it and wanted its content.

    Flower compares the node of the request with the key that signs it, and the node of the reply with the one that was
    asked, and not the two with each other.
    """
    left = asked.created + asked.seconds - time()
    metadata = Metadata(
        asked.run_id, asked.message_id, SUPERLINK_NODE, asked.node, "", "", asked.created, asked.seconds, "train"
    )
    request = make_message(metadata=metadata, content=RecordDict())
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, asked.run_id, asked.node
    reply = Message(records, reply_to=request, ttl=left - 1)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    node = Node(node_id=own_node)
    with no_object_id_recompute():
        pushed = client.PushMessages(
            PushMessagesRequest(
                node=node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[0.0],
            )
        )
        store = make_push_object_fn_protobuf(client.PushObject, node, asked.run_id, pushed.session_id)
        wanted = set(pushed.objects_to_push)
        for identifier, part in get_all_nested_objects(reply).items():
            if identifier in wanted:
                store(identifier, part.deflate())
    return bool(wanted)


def status_of_acquire(port: int, secret: bytes | None, context: ssl.SSLContext) -> int:
    """What asking a SuperLink or a SuperNode for a task is answered with.

    Args:
        port: On loopback.
        secret: That is shown; None: none is.
        context: Which trusts its certificate.
    """
    interceptors: list[ProtobufClientInterceptor] = [RuntimeVersionHttpInterceptor(component_name="testudo-server")]
    if secret is not None:
        protected = {"/flwr.proto.Runtime/AcquireTask"}
        interceptors.append(SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=protected))
    with RuntimeHttpClient(f"https://127.0.0.1:{port}", interceptors=interceptors, verify=context) as client:
        try:
            client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.AGENT_APP]))
        except httpx.HTTPStatusError as error:
            return error.response.status_code
    return 200
