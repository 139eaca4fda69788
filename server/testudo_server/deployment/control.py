"""What an operator asks of a SuperLink: to know its members' nodes, to begin a run, to end one. Executes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.common.constant import Status
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from testudo_common.errors import UsageError
from testudo_server.deployment.retries import patient_retries
from testudo_server.deployment.superlink_process import CONTROL_HEADER
from testudo_server.provisioning.folder import Member

_RUNS_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class _Credential:
    """Adds the operator's secret to every request."""

    secret: bytes = field(repr=False)

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Flower's hook around a request."""
        context.request.headers[CONTROL_HEADER] = self.secret.hex()
        return call_next(context)


def control_client(address: str, certificate: Path, secret: bytes) -> ControlHttpClient:
    """A client of the Control API.

    Args:
        address: Host and port.
        certificate: Of the SuperLink.
        secret: See :mod:`testudo_server.deployment.superlink_process`.
    """
    return ControlHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=certificate.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="testudo-server"), _Credential(secret)],
        retry_invoker=patient_retries(),
    )


def node_key_of(member: Member) -> bytes:
    """A member's node key as Flower keeps it: PEM of its SubjectPublicKeyInfo.

    Raises:
        UsageError: It is not an EC key in OpenSSH's format.
    """
    try:
        key = load_ssh_public_key(member.node_key.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError(
            "its node key is not an EC key in OpenSSH's format",
            where=member.client,
            remedy="admit it again, from a new request",
        )
    return public_key_to_bytes(key)


def register_members(control: ControlHttpClient, members: Iterable[Member]) -> dict[str, int]:
    """Let the SuperLink know the node of every member, and of nobody else; safe to do twice.

    Returns:
        Client id -> node id, of all that are not revoked.

    Raises:
        UsageError: A key is not one, or was a member's that was revoked.
    """
    wanted = {node_key_of(member): member.client for member in members if not member.revoked}
    nodes: dict[str, int] = {}
    gone: set[bytes] = set()
    for node in control.ListNodes(ListNodesRequest()).nodes_info:
        if node.status == NodeStatus.UNREGISTERED:
            gone.add(node.public_key)
        elif node.public_key in wanted:
            nodes[wanted[node.public_key]] = node.node_id
        else:
            control.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
    for key, client in wanted.items():
        if client in nodes:
            continue
        if key in gone:
            raise UsageError(
                "its node key was revoked once, and cannot be used again",
                where=client,
                remedy="admit it again, with a new node key",
            )
        nodes[client] = control.RegisterNode(RegisterNodeRequest(public_key=key, name=client)).node_id
    return nodes


def stop_earlier_runs(control: ControlHttpClient) -> int:
    """End what a server that was killed left running; nobody executes it any more.

    Returns:
        How many there were.
    """
    found = control.ListRuns(ListRunsRequest(limit=_RUNS_LOOKED_AT)).run_dict
    running = [number for number, run in found.items() if run.status.status != Status.FINISHED]
    for number in running:
        control.StopRun(StopRunRequest(run_id=number))
    return len(running)


def begin_run(control: ControlHttpClient, bundle: bytes, digest: str) -> int:
    """Begin a run of an app bundle.

    Args:
        control: Of the SuperLink.
        bundle: Holds no code that anybody runs.
        digest: Its SHA-256, hex.

    Returns:
        The run's number.

    Raises:
        UsageError: The SuperLink did not take it.
    """
    answer = control.StartRun(StartRunRequest(fab=Fab(hash_str=digest, content=bundle)))
    if not answer.HasField("run_id"):
        raise UsageError("Flower's SuperLink did not begin the run", remedy="look at superlink.log in its folder")
    return int(answer.run_id)


def end_run(control: ControlHttpClient, number: int) -> None:
    """End a run that is not over; one that is stays as it is."""
    try:
        control.StopRun(StopRunRequest(run_id=number))
    except httpx.HTTPError:
        return
