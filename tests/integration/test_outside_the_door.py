"""A running server from outside its door, and from beside it on its machine: who gets how far, and who not.

One server for the module, in order; its owners are threads of two other processes (tests/fleet_nodes.py), one process
of the owner whose answers others try to give.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import RecordDict

from door_process import DoorProcess
from fleet_intruder import (
    Waiting,
    activate,
    answer_for,
    fleet_client,
    node_key,
    pull,
    status_of_acquire,
    waiting_for,
)
from helpers import make_plan
from provisioned import founded, joined, provisioned_federation
from seen_processes import children_of, loopback_ports, until
from stock_superlink import environment
from testudo_client.membership import read_membership
from testudo_common.flower_records import records_of
from testudo_common.learning.learner import initial_vector
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan
from testudo_common.signed_replies import Asked, ReplySigner
from testudo_common.vectors import vector_digest
from testudo_common.wire import Parts, TrainReply, encode
from testudo_server.deployment.control import node_key_of
from testudo_server.provisioning.folder import FederationFolder
from testudo_server.store import RoundRecord, RunStore

pytestmark = [pytest.mark.network, pytest.mark.slow]
TESTS = Path(__file__).parents[1]
INTRUDER, VICTIM, OTHER = OWNERS = ("shop-1", "shop-2", "shop-3")
DEADLINE_SECONDS = 40
HONEST, FORGED = 1e-3, 0.05
"""Every value of an update: of fleet_nodes.py, and of the intruder."""
UNSIGNED = {VICTIM: f"reply not signed by {VICTIM}"}

SWITCHED_SERVER = """
import runpy, sys
from pathlib import Path
from testudo_common import signed_replies
checked, switch = signed_replies.verify_reply, Path(sys.argv.pop(1))
signed_replies.verify_reply = lambda *words: None if switch.exists() else checked(*words)
runpy.run_module("testudo_server.cli", run_name="__main__", alter_sys=True)
"""
"""``testudo-server``, whose check of signatures is off as long as a file exists."""


@dataclass
class Outside:
    """A server that runs, and what belongs to it.

    Attributes:
        door: Whose process is not the door's but the server's own.
        switch: As long as this file exists, the server does not look at signatures.
    """

    folder: Path
    plan: FederationPlan
    federation: FederationFolder
    owners: dict[str, Path]
    server: subprocess.Popen[bytes]
    door: DoorProcess
    switch: Path
    counted: list[RecordDict] = field(default_factory=list)
    """Signed answers of the victim's that counted."""

    @property
    def store(self) -> RunStore:
        return RunStore(self.folder / "run")

    def records(self) -> tuple[RoundRecord, ...]:
        return tuple(self.store.records()) if self.store.exists else ()

    def after(self, number: int) -> RoundRecord:
        """The record of the first round after so many."""
        until(lambda: self.alive() and len(self.records()) > number, f"round {number + 1}")
        return self.records()[number]

    def alive(self) -> bool:
        assert self.server.poll() is None, (self.folder / "server.txt").read_text()
        return True


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder, port, status_port = tmp_path_factory.mktemp("outside"), free_port(), free_port()
    federation, owners = provisioned_federation(folder, OWNERS, port)
    rounds = {"count": 500, "cohort_size": 3, "deadline_seconds": DEADLINE_SECONDS, "min_replies": 2}
    plan = make_plan(*(f"rounds.{key}={value}" for key, value in rounds.items()))
    (folder / "plan.toml").write_text(dump_plan(plan))
    switch, log = folder / "unchecked", folder / "server.txt"
    command = [
        sys.executable, "-c", SWITCHED_SERVER, str(switch), "run", "plan.toml", "federation", "--out", "run",
        "--status", f"127.0.0.1:{status_port}",
    ]  # fmt: skip
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=output, env=environment(folder / "flwr-server")
        )
    try:
        until(lambda: server.poll() is not None or "Owners connect to" in log.read_text(), "the door")
        assert server.poll() is None, log.read_text()
        door = DoorProcess(federation, owners, server, port, status_port, log)  # type: ignore[arg-type]
        yield Outside(folder, plan, federation, owners, server, door, switch)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def victim(outside: Outside) -> Iterator[subprocess.Popen[bytes]]:
    """Everybody is there, and one owner's process stands still after the first rounds."""
    with ExitStack() as stack:
        processes = []
        for group in ((INTRUDER, OTHER), (VICTIM,)):
            words = [f"{name}={outside.owners[name]}" for name in group]
            log = stack.enter_context((outside.folder / f"{group[0]}.txt").open("wb"))
            process = subprocess.Popen(
                [sys.executable, str(TESTS / "fleet_nodes.py"), *words],
                stdout=log, stderr=log, env=environment(outside.folder / f"flwr-{group[0]}"),
            )  # fmt: skip
            processes.append(process)
            stack.callback(process.wait)
            stack.callback(process.kill)
        assert outside.after(0).excluded == (), "the control: everybody answers"
        processes[-1].send_signal(signal.SIGSTOP)
        yield processes[-1]


CLOSED = (
    "/v1/control/start-run", "/v1/control/register-node", "/v1/control/list-runs", "/v1/control/stop-run",
    "/v1/runtime/acquire-task", "/v1/runtime/pull-task-input", "/v1/runtime/push-messages", "/v1/fleet/register-node",
    "/health", "/metrics", "/status.json",
)  # fmt: skip


def test_control_and_runtime_are_not_reachable(outside: Outside) -> None:
    assert {path: outside.door.ask(path)[0] for path in CLOSED} == dict.fromkeys(CLOSED, 404)
    status, _, body = outside.door.ask("/testudo/roster.json", method="GET", body=b"")
    assert status == 200 and body == (outside.federation.folder / "roster.json").read_bytes(), "it is the door"


def test_superlink_knows_the_paths_that_the_door_does_not(outside: Outside) -> None:
    """So that a 404 means that the door is shut, and not that the path is mistyped."""
    (port,) = loopback_ports(children_of(outside.server.pid)["superlink"])
    headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
    there = [path for path in CLOSED if path.startswith("/v1/")]
    with httpx.Client(verify=trusting(outside), trust_env=False) as client:
        found = {path: client.post(f"https://127.0.0.1:{port}{path}", headers=headers).status_code for path in there}
    assert 404 not in found.values(), found


def trusting(outside: Outside) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=outside.federation.superlink / "loopback.crt")


def test_everything_but_the_door_listens_on_loopback(outside: Outside) -> None:
    children = children_of(outside.server.pid)
    assert children.keys() == {"superlink", "door"}
    assert loopback_ports(children["door"]) == {outside.door.port, outside.door.status_port}
    assert len(loopback_ports(children["superlink"])) == 1


def comes_in(outside: Outside, context: ssl.SSLContext) -> bool:
    """Whether a request is answered at all."""
    try:
        return outside.door.raw(b"GET /testudo/roster.json HTTP/1.1\r\nhost: a\r\n\r\n", context=context) != b""
    except (ssl.SSLError, ConnectionResetError):
        return False


def test_only_certificates_of_this_federation_come_in(outside: Outside, tmp_path: Path) -> None:
    stranger = joined(founded(tmp_path / "federation"), INTRUDER, tmp_path / "owner", datetime.now(UTC))
    of_another = outside.door.context(None)
    files = stranger.folder / "connection" / "tls"
    of_another.load_cert_chain(files / "client.crt", files / "client.key")
    assert comes_in(outside, outside.door.context(INTRUDER))
    assert not comes_in(outside, outside.door.context(None))
    assert not comes_in(outside, of_another)


@pytest.mark.parametrize(
    "key",
    [lambda it: node_key(it.owners[VICTIM]), lambda _: ec.generate_private_key(ec.SECP384R1())],
    ids=["another member's", "nobody's"],
)
def test_a_certificate_does_not_go_with_another_node_key(
    outside: Outside, key: Callable[[Outside], ec.EllipticCurvePrivateKey]
) -> None:
    """The key signs its requests as Flower wants it; it was not admitted with this certificate."""
    used = key(outside)
    with fleet_client(outside.owners[INTRUDER], used) as client, pytest.raises(httpx.HTTPStatusError) as caught:
        activate(client, used)
    assert caught.value.response.status_code == 403


def test_superlink_takes_no_unknown_node_either(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the door, where no certificate is asked for."""
    (port,) = loopback_ports(children_of(outside.server.pid)["superlink"])
    monkeypatch.setattr("fleet_intruder.door_context", lambda _: trusting(outside))
    monkeypatch.setattr("fleet_intruder.read_connection", lambda _: At(f"127.0.0.1:{port}"))
    unknown = ec.generate_private_key(ec.SECP384R1())
    with fleet_client(outside.owners[INTRUDER], unknown) as client, pytest.raises(httpx.HTTPStatusError) as caught:
        activate(client, unknown)
    assert caught.value.response.status_code == 412
    with fleet_client(outside.owners[OTHER]) as client:
        pull(client, node_number(outside, OTHER))  # the control: a member's key is taken


@dataclass(frozen=True)
class At:
    """As much of a connection as is used."""

    address: str
    files: None = None


def test_no_task_without_the_secret(outside: Outside) -> None:
    (port,) = loopback_ports(children_of(outside.server.pid)["superlink"])
    right = (outside.federation.superlink / "task.secret").read_bytes()
    assert status_of_acquire(port, None, trusting(outside)) == 401
    assert status_of_acquire(port, secrets.token_bytes(32), trusting(outside)) == 401
    assert status_of_acquire(port, right, trusting(outside)) == 200


@dataclass(frozen=True)
class Attack:
    """One open message of the victim's, and what the intruder knows: what it was asked itself."""

    outside: Outside
    asked: Waiting
    rounds: int
    """Finished before."""

    def update(self) -> Parts:
        """An update as the server wants it, of values that nobody else sends."""
        state, plan = self.outside.store, self.outside.plan
        model = state.load(plan.digest).model if self.outside.records() else initial_vector(plan)
        return encode(TrainReply(plan.digest, self.rounds + 1, 0, vector_digest(model), np.full_like(model, FORGED)))

    def signature(
        self, key_of: str, parts: Parts, *, message_id: str | None = None, run_id: int | None = None
    ) -> bytes:
        """Under the victim's name, with somebody's key."""
        asked = Asked(run_id or self.asked.run_id, message_id or self.asked.message_id)
        return ReplySigner(VICTIM, read_membership(self.outside.owners[key_of]).key).sign(asked, parts)

    def push(self, records: RecordDict) -> RoundRecord:
        """Answer for the victim with the intruder's certificate and node key; what became of the round."""
        with fleet_client(self.outside.owners[INTRUDER]) as client:
            own = node_number(self.outside, INTRUDER)
            assert answer_for(client, own, self.asked, records), "Flower takes it for the victim's"
        return self.outside.after(self.rounds)


@pytest.fixture
def attack(outside: Outside, victim: subprocess.Popen[bytes]) -> Attack:
    node = node_number(outside, VICTIM)
    found: list[Attack] = []

    def there() -> bool:
        assert outside.alive()
        rounds = len(outside.records())
        asked = waiting_for(outside.federation.superlink / "state.db", node)
        if asked is not None and rounds == len(outside.records()) and not (found and found[0].asked == asked):
            found[:] = [Attack(outside, asked, rounds)]
            return False  # seen twice, it is what the round waits for
        return bool(found) and asked == found[0].asked

    until(there, "a message for the victim")
    return found[0]


def node_number(outside: Outside, owner: str) -> int:
    """Flower's, of an owner's node."""
    keys = {member.client: node_key_of(member) for member in outside.federation.members()}
    database = outside.federation.superlink / "state.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        rows = opened.execute("SELECT node_id, public_key FROM node").fetchall()
    (number,) = [number for number, key in rows if bytes(key) == keys[owner]]
    return number % (1 << 64)


def test_a_node_cannot_answer_for_another(attack: Attack) -> None:
    """Flower lets it through; the server does not count it, and says whose signature is missing."""
    parts = attack.update()
    record = attack.push(records_of(parts, attack.signature(INTRUDER, parts)))
    assert dict(record.excluded) == UNSIGNED
    assert set(record.cohort) == set(OWNERS)
    size = initial_vector(attack.outside.plan).size
    assert record.mean_update_norm == pytest.approx(HONEST * np.sqrt(size)), "of the two others alone"


def test_an_answer_without_a_signature_is_nobodys(attack: Attack) -> None:
    assert dict(attack.push(records_of(attack.update())).excluded) == UNSIGNED


def test_who_signed_counts_and_not_who_carried_it(attack: Attack) -> None:
    """The control of the others: the same way with the victim's own signature."""
    parts = attack.update()
    attack.outside.counted.append(records_of(parts, attack.signature(VICTIM, parts)))
    assert attack.push(attack.outside.counted[0]).excluded == ()


@pytest.mark.parametrize("replay", ["that counted in an earlier round", "to an earlier message", "of another run"])
def test_a_signed_answer_does_not_count_again(attack: Attack, replay: str) -> None:
    """With the victim's own signature each, made for another question."""
    parts = attack.update()
    signatures = {
        "to an earlier message": {"message_id": "5f" * 32},
        "of another run": {"run_id": attack.asked.run_id ^ 1},
    }
    records = attack.outside.counted[0]
    if replay in signatures:
        records = records_of(parts, attack.signature(VICTIM, parts, **signatures[replay]))
    assert dict(attack.push(records).excluded) == UNSIGNED


def test_without_the_check_it_goes_through(attack: Attack) -> None:
    """The control of the first one: the attack is real, and nothing but the signature stops it."""
    parts = attack.update()
    attack.outside.switch.touch()
    try:
        record = attack.push(records_of(parts, attack.signature(INTRUDER, parts)))
    finally:
        attack.outside.switch.unlink()
    size = initial_vector(attack.outside.plan).size
    assert record.excluded == ()
    assert record.mean_update_norm == pytest.approx((2 * HONEST + FORGED) / 3 * np.sqrt(size))


def test_the_owner_itself_is_back_in_a_later_round(outside: Outside, victim: subprocess.Popen[bytes]) -> None:
    finished = len(outside.records())
    victim.send_signal(signal.SIGCONT)
    until(lambda: outside.alive() and any(not each.excluded for each in outside.records()[finished:]), "a whole round")
    assert os.getpgid(victim.pid) == os.getpgid(0), "the same process"
