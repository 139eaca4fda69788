"""gRPC's own health service for an owner's node (grpc.health.v1), on loopback. Says whether, and never what or why.

Services ``""`` and ``testudo.client``: SERVING while the SuperNode is connected and the executor asks it for messages.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from testudo_client.deployment.executor import Counts
from testudo_client.deployment.node import NodeFiles, NodeState
from testudo_common.errors import UsageError
from testudo_common.files import write_atomically

SERVICES = ("", "testudo.client")
POLL_SECONDS = 10.0
"""An executor that works on no message asks at least every second."""
_Status = health_pb2.HealthCheckResponse.ServingStatus


def healthy(node: NodeState, executor: Counts, now: float) -> bool:
    """Whether a message that came now would be answered.

    Args:
        node: What the SuperNode told last.
        executor: What the executor did.
        now: By ``time.monotonic``.
    """
    asks = executor.busy or (executor.last_poll > 0 and now - executor.last_poll < POLL_SECONDS)
    return node.connected(now) and asks


class HealthService:
    """The service on one address.

    Args:
        address: ``127.0.0.1:port``; port 0 takes any.

    Raises:
        UsageError: Nobody can listen there, or it is not loopback's.
    """

    def __init__(self, address: str) -> None:
        if address.rpartition(":")[0] not in {"127.0.0.1", "localhost", "[::1]"}:
            raise UsageError("health is told on loopback only", where=address, remedy="use 127.0.0.1:PORT")
        self._servicer = health.HealthServicer()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=2), options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise UsageError("nobody can listen there", where=address, remedy="choose another port") from error
        self.address = f"{address.rpartition(':')[0]}:{port}"
        self.tell(serving=False)
        self._server.start()

    def tell(self, *, serving: bool) -> None:
        """What to answer from now on."""
        for service in SERVICES:
            self._servicer.set(service, _Status.SERVING if serving else _Status.NOT_SERVING)

    def stop(self) -> None:
        """Answer nobody any more."""
        self._servicer.enter_graceful_shutdown()
        self._server.stop(grace=0.5).wait()


def write_address(files: NodeFiles, address: str) -> None:
    """Keep where the service is, for ``testudo-client health FOLDER``."""
    write_atomically(files.health, address.encode(), durable=False)


def address_of(folder_or_address: str) -> str:
    """The address of a node's health service.

    Raises:
        UsageError: It is a folder, and no node with a health service runs there.
    """
    folder = Path(folder_or_address)
    if not folder.is_dir():
        return folder_or_address
    try:
        return NodeFiles(folder).health.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UsageError(
            "no node with a health service runs here", where=folder_or_address,
            remedy="start it: testudo-client run FOLDER --health 127.0.0.1:0 ...",
        ) from error  # fmt: skip


def ask_health(address: str, *, timeout_seconds: float = 5.0) -> str:
    """``serving`` or ``not serving``, as the service at ``address`` says.

    Raises:
        UsageError: Nobody answers.
    """
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=SERVICES[1]), timeout=timeout_seconds
            )
        except grpc.RpcError as error:
            raise UsageError("nobody answers", where=address, remedy="look whether the node runs") from error
    return "serving" if answer.status == _Status.SERVING else "not serving"
