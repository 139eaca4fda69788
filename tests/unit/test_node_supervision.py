"""A node is kept going for what mends, and ended for what does not; and only one runs on a folder."""

from __future__ import annotations

import errno
import io
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testudo_client.deployment.diagnosis import Cause, Diagnosis
from testudo_client.deployment.executor import Counts
from testudo_client.deployment.health import HealthService, address_of, ask_health, healthy, write_address
from testudo_client.deployment.node import (
    CONNECTED_SECONDS,
    EXIT_LOST,
    EXIT_REFUSED,
    NodeFiles,
    NodeProcess,
    NodeState,
    only_run,
)
from testudo_client.deployment.supernode import Reports
from testudo_client.deployment.supervision import LONGEST_WAIT_SECONDS, REMIND_SECONDS, Supervisor
from testudo_common.errors import UsageError
from testudo_common.flower_environment import flower_environment, proxies_in

OLD = Diagnosis(Cause.OLD_SESSION, "wait.")
GONE = Diagnosis(Cause.REVOKED, "ask.")
AWAY = Diagnosis(Cause.NO_CONNECTION, "look.")


class FakeNode:
    """Lives for some seconds of a fake clock each time, with a state for each.

    Args:
        lives: Seconds, whether connected, and the exit code, a start.
    """

    def __init__(self, *lives: tuple[float, bool, int]) -> None:
        self.lives, self.now = list(lives), 0.0
        self.started: list[float] = []
        self.waits: list[float] = []
        self.stopped = False

    def start(self) -> None:
        self.started.append(self.now)
        self.life = self.lives.pop(0)

    def stop(self) -> None:
        self.stopped = True

    def alive(self) -> bool:
        return self.now - self.started[-1] < self.life[0]

    def exit_code(self) -> int | None:
        return self.life[2]

    @property
    def state(self) -> NodeState:
        return NodeState(self.now, 200, ()) if self.life[1] else NodeState()

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.waits.append(seconds)
        return not self.lives and not self.alive()


def supervised(node: FakeNode, look: Callable[[int], Diagnosis], told: list[bool] | None = None, **more: Any) -> int:
    told = [] if told is None else told
    supervisor = Supervisor(
        node, look, lambda: node.state.connected(node.now), told.append, node.wait, now=lambda: node.now, **more
    )
    return supervisor.run()


def test_a_node_that_ends_is_started_again_later_and_later() -> None:
    node = FakeNode(*[(1.0, False, 1)] * 9)
    assert supervised(node, lambda _: OLD) == 0
    gaps = [after - before - 1.0 for before, after in zip(node.started, node.started[1:], strict=False)]
    assert gaps == [4, 8, 16, 32, 60, 60, 60, 60]
    assert sum(gaps[:5]) > 90, "by then the server has let go of a session that was killed"
    assert max(gaps) == LONGEST_WAIT_SECONDS


def test_after_a_connection_it_is_started_again_at_once() -> None:
    node = FakeNode((1.0, False, 1), (1.0, False, 1), (100.0, True, EXIT_LOST), (1.0, False, 1))
    assert supervised(node, lambda _: AWAY) == 0
    assert node.started[3] - node.started[2] == pytest.approx(102, abs=1)


def test_what_lasts_ends_it_once_it_was_found_twice() -> None:
    node = FakeNode((1.0, False, 1), (1.0, False, 1))
    found = iter([GONE, GONE])
    assert supervised(node, lambda _: next(found)) == 1
    assert len(node.started) == 1


def test_an_answer_in_the_middle_of_a_change_does_not_end_it() -> None:
    node = FakeNode((1.0, False, 1), (1.0, False, 1))
    found = iter([GONE, OLD, OLD, OLD])
    assert supervised(node, lambda _: next(found)) == 0
    assert len(node.started) == 2


def test_one_that_stays_without_connection_is_looked_at_while_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode((1000.0, False, 1))
    causes = iter([AWAY] * 3 + [GONE] * 10)
    assert supervised(node, lambda _: next(causes)) == 1
    assert node.now < 200, "it is ended while the SuperNode still tries"
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["look.", "ask."]


def test_a_process_that_cannot_start_as_it_must_is_not_tried_again() -> None:
    node = FakeNode((1.0, False, EXIT_REFUSED), (1.0, False, 1))
    assert supervised(node, lambda _: OLD) == 1
    assert len(node.started) == 1


def test_a_full_disk_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode((1.0, False, 1), (1.0, False, 1))
    start, full = node.start, iter([True, True, False, False])

    def start_if_there_is_room() -> None:
        if next(full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        start()

    node.start = start_if_there_is_room
    assert supervised(node, lambda _: OLD) == 0
    assert len(node.started) == 2 and caplog.text.count("No space left") == 2


def test_what_cannot_be_written_down_is_let_go(tmp_path: Path) -> None:
    """A pipe that nobody reads would stop the node."""
    node = NodeProcess(tmp_path / "owner")
    node.files.folder.mkdir(parents=True)
    node.files.log.mkdir()  # nothing can be written there
    with subprocess.Popen(["seq", "100000"], stdout=subprocess.PIPE) as process:
        node._keep_log(process)
        assert process.wait(5) == 0
    node.files.log.rmdir()
    with subprocess.Popen(["echo", "started"], stdout=subprocess.PIPE) as process:
        node._keep_log(process)
    assert node.files.log.read_text().endswith(" started\n") and node.files.log.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"), only_run(NodeFiles(tmp_path)):
        raise AssertionError


def test_a_renewed_certificate_is_taken_up() -> None:
    node = FakeNode((1000.0, True, 0), (5.0, True, 0))
    assert supervised(node, lambda _: AWAY, credentials=lambda: node.now > 50) == 0
    assert node.stopped and node.started == pytest.approx([0, 52.5], abs=1)


def test_a_certificate_that_is_renewed_meanwhile_does_not_end_it() -> None:
    """The node's answers are still of the old one, and what is found out is of the new."""
    node = FakeNode((10.0, False, 0), (5.0, True, 0))
    assert supervised(node, lambda _: GONE if node.now < 13 else AWAY, credentials=lambda: node.now > 11) == 0
    assert len(node.started) == 2


def test_who_runs_for_days_is_reminded_daily() -> None:
    node, reminded = FakeNode((3.5 * REMIND_SECONDS, True, 0)), list[float]()
    assert supervised(node, lambda _: AWAY, remind=lambda: reminded.append(node.now)) == 0
    assert len(reminded) == 3


def test_health_follows_the_node() -> None:
    told: list[bool] = []
    node = FakeNode((2.0, False, 1), (30.0, True, 1))
    assert supervised(node, lambda _: OLD, told) == 0
    assert told[0] is False and True in told and told[-1] is False


@pytest.mark.parametrize(
    ("node", "executor", "expected"),
    [
        (NodeState(100, 200, ()), Counts(last_poll=100), True),
        (NodeState(), Counts(last_poll=100), False),
        (NodeState(100, 403, ()), Counts(last_poll=100), False),
        (NodeState(100, 0, ()), Counts(last_poll=100), False),
        (NodeState(100 - CONNECTED_SECONDS, 200, ()), Counts(last_poll=100), False),
        (NodeState(100, 200, ()), Counts(last_poll=89), False),
        (NodeState(100, 200, ()), Counts(), False),
        (NodeState(100, 200, ()), Counts(last_poll=1, busy=True), True),
    ],
)
def test_healthy(node: NodeState, executor: Counts, expected: bool) -> None:
    assert healthy(node, executor, 100) is expected


@pytest.mark.network
def test_health_is_told_by_grpc(tmp_path: Path) -> None:
    service = HealthService("127.0.0.1:0")
    write_address(NodeFiles(tmp_path), service.address)
    try:
        assert ask_health(address_of(str(tmp_path))) == "not serving"
        service.tell(serving=True)
        assert ask_health(service.address) == "serving"
        service.tell(serving=False)
        assert ask_health(service.address) == "not serving"
    finally:
        service.stop()
    with pytest.raises(UsageError, match="nobody answers"):
        ask_health(service.address, timeout_seconds=1)


def test_health_is_told_on_loopback_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="loopback only"):
        HealthService("0.0.0.0:0")
    with pytest.raises(UsageError, match="no node with a health service"):
        address_of(str(tmp_path))


def test_a_second_node_on_a_folder_is_refused(tmp_path: Path) -> None:
    first = only_run(NodeFiles(tmp_path))
    with first, pytest.raises(UsageError, match="runs already"), only_run(NodeFiles(tmp_path)):
        raise AssertionError
    with only_run(NodeFiles(tmp_path)):
        assert NodeFiles(tmp_path).lock.stat().st_mode & 0o077 == 0


def test_flowers_environment_is_ours(tmp_path: Path) -> None:
    before = {
        "HTTPS_PROXY": "http://proxy.test", "all_proxy": "socks5://proxy.test", "NO_PROXY": "inside.test",
        "FLWR_TELEMETRY_ENABLED": "1", "FLWR_PRIVATE_X": "1", "PATH": "p", "HTTP_PROXY": "",
    }  # fmt: skip
    assert proxies_in(before) == ("HTTPS_PROXY", "all_proxy")
    made = flower_environment(before, tmp_path, use_proxies=False)
    assert proxies_in(made) == () and made["PATH"] == "p" and "FLWR_PRIVATE_X" not in made
    assert made["NO_PROXY"] == made["no_proxy"] == "inside.test,127.0.0.1,localhost,::1"
    assert made["FLWR_HOME"] == str(tmp_path) and made["FLWR_TELEMETRY_ENABLED"] == "0"
    assert made["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1" == made["FLWR_DISABLE_UPDATE_CHECK"]
    asked_for = flower_environment(before, tmp_path, use_proxies=True)
    assert proxies_in(asked_for) == ("HTTPS_PROXY", "all_proxy") and "127.0.0.1" in asked_for["NO_PROXY"]


def reports_of(tell: Callable[[Reports], None]) -> NodeProcess:
    """A parent that took what a child told."""
    reading, writing = os.pipe()
    tell(Reports(writing))
    os.close(writing)
    node = NodeProcess(Path("unused"))
    node._listen(reading)
    return node


def test_what_the_child_tells_is_the_state() -> None:
    came: list[None] = []

    def tell(reports: Reports) -> None:
        reports.seen(("ab", "cd"))
        reports.contact("/v1/fleet/pull-messages", 200)
        reports.contact("/v1/fleet/push-object", 403)  # of a run that has ended: says nothing of the node

    node = reports_of(tell)
    assert node.state.certificates == ("ab", "cd") and node.state.last_status == 200
    assert node.state.connected(time.monotonic())
    node.on_received = lambda: came.append(None)
    for path, status in (("/v1/fleet/confirm-message-received", 200), ("/v1/fleet/send-node-heartbeat", 403)):
        node._take({"path": path, "status": status})
    assert came == [None] and node.state.last_status == 403 and not node.state.connected(time.monotonic())
    node._take({"path": "/v1/fleet/pull-messages", "status": 0})
    assert node.state.last_status == 0


def test_the_same_answer_is_told_once_a_second() -> None:
    reading, writing = os.pipe()
    reports = Reports(writing)
    for status in (200, 200, 200, 0, 200):
        reports.contact("/v1/fleet/pull-messages", status)
    os.close(writing)
    with os.fdopen(reading) as lines:
        assert [line.count("status") for line in lines] == [1, 1, 1]


def test_a_child_ends_with_its_parent() -> None:
    """Also when the parent is killed."""
    child = (
        "import os, sys, time; from testudo_client.deployment.supernode import watch_parent; "
        "watch_parent(os.getppid(), 0.05); print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE); "
        "print(p.stdout.readline().decode().strip(), flush=True); p.wait()"
    )
    paths = os.pathsep.join(str(Path(__file__).parents[2] / top) for top in ("common", "client"))
    with subprocess.Popen(
        [sys.executable, "-c", parent, child], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        ends = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < ends
            time.sleep(0.05)


def test_a_supernode_is_started_in_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its secrets lie in files of this user alone, and no argument holds one."""
    started: list[Any] = []

    class Process:
        stdout = io.BytesIO(b"")
        pid = 1

        def __init__(self, command: list[str], **more: Any) -> None:
            started.append((command, more))

        def poll(self) -> None:
            return None

    monkeypatch.setattr(subprocess, "Popen", Process)
    node = NodeProcess(tmp_path / "owner", stock_polls=True)
    node.start()
    ((command, more),) = started
    assert node.runtime is not None
    address, context, secret = node.runtime
    assert len(secret) == 32 and secret.hex() not in " ".join(command) and "--stock-polls" in command
    assert address.startswith("127.0.0.1:") and context.verify_mode is ssl.CERT_REQUIRED
    assert more["env"]["FLWR_HOME"] == str(node.files.flower_home) and more["start_new_session"]
    for path in (node.files.secret, node.files.folder, node.files.folder / "loopback.key"):
        assert path.stat().st_mode & 0o077 == 0
