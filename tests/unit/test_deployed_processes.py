"""The processes of a run on real machines: started, waited for, started again, ended; and what they leave behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from testudo_common.errors import UsageError
from testudo_common.flower_environment import flower_environment
from testudo_server.deployment.front import Front
from testudo_server.deployment.interruption import Interruption
from testudo_server.deployment.preflight import Address
from testudo_server.deployment.process import ChildProcess
from testudo_server.deployment.superlink import SuperLink, forget_payloads
from testudo_server.deployment.supervision import Supervision


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_interrupts_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interruption(lambda: None) as interruption, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert interruption.signal is number
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    program = (
        "import os, signal, time\nfrom testudo_server.deployment.interruption import Interruption\n"
        "with Interruption(lambda: print('children ended', flush=True)):\n    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
        "    except KeyboardInterrupt:\n        os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (found.returncode, found.stdout) == (130, "children ended\n")


def test_a_process_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testudo_server.deployment.process._STOP_SECONDS", 0.2)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    )
    child = ChildProcess([sys.executable, "-c", stubborn], tmp_path / "log", talks=True)
    child.output.readline()
    child.stop()
    assert not child.running


def test_the_last_words_of_a_process_steer_no_terminal(tmp_path: Path) -> None:
    said = "import sys; sys.stderr.write('one\\n\\x1b[91mtwo\\x1b[0m\\n\\x1b]0;title\\x07three\\n')"
    child = ChildProcess([sys.executable, "-c", said], tmp_path / "log")
    while child.running:
        time.sleep(0.01)
    assert child.last_words() == "one / two / ]0;titlethree"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


class Child:
    """Something to look after: each process that it is started as ends after so many seconds."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.log, self.seconds, self.starts = folder / "log", seconds, 0
        self.process: ChildProcess | None = None

    def start(self) -> None:
        self.starts += 1
        self.process = ChildProcess(["sleep", str(self.seconds)], self.log)


def test_what_ends_is_started_again(tmp_path: Path) -> None:
    child, said = Child(tmp_path, 60), []
    child.start()
    with Supervision([("the door", child)], said.append):
        assert child.process is not None
        child.process.kill()
        ends = time.monotonic() + 10
        while child.starts < 2 and time.monotonic() < ends:
            time.sleep(0.02)
    assert child.starts == 2
    assert len(said) == 1
    child.process.kill()


def test_what_ends_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testudo_server.deployment.supervision._LOOK_SECONDS", 0.01)
    child, given_up = Child(tmp_path, 0), threading.Event()
    child.start()
    with Supervision([("the door", child)], lambda _said: None, given_up.set) as supervision:
        assert given_up.wait(20)
    assert child.starts == 6
    assert "the door ended 6 times in a row" in supervision.failure


def door_that(does: str, folder: Path) -> Front:
    program = [sys.executable, "-c", does]
    address = Address("127.0.0.1", 0)
    return Front(
        folder, folder, superlink="127.0.0.1:1", certificate=folder, listen=address, status=address,
        log=folder / "door.log", program=program,
    )  # fmt: skip


def test_the_door_is_waited_for_and_its_ports_are_kept(tmp_path: Path) -> None:
    ready = "print('door ready listen=127.0.0.1:4001 status=[::1]:4002', flush=True); import time; time.sleep(60)"
    front = door_that(ready, tmp_path)
    front.start()
    front.wait_until_it_listens(20.0)
    front.stop()
    assert (front.listen, front.status) == (Address("127.0.0.1", 4001), Address("::1", 4002))


def test_a_door_that_ends_says_why(tmp_path: Path) -> None:
    front = door_that("import sys; sys.exit('error: no certificate')", tmp_path)
    front.start()
    with pytest.raises(UsageError, match="the door ended as it began: error: no certificate"):
        front.wait_until_it_listens(20.0)
    front.stop()


@pytest.mark.network
def test_secrets_of_a_superlink_are_new_and_its_operators_alone(tmp_path: Path) -> None:
    first = SuperLink(tmp_path / "superlink")
    second = SuperLink(tmp_path / "superlink")
    assert len({first.task_secret, first.control_secret, second.task_secret, second.control_secret}) == 4
    for name in ("task.secret", "control.secret", "loopback.key"):
        assert (tmp_path / "superlink" / name).stat().st_mode & 0o777 == 0o600
    assert first.address != second.address
    first.stop()
    second.stop()


@pytest.mark.network
def test_a_superlink_that_ends_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = SuperLink(tmp_path / "superlink")
    with pytest.raises(UsageError, match="SuperLink ended as it began: no disk"):
        link.process = ChildProcess([sys.executable, "-c", "import sys; sys.exit('no disk')"], tmp_path / "log")
        link.wait_until_it_answers(20.0)
    link.stop()


def test_payloads_are_gone_from_the_file_and_nodes_are_not(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        for table in ("node", "objects", "message_ins"):
            database.execute(f"CREATE TABLE {table} (content BLOB)")
            database.execute(f"INSERT INTO {table} VALUES (?)", (f"payload of {table}".encode(),))
        database.commit()
    assert forget_payloads(tmp_path) == 2
    kept = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert b"payload of node" in kept
    assert b"payload of objects" not in kept
    assert b"payload of message_ins" not in kept
    assert forget_payloads(tmp_path / "nothing") == 0


def test_flower_reports_nothing_and_uses_no_proxy_for_this_machine(tmp_path: Path) -> None:
    found = flower_environment({"NO_PROXY": "intranet", "HTTPS_PROXY": "http://proxy:1"}, tmp_path, use_proxies=True)
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert found["FLWR_HOME"] == str(tmp_path)
    assert found["NO_PROXY"] == found["no_proxy"] == "intranet,127.0.0.1,localhost,::1"
    assert found["HTTPS_PROXY"] == "http://proxy:1"
