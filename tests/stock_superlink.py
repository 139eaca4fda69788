"""Flower's own SuperLink with one run on, and messages that are sent to a node of it, for tests. No tests in here."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.app import Message, RecordDict
from flwr.common.serde import run_from_proto
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from testudo_common.app_bundle import app_bundle
from testudo_common.flower_environment import flower_environment
from testudo_server.provisioning.folder import FederationFolder

ROOT = Path(__file__).resolve().parents[1]
PATHS = os.pathsep.join(str(ROOT / top) for top in ("common", "client", "server", "simulations"))


def environment(flower_home: Path) -> dict[str, str]:
    """Of a Flower process, or of ours, in a test."""
    flower_home.mkdir(exist_ok=True)
    return {**flower_environment(os.environ, flower_home, use_proxies=False), "PYTHONPATH": PATHS}


@dataclass
class StockSuperLink:
    """One that runs, with the grid of its one run.

    Attributes:
        grid: Of the run, as a ServerApp has it.
        nodes: Client id -> node id.
    """

    process: subprocess.Popen[bytes]
    grid: HttpGrid
    nodes: dict[str, int]
    begin: Callable[[bytes], AbstractContextManager[HttpGrid]]

    @contextmanager
    def another_run(self, bundle: bytes) -> Iterator[StockSuperLink]:
        """The same with a second run, of another bundle."""
        names = ("task_id", "run_id", "node_id")
        before = {name: getattr(TaskIdentity, name) for name in names}
        with self.begin(bundle) as grid:
            yield replace(self, grid=grid)
        for name, value in before.items():
            setattr(TaskIdentity, name, value)

    def wait_for(self, client: str, seconds: float = 60) -> None:
        """Until a client's node is connected."""
        ends = time.monotonic() + seconds
        while self.nodes[client] not in self.grid.get_node_ids():
            assert time.monotonic() < ends, f"{client} is not connected after {seconds} s"
            time.sleep(0.1)

    def ask(self, client: str, message_type: str, content: RecordDict | None = None, seconds: float = 60) -> Message:
        """One exchange."""
        message = Message(content or RecordDict(), self.nodes[client], message_type, ttl=2 * seconds)
        ids = [sent for sent in self.grid.push_messages([message]) if sent]
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for reply in self.grid.pull_messages(ids):
                return reply
            time.sleep(0.05)
        raise AssertionError(f"no reply to {message_type} after {seconds} s")


@contextmanager
def stock_superlink(
    folder: Path, federation: FederationFolder, port: int, bundle: bytes | None = None
) -> Iterator[StockSuperLink]:
    """Flower's own command at ``localhost:port``, every member registered, and a run begun.

    Args:
        folder: For its state.
        federation: Whose certificate and members.
        port: On loopback.
        bundle: The run's; None: ours.
    """
    secret = folder / "link.secret"
    secret.write_bytes(secrets.token_bytes(32))
    command = [
        str(Path(sys.executable).with_name("flower-superlink")), "--host", "127.0.0.1", "--port", str(port),
        "--ssl-ca-certfile", str(federation.ca_certificate), "--ssl-certfile", str(federation.server_certificate),
        "--ssl-keyfile", str(federation.server_key), "--enable-supernode-auth", "--isolation", "process",
        "--superexec-auth-secret-file", str(secret), "--database", str(folder / "state.db"),
    ]  # fmt: skip
    with (folder / "superlink.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(folder / "flwr"), stdout=log, stderr=log)
    try:
        address, root = f"localhost:{port}", federation.ca_certificate.read_bytes()
        version = RuntimeVersionHttpInterceptor(component_name="testudo-server")
        control = ControlHttpClient.from_server_address(address, False, root, [version])
        nodes = {}
        for member in federation.members():
            key = public_key_to_bytes(load_ssh_public_key(member.node_key.encode()))
            request = RegisterNodeRequest(public_key=key, name=member.client)
            nodes[member.client] = _patiently(lambda request=request: control.RegisterNode(request)).node_id

        @contextmanager
        def begin(content: bytes) -> Iterator[HttpGrid]:
            fab = Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content)
            started = control.StartRun(StartRunRequest(fab=fab))
            with _grid(address, root, secret.read_bytes(), started.run_id) as grid:
                yield grid

        with control, begin(app_bundle() if bundle is None else bundle) as grid:
            yield StockSuperLink(process, grid, nodes, begin)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()  # it waits for connections that are kept alive
            process.wait()


def _patiently(call, seconds: float = 60):
    ends = time.monotonic() + seconds
    while True:
        try:
            return call()
        except httpx.ConnectError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)


@contextmanager
def _grid(address: str, root: bytes, secret: bytes, run_id: int) -> Iterator[HttpGrid]:
    proof = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"})
    version = RuntimeVersionHttpInterceptor(component_name="testudo-server")
    with RuntimeHttpClient.from_server_address(address, False, root, [version, proof]) as client:
        task = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
    assert task.task.run_id == run_id
    grid = HttpGrid(runtime_api_address=address, root_certificates=root, token=task.token)
    found = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = found.task_id, run_id, found.context.node_id
    grid.set_run(run_from_proto(found.run))
    over = threading.Event()

    def beat() -> None:
        while not over.wait(10):
            grid._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest())

    beats = threading.Thread(target=beat, daemon=True)
    beats.start()
    try:
        yield grid
    finally:
        over.set()
        beats.join()
        grid.close()
