"""``testudo-client run``: keeps a SuperNode and the executor going for as long as the owner wants. Decides nothing.

A node that cannot reach its server looks why, says it in one sentence, and tries again; it ends only for what the owner
has to change (see supervision.py).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING

from testudo_client.approve_command import existing_home
from testudo_client.deployment.diagnosis import diagnose
from testudo_client.deployment.node import NodeProcess, only_run
from testudo_client.deployment.supervision import Supervisor
from testudo_client.deployment.tls import door_context, own_certificate, utc_now
from testudo_client.home import OwnerHome
from testudo_client.provisioning.connection import Connection, read_connection
from testudo_common.errors import UsageError
from testudo_common.flower_environment import flower_environment, proxies_in
from testudo_common.plan.load import load_plan
from testudo_common.provisioning.expiry import WARN_DAYS

if TYPE_CHECKING:
    from testudo_client.deployment.executor import Executor
    from testudo_client.deployment.health import HealthService

_LOG = logging.getLogger("testudo.client")

_LAST_MESSAGE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What ``run`` was asked.

    Attributes:
        folder: The owner's.
        plan: The copy of the plan that it approved.
        data: Its table.
        health: Address of the health service; None: none.
        stock_polls: Leave Flower's pauses as they are.
        use_proxies: Go through the proxies that the environment names.
    """

    folder: Path
    plan: Path
    data: Path
    health: str | None = None
    stock_polls: bool = False
    use_proxies: bool = False


def run(request: RunRequest) -> int:
    """Run an owner's node until it is told to stop; the process's status, with which it should be left at once.

    A training that goes on would hold it: what it costs was charged before it began.

    Raises:
        TestudoError: It cannot be started: folder, plan, connection or data do not fit, or a node runs there.
    """
    home, connection = existing_home(request.folder.resolve()), read_connection(request.folder.resolve())
    plan, policy = load_plan(request.plan), home.policy()
    if not request.data.is_file():
        raise UsageError("there is no such table", where=str(request.data), remedy="check the path")
    pins = policy.pins.server_certificate
    door_context(connection.files, pins)
    _warn_of_expiry(connection)
    _say_proxies(request.use_proxies)
    stopping = _stop_on_signals()
    node = NodeProcess(home.folder, stock_polls=request.stock_polls, use_proxies=request.use_proxies)
    with only_run(node.files):
        os.environ.update(
            flower_environment(os.environ, node.files.flower_home, use_proxies=False)
        )  # this process talks to loopback alone
        executor, health = _executor(request, home, node), _health(request, node)
        node.on_received = executor.wake
        _LOG.info("plan %s of %s, for %s", plan.digest[:16], connection.federation, connection.address)
        work = _Work(executor, stopping)
        work.start()
        supervisor = Supervisor(
            node,
            lambda status: diagnose(connection, pins, last_status=status),
            lambda: _healthy(node, executor),
            lambda serving: None if health is None else health.tell(serving=serving),
            stopping.wait,
            credentials=lambda: _credentials(connection),
            remind=lambda: _warn_of_expiry(connection),
        )
        try:
            status = supervisor.run()
        finally:
            executor.stop()
            work.join(_LAST_MESSAGE_SECONDS)
            node.stop()
            if health is not None:
                health.stop()
                node.files.health.unlink(missing_ok=True)
    if work.error is not None:
        raise work.error
    counts = executor.counts
    _LOG.info("stopped: %d messages answered, %d failed", counts.answered, counts.failed)
    return status


class _Work(threading.Thread):
    """The executor's thread; what ends it by itself ends the node."""

    def __init__(self, executor: Executor, stopping: threading.Event) -> None:
        super().__init__(name="executor", daemon=True)
        self._executor, self._stopping = executor, stopping
        self.error: Exception | None = None

    def run(self) -> None:
        """Make ready while the SuperNode starts, and work."""
        try:
            _installed()
            self._executor.run()
        except Exception as error:
            self.error = error
            self._stopping.set()


def _installed() -> ModuleType:
    """Loads torch, which takes seconds."""
    from testudo_client.deployment import installed

    return installed


def _executor(request: RunRequest, home: OwnerHome, node: NodeProcess) -> Executor:
    from testudo_client.deployment.executor import Executor
    from testudo_client.deployment.runtime_api import HttpRuntimeApi
    from testudo_common.flower_adapter import quicken_object_pulls

    if not request.stock_polls:
        quicken_object_pulls()

    def connect() -> HttpRuntimeApi | None:
        runtime = node.runtime
        return None if runtime is None else HttpRuntimeApi(*runtime)

    config = {"owner": home.folder, "plan": request.plan.resolve(), "data": request.data.resolve()}
    return Executor(
        connect,
        lambda bundle: _installed().app_of(bundle, node.state.certificates),
        {key: str(path) for key, path in config.items()},
        home.log,
    )


def _health(request: RunRequest, node: NodeProcess) -> HealthService | None:
    if request.health is None:
        return None
    from testudo_client.deployment.health import HealthService, write_address

    service = HealthService(request.health)
    write_address(node.files, service.address)
    _LOG.info("health is told on %s", service.address)
    return service


def _healthy(node: NodeProcess, executor: Executor) -> bool:
    from testudo_client.deployment.health import healthy

    return healthy(node.state, executor.counts, time.monotonic())


def _credentials(connection: Connection) -> tuple[Path, int] | None:
    """What changes when another certificate is installed."""
    try:
        path = connection.files.client_certificate.resolve()
        return path, path.stat().st_mtime_ns
    except OSError:
        return None


def _warn_of_expiry(connection: Connection) -> None:
    days = own_certificate(connection.files).days_left(utc_now())
    if 0 <= days < WARN_DAYS:
        _LOG.warning("your certificate expires in %.0f days: renew it with testudo-client renew", days)


def _say_proxies(use_proxies: bool) -> None:
    if (proxies := proxies_in(os.environ)) and not use_proxies:
        _LOG.info("the proxies in %s are not used; --use-proxies would", ", ".join(proxies))


def _stop_on_signals() -> threading.Event:
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return stopping
