"""The ServerApp's side of a run, in this process: takes the task, keeps it alive, carries messages, says how it ended.

Flower would start a process that unpacks the run's bundle and imports what it finds there. Here nothing of the bundle
is looked at: what is executed is what is installed.

Source: ``flwr.superlink.runtime.run_serverapp`` and ``flwr.supercore.superexec.run_superexec`` of Flower 1.41.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
from flwr.app import Message
from flwr.common.constant import SubStatus
from flwr.common.serde import run_from_proto
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from testudo_common.errors import RoundError, UsageError
from testudo_server.deployment.arrivals import Arrivals
from testudo_server.deployment.retries import patient_retries

ACQUIRE: Final = "/flwr.proto.Runtime/AcquireTask"
_HEARTBEAT_SECONDS = 10.0  # Flower takes a task for dead after 30 s in the beginning, and after 60 s later
_ACQUIRE_SECONDS = 30.0
_LOOK_SECONDS = 0.1


def acquire_task(address: str, certificate: Path, secret: bytes | None, number: int) -> str:
    """Take the task of a run.

    Args:
        address: Of the SuperLink.
        certificate: Its own.
        secret: That only the operator's processes know; without it, nobody is given a task.
        number: Of the run.

    Returns:
        The token of the task.

    Raises:
        UsageError: There is no such task, or it is another run's.
        httpx.HTTPStatusError: The secret is not the SuperLink's.
    """
    interceptors: list[ProtobufClientInterceptor] = [RuntimeVersionHttpInterceptor(component_name="testudo-server")]
    if secret is not None:
        interceptors.append(SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={ACQUIRE}))
    client = RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=certificate.read_bytes(),
        interceptors=interceptors,
        retry_invoker=patient_retries(_ACQUIRE_SECONDS),
    )
    ends = time.monotonic() + _ACQUIRE_SECONDS
    with client:
        while time.monotonic() < ends:
            found = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            if found.token and found.task.run_id == number:
                return str(found.token)
            time.sleep(_LOOK_SECONDS)
    raise UsageError("Flower's SuperLink has no task for the run", remedy="look at superlink.log in its folder")


class TaskGrid(HttpGrid):
    """Flower's grid, for a SuperLink that may be killed at any moment.

    Args:
        address: Of the SuperLink.
        certificate: Its own.
        token: Of the task.
    """

    def __init__(self, address: str, certificate: Path, token: str) -> None:
        super().__init__(runtime_api_address=address, root_certificates=certificate.read_bytes(), token=token)
        self._retry_invoker = patient_retries()
        self._arrivals: Arrivals | None = None

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """As Flower's, where a part of a message that arrives a second time does not end the run.

        It does when the SuperLink was killed after it had kept the part, and before it could say so. If the message is
        whole, its reply comes; if not, the node says so, or its time runs out.
        """
        if self._arrivals is not None:
            self._arrivals.tidy()
        pushed = list(messages)
        try:
            return list(super().push_messages(pushed))
        except ObjectPushError:
            return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """As Flower's, where a reply whose parts have not come holds up no other."""
        return self._arrived().pull(message_ids)

    def give_up(self, message_ids: Iterable[str], seconds: float) -> None:
        """See :class:`testudo_server.app.Forgetful`."""
        self._arrived().give_up(message_ids, seconds)

    def _arrived(self) -> Arrivals:
        if self._arrivals is None:
            self._arrivals = Arrivals(self._runtime_client, self.node, self.run.run_id)
        return self._arrivals

    def only_once(self) -> None:
        """Do not wait for the SuperLink any more."""
        self._retry_invoker.max_tries = 1

    @property
    def runtime(self) -> RuntimeHttpClient:
        """For what no message is for."""
        return self._runtime_client


@contextmanager
def task_grid(address: str, certificate: Path, token: str, digest: str) -> Iterator[TaskGrid]:
    """The grid of a task, as long as the block lasts; afterwards Flower is told how the block ended.

    Args:
        address: Of the SuperLink.
        certificate: Its own.
        token: Of the task.
        digest: SHA-256 of the bundle that the run has to be of, hex.

    Raises:
        UsageError: The run is of another bundle.
        RoundError: The SuperLink was away for too long, or has ended the run.
    """
    grid = TaskGrid(address, certificate, token)
    try:
        with _spoken_plainly():
            found = grid.runtime.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = found.task_id, found.run.run_id
        TaskIdentity.node_id = found.context.node_id
        run = run_from_proto(found.run)
        if run.fab_hash != digest:
            raise UsageError("Flower's SuperLink holds a run of another app bundle", remedy="start again")
        grid.set_run(run)
        with _kept_alive(grid), _told(grid), _spoken_plainly():
            yield grid
    finally:
        grid.close()


@contextmanager
def _kept_alive(grid: TaskGrid) -> Iterator[None]:
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_HEARTBEAT_SECONDS):
            try:
                grid.runtime.SendTaskHeartbeat(SendTaskHeartbeatRequest())
            except Exception:  # noqa: S112 - the next message says what is wrong, in the run's own thread
                continue

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        over.set()


@contextmanager
def _told(grid: TaskGrid) -> Iterator[None]:
    """Flower learns how it ended in its own words alone: an error's text is not its business."""
    how = SubStatus.FAILED
    try:
        yield
        how = SubStatus.COMPLETED
    except KeyboardInterrupt:
        how = SubStatus.STOPPED
        raise
    finally:
        grid.only_once()
        with suppress(httpx.HTTPError):  # the SuperLink is stopped next, and its run with it
            grid.runtime.PushTaskOutput(PushTaskOutputRequest(sub_status=how, details=""))


@contextmanager
def _spoken_plainly() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise RoundError(
            f"Flower's SuperLink has ended the run (HTTP {error.response.status_code})",
            remedy="look at superlink.log in its folder, then go on with --resume",
        ) from error
    except httpx.TransportError as error:
        raise RoundError(
            f"Flower's SuperLink is away ({type(error).__name__})",
            remedy="look at superlink.log in its folder, then go on with --resume",
        ) from error
