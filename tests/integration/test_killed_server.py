"""A server killed at every write and send: its log keeps to every checkpoint that left, and the run goes on."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Client
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from small_runs import SMALL_SINE

from killed_server import SECRET, run_server
from testudo_client.participant import Participant
from testudo_common.audit.entries import Incident, IncidentKind, RoundClosed, decode_entry
from testudo_common.audit.extension import decode_extension
from testudo_common.audit.history import History, begin_history, extend
from testudo_common.audit.log import AuditLog
from testudo_common.audit.notes import parse_note
from testudo_common.learning.learner import initial_vector
from testudo_common.plan.load import parse_plan
from testudo_common.vectors import vector_digest
from testudo_common.wire import LogUpdate, Message, Parts, TrainRequest, decode, encode
from testudo_server.audit_file import AUDIT_LOG
from testudo_server.store import RunStore
from testudo_simulations.federations import load_federation
from testudo_simulations.federations.base import Federation
from testudo_simulations.keys import SimulatedKeys
from testudo_simulations.owners import Owners
from testudo_simulations.scenarios import find_plan

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / top) for top in ("common", "client", "server", "simulations", "tests")]
PLAIN = ("inner.steps=2", "data.clients=3", "rounds.count=2", "rounds.cohort_size=2", "secure_aggregation.mode=plain")
GROUPED = (
    "inner.steps=2",
    "data.clients=4",
    "rounds.count=2",
    "rounds.cohort_size=4",
    "secure_aggregation.min_group=3",
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where servers are to be had."""
    address = str(tmp_path_factory.mktemp("servers") / "socket")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}
    process = subprocess.Popen([sys.executable, str(ROOT / "tests/killed_server.py"), address], env=environment)
    ends = time.monotonic() + 120
    while not Path(address).exists() and process.poll() is None and time.monotonic() < ends:
        time.sleep(0.05)
    yield address
    with Client(address) as pipe:
        pipe.send(None)
    assert process.wait(30) == 0


def sine(*lines: str) -> Federation:
    tables, source = find_plan("sine")
    return load_federation(parse_plan(tables, source=source, settings=[*SMALL_SINE, *lines]), None)


class Server:
    """One server after another, and their clients, who keep what they were sent.

    Args:
        folder: Of the servers, which outlives their processes.
        federation: With a complete plan.

    Attributes:
        clients: Client id -> participant.
        notes: (size, root in base64) of every checkpoint that a client was sent.
        points: That the last server passed that did not die.
    """

    def __init__(self, folder: Path, federation: Federation) -> None:
        plan, clients = federation.plan, tuple(federation.training)
        self._run = folder, plan, clients, initial_vector(plan)
        owners = Owners(federation, None, SimulatedKeys("small", federation.training, SECRET))
        self.clients: dict[str, Participant] = {
            client: owners(Context(0, 0, {"partition-id": place}, RecordDict(), {}))
            for place, client in enumerate(federation.training)
        }
        self.notes: set[tuple[int, str]] = set()
        self.points = 0

    def run(self, servers: str, at: int = 0) -> bool:
        """Run a server in a process of its own until it is done, or dies at a point; whether it died."""
        with Client(servers) as pipe:
            pipe.send((at, *self._run))
            try:
                while True:
                    told = pipe.recv()
                    if isinstance(told, int):
                        self.points = told
                        return False
                    assert not isinstance(told, str), told
                    reply = encode(self._answer(told[0], decode(Parts(*told[1]))))
                    pipe.send((reply.header, reply.body, reply.vector))
            except (EOFError, OSError):
                return True

    def go_on(self) -> None:
        """Run a server in this process until it is done."""
        run_server(self, *self._run)

    def deliver(
        self, requests: Mapping[str, Message], *, deadline_seconds: float, enough: Callable[[], bool] | None = None
    ) -> Iterator[tuple[str, Message | str]]:
        """As a transport to the clients."""
        del deadline_seconds, enough
        return ((client, self._answer(client, message)) for client, message in requests.items())

    def _answer(self, client: str, message: Message) -> Message:
        self._remember(message)
        return self.clients[client].answer(message)  # type: ignore[arg-type]

    def _remember(self, message: Message) -> None:
        notes = []
        if isinstance(message, TrainRequest):
            notes = [message.body]
        elif isinstance(message, LogUpdate):
            found = decode_extension(message.body)
            notes = [found.note, *([found.cosigned] if found.cosigned else [])]
        for note in notes:
            _, size, root, *_ = parse_note(note).text.split("\n")
            self.notes.add((int(size), root))


def check_log(folder: Path, server: Server) -> None:
    """The log, opened after a death, begins with what every checkpoint said that was ever sent."""
    if not (folder / AUDIT_LOG).exists():
        assert not server.notes
        return
    log = AuditLog(folder / AUDIT_LOG)
    for size, root in server.notes:
        assert size <= log.size, "a checkpoint left over entries that the disk did not have"
        assert base64.b64encode(log.root(size)).decode() == root
    log.close()


def replayed(folder: Path, federation: Federation) -> tuple[History, list[bytes]]:
    """The whole log, by its rules."""
    log = AuditLog(folder / AUDIT_LOG)
    entries = list(log.entries())
    log.close()
    keys = SimulatedKeys("small", federation.training, SECRET).server_keys
    return extend(begin_history(keys.federation_key, federation.plan.digest), tuple(entries)), entries


def check_end(folder: Path, federation: Federation, server: Server) -> list[bytes]:
    """The run is over, and everybody has the whole log; the log's entries."""
    history, entries = replayed(folder, federation)
    plan = federation.plan
    state = RunStore(folder).load(plan.digest)
    assert state.round == plan.rounds.count
    assert history.model_digest == vector_digest(state.model)
    contents = [decode_entry(entry) for entry in entries]
    closed = [entry.round for entry in contents if isinstance(entry, RoundClosed)]
    assert closed == list(range(1, plan.rounds.count + 1)), "each round once"
    for record in RunStore(folder).records():
        assert record.excluded == ()
        assert record.log is not None
        found = contents[record.log.closed]
        assert isinstance(found, RoundClosed)
        assert found.model_digest == record.model_digest
    for participant in server.clients.values():
        assert participant._witness is not None
        with participant._witness._mirror.held():
            assert list(participant._witness._mirror.log.entries()) == entries
    return entries


def killed_at(points: Iterable[int], servers: str, federation: Federation, tmp_path: Path) -> None:
    for at in points:
        folder = tmp_path / f"{at}"
        server = Server(folder, federation)
        assert server.run(servers, at), f"point {at} was not reached"
        check_log(folder, server)
        server.go_on()
        entries = check_end(folder, federation, server)
        incidents = [entry.kind for entry in map(decode_entry, entries) if isinstance(entry, Incident)]
        assert incidents in ([], [IncidentKind.RESUMED])


def points_of(servers: str, federation: Federation, folder: Path) -> int:
    """How many there are in a run that nobody kills."""
    server = Server(folder, federation)
    assert not server.run(servers)
    check_log(folder, server)
    check_end(folder, federation, server)
    return server.points


@pytest.mark.slow
def test_plain_run_killed_at_every_point(servers: str, tmp_path: Path) -> None:
    federation = sine(*PLAIN)
    points = points_of(servers, federation, tmp_path / "whole")
    assert points > 60, "there is something to be killed at"
    killed_at(range(1, points + 1), servers, federation, tmp_path)


@pytest.mark.slow
def test_secure_run_killed_at_some_points(servers: str, tmp_path: Path) -> None:
    """Every fifth: the points of a round, but for those of its groups, are those of a plain one."""
    federation = sine(*GROUPED)
    points = points_of(servers, federation, tmp_path / "whole")
    killed_at(range(4, points + 1, 5), servers, federation, tmp_path)
