"""A server with its own SuperLink, and owners in another process: what it withstands, and what it leaves behind.

One run goes through everything in order; each test asks about what was seen of it.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers import make_plan
from provisioned import provisioned_federation
from seen_processes import PATIENCE_SECONDS, children_of, listening_addresses, running, until
from testudo_common.plan.load import dump_plan
from testudo_server.deployment.run_status import RunStatus, read_status
from testudo_server.deployment.status_command import killed, stop
from testudo_server.store import RunStore

pytestmark = [pytest.mark.network, pytest.mark.slow]
TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
OWNERS = ("shop-1", "shop-2")
ROUNDS = 8
SHORT = ("rounds.deadline_seconds=15", "rounds.min_replies=1")
"""A message on its way when the SuperLink is killed is lost, and its round closes without it once its time is over."""


@dataclass
class Rig:
    """A federation, and whatever runs of it."""

    folder: Path
    port: int
    owners_folders: dict[str, Path]
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.folder / "run"

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        command = ["run", "plan.toml", "federation", "--out", "run", "--listen", f"127.0.0.1:{self.port}"]
        with (self.folder / "server.txt").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "testudo_server.cli", *command, "--status", "127.0.0.1:0", *flags],
                cwd=self.folder,
                stdout=output,
                stderr=output,
                env=ENVIRONMENT,
            )

    def status(self) -> RunStatus | None:
        return read_status(self.out) if (self.out / "status.json").exists() else None

    def until_round(self, number: int, server: subprocess.Popen[bytes]) -> None:
        def reached() -> bool:
            assert server.poll() is None, (self.folder / "server.txt").read_text()
            status = self.status()
            return status is not None and status.round >= number

        until(reached, f"round {number}")

    @contextmanager
    def owners(self) -> Iterator[None]:
        owners = [f"{name}={folder}" for name, folder in self.owners_folders.items()]
        with (self.folder / "owners.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, str(TESTS / "fleet_nodes.py"), *owners], stdout=output, stderr=output, env=ENVIRONMENT
            )
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def rows_of_flower(self) -> dict[str, int]:
        """Table of its database -> rows."""
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        with closing(sqlite3.connect(self.folder / "federation" / "superlink" / "state.db")) as database:
            names = [name for (name,) in database.execute(query)]
            return {name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}

    def statuses_of_calls_without_a_secret(self, superlink: int) -> dict[str, int]:
        """What a process of this machine gets that knows the port and trusts the certificate, and nothing else."""
        (address,) = listening_addresses(superlink)
        port = int(address.partition(":")[2], 16)
        trusted = ssl.create_default_context(cafile=self.folder / "federation" / "superlink" / "loopback.crt")
        paths = ("/v1/runtime/acquire-task", "/v1/control/list-nodes", "/v1/control/start-run", "/docs")
        headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
        with httpx.Client(verify=trusted, trust_env=False) as client:
            url = f"https://127.0.0.1:{port}"
            return {path: client.post(url + path, headers=headers).status_code for path in paths}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("deployed")
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    _, homes = provisioned_federation(folder, OWNERS, port)
    (folder / "plan.toml").write_text(dump_plan(make_plan(f"rounds.count={ROUNDS}", *SHORT)))
    rig = Rig(folder, port, homes)
    _go_through_everything(rig)
    yield rig


def _go_through_everything(rig: Rig) -> None:
    seen = rig.seen
    server = rig.start()
    try:
        until(lambda: rig.status() is not None and rig.status().state == "waiting", "waiting for owners")
        with rig.owners():
            rig.until_round(1, server)
            before = children_of(server.pid)
            seen["listening"] = listening_addresses(before["superlink"])
            seen["calls"] = rig.statuses_of_calls_without_a_secret(before["superlink"])
            os.kill(before["superlink"], signal.SIGKILL)
            os.kill(before["door"], signal.SIGKILL)
            rig.until_round(3, server)
            after = children_of(server.pid)
            seen["restarted"] = before, after
            server.kill()
            server.wait()
            began = time.monotonic()
            until(lambda: not any(map(running, after.values())), "children gone")
            seen["seconds_to_end"] = time.monotonic() - began
            seen["killed"] = killed(rig.out, read_status(rig.out)), RunStore(rig.out).records()[-1].round
            server = rig.start("--resume")
            rig.until_round(seen["killed"][1] + 1, server)
            children = children_of(server.pid)
            seen["stopped"] = stop(rig.out, timeout_seconds=60.0), server.wait(10)
            seen["left"] = [pid for pid in children.values() if running(pid)]
            seen["status"], seen["rows"] = read_status(rig.out), rig.rows_of_flower()
            server = rig.start("--resume")
            seen["finished"] = server.wait(PATIENCE_SECONDS)
    finally:
        server.kill()
        server.wait()


def test_the_run_is_finished_after_all(rig: Rig) -> None:
    assert rig.seen["finished"] == 0, (rig.folder / "server.txt").read_text()
    status = read_status(rig.out)
    assert (status.state, status.round, status.error) == ("finished", ROUNDS, "")
    assert [record.round for record in RunStore(rig.out).records()] == list(range(1, ROUNDS + 1))
    assert status.bytes_down == sum(record.bytes_down for record in RunStore(rig.out).records())


def test_the_superlink_listens_on_loopback_alone(rig: Rig) -> None:
    assert len(rig.seen["listening"]) == 1
    assert all(address.startswith("0100007F:") for address in rig.seen["listening"])


def test_without_the_secrets_there_is_no_task_and_no_control(rig: Rig) -> None:
    assert set(rig.seen["calls"].values()) == {401}


def test_superlink_and_door_are_started_again_and_the_run_goes_on(rig: Rig) -> None:
    before, after = rig.seen["restarted"]
    assert before.keys() == after.keys() == {"superlink", "door"}
    assert not set(before.values()) & set(after.values())


def test_children_end_with_a_server_that_is_killed(rig: Rig) -> None:
    assert rig.seen["seconds_to_end"] < 5.0
    assert rig.seen["killed"][0]


def test_stop_ends_the_server_and_its_children_in_order(rig: Rig) -> None:
    assert rig.seen["stopped"] == (True, 0)
    assert rig.seen["left"] == []
    assert rig.seen["status"].state == "stopped"
    assert "which are kept; --resume goes on with them" in (rig.folder / "server.txt").read_text()


def test_nothing_of_the_runs_messages_stays_with_flower(rig: Rig) -> None:
    for rows, runs in ((rig.seen["rows"], 2), (rig.rows_of_flower(), 3)):
        assert {"objects", "message_ins", "message_res", "fab"} <= rows.keys()
        kept = {"alembic_version", "node", "run", "run_series", "series_runs", "task"}
        assert {name for name, count in rows.items() if count} == kept
        assert (rows["node"], rows["run"]) == (len(OWNERS), runs)


def test_a_second_server_does_not_begin_the_same_run_anew(rig: Rig) -> None:
    before = RunStore(rig.out).records()
    server = rig.start()
    assert server.wait(PATIENCE_SECONDS) == 1
    assert "there is a run here already. go on with it with --resume" in (rig.folder / "server.txt").read_text()
    assert RunStore(rig.out).records() == before
